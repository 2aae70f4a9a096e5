"""What a converter owes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgecnn.converters.deployable import Deployable
from edgecnn.results import UInt8Array

if TYPE_CHECKING:
    from edgecnn.converters.int8.bench import FloatArtifact
    from edgecnn.targets import Target

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Converted:
    """Files that a converter wrote.

    Attributes:
        files: the one to open first, then those beside it.
        tool: what wrote it, with versions and settings.
        transposes: how many transposes the graph holds; None where they cost nothing or cannot be counted.
    """

    files: Sequence[Path]
    tool: str
    transposes: int | None = None


@dataclass(frozen=True)
class Compiled:
    """Files that only one device opens.

    Attributes:
        converted: the files.
        recipe: a name that decodes.
        operators: of the float network.
        off_device: operator → how many of them are not on the device.
        off_layers: layers among them.
        conversions: how many conversions at its borders are left to the processor.
        compile_s: how long the compilation took.
    """

    converted: Converted
    recipe: str
    operators: int
    off_device: Mapping[str, int]
    off_layers: frozenset[str]
    conversions: int
    compile_s: float


class Converter(Protocol):
    """Writes a Deployable in one format.

    Attributes:
        precisions: what it can write.
    """

    precisions: Sequence[str]

    def __init__(self, deployable: Deployable, *, batch: int) -> None: ...

    def write(self, precision: str, folder: Path) -> Converted:
        """Write one artifact into `folder`; several precisions of one converter share the conversion.

        Raises:
            ConversionError: the tool failed on this graph.
        """
        ...


class TargetCompiler(Protocol):
    """Compiles a float artifact for one device.

    Attributes:
        slow_device: whether what runs the result here is so slow that few pictures must do.
    """

    slow_device: bool

    def __init__(self, source: FloatArtifact, target: Target, *, threads: int) -> None: ...

    def calibrate(self, frames: Sequence[UInt8Array], progress: Progress | None = None) -> None:
        """Run the float network over some batches of frames, uint8 [batch, height, width, 3] BGR."""
        ...

    def write(self, precision: str, folder: Path) -> Compiled:
        """Write one artifact into `folder`; it has been calibrated.

        Raises:
            ConversionError: the tool failed on this graph, or takes nothing of it.
            MissingDependencyError: the tool is not installed.
        """
        ...
