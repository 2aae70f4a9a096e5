"""Opens videos with OpenCV; its messages are suppressed where our own error reports the problem."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence

import cv2

from edgecnn.tool_output import quiet_opencv

# FFmpeg writes to stderr directly; OpenCV reads this variable when it first opens a video. A user's value is kept.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"

quiet = quiet_opencv


def ffmpeg_backend() -> int:
    """FFmpeg where OpenCV was built with it, so that no other back end interprets the name; otherwise any."""
    return cv2.CAP_FFMPEG if cv2.CAP_FFMPEG in cv2.videoio_registry.getStreamBackends() else cv2.CAP_ANY


# A playlist or script renamed to a video could refer to other files and hosts: only the file itself may be read.
CONTAINERS = (
    "mov,matroska,webm,avi,mpeg,mpegts,mpegvideo,h264,hevc,m4v,flv,asf,gif,ogg,mxf,dv,ivf,nut,mjpeg,rm,swf,wtv,apng,"
    "av1,obu,yuv4mpegpipe,wav,mp3,flac,aac"
)
ONLY_THE_FILE = f"protocol_whitelist;file|format_whitelist;{CONTAINERS}"
# FFmpeg gives no frame of a truncated packet: otherwise half of a truncated file's last frame is made up.
FILE_OPTIONS = "rtsp_flags;prefer_tcp|fflags;discardcorrupt"  # the first is OpenCV's default


class OpeningOptions:
    """Sets FFmpeg's options while captures are opened: OpenCV reads them only from the environment, at that time.

    The environment belongs to the whole process: captures with the same options are opened at the same time, others
    wait for their turn. Their turn comes even if missing cameras are tried again and again: later ones of those wait
    behind. A variable set by the user is kept.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._options = ""
        self._users = 0
        self._in_line: deque[object] = deque()
        self._ours = False

    @contextlib.contextmanager
    def set_to(self, options: str) -> Iterator[None]:
        """Open captures with these options of FFmpeg meanwhile."""
        with self._changed:
            mine = object()
            self._in_line.append(mine)
            try:
                self._changed.wait_for(
                    lambda: self._in_line[0] is mine and (self._users == 0 or self._options == options)
                )
            finally:
                self._in_line.remove(mine)
                self._changed.notify_all()
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


_opening_options = OpeningOptions()


def open_video(name: str, parameters: Sequence[int] = (), *, options: str = FILE_OPTIONS) -> cv2.VideoCapture:
    """A capture of a video file or URL, open or not.

    Args:
        parameters: parameters of cv2.VideoCapture.
        options: FFmpeg's options, in the form of OPENCV_FFMPEG_CAPTURE_OPTIONS.
    """
    backend = ffmpeg_backend()
    with quiet(), _opening_options.set_to(options):
        return cv2.VideoCapture(name, backend, list(parameters) if backend == cv2.CAP_FFMPEG else [])
