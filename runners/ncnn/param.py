"""Reads ncnn's .param files: the graph as text, one line per layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgecnn.bounded import read_bounded
from edgecnn.errors import DeviceError

_MAGIC = "7767517"
_LARGEST_BYTES = 64 << 20
_NO_WORK = ("Input", "MemoryData", "Split", "Noop")


@dataclass(frozen=True)
class Layer:
    """One line of the file.

    Attributes:
        kind: "Convolution", …
        name: the layer's name.
        reads, writes: names of blobs.
        parameters: as text, by number; those that are not there have their default.
    """

    kind: str
    name: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    parameters: Mapping[int, str] = field(default_factory=dict)

    def number(self, parameter: int) -> int:
        """A parameter that is a whole number; 0 where it is not there.

        Raises:
            ValueError: it is none.
        """
        return int(self.parameters.get(parameter, "0"))

    @property
    def works(self) -> bool:
        """Whether it computes or moves values."""
        return self.kind not in _NO_WORK


def read_layers(path: Path) -> list[Layer]:
    """The graph's layers, in the order of execution.

    Raises:
        DeviceError: it is not a .param file, or it is damaged.
    """
    try:
        magic, _, *lines = read_bounded(path, _LARGEST_BYTES).decode("ascii").splitlines()
        if magic.strip() != _MAGIC:
            raise ValueError(f"it begins with {magic[:20]!r}, not with {_MAGIC}")
        return [_layer(line) for line in lines if line.strip()]
    except (OSError, ValueError, IndexError) as failed:
        raise DeviceError(f"{path.name} is not an ncnn graph: {failed}") from failed


def _layer(line: str) -> Layer:
    kind, name, count_in, count_out, *rest = line.split()
    reads, writes = int(count_in), int(count_out)
    if min(reads, writes) < 0 or len(rest) < reads + writes:
        raise ValueError(f"layer {name} has {len(rest)} blobs and parameters, too few for {reads} and {writes} blobs")
    given = (word.partition("=") for word in rest[reads + writes :])
    parameters = {int(number): value for number, _, value in given}
    return Layer(kind, name, tuple(rest[:reads]), tuple(rest[reads : reads + writes]), parameters)
