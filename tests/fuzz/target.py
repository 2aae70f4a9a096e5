"""A target: what reads bytes that somebody else made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

SEEDS = Path(__file__).parent / "seeds"

# Takes the bytes and an empty folder; returns where they are accepted, raises an EdgeCnnError where they are refused.
Attempt: TypeAlias = Callable[[bytes, Path], object]


@dataclass(frozen=True, kw_only=True)
class Target:
    """One reader of foreign bytes.

    Attributes:
        name: of its folder of seeds, and for the command line.
        title: what comes in, for the table.
        prepare: imports what is needed and gives the attempt; imported here are only the standard library and tests.
        words: pieces that its inputs are made of, for the mutation.
        heavy: an attempt takes tens of milliseconds or more, in a child or in a runtime.
        largest_bytes: longer inputs are cut.
        guided: whether coverage says something: not of what native code reads, which also ends libFuzzer's process.
        needs: as tests are marked: "torch", "server".
    """

    name: str
    title: str
    prepare: Callable[[], Attempt]
    words: tuple[bytes, ...] = ()
    heavy: bool = False
    largest_bytes: int = 1 << 18
    guided: bool = True
    needs: tuple[str, ...] = ()

    def seeds(self) -> list[bytes]:
        """Real files, sorted by name."""
        found = [path.read_bytes() for path in sorted((SEEDS / self.name).iterdir())]
        if not found:
            raise FileNotFoundError(f"{SEEDS / self.name} is empty: python -m tests.fuzz.make_seeds")
        return found
