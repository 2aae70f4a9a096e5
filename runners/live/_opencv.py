"""OpenCV's messages, kept quiet where our own error says what happened."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import cv2

# FFmpeg writes to stderr by itself; OpenCV reads this when it first opens a video. Whoever set it keeps it.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"

_log: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 5 moved these functions there
_SILENT = 0

_lock = threading.Lock()
_depth = 0
_level_before = 0


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence OpenCV's log for a while; the level is the whole process's, so nested uses are counted."""
    global _depth, _level_before
    with _lock:
        if _depth == 0:
            _level_before = _log.getLogLevel()
            _log.setLogLevel(_SILENT)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _log.setLogLevel(_level_before)


def stream_backend() -> int:
    """FFmpeg where OpenCV was built with it, so that nothing else guesses at a name; else its own choice."""
    return cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends() else cv2.CAP_ANY


# FFmpeg gives no frame of a packet that is cut off: else the last frame of a truncated file is half invented.
FILE_OPTIONS = "rtsp_flags;prefer_tcp|fflags;discardcorrupt"  # the first is OpenCV's default


class _OpeningOptions:
    """FFmpeg's options while captures are being opened: OpenCV takes them from the environment only, then.

    The environment is the whole process's: captures that want the same options are opened side by side, others wait.
    Whoever has set the variable keeps it.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._options = ""
        self._users = 0
        self._ours = False

    @contextlib.contextmanager
    def set_to(self, options: str) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._users == 0 or self._options == options)
            if self._users == 0:
                self._options = options
                self._ours = _OPTIONS not in os.environ
                if self._ours:
                    os.environ[_OPTIONS] = options
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                if self._users == 0:
                    if self._ours:
                        os.environ.pop(_OPTIONS, None)
                    self._changed.notify_all()


_opening_options = _OpeningOptions()


def open_video(name: str, parameters: Sequence[int] = (), *, options: str = FILE_OPTIONS) -> cv2.VideoCapture:
    """A capture of a video file or URL, open or not.

    Args:
        name: an absolute path, or a URL.
        parameters: of cv2.VideoCapture.
        options: of FFmpeg, as OPENCV_FFMPEG_CAPTURE_OPTIONS wants them.
    """
    backend = stream_backend()
    with quiet(), _opening_options.set_to(options):
        return cv2.VideoCapture(name, backend, list(parameters) if backend == cv2.CAP_FFMPEG else [])
