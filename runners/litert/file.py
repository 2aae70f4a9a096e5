"""Reads TFLite files: operators, tensors and constants. Every value in the file is checked.

A TFLite file is a flatbuffer: tables that refer to each other by offsets. Runtimes follow these unchecked; here each
offset, count and index is first checked against the file's size. The total work is limited by that size too, so
that tables that refer to each other in a cycle cannot cost more.

Sources: the layout is described at https://flatbuffers.dev/internals; fields and operators are those of TensorFlow
Lite's schema.fbs, version 3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.bounded import read_bounded
from edgecnn.errors import BundleError
from edgecnn.runners.litert.operator_names import OPERATORS

_IDENTIFIER = b"TFL3"
_DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"}
_LARGEST_BYTES = 1 << 31  # its offsets have 32 bits with sign
_MOST_AXES = 8
_MOST_VALUES = 1 << 31  # per tensor
_CUSTOM = "CUSTOM"
_VARIABLE_INPUTS = {"UNIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "SVDF", "RNN"}
# Options of a convolution: padding, stride_w and stride_h are fields 0 to 2; here, the fields of dilation_w and
# dilation_h.
_DILATIONS: dict[str, tuple[int, ...]] = {"CONV_2D": (4, 5), "DEPTHWISE_CONV_2D": (5, 6), "TRANSPOSE_CONV": ()}
_POOLS = {"AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"}  # strides, then the window: fields 1 to 4


class MalformedFile(BundleError):
    """Not a TFLite file, or one with an impossible value."""


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
        data: a constant's values, a view of the file; None for a computed tensor.
        scales: its quantization scales, float32 [channels] or [1]; empty without quantization.
        variable: True if it keeps its values from one inference to the next.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    buffer: int
    data: NDArray[Any] | None
    scales: NDArray[np.float32]
    variable: bool = False


@dataclass(frozen=True)
class Operator:
    """One operator; absent optional inputs are -1.

    Attributes:
        strides, dilations: rows and columns; 1 for operators without a window.
        same_padding: True if a convolution is padded to keep the size, apart from its strides.
    """

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    same_padding: bool = False


def read_file(path: Path) -> tuple[Sequence[Operator], Sequence[Tensor]]:
    """Operators and tensors of a file's first subgraph.

    Raises:
        MalformedFile: the file cannot be read, or has an impossible value.
    """
    try:
        content = read_bounded(path, _LARGEST_BYTES)
    except OSError as failed:
        raise MalformedFile(f"{path} cannot be read: {failed.strerror}") from failed
    try:
        return read(content)
    except MalformedFile as wrong:
        raise MalformedFile(f"{path.name} is not a TFLite file that can be run: {wrong}") from wrong


def read(content: bytes | bytearray) -> tuple[Sequence[Operator], Sequence[Tensor]]:
    """Operators and tensors of the first (in our files, the only) subgraph; constants of a bytearray can be changed.

    Raises:
        MalformedFile: an offset, a count, an index or a shape in it is impossible.
    """
    model = _Tables(content).root()
    graphs = model.tables(2)
    if not graphs:
        raise MalformedFile("it has no graph")
    graph = graphs[0]
    buffers = [_content(buffer, content) for buffer in model.tables(4)]
    tensors = [_tensor(table, buffers) for table in graph.tables(0)]
    kinds = [_kind(code) for code in model.tables(1)]
    operators = [_operator(index, table, kinds) for index, table in enumerate(graph.tables(3))]
    _check(operators, tensors, graph.indices(1), graph.indices(2))
    return operators, tensors


class _Tables:
    """A flatbuffer's bytes, and the amount of work that is still allowed."""

    def __init__(self, content: bytes | bytearray) -> None:
        self.content = content
        self.size = len(content)
        self._work = 64 + 4 * self.size

    def root(self) -> _Table:
        if self.size < 8 or bytes(self.content[4:8]) != _IDENTIFIER:
            raise MalformedFile("it does not begin like a TFLite file")
        return _Table(self, self.number("<I", 0))

    def number(self, form: str, place: int) -> int:
        """One integer at an offset."""
        width = struct.calcsize(form)
        if not 0 <= place <= self.size - width:
            raise MalformedFile("an offset points outside the file")
        return int(struct.unpack_from(form, self.content, place)[0])

    def spend(self, work: int) -> None:
        self._work -= work
        if self._work < 0:
            raise MalformedFile("its tables refer to each other in a cycle")


