"""Reads format, width and height from a picture file's header. Nothing is decoded, no memory is allocated.

From the formats' specifications: PNG (ISO 15948), JPEG (ITU-T T.81, B.2.2), BMP, WebP (RFC 9649), TIFF 6.0 and BigTIFF,
Netpbm, JPEG 2000 (ITU-T T.800, A.5.1), AVIF (ISO 23008-12, `ispe`).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# JPEG's start-of-frame markers: C0 to CF except DHT, JPG and DAC.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
_TIFF_TYPES = {3: "H", 4: "I", 16: "Q"}  # short, long, long8


@dataclass(frozen=True)
class PictureHeader:
    """Format and size of a picture file.

    Attributes:
        format: "PNG", "JPEG", …
        width_px, height_px: as stored, before any rotation.
    """

    format: str
    width_px: int
    height_px: int


def picture_format(start: bytes) -> str | None:
    """The format shown by a file's first 32 bytes; None for other files."""
    if start.startswith(PNG_SIGNATURE):
        return "PNG"
    if start.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if start.startswith(b"BM"):
        return "BMP"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "WebP"
    if start[:4] in {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}:
        return "TIFF"
    if re.match(rb"P[1-6]\s", start):
        return "Netpbm"
    if start.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")):
        return "JPEG 2000"
    if start[4:8] == b"ftyp" and start[8:12] in {b"avif", b"avis", b"mif1"}:
        return "AVIF"
    return None


def read_header(data: bytes) -> PictureHeader | None:
    """Format and size of a whole picture file; None where its header is damaged, or of another kind.

    For a file with several sizes (an AVIF's tiles, WebP's canvas), the largest is returned.
    """
    name = picture_format(data[:32])
    if name is None:
        return None
    try:
        width, height = _SIZES[name](data)
    except (struct.error, ValueError, LookupError, OverflowError):
        return None
    return PictureHeader(name, width, height) if width > 0 and height > 0 else None


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start of its content, length) of each complete chunk, including its checksum."""
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        if position + 12 + length > len(data):
            return
        yield kind, position + 8, length
        position += length + 12


def _png(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg(data: bytes) -> tuple[int, int]:
    position = 2
    while True:
        position = data.index(b"\xff", position)
        marker = data[position + 1]
        if marker == 0xFF:  # padding
            position += 1
        elif marker == 0 or marker in _JPEG_ALONE:
            position += 2
        elif marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return width, height
        else:
            position += 2 + int(struct.unpack_from(">H", data, position + 2)[0])


def _bmp(data: bytes) -> tuple[int, int]:
    header = struct.unpack_from("<I", data, 14)[0]
    width, height = struct.unpack_from("<HH" if header == 12 else "<ii", data, 18)
    return width, abs(height)


def _webp(data: bytes) -> tuple[int, int]:
    sizes = []
    position = 12
    while position + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, position)
        body = position + 8
        if kind == b"VP8X":
            sizes.append((1 + _three_bytes(data, body + 4), 1 + _three_bytes(data, body + 7)))
        elif kind == b"VP8L":
            bits = struct.unpack_from("<I", data, body + 1)[0]
            sizes.append((1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)))
        elif kind == b"VP8 ":
            width, height = struct.unpack_from("<HH", data, body + 6)
            sizes.append((width & 0x3FFF, height & 0x3FFF))
        position = body + length + length % 2
    return max(sizes, key=lambda size: size[0] * size[1])


def _three_bytes(data: bytes, position: int) -> int:
    return int.from_bytes(data[position : position + 3], "little")


def tiff_numbers(data: bytes) -> dict[int, int]:
    """The first integer of each entry in a TIFF's first directory, by its tag.

    Raises:
        struct.error: the file ends before.
    """
    order = "<" if data.startswith(b"II") else ">"
    big = 43 in data[2:4]
    first = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, 8 if big else 4)[0]
    count = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, first)[0]
    entry, start = (20, first + 8) if big else (12, first + 2)
    found = {}
    for index in range(min(count, 4096)):
        at = start + index * entry
        tag, kind = struct.unpack_from(f"{order}HH", data, at)
        if kind in _TIFF_TYPES:
            found[tag] = struct.unpack_from(f"{order}{_TIFF_TYPES[kind]}", data, at + (12 if big else 8))[0]
    return found


def _tiff(data: bytes) -> tuple[int, int]:
    found = tiff_numbers(data)
    return found[_TIFF_WIDTH], found[_TIFF_HEIGHT]


def _netpbm(data: bytes) -> tuple[int, int]:
    gap = rb"(?:\s|#[^\n]*\n)+"
    match = re.match(rb"P[1-6]" + gap + rb"(\d{1,9})" + gap + rb"(\d{1,9})\s", data[:65536])
    if match is None:
        raise ValueError("no width or height")
    return int(match[1]), int(match[2])


def _jpeg_2000(data: bytes) -> tuple[int, int]:
    at = data.index(b"\xff\x4f\xff\x51") + 8  # the codestream's start, then SIZ
    right, bottom, left, top = struct.unpack_from(">IIII", data, at)
    return right - left, bottom - top


def _avif(data: bytes) -> tuple[int, int]:
    # the properties' box may be before or after the pixels
    sizes = [struct.unpack_from(">II", data, match.end()) for match in re.finditer(rb"ispe\0\0\0\0", data)]
    return max(sizes, key=lambda size: size[0] * size[1])


_SIZES: dict[str, Callable[[bytes], tuple[int, int]]] = {
    "PNG": _png,
    "JPEG": _jpeg,
    "BMP": _bmp,
    "WebP": _webp,
    "TIFF": _tiff,
    "Netpbm": _netpbm,
    "JPEG 2000": _jpeg_2000,
    "AVIF": _avif,
}
