"""The interfaces of a converter and of a compiler for one target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgecnn.converters.deployable.wrapper import Deployable
from edgecnn.results import UInt8Array

if TYPE_CHECKING:
    from edgecnn.converters.int8.float_artifact import FloatArtifact
    from edgecnn.targets import Target

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Converted:
    """Files that a converter wrote.

    Attributes:
        files: the file to open first, then the files that belong to it.
        tool: name of the program that wrote them, with versions and settings.
        transposes: number of transposes in the graph; None where they cost nothing or cannot be counted.
    """

    files: Sequence[Path]
    tool: str
    transposes: int | None = None


@dataclass(frozen=True)
class Compiled:
    """Files that only one target device can open.

    Attributes:
        converted: the files.
        recipe: a short name that lists the settings.
        operators: number of operators in the float network.
        off_device: operator → how many of them do not run on the device.
        off_layers: the layers among them.
        conversions: how many conversions at the device's inputs and outputs the CPU has to do.
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
        precisions: the precisions that it can write.
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
        slow_device: True where the compiled file runs so slowly here (in a simulator) that few pictures are used.
    """

    slow_device: bool

    def __init__(self, source: FloatArtifact, target: Target, *, threads: int) -> None: ...

    def calibrate(self, frames: Sequence[UInt8Array], progress: Progress | None = None) -> None:
        """Run the float network over some batches of frames, uint8 [batch, height, width, 3] BGR."""
        ...

    def write(self, precision: str, folder: Path) -> Compiled:
        """Write one artifact into `folder`, after `calibrate`.

        Raises:
            ConversionError: the tool failed on this graph, or can place no part of it on the device.
            MissingDependencyError: the tool is not installed.
        """
        ...
