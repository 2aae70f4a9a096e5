"""The tables of back ends and converters: name → where it lives, imported on first use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from edgecnn.errors import MissingDependencyError, UnknownNameError

if TYPE_CHECKING:
    from pathlib import Path

    from edgecnn.converters.base import Converter, TargetCompiler
    from edgecnn.converters.int8.base import Int8Writer
    from edgecnn.evidence import LayerTime
    from edgecnn.results import UInt8Array
    from edgecnn.runners.base import Backend, LayerRequest

    LayerTimer = Callable[[Path, LayerRequest, UInt8Array], list[LayerTime]]

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One row of a table.

    Attributes:
        target: "package.module:attribute".
        extra: what to install for it: pip install "edgecnn[extra]".
        needs: import names of which one must be there; none means that it always works.
    """

    target: str
    extra: str
    needs: tuple[str, ...] = ()


class Registry(Generic[T]):
    """Names of one kind of part, each imported on first use."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, Entry] = {}

    def add(self, name: str, target: str, *, extra: str, needs: tuple[str, ...] = ()) -> None:
        """Add a row; a name that is taken is a programming mistake (ValueError)."""
        if name in self._entries:
            raise ValueError(f"{self._kind} {name!r} is already {self._entries[name].target}")
        self._entries[name] = Entry(target, extra, needs)

    def names(self) -> list[str]:
        """All names, in the order they were added, which is the order of preference."""
        return list(self._entries)

    def installed(self) -> list[str]:
        """The names whose packages are installed, in order of preference; imports nothing."""
        return [n for n, e in self._entries.items() if not e.needs or any(map(_is_installed, e.needs))]

    def extra(self, name: str) -> str:
        """The extra that brings what `name` needs."""
        return self._entry(name).extra

    def needs(self, name: str) -> tuple[str, ...]:
        """The import names of which one must be there for it."""
        return self._entry(name).needs

    def get(self, name: str) -> T:
        """Import and return the part.

        Raises:
            UnknownNameError: no such name.
            MissingDependencyError: its package is not installed.
        """
        entry = self._entry(name)
        module, _, attribute = entry.target.partition(":")
        try:
            part: Any = getattr(import_module(module), attribute)
        except ModuleNotFoundError as missing:
            if (missing.name or "").partition(".")[0] == "edgecnn":
                raise  # our own bug, not the user's missing package
            raise MissingDependencyError(f"{self._kind} {name!r}", missing.name or "?", extra=entry.extra) from missing
        return part  # type: ignore[no-any-return]

    def _entry(self, name: str) -> Entry:
        if name not in self._entries:
            raise UnknownNameError(self._kind, name, self._entries)
        return self._entries[name]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the parent of a dotted name is absent
        return False


# The order is the order of preference where nobody asked for a format (design: "default artifact").
BACKENDS: Registry[type[Backend]] = Registry("format")
BACKENDS.add("openvino", "edgecnn.runners.openvino:OpenVinoBackend", extra="openvino", needs=("openvino",))
BACKENDS.add("onnx", "edgecnn.runners.onnxruntime:OnnxRuntimeBackend", extra="onnx", needs=("onnxruntime",))
BACKENDS.add(
    "tflite",
    "edgecnn.runners.litert:LiteRtBackend",
    extra="tflite",
    needs=("ai_edge_litert", "tflite_runtime"),
)

LAYER_TIMERS: Registry[LayerTimer] = Registry("format")
LAYER_TIMERS.add("openvino", "edgecnn.runners.layer_times.openvino:time_layers", extra="openvino")
LAYER_TIMERS.add("onnx", "edgecnn.runners.layer_times.onnxruntime:time_layers", extra="onnx")
LAYER_TIMERS.add("tflite", "edgecnn.runners.layer_times.litert:time_layers", extra="tflite")

CONVERTERS: Registry[type[Converter]] = Registry("format")
CONVERTERS.add("onnx", "edgecnn.converters.onnx:OnnxConverter", extra="convert", needs=("onnx",))
CONVERTERS.add("openvino", "edgecnn.converters.openvino:OpenVinoConverter", extra="convert", needs=("openvino",))
CONVERTERS.add("tflite", "edgecnn.converters.tflite:TfliteConverter", extra="convert", needs=("litert_torch",))

INT8_WRITERS: Registry[type[Int8Writer]] = Registry("format")
INT8_WRITERS.add("onnx", "edgecnn.converters.int8.onnx:OnnxInt8Writer", extra="convert", needs=("onnx",))
INT8_WRITERS.add("openvino", "edgecnn.converters.int8.openvino:OpenVinoInt8Writer", extra="convert", needs=("nncf",))
INT8_WRITERS.add(
    "tflite", "edgecnn.converters.int8.tflite:TfliteInt8Writer", extra="convert", needs=("ai_edge_quantizer",)
)

# What compiles for one device; named by the files in edgecnn/targets.
COMPILERS: Registry[type[TargetCompiler]] = Registry("compiler")
COMPILERS.add(
    "qualcomm-htp", "edgecnn.converters.qualcomm_htp:QualcommHtpCompiler", extra="qnn", needs=("onnxruntime_qnn",)
)