class _Table:
    """One table of a flatbuffer; fields are identified by their number in the schema."""

    def __init__(self, tables: _Tables, place: int) -> None:
        tables.spend(16)
        self._tables, self._place = tables, place
        self._fields = place - tables.number("<i", place)
        self._fields_size = tables.number("<H", self._fields)
        if self._fields_size < 4 or self._fields + self._fields_size > tables.size:
            raise MalformedFile("a table's fields lie outside the table")

    def scalar(self, field: int, form: str, default: int = 0) -> int:
        place = self._field(field)
        return default if place is None else self._tables.number(form, place)

    def table(self, field: int) -> _Table | None:
        place = self._field(field)
        return None if place is None else _Table(self._tables, self._follow(place))

    def tables(self, field: int) -> list[_Table]:
        start, count = self._vector(field, 4)
        self._tables.spend(4 * count)
        return [_Table(self._tables, self._follow(start + 4 * index)) for index in range(count)]

    def values(self, field: int, dtype: Any) -> NDArray[Any]:
        """A vector of numbers, a view of the file."""
        kind = np.dtype(dtype)
        start, count = self._vector(field, kind.itemsize)
        return np.frombuffer(self._tables.content, kind, count, start) if count else np.empty(0, kind)

    def indices(self, field: int) -> tuple[int, ...]:
        found = self.values(field, "<i4")
        self._tables.spend(4 * len(found))
        return tuple(found.tolist())

    def text(self, field: int) -> str:
        start, count = self._vector(field, 1)
        self._tables.spend(count)
        return bytes(self._tables.content[start : start + count]).decode(errors="replace")

    def _field(self, field: int) -> int | None:
        entry = 4 + 2 * field
        if entry + 2 > self._fields_size:
            return None
        offset = self._tables.number("<H", self._fields + entry)
        return self._place + offset if offset else None

    def _follow(self, place: int) -> int:
        return place + self._tables.number("<I", place)

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        place = self._field(field)
        if place is None:
            return 0, 0
        start = self._follow(place)
        count = self._tables.number("<I", start)
        if start + 4 + width * count > self._tables.size:
            raise MalformedFile("a list is longer than the file")
        return start + 4, count


def _content(buffer: _Table, content: bytes | bytearray) -> NDArray[np.uint8] | None:
    """A buffer's bytes, which are stored in the table or, in larger files, after it."""
    offset, size = buffer.scalar(1, "<Q"), buffer.scalar(2, "<Q")
    if offset > 1:
        if offset + size > len(content):
            raise MalformedFile("a constant lies outside the file")
        return np.frombuffer(content, np.uint8, size, offset)
    values = buffer.values(0, np.uint8)
    return values if len(values) else None


def _tensor(table: _Table, buffers: Sequence[NDArray[np.uint8] | None]) -> Tensor:
    shape = table.indices(0)
    name = table.text(3)
    values = 1
    for length in shape:
        values *= length
    if len(shape) > _MOST_AXES or min(shape, default=0) < 0 or values > _MOST_VALUES:
        raise MalformedFile(f"tensor {name!r} has the impossible shape {list(shape)[: _MOST_AXES + 1]}")
    code, buffer = table.scalar(1, "<b"), table.scalar(2, "<I")
    if buffer >= len(buffers):
        raise MalformedFile(f"tensor {name!r} refers to buffer {buffer}, but there are {len(buffers)}")
    dtype = _DTYPES.get(code, f"type {code}")
    data = raw = buffers[buffer]
    if raw is not None and dtype in _DTYPES.values():
        if raw.nbytes != values * np.dtype(dtype).itemsize:
            raise MalformedFile(f"tensor {name!r} has {values} {dtype} values, but {raw.nbytes} bytes of data")
        data = raw.view(dtype).reshape(shape)
    elif raw is not None:
        data = None  # this type is not read here
    return Tensor(name, shape, dtype, buffer, data, _scales(table, name, shape), bool(table.scalar(5, "<b")))


