"""The pictures used for timing a network."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgecnn.datasets import iterate_frames
from edgecnn.errors import SpecError
from edgecnn.photographs import photographs
from edgecnn.results import UInt8Array

PICTURE_SIZE_PX = (640, 480)
_DISTINCT_PICTURES = 8
_MOST_PICTURES = 16


def pictures_to_time_on(data: str | Path | None, size_px: tuple[int, int]) -> tuple[list[UInt8Array], str]:
    """At least eight different pictures, and their description; two calls in a row never use the same one.

    Args:
        data: an image, a folder or a video; None for the photographs that come with edgecnn.
        size_px: width and height to which those photographs are scaled.

    Raises:
        DataError: `data` cannot be read.
    """
    if data is None:
        return default_pictures(size_px), f"photographs, {size_px[0]}x{size_px[1]}"
    pictures = iterate_frames(data, _MOST_PICTURES)
    sizes = {f"{picture.shape[1]}x{picture.shape[0]}" for picture in pictures}
    return at_least_eight(pictures), f"{Path(data).name}, {sizes.pop() if len(sizes) == 1 else 'different sizes'}"


def default_pictures(size_px: tuple[int, int]) -> list[UInt8Array]:
    """Eight pictures of this width and height, from the photographs that come with edgecnn."""
    if min(size_px) < 1:
        raise SpecError(f"the pictures' size: expected positive px, got {size_px[0]}x{size_px[1]}")
    return at_least_eight([cover(picture, size_px) for picture in photographs().values()])


def at_least_eight(given: list[UInt8Array]) -> list[UInt8Array]:
    """The pictures, with mirrored copies if there are fewer than eight."""
    pictures = list(given)
    for index in range(_DISTINCT_PICTURES - len(given)):
        # Mirrored, and from the second pass also shifted, so that all are different.
        moved = np.roll(given[index % len(given)][:, ::-1], 16 * (index // len(given)), axis=1)
        pictures.append(np.ascontiguousarray(moved))
    return pictures


def cover(picture: UInt8Array, size_px: tuple[int, int]) -> UInt8Array:
    """The centre of a picture with the aspect ratio of `size_px`, scaled to that size."""
    width, height = size_px
    scale = max(width / picture.shape[1], height / picture.shape[0])
    resized = cv2.resize(
        picture,
        (max(round(picture.shape[1] * scale), width), max(round(picture.shape[0] * scale), height)),
        interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR,
    )
    top, left = (resized.shape[0] - height) // 2, (resized.shape[1] - width) // 2
    return np.ascontiguousarray(resized[top : top + height, left : left + width]).astype(np.uint8, copy=False)
