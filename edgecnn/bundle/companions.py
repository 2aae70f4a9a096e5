"""Finds the other files that a runtime reads with an artifact: all must be listed in the manifest, with a hash.

They are found in the file itself, without the runtime: ONNX names external data and compiled contexts, a TFLite file
may have external buffers, OpenVINO reads the .bin with the name of its .xml.

Sources: onnx/onnx.proto (field numbers; protobuf's wire format), tflite's schema.fbs (FlatBuffers' binary format).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from edgecnn.errors import BundleError
from edgecnn.printable import shortened

_MOST_DEPTH = 32  # of nested graphs

# (message, field) → message of the field; fields not listed here are skipped.
_MODEL, _GRAPH, _NODE, _ATTRIBUTE, _TENSOR, _SPARSE, _FUNCTION, _ENTRY, _TRAINING = range(9)
_ONNX = {
    (_MODEL, 7): _GRAPH,
    (_MODEL, 20): _TRAINING,
    (_MODEL, 25): _FUNCTION,
    (_TRAINING, 1): _GRAPH,
    (_TRAINING, 2): _GRAPH,
    (_GRAPH, 1): _NODE,
    (_GRAPH, 5): _TENSOR,
    (_GRAPH, 15): _SPARSE,
    (_FUNCTION, 7): _NODE,
    (_FUNCTION, 11): _ATTRIBUTE,
    (_NODE, 5): _ATTRIBUTE,
    (_ATTRIBUTE, 5): _TENSOR,
    (_ATTRIBUTE, 6): _GRAPH,
    (_ATTRIBUTE, 10): _TENSOR,
    (_ATTRIBUTE, 11): _GRAPH,
    (_ATTRIBUTE, 22): _SPARSE,
    (_ATTRIBUTE, 23): _SPARSE,
    (_SPARSE, 1): _TENSOR,
    (_SPARSE, 2): _TENSOR,
    (_TENSOR, 13): _ENTRY,
}
_ENDS = {1: 8, 5: 4}  # wire type → bytes of a value


def companions_of(path: Path) -> set[str]:
    """Names of the other files that an artifact's runtime reads when it opens `path`.

    Raises:
        BundleError: the file is not what its suffix says, or names a file outside the bundle.
    """
    reads = {".onnx": _onnx_files, ".xml": _openvino_files, ".tflite": _tflite_files}.get(path.suffix.lower())
    if reads is None:
        return set()
    try:
        names = reads(path)
    except (ValueError, IndexError, struct.error) as damaged:
        raise BundleError(f"{path} is not a readable {path.suffix} file: {damaged}; convert again") from damaged
    for name in names:
        if not name or Path(name).name != name or "\\" in name or name in {".", ".."}:
            raise BundleError(f"{path} refers to {shortened(name)!r}, a file outside the bundle: it is not opened")
    return names


def _openvino_files(path: Path) -> set[str]:
    weights = path.with_suffix(".bin")
    return {weights.name} if weights.exists() or weights.is_symlink() else set()


def _onnx_files(path: Path) -> set[str]:
    if not path.stat().st_size:
        return set()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        found: set[str] = set()
        with memoryview(content) as view:
            _walk_onnx(view, 0, len(view), _MODEL, found, 0)
        return found


def _walk_onnx(view: memoryview, start: int, end: int, message: int, found: set[str], depth: int) -> None:
    """Collect the files that one message names; messages that cannot name any are skipped."""
    if depth > _MOST_DEPTH:
        raise ValueError(f"graphs nested more than {_MOST_DEPTH} deep")
    entry: dict[int, bytes] = {}
    operator, texts = b"", []
    for number, wire, low, high in _fields(view, start, end):
        if wire != 2:
            continue
        if message == _ENTRY:
            entry[number] = bytes(view[low : min(high, low + 4096)])
        elif message == _NODE and number == 4:
            operator = bytes(view[low : min(high, low + 64)])
        if message == _NODE and number == 5:
            texts.append((low, high))
        inner = _ONNX.get((message, number))
        if inner is not None:
            _walk_onnx(view, low, high, inner, found, depth + 1)
    if message == _ENTRY and entry.get(1) == b"location":
        found.add(_text(entry.get(2, b"")))
    if operator == b"EPContext":
        found.update(_context_file(view, texts))


def _context_file(view: memoryview, attributes: list[tuple[int, int]]) -> set[str]:
    """The file of a separately stored compiled context (ONNX Runtime's com.microsoft.EPContext, embed_mode 0)."""
    name, embedded = "", True
    for start, end in attributes:
        key, number, text = b"", 0, b""
        for field, wire, low, high in _fields(view, start, end):
            if field == 1 and wire == 2:
                key = bytes(view[low : min(high, low + 64)])
            elif field == 3 and wire == 0:
                number = low
            elif field == 4 and wire == 2:
                text = bytes(view[low : min(high, low + 4096)])
        if key == b"embed_mode":
            embedded = number != 0
        elif key == b"ep_cache_context":
            name = text.decode(errors="replace")
    return set() if embedded else {name}


def _fields(view: memoryview, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, and first and last byte (varints: the value, twice) of each field of a message."""
    while start < end:
        key, start = _varint(view, start, end)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, start = _varint(view, start, end)
            yield number, wire, value, value
            continue
        if wire == 2:
            length, start = _varint(view, start, end)
        elif wire in _ENDS:
            length = _ENDS[wire]
        else:
            raise ValueError(f"wire type {wire} in a protobuf message")
        if length > end - start:
            raise ValueError("a protobuf field that ends after its message")
        yield number, wire, start, start + length
        start += length


def _varint(view: memoryview, start: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if start >= end or shift > 63:
            raise ValueError("a protobuf number without an end")
        byte = view[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


_EXTERNAL_GROUPS, _EXTERNAL_BUFFERS, _GROUP_NAME = 8, 9, 0  # numbers of fields in the tables Model, ExternalBufferGroup


def _tflite_files(path: Path) -> set[str]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[4:8] != b"TFL3":
            raise ValueError("it doesn't begin like a TFLite file")
        groups = _flat_field(content, _u32(content, 0), _EXTERNAL_GROUPS)
        if groups is None:
            return set()
        start = groups + _u32(content, groups)
        count = _u32(content, start)
        if count > 10_000:
            raise ValueError(f"{count} groups of external buffers")
        names = set()
        for index in range(count):
            place = start + 4 + 4 * index
            name = _flat_field(content, place + _u32(content, place), _GROUP_NAME)
            if name is None:
                raise ValueError("a group of external buffers without a name")
            name += _u32(content, name)
            names.add(_text(content[name + 4 : name + 4 + min(_u32(content, name), 4096)]))
        return names


def _flat_field(content: mmap.mmap, table: int, number: int) -> int | None:
    """Position of a field in a FlatBuffers table; None where it is absent."""
    (offset,) = struct.unpack_from("<i", content, table)
    layout = table - offset
    (size,) = struct.unpack_from("<H", content, layout)
    place = 4 + 2 * number
    if place + 2 > size:
        return None
    (value,) = struct.unpack_from("<H", content, layout + place)
    return table + value if value else None


def _u32(content: mmap.mmap, place: int) -> int:
    (value,) = struct.unpack_from("<I", content, place)
    return int(value)