def _scales(tensor: _Table, name: str, shape: Sequence[int]) -> NDArray[np.float32]:
    quantization = tensor.table(4)
    if quantization is None:
        return np.empty(0, np.float32)
    scales, zeros = quantization.values(2, "<f4"), quantization.values(3, "<i8")
    axis = quantization.scalar(6, "<i")
    if len(zeros) not in (0, 1, len(scales)):
        raise MalformedFile(f"tensor {name!r} has {len(scales)} scales and {len(zeros)} zero points")
    if len(scales) > 1 and not (0 <= axis < len(shape) and shape[axis] == len(scales)):
        raise MalformedFile(f"tensor {name!r} of shape {list(shape)} has {len(scales)} scales along axis {axis}")
    if not (np.isfinite(scales).all() and (scales >= 0).all()):
        raise MalformedFile(f"tensor {name!r} has scales that are not positive finite numbers")
    return np.asarray(scales, np.float32)


def _kind(code: _Table) -> str:
    number = max(code.scalar(0, "<b"), code.scalar(3, "<i"))
    if not 0 <= number < len(OPERATORS):
        raise MalformedFile(f"it has an operator of the unknown number {number}")
    return OPERATORS[number]


def _operator(index: int, table: _Table, kinds: Sequence[str]) -> Operator:
    code = table.scalar(0, "<I")
    if code >= len(kinds):
        raise MalformedFile(f"operator {index} refers to operator kind {code}, but there are {len(kinds)}")
    kind, inputs, outputs = kinds[code], table.indices(1), table.indices(2)
    options = table.table(4)
    if options is None:
        return Operator(index, kind, inputs, outputs)
    if kind in _POOLS:
        _positive(index, kind, [options.scalar(field, "<i") for field in (1, 2, 3, 4)])
    if kind not in _DILATIONS:
        return Operator(index, kind, inputs, outputs)
    strides = options.scalar(2, "<i"), options.scalar(1, "<i")
    columns, rows = [options.scalar(field, "<i", 1) for field in _DILATIONS[kind]] or (1, 1)
    _positive(index, kind, [*strides, rows, columns])
    same = options.scalar(0, "<b") == 0
    return Operator(index, kind, inputs, outputs, strides, (rows, columns), same)


def _positive(index: int, kind: str, numbers: Sequence[int]) -> None:
    if not all(0 < number < 1 << 16 for number in numbers):
        raise MalformedFile(f"operator {index} ({kind}) has an impossible stride, window or dilation: {list(numbers)}")


def _check(
    operators: Sequence[Operator], tensors: Sequence[Tensor], inputs: Sequence[int], outputs: Sequence[int]
) -> None:
    """Raise MalformedFile where an operator reads a tensor before it is computed, or two write the same tensor."""
    count = len(tensors)
    if not inputs or not outputs or not all(0 <= tensor < count for tensor in (*inputs, *outputs)):
        raise MalformedFile(f"its inputs and outputs are {list(inputs)[:9]} and {list(outputs)[:9]} of {count} tensors")
    known = [_is_there(tensor) for tensor in tensors]
    for tensor in inputs:
        known[tensor] = True
    written = set(inputs)
    for operator in operators:
        where = f"operator {operator.index} ({operator.kind})"
        for tensor in operator.inputs:
            if not -1 <= tensor < count or (tensor >= 0 and not known[tensor]):
                raise MalformedFile(f"{where} reads tensor {tensor}, which has no values yet")
        if any(tensor < 0 for tensor in operator.inputs[: _required(operator.kind)]):
            raise MalformedFile(f"{where} lacks an input that it needs")
        for tensor in operator.outputs:
            if not 0 <= tensor < count or tensor in written or tensors[tensor].data is not None:
                raise MalformedFile(f"{where} writes tensor {tensor}, which it may not write")
            known[tensor] = True
            written.add(tensor)
    for tensor in outputs:
        if not known[tensor]:
            raise MalformedFile(f"no operator writes its output, tensor {tensor}")


def _is_there(tensor: Tensor) -> bool:
    """Whether a tensor has values before anything is computed; assumed for types that are not read here."""
    return tensor.data is not None or tensor.variable or tensor.dtype not in _DTYPES.values() or 0 in tensor.shape


def _required(kind: str) -> int:
    """How many of the first inputs are required."""
    if kind == _CUSTOM or kind in _VARIABLE_INPUTS:
        return 0
    return 3 if kind == "TRANSPOSE_CONV" else 2
