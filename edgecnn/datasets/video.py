"""Frames of a video file, as pictures without labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from edgecnn.errors import DataError
from edgecnn.results import UInt8Array

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"})


def read_video_frames(path: Path, limit: int) -> list[UInt8Array]:
    """At most `limit` frames of a video file, evenly spaced, uint8 [height, width, 3] BGR.

    Raises:
        DataError: it cannot be opened, or has no frames.
    """
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise DataError(f"{path} cannot be opened as a video: it is damaged, or OpenCV has no decoder for it")
        total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))  # an estimate; 0 or less where the file doesn't give it
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
        raise DataError(f"{path} has no frame that can be decoded")
    return frames
