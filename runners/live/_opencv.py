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
_options_lock = threading.Lock()
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


def open_video(name: str, parameters: Sequence[int] = ()) -> cv2.VideoCapture:
    """A capture of a video file or URL, open or not; FFmpeg gives no frame of a packet that is cut off.

    Without that, the last frame of a truncated file is half a picture and half invented. OpenCV takes
    FFmpeg's options from the environment only, when it opens; whoever has set them keeps them.
    """
    backend = stream_backend()
    with quiet(), _options_lock:
        ours = _OPTIONS not in os.environ
        if ours:
            os.environ[_OPTIONS] = "rtsp_flags;prefer_tcp|fflags;discardcorrupt"  # the first is OpenCV's default
        try:
            return cv2.VideoCapture(name, backend, list(parameters) if backend == cv2.CAP_FFMPEG else [])
        finally:
            if ours:
                del os.environ[_OPTIONS]
