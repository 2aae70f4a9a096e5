"""The table of file formats: one file and one row for each, in the default order of preference.

Other packages add formats by entry points in the group `edgecnn.formats`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgecnn.errors import MissingDependencyError, UnknownNameError
from edgecnn.formats.format import Executor, Format, Int8Rounding, Runtime
from edgecnn.formats.reference import REFERENCE, TORCH
from edgecnn.registry import Part, Table

if TYPE_CHECKING:
    from edgecnn.converters.base import TargetCompiler

__all__ = [
    "FORMATS",
    "REFERENCE",
    "TORCH",
    "Executor",
    "Format",
    "Int8Rounding",
    "Part",
    "Runtime",
    "compiler_of",
    "convertible",
    "format_of_runtime",
    "no_runtime",
    "quantizable",
    "rank",
    "runnable",
    "running_bf16",
    "runtime_named",
    "runtimes",
    "with_further_int8",
    "writable",
    "writable_in_int8",
]


class _Formats(Table[Format]):
    def refuse(self, row: Format) -> str:
        """Refuse a format whose runtime's name is already used: a device name must select one format."""
        taken = {REFERENCE.name: TORCH} | {held.runtime.name: held.name for held in self._loaded.values()}
        taken |= {self.get(name).runtime.name: name for name in self.built_in()}
        other = taken.get(row.runtime.name)
        return f"its runtime's name, {row.runtime.name!r}, already belongs to {other}" if other else ""


FORMATS: Table[Format] = _Formats(
    "format",
    {
        "openvino": "edgecnn.formats.openvino:FORMAT",
        "onnx": "edgecnn.formats.onnx:FORMAT",
        "tflite": "edgecnn.formats.tflite:FORMAT",
        "ncnn": "edgecnn.formats.ncnn:FORMAT",
    },
    record=Format,
    group="edgecnn.formats",
)


def writable() -> list[str]:
    """The formats that have a converter, installed or not."""
    return [row.name for row in FORMATS if row.converter is not None]


def writable_in_int8() -> list[str]:
    """The formats that have an int8 writer, installed or not."""
    return [row.name for row in FORMATS if row.int8_writer is not None]


def with_further_int8() -> list[str]:
    """The formats with more than one quantized precision."""
    return [row.name for row in FORMATS if sum(name.startswith("int8") for name in row.precisions) > 1]


def running_bf16() -> list[str]:
    """The formats whose float files can be run in bf16."""
    return [row.name for row in FORMATS if any("bf16" in others for others in row.also_runs.values())]


def runnable() -> list[str]:
    """The formats whose files can be opened here, in order of preference; imports no runtime."""
    return [row.name for row in FORMATS if row.runs_here]


def convertible() -> list[str]:
    """The formats whose float files can be written here."""
    return [row.name for row in FORMATS if row.converts_here]


def quantizable() -> list[str]:
    """The formats whose int8 files can be written here."""
    return [row.name for row in FORMATS if row.quantizes_here]


def rank(name: str) -> int:
    """A format's position in the order of preference; unknown names come last."""
    order = FORMATS.built_in()
    if name not in order:
        order = FORMATS.names()
    return order.index(name) if name in order else len(order)


def runtimes() -> list[Runtime]:
    """The formats' runtimes in order of preference, then torch, the reference."""
    return [*(row.runtime for row in FORMATS), REFERENCE]


def runtime_named(word: str) -> Runtime | None:
    """The runtime of this name; None where there is none. Plug-ins are searched last."""
    if word == REFERENCE.name:
        return REFERENCE
    row = format_of_runtime(word)
    return None if row is None else row.runtime


def format_of_runtime(word: str) -> Format | None:
    """The format that the runtime of this name opens; None for torch, and where there is no such runtime."""
    own = (FORMATS.get(name) for name in FORMATS.built_in())
    found = next((row for row in own if row.runtime.name == word), None)
    return found or next((row for row in FORMATS if row.runtime.name == word), None)


def compiler_of(format_name: str, compiler: str) -> Part[type[TargetCompiler]]:
    """The compiler of a format's float files for a target.

    Raises:
        UnknownNameError: the format has no such compiler.
    """
    known = FORMATS.get(format_name).compilers
    if compiler not in known:
        raise UnknownNameError(f"compiler of {format_name} files", compiler, known)
    return known[compiler]


def no_runtime(what: str, wanted: Iterable[str] = ()) -> MissingDependencyError:
    """The error where something needs a runtime and none is installed.

    Args:
        what: what needs it.
        wanted: formats of which one is enough; by default, any.
    """
    rows = [FORMATS.get(name) for name in sorted(wanted or FORMATS.built_in(), key=rank)]
    names = " or ".join(row.runtime.packages[0] for row in rows)
    if len(rows) == 1:
        return rows[0].missing_runtime(what)
    return MissingDependencyError(what, names, install=" or ".join(row.runtime.how_to_install for row in rows))
