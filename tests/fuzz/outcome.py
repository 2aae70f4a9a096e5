"""What came of inputs: counted in memory that the program that watches sees too, whatever becomes of this one."""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

COUNTS = ("inputs", "accepted", "refused", "other", "slow", "large")
LARGEST_INPUT = 4 << 20
_HEAD = struct.Struct(f"<{len(COUNTS)}qqqq")  # the counts; when the input began (ns, 0: none), its length; ready
_BYTES = _HEAD.size + LARGEST_INPUT


@dataclass
class Tally:
    """Counts of inputs by outcome, and the input that is being tried.

    Attributes:
        inputs: tried.
        accepted: were read.
        refused: with an error of edgecnn's family.
        other: ended otherwise: in another exception, or the process.
        slow: took more than the time that is allowed.
        large: took more than the memory that is allowed.
    """

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    other: int = 0
    slow: int = 0
    large: int = 0

    def __add__(self, more: Tally) -> Tally:
        return Tally(*(getattr(self, name) + getattr(more, name) for name in COUNTS))

    @property
    def faults(self) -> int:
        """Inputs that were neither accepted nor refused as they must be."""
        return self.other + self.slow + self.large


class Blackboard:
    """A file in memory, on which a worker writes and its watcher reads."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_BYTES))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _BYTES)

    def write(self, tally: Tally, *, began_ns: int, content: bytes | None = None, ready: bool = True) -> None:
        """The counts, and what is tried now; content is left as it was where none is given."""
        length = self._head()[1] if content is None else len(content[:LARGEST_INPUT])
        if content is not None:
            self._memory[_HEAD.size : _HEAD.size + length] = content[:LARGEST_INPUT]
        _HEAD.pack_into(self._memory, 0, *(getattr(tally, name) for name in COUNTS), began_ns, length, int(ready))

    def _head(self) -> tuple[int, int, bool]:
        began_ns, length, ready = _HEAD.unpack_from(self._memory)[len(COUNTS) :]
        return began_ns, length, bool(ready)

    @property
    def tally(self) -> Tally:
        """The counts."""
        return Tally(*_HEAD.unpack_from(self._memory)[: len(COUNTS)])

    @property
    def began_ns(self) -> int:
        """When the input began that is being tried (monotonic clock); 0 between two."""
        return self._head()[0]

    @property
    def ready(self) -> bool:
        """Whether all is imported and inputs are tried."""
        return self._head()[2]

    @property
    def content(self) -> bytes:
        """The input that is being tried, or was last."""
        length = self._head()[1]
        return self._memory[_HEAD.size : _HEAD.size + length]
