"""The records of a file format, the runtime that opens its files, and the runtime's devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from edgecnn.errors import MissingDependencyError, SpecError
from edgecnn.registry import Part, install_command, is_any_installed

if TYPE_CHECKING:
    from edgecnn.bundle.evidence import LayerTime
    from edgecnn.converters.base import Converter, TargetCompiler
    from edgecnn.converters.int8.base import Int8Writer
    from edgecnn.results import UInt8Array
    from edgecnn.runners.backend import Backend, LayerRequest

    LayerTimer = Callable[[Path, LayerRequest, UInt8Array], list[LayerTime]]

_P = TypeVar("_P")


@dataclass(frozen=True, kw_only=True)
class Executor:
    """One way in which a runtime uses a device.

    Attributes:
        runtime: the runtime's name.
        word: the part after the colon in "onnxruntime:cuda".
        kind: "cpu", "gpu" or "npu".
        provider: the runtime's own name for it.
        extra: install it with pip install "edgecnn[extra]".
        install: how to install it where there is no extra.
        needs: what the machine must have in addition.
        options: options for the runtime, in its own words.
        by_name_only: never chosen by the device's kind alone.
    """

    runtime: str
    word: str
    kind: str
    provider: str
    extra: str = ""
    install: str = ""
    needs: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    by_name_only: bool = False

    @property
    def full_name(self) -> str:
        """The device name that selects exactly this."""
        return f"{self.runtime}:{self.word}"

    @property
    def how_to_install(self) -> str:
        """The command that installs it."""
        return install_command(self.extra, self.install)


@dataclass(frozen=True, kw_only=True)
class Runtime:
    """A library that runs networks.

    Attributes:
        name: one word, used in device names: "onnxruntime".
        title: the runtime's name in messages.
        packages: packages whose versions are recorded; where there are several, each replaces the others.
        modules: import names, of which one must exist.
        executors: its ways to use devices; those of one kind in order of preference.
        extra, install: see `Part`.
    """

    name: str
    title: str
    packages: tuple[str, ...]
    modules: tuple[str, ...]
    executors: tuple[Executor, ...]
    extra: str = ""
    install: str = ""

    def __post_init__(self) -> None:
        if wrong := [row.word for row in self.executors if row.runtime != self.name]:
            raise SpecError(f"runtime {self.name!r}: its executors {wrong} belong to another runtime")

    @property
    def is_installed(self) -> bool:
        """Whether it is installed; imports nothing."""
        return is_any_installed(self.modules)

    @property
    def versions(self) -> str:
        """The installed packages and their versions; nothing is imported."""
        found = []
        for package in self.packages:
            with contextlib.suppress(PackageNotFoundError):
                found.append(f"{package} {version(package)}")
        return ", ".join(found)

    @property
    def how_to_install(self) -> str:
        """The command that installs it."""
        return install_command(self.extra, self.install)


@dataclass(frozen=True, kw_only=True)
class Int8Rounding:
    """Where a format's int8 files round, for training with that rounding.

    Attributes:
        writes_int8: convolutions write 8 bits before an activation other than ReLU; otherwise they write float.
        depthwise_by_channel: a depthwise convolution's input has a separate range for each channel, which loses almost
            nothing.
        smallest_group: grouped convolutions with fewer channels per group (and more than one) stay float.
    """

    writes_int8: bool
    depthwise_by_channel: bool = False
    smallest_group: int = 0


@dataclass(frozen=True, kw_only=True)
class Format:
    """All facts about one file format. Parts that a format lacks are None; requesting one raises an error.

    Attributes:
        name: one word: "onnx".
        title: the format's name in messages.
        suffixes: suffixes of an artifact's files, the file to open first.
        runtime: the runtime that opens its files.
        precisions: precisions of its artifacts, most exact first (see `edgecnn.bundle.PRECISIONS`).
        also_runs: precision of a file → other precisions that it can run in.
        channels_last: whether its tensors are NHWC.
        backend: class that opens its files, a `Backend`.
        layer_timer: function that times a file's operators.
        converter: class that writes its float files, a `Converter`.
        int8_writer: class that writes its int8 files, an `Int8Writer`.
        why_no_int8: the reason why there is no int8 writer, for messages.
        int8_rounding: where those round; None where training for int8 does not support it.
        compilers: name → class that compiles its float files for a target, a `TargetCompiler`.
    """

    name: str
    title: str
    suffixes: tuple[str, ...]
    runtime: Runtime
    precisions: tuple[str, ...]
    also_runs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    channels_last: bool = False
    backend: Part[type[Backend]] | None = None
    layer_timer: Part[LayerTimer] | None = None
    converter: Part[type[Converter]] | None = None
    int8_writer: Part[type[Int8Writer]] | None = None
    why_no_int8: str = "it has no int8 writer"
    int8_rounding: Int8Rounding | None = None
    compilers: Mapping[str, Part[type[TargetCompiler]]] = field(default_factory=dict)

    @property
    def runs_here(self) -> bool:
        """Whether its files can be opened here; imports nothing."""
        return self.backend is not None and self.backend.is_installed and self.runtime.is_installed

    @property
    def converts_here(self) -> bool:
        """Whether its float files can be written here; imports nothing."""
        return self.converter is not None and self.converter.is_installed

    @property
    def quantizes_here(self) -> bool:
        """Whether its int8 files can be written here; imports nothing."""
        return self.int8_writer is not None and self.int8_writer.is_installed

    @property
    def modules(self) -> frozenset[str]:
        """Import names that its runtime and all its parts need."""
        parts = (self.backend, self.layer_timer, self.converter, self.int8_writer, *self.compilers.values())
        return frozenset(self.runtime.modules).union(*(part.needs for part in parts if part is not None))

    def runs_as(self, precision: str) -> tuple[str, ...]:
        """The precisions in which a file of this precision can run; the first is the default."""
        return (precision, *self.also_runs.get(precision, ()))

    def load_backend(self) -> type[Backend]:
        """The class that opens its files; see `_loaded` for the errors."""
        return self._loaded(self.backend, "be run: it has no back end")

    def load_layer_timer(self) -> LayerTimer:
        """The function that times a file's operators."""
        return self._loaded(self.layer_timer, "be timed layer by layer: it has no layer timer")

    def load_converter(self) -> type[Converter]:
        """The class that writes its float files."""
        return self._loaded(self.converter, "be written: it has no converter")

    def load_int8_writer(self) -> type[Int8Writer]:
        """The class that writes its int8 files."""
        return self._loaded(self.int8_writer, f"be quantized or read layer by layer: {self.why_no_int8}")

    def missing_runtime(self, what: str) -> MissingDependencyError:
        """The error for something that needs its runtime, which is not installed."""
        return MissingDependencyError(
            what, self.runtime.packages[0], extra=self.runtime.extra or None, install=self.runtime.install or None
        )

    def _loaded(self, part: Part[_P] | None, cannot: str) -> _P:
        """A part, imported.

        Raises:
            SpecError: the format has no such part.
            MissingDependencyError: a package is not installed.
            DeviceError: a package is installed and broken.
        """
        if part is None:
            raise SpecError(f"format {self.name!r} cannot {cannot} in this version of edgecnn")
        return part.load(f"format {self.name!r}")
