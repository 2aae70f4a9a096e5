"""Reading pictures and footage from files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from edgecnn.errors import DataError
from edgecnn.results import UInt8Array

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})


def is_image(path: Path) -> bool:
    """Whether this is the name of a picture that isn't hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def list_images(folder: Path) -> list[Path]:
    """The image files in a folder, by name; not those in folders below."""
    return sorted(path for path in folder.iterdir() if is_image(path) and path.is_file())


def read_image(path: Path) -> UInt8Array:
    """Read a picture, uint8 [height, width, 3] BGR, turned upright where its EXIF says so.

    Raises:
        DataError: it cannot be read.
    """
    image = decode(path, cv2.IMREAD_COLOR)
    return image.astype(np.uint8, copy=False)


def decode(path: Path, flags: int) -> UInt8Array:
    """Read an image file in the way that OpenCV's `flags` say.

    Raises:
        DataError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as failed:
        raise DataError(f"{path} cannot be read: {failed.strerror}") from failed
    if not data:
        raise DataError(f"{path} is an empty file, not an image")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as failed:  # of a size that OpenCV refuses
        raise DataError(f"{path} cannot be decoded as an image: {failed.err}") from failed
    if image is None:
        raise DataError(
            f"{path} ({len(data)} bytes) cannot be decoded as an image: "
            "it is damaged, or of a kind that OpenCV can't read"
        )
    return image  # type: ignore[return-value]


def picture_hash(image: UInt8Array) -> str:
    """The content of a picture as 16 hexadecimal digits: the same for a renamed or losslessly re-saved copy.

    The first digits of SHA-256 over shape and pixels: 64 bits, so that two of a million different pictures agree with
    a probability of 3e-8. A copy that was compressed again, scaled or cropped is another picture.

    Args:
        image: uint8 [height, width, 3] BGR, as `read_image` gives it.
    """
    digest = hashlib.sha256("x".join(map(str, image.shape)).encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()[:16]


def read_video_frames(path: Path, limit: int) -> list[UInt8Array]:
    """At most `limit` frames of a video file, evenly spaced, uint8 [height, width, 3] BGR.

    Raises:
        DataError: it cannot be opened, or holds no frame.
    """
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise DataError(f"{path} cannot be opened as a video: it is damaged, or OpenCV has no decoder for it")
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # an estimate; 0 or below where the file doesn't tell
        step = max(total // limit, 1)
        frames: list[UInt8Array] = []
        while len(frames) < limit:
            if step > 1:
                capture.set(cv2.CAP_PROP_POS_FRAMES, len(frames) * step)
            there, frame = capture.read()
            if not there:
                break
            frames.append(frame.astype(np.uint8, copy=False))
    finally:
        capture.release()
    if not frames:
        raise DataError(f"{path} holds no frame that can be decoded")
    return frames
