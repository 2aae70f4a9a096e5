"""Annotated video files."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2

from edgecnn.errors import DataError, SpecError, StorageError
from edgecnn.frame import FrameFitter, FrameSpec
from edgecnn.results import Result, UInt8Array
from edgecnn.runners.live._opencv import quiet, stream_backend
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.sinks import Annotated, storage_error

# What OpenCV's wheels can encode everywhere, without a licence and without hardware that may refuse.
CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}
UNKNOWN_FPS = 30.0
_RESERVE_BYTES = 16 << 20  # an index must still fit, or the file can't be played
_LONGEST_PAUSE_S = 10.0


class VideoSink:
    """Records annotated frames.

    The file is written beside, under a hidden name, and gets its own name when it is closed: whatever ends
    the run, the file that is there can be played. What lies at `path` is replaced.

    Args:
        path: .mp4, .mov or .mkv (MPEG-4), .avi (Motion JPEG).
        fps: of the file.
        live: keep time: frames that come late are shown longer, frames that come early are left out. Of a
            recorded source, every frame is written, once. Pictures of another size than the first are fitted into it.

    Raises:
        SpecError: another kind of file.
        StorageError: its folder is not there or not writable.
    """

    def __init__(self, path: Path, *, fps: float = UNKNOWN_FPS, live: bool = False) -> None:
        self.path = path
        self.fps = fps
        self._live = live
        self._partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
        self._codec = codec_of(path)
        self._writer: cv2.VideoWriter | None = None
        self._size = (0, 0)
        self._fitter: FrameFitter | None = None
        self._written = 0
        self._started_ns = 0
        if path.is_dir():
            raise SpecError(f"{path} is a folder: give the name of a video file")
        try:
            with self._partial.open("wb"):  # to say now, not after the first frame, that this can't be written
                pass
            self._partial.unlink()
        except OSError as failed:
            raise storage_error(path, failed) from failed

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Write one frame."""
        picture = annotated.picture
        size = (picture.shape[1], picture.shape[0])
        if self._writer is None:
            self._writer = self._open(size)
            self._size = size
            self._started_ns = frame.captured_ns
        elif size != self._size and self._live:  # a stream that came back larger or smaller goes on in the same file
            picture = self._fitted(picture)
        elif size != self._size:
            raise DataError(
                f"the picture's size changed from {self._size[0]}x{self._size[1]} to {size[0]}x{size[1]} px "
                f"at frame {frame.index}, and {self.path.name} can only hold one "
                "(pictures of a folder are best recorded into a folder)"
            )
        # OpenCV doesn't report a failed write
        if shutil.disk_usage(self._partial.parent).free < _RESERVE_BYTES:
            raise StorageError(f"the disk is full: {self.path} ends after {self._written} frames")
        for _ in range(self._repeats(frame.captured_ns)):
            self._writer.write(picture)
            self._written += 1

    def _repeats(self, captured_ns: int) -> int:
        if not self._live:
            return 1
        due = int((captured_ns - self._started_ns) * 1e-9 * self.fps) + 1
        return min(due - self._written, int(_LONGEST_PAUSE_S * self.fps))

    def _fitted(self, picture: UInt8Array) -> UInt8Array:
        """The picture in the size of the file, its aspect kept."""
        if self._fitter is None:
            self._fitter = FrameFitter(FrameSpec(width_px=self._size[0], height_px=self._size[1], pad_value=0))
        fitted: UInt8Array = self._fitter(picture)[0][0]
        return fitted

    def _open(self, size: tuple[int, int]) -> cv2.VideoWriter:
        with quiet():
            fourcc = cv2.VideoWriter.fourcc(*self._codec)
            writer = cv2.VideoWriter(str(self._partial.resolve()), stream_backend(), fourcc, self.fps, size)
        if not writer.isOpened():
            raise DataError(
                f"OpenCV here cannot encode {self._codec} at {size[0]}x{size[1]} px for {self.path.name}: "
                f"try {' or '.join(suffix for suffix in CODECS if CODECS[suffix] != self._codec)}"
            )
        return writer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is None:
            self._partial.unlink(missing_ok=True)
            return
        self._writer.release()  # writes the index
        self._writer = None
        try:
            os.replace(self._partial, self.path)
        except OSError as failed:
            raise storage_error(self.path, failed) from failed


def codec_of(path: Path) -> str:
    """The codec for this kind of file.

    Raises:
        SpecError: none is known.
    """
    codec = CODECS.get(path.suffix.lower())
    if codec is None:
        raise SpecError(f"{path} is not the name of a video that can be written: use {', '.join(CODECS)}")
    return codec
