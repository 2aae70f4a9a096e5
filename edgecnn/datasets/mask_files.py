"""Reads the class ids in a mask file as they are stored; they are never guessed from colours."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import DataError
from edgecnn.picture_headers import PNG_SIGNATURE, png_chunks, read_header, tiff_numbers
from edgecnn.pictures import decode_samples, read_picture_bytes

_LOSSLESS = frozenset({"PNG", "BMP", "TIFF", "Netpbm"})
_PNG_PALETTE, _PNG_GREY = 3, 0  # colour types
_TIFF_PHOTOMETRIC, _TIFF_PALETTE = 262, 3
_WAY_OUT = "write the class ids as a PNG with one channel, or with a palette whose indices are the ids"


def read_class_ids(path: Path) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The class ids of a mask, uint8 or uint16 [height, width]; for a palette PNG, the indices.

    Raises:
        DataError: it cannot be read, is a colour picture, or has a format that changes values.
    """
    data = read_picture_bytes(path)
    header = read_header(data)
    if header is not None and header.format not in _LOSSLESS:
        raise DataError(f"{path} is a {header.format} file, which does not keep values exactly: {_WAY_OUT}")
    bits = 8
    if data.startswith(PNG_SIGNATURE) and len(data) > 33:
        bits = data[24]
        if data[25] == _PNG_PALETTE:
            data = _indices_as_grey(data)
    elif _has_palette(data):
        raise DataError(f"{path} has a palette with other values than its indices: {_WAY_OUT}")
    ids = decode_samples(data, str(path))
    if ids.ndim == 3 and (ids[..., :1] == ids[..., :3]).all():  # grey, stored as colour
        ids = ids[..., 0]
    if ids.ndim != 2:
        raise DataError(f"{path} is a colour picture, but class ids were expected: {_WAY_OUT}")
    if ids.dtype == np.uint8:
        grey: NDArray[np.uint8] = ids.astype(np.uint8, copy=False)
        # OpenCV has stretched 1, 2 or 4 bits over 0..255
        return grey if bits >= 8 else (grey // (255 // (2**bits - 1))).astype(np.uint8)
    if ids.dtype == np.uint16:
        return ids.astype(np.uint16, copy=False)
    raise DataError(f"{path} has values of type {ids.dtype}: {_WAY_OUT}")


def _indices_as_grey(data: bytes) -> bytes:
    """A palette PNG as a grey one with the same bytes, so that a decoder gives its indices instead of their colours."""
    parts = [PNG_SIGNATURE]
    for kind, start, length in png_chunks(data):
        content = data[start : start + length]
        if kind == b"IHDR":
            content = content[:9] + bytes([_PNG_GREY]) + content[10:]
        if kind in {b"IHDR", b"IDAT", b"IEND"}:
            checksum = zlib.crc32(kind + content) if kind == b"IHDR" else None
            end = data[start + length : start + length + 4] if checksum is None else struct.pack(">I", checksum)
            parts += [struct.pack(">I", length), kind, content, end]
    return b"".join(parts)


def _has_palette(data: bytes) -> bool:
    """Whether a BMP or TIFF has a palette other than grey levels."""
    if data.startswith(b"BM") and len(data) > 54:
        header, bits = int.from_bytes(data[14:18], "little"), int.from_bytes(data[28:30], "little")
        if header < 40 or bits > 8:
            return header < 40
        if 14 + header >= len(data):
            return True
        colours = np.frombuffer(data, np.uint8, offset=14 + header, count=min(4 << bits, len(data) - 14 - header))
        expected = np.arange(len(colours) // 4, dtype=np.uint8)
        return bits < 8 or not bool((colours[: len(expected) * 4].reshape(-1, 4)[:, :3] == expected[:, None]).all())
    if data[:2] in {b"II", b"MM"}:
        try:
            return tiff_numbers(data).get(_TIFF_PHOTOMETRIC) == _TIFF_PALETTE
        except (struct.error, OverflowError):
            return True
    return False
