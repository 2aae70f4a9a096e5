"""Pictures and video files as cameras: every frame, in order, read in the caller's thread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import cv2
import numpy as np

from edgecnn.errors import DataError
from edgecnn.results import UInt8Array
from edgecnn.runners.live._opencv import open_video, quiet
from edgecnn.runners.live.frames import Frame, frame_now

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif"}
)
_JPEG_START, _JPEG_SCAN, _JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG", b"IEND\xaeB`\x82"


class PictureCamera:
    """One picture, or some: each is a frame, read when it is asked for."""

    live = False
    stills = True
    fps: float | None = None
    dropped = 0
    remark: str | None = None

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        self.name = name
        self.frames_total: int | None = len(paths)
        self._paths = paths
        self._next = 0

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """The pictures that lie in a folder, by name; those in folders below are not looked for.

        Raises:
            DataError: it holds none.
        """
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
        if not paths:
            raise DataError(
                f"{folder} holds no picture ({' '.join(sorted(PICTURE_SUFFIXES))}); "
                "folders below it are not looked into"
            )
        return cls(str(folder), paths)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        if self._next >= len(self._paths):
            raise StopIteration
        path = self._paths[self._next]
        frame = frame_now(read_picture(path), self._next, str(path))
        self._next += 1
        return frame

    def close(self) -> None:
        """End the iteration."""
        self._next = len(self._paths)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class VideoCamera:
    """A recording: a video file, or one that a web server holds.

    Attributes:
        remark: set at the end where the file gave clearly fewer frames than it declares.
    """

    live = False
    stills = False
    dropped = 0

    def __init__(self, name: str, capture: cv2.VideoCapture) -> None:
        self.name = name
        self.fps = declared_fps(capture)
        self.frames_total = declared_frames(capture)
        self.remark: str | None = None
        self._capture: cv2.VideoCapture | None = capture
        self._next = 0

    @classmethod
    def from_file(cls, path: Path, *, name: str) -> Self:
        """Open a video file.

        Raises:
            DataError: it is not a video, or it is damaged.
        """
        capture = open_video(str(path.resolve()))  # an absolute path can't be taken for a URL
        if not capture.isOpened():
            raise DataError(f"{path} cannot be read as a picture or a video: another format, or damaged")
        return cls(name, capture)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        if self._capture is None:
            raise StopIteration
        there, image = self._capture.read()
        if not there:
            self.close()
            self._check_count()
            raise StopIteration
        frame = frame_now(cast(UInt8Array, image), self._next, self.name)
        self._next += 1
        return frame

    def _check_count(self) -> None:
        if self._next == 0:
            raise DataError(f"{self.name} opens as a video, but not one frame of it can be read: damaged?")
        # some containers store no count, and it is estimated from the length: a few frames say nothing
        total = self.frames_total
        if total is not None and self._next < total - max(2, total // 20):
            self.remark = f"{self.name} ended after {self._next} of {total} frames: truncated or damaged"

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_file(path: Path, *, name: str) -> PictureCamera | VideoCamera:
    """A picture, a folder of pictures, or a video file; a video is called by this name.

    Raises:
        DataError: absent, unreadable, or of no known kind.
    """
    try:
        if path.is_dir():
            return PictureCamera.from_folder(path)
        with path.open("rb"):
            pass
    except FileNotFoundError as missing:
        raise DataError(f"{path} does not exist") from missing
    except OSError as failed:
        raise DataError(f"{path} cannot be read: {failed.strerror}") from failed
    if path.suffix.lower() in PICTURE_SUFFIXES or (path.suffix.lower() != ".gif" and cv2.haveImageReader(str(path))):
        return PictureCamera(str(path), [path])
    return VideoCamera.from_file(path, name=name)


def read_picture(path: Path) -> UInt8Array:
    """A picture file as uint8 [height, width, 3] BGR, turned upright as its EXIF says.

    Raises:
        DataError: absent, truncated, or not a picture.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as missing:
        raise DataError(f"{path} does not exist") from missing
    except OSError as failed:
        raise DataError(f"{path} cannot be read: {failed.strerror}") from failed
    if _is_truncated(data):
        raise DataError(f"{path} is truncated ({len(data)} bytes): copy it again")
    image = None
    if data:
        with quiet():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise DataError(f"{path} is not a picture that can be read: another format, or damaged")
    return cast(UInt8Array, image)


def declared_fps(capture: cv2.VideoCapture) -> float | None:
    """Frames per second as the source declares them, or None where it doesn't, or not believably."""
    fps = capture.get(cv2.CAP_PROP_FPS)
    return fps if math.isfinite(fps) and 0 < fps <= 1000 else None


def declared_frames(capture: cv2.VideoCapture) -> int | None:
    """How many frames the source declares, or None where it doesn't."""
    count = capture.get(cv2.CAP_PROP_FRAME_COUNT)
    return int(count) if math.isfinite(count) and count >= 1 else None


def _is_truncated(data: bytes) -> bool:
    # some versions of the decoders fill what is missing with grey and say nothing
    if data.startswith(_JPEG_START):
        return data.rfind(_JPEG_END) < data.rfind(_JPEG_SCAN)  # an embedded thumbnail has ends of its own
    return data.startswith(_PNG_START) and _PNG_END not in data[-1024:]
