"""Reads picture files: `run`, `eval`, training, calibration and `bench` get the same pixels from a file.

The result is uint8 [height, width, 3] BGR, for every kind of file:

- rotated upright where its EXIF says so (JPEG, PNG, WebP, TIFF);
- grey and palette become colour; CMYK is converted without a colour profile;
- of 16 bits per sample the upper 8 are used; float samples are refused;
- transparency is dropped, the colours below it stay; of several pictures in a file, the first is used.

A file that is truncated or fails its own checksums is an error, never a picture with grey rows. Width and height are
read from the header first, and a picture larger than MAX_PIXELS is refused before memory is allocated.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.arrays import UInt8Array
from edgecnn.errors import DataError, near_path
from edgecnn.picture_headers import PictureHeader, picture_format, png_chunks, read_header
from edgecnn.tool_output import quiet_opencv

PICTURE_SUFFIXES = frozenset(
    {".avif", ".bmp", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)
MAX_PIXELS = 100_000_000  # a 100-megapixel camera; 300 MB once decoded
MAX_FILE_BYTES = 700_000_000  # that many pixels of uncompressed 16-bit colour, with metadata
_MOST_SCANS = 200  # encoders write about ten; one of a hundred bytes may go over the whole picture
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_AS_IT_IS = cv2.IMREAD_UNCHANGED


def is_picture(path: Path) -> bool:
    """Whether this is the name of a picture, and not hidden."""
    return path.suffix.lower() in PICTURE_SUFFIXES and not path.name.startswith(".")


def list_pictures(folder: Path) -> list[Path]:
    """The picture files in a folder, by name; without those in subfolders.

    Raises:
        DataError: the folder cannot be listed.
    """
    try:
        return sorted(path for path in folder.iterdir() if is_picture(path) and path.is_file())
    except OSError as failed:
        raise DataError(f"{folder} cannot be listed: {failed.strerror}") from failed


def read_picture(path: Path) -> UInt8Array:
    """Read a picture, uint8 [height, width, 3] BGR, upright; see above for the conversion of other kinds.

    Raises:
        DataError: missing, damaged, truncated, too large, or not a picture.
    """
    return decode_picture(_read_bytes(path), str(path))


def decode_picture(data: bytes, name: str) -> UInt8Array:
    """The picture in a file's bytes, as from `read_picture`; `name` is for messages.

    Raises:
        DataError: damaged, truncated, too large, or not a picture.
    """
    _check(data, name)
    image = _decode(data, name, cv2.IMREAD_COLOR)
    return image.astype(np.uint8, copy=False)


def decode_samples(data: bytes, name: str) -> NDArray[np.generic]:
    """The samples as stored, [height, width] or [height, width, channels]: for masks. Not rotated.

    Raises:
        DataError: as `decode_picture`.
    """
    _check(data, name)
    return _decode(data, name, _AS_IT_IS)


def read_picture_bytes(path: Path) -> bytes:
    """The bytes of a picture file.

    Raises:
        DataError: missing, empty, not a picture, or too large.
    """
    return _read_bytes(path)


def check_picture_file(path: Path) -> PictureHeader:
    """Check by its header alone that a file is a picture of a readable size; takes a few milliseconds.

    Raises:
        DataError: as `read_picture`.
    """
    return _check(_read_bytes(path), str(path))


def holds_picture(path: Path) -> bool:
    """Whether a file begins like a readable picture; False where it can't be read."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return False
        with path.open("rb") as file:
            return picture_format(file.read(32)) is not None
    except OSError:
        return False


def picture_hash(image: UInt8Array) -> str:
    """Hash of a picture's content as 16 hexadecimal digits: the same for a renamed or losslessly re-saved copy.

    The first digits of SHA-256 over shape and pixels: 64 bits, so that two of a million different pictures collide with
    a probability of 3e-8. A copy that was recompressed, scaled or cropped has another hash.

    Args:
        image: uint8 [height, width, 3] BGR, as from `read_picture`.
    """
    digest = hashlib.sha256("x".join(map(str, image.shape)).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:16]


def _read_bytes(path: Path) -> bytes:
    try:
        if stat.S_ISFIFO(path.stat().st_mode):  # opening it would wait for whoever writes into it
            raise DataError(f"{path} is a pipe, not an image")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(32)
            if start and picture_format(start) is None:
                raise DataError(
                    f"{path} ({size} bytes) cannot be decoded as an image: it is damaged, or none of "
                    "JPEG, PNG, WebP, BMP, TIFF, Netpbm, JPEG 2000 and AVIF"
                )
            if size > MAX_FILE_BYTES:
                raise DataError(f"{path} has {size / 1e6:.0f} MB; a picture may have {MAX_FILE_BYTES / 1e6:.0f} MB")
            data = start + file.read()
    except FileNotFoundError as missing:
        raise DataError(f"{path} does not exist{near_path(path)}") from missing
    except (OSError, ValueError) as failed:  # ValueError: a NUL in the name
        raise DataError(f"{path} cannot be read: {getattr(failed, 'strerror', None) or failed}") from failed
    if not data:
        raise DataError(f"{path} is an empty file, not an image")
    return data


def _check(data: bytes, name: str) -> PictureHeader:
    """Check that header and end are there, and that the size is not too large."""
    header = read_header(data)
    if header is None:
        raise DataError(f"{name} ({len(data)} bytes) cannot be decoded as an image: its header is damaged or truncated")
    if header.width_px * header.height_px > MAX_PIXELS:
        raise DataError(
            f"{name} is a picture of {header.width_px}x{header.height_px} px, the limit is {MAX_PIXELS / 1e6:.0f} "
            "megapixels: scale it down"
        )
    # some decoders silently fill missing parts with grey
    if header.format == "JPEG" and data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN):  # a thumbnail has its own end marker
        raise DataError(f"{name} is truncated ({len(data)} bytes without the picture's end): copy it again")
    if header.format == "JPEG" and data.count(_JPEG_SCAN) > _MOST_SCANS:
        raise DataError(f"{name} is a JPEG of more than {_MOST_SCANS} scans, each of which is decoded: save it again")
    if header.format == "PNG":
        _check_png(data, name)
    return header


def _check_png(data: bytes, name: str) -> None:
    kind = b""
    for kind, start, length in png_chunks(data):
        checksum = int.from_bytes(data[start + length : start + length + 4], "big")
        if zlib.crc32(memoryview(data)[start - 4 : start + length]) != checksum:
            raise DataError(
                f"{name} is damaged: the checksum of its {kind.decode('latin-1')!r} is wrong; copy it again"
            )
        if kind == b"IEND":
            return
    raise DataError(f"{name} is truncated ({len(data)} bytes without the picture's end): copy it again")


def _decode(data: bytes, name: str, flags: int) -> NDArray[np.generic]:
    try:
        with quiet_opencv():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as failed:
        raise DataError(f"{name} cannot be decoded as an image: {failed.err}") from failed
    if image is None:
        raise DataError(
            f"{name} ({len(data)} bytes) cannot be decoded as an image: "
            "it is damaged, or of a kind that OpenCV can't read"
        )
    return image
