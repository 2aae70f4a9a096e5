"""What people hand over as a picture: an array, the path of a file, an image of Pillow."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import cv2
import numpy as np

from edgecnn.arrays import UInt8Array
from edgecnn.errors import DataError, SpecError
from edgecnn.pictures import read_picture

if TYPE_CHECKING:
    from PIL.Image import Image as PilImage

    GivenPicture: TypeAlias = UInt8Array | str | os.PathLike[str] | PilImage

_WIDE_MODES = ("I", "F")  # of Pillow: samples of more than 8 bits, which it would clip to 255


def image_of_given(picture: GivenPicture) -> UInt8Array:
    """The pixels, uint8 [height, width, 3] BGR.

    Args:
        picture: an array of that form, which is returned as it is; the path of a picture, which is read as
            `edgecnn.pictures` says, upright; or an image of Pillow, whose RGB becomes BGR. That one is taken as it is,
            not turned by its EXIF (`PIL.ImageOps.exif_transpose` does that).

    Raises:
        SpecError: none of these, or another form of array.
        DataError: the file is absent, damaged or no picture.
    """
    if isinstance(picture, np.ndarray):
        return _checked(picture)
    if isinstance(picture, str | os.PathLike):
        return read_picture(Path(picture))
    if is_pil(picture):
        return _bgr_of_pil(picture)
    raise SpecError(
        "a picture must be uint8 [height, width, 3] BGR, the path of a picture or an image of Pillow, got "
        f"{type(picture).__name__}"
    )


def is_pil(picture: object) -> bool:
    """Whether it is an image of Pillow; doesn't import it."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(picture, pillow.Image)


def read_and_remember(path: str | os.PathLike[str]) -> tuple[UInt8Array, Callable[[], UInt8Array]]:
    """The picture of a file, and what reads it again: that holds the path, not the pixels.

    Raises:
        DataError: as `read_picture`; when it is read again, also where the file was changed meanwhile.
    """
    asked = Path(path)
    image = read_picture(asked)
    absolute, stamp = Path(os.path.abspath(asked)), _stamp(asked)

    def again() -> UInt8Array:
        if _stamp(absolute) != stamp:
            raise DataError(f"{asked} is not the picture any more that was looked at: give the picture itself")
        return read_picture(absolute)

    return image, again


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _checked(picture: Any) -> UInt8Array:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise SpecError(f"a picture must be uint8 [height, width, 3] BGR, got {picture.dtype} {list(picture.shape)}")
    checked: UInt8Array = picture
    return checked


def _bgr_of_pil(picture: PilImage) -> UInt8Array:
    if picture.mode.startswith(_WIDE_MODES):
        raise SpecError(f"an image of Pillow must have 8 bits a sample, got mode {picture.mode!r}: convert it first")
    try:
        rgb = np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))
    except (OSError, ValueError) as failed:  # read from its file only now
        raise DataError(f"the image of Pillow cannot be read: {failed}") from failed
    return _checked(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)) if rgb.size else _checked(rgb)
