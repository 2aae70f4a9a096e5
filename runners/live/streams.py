"""Cameras and network streams: a thread reads as fast as frames come, and only the newest one is kept."""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, cast

import cv2

from edgecnn.errors import DeviceError
from edgecnn.results import UInt8Array
from edgecnn.runners.live._opencv import open_video, quiet
from edgecnn.runners.live.files import VideoCamera, declared_fps, declared_frames
from edgecnn.runners.live.frames import Frame, frame_now, redacted

OPEN_TIMEOUT_MS = 5000
READ_TIMEOUT_MS = 5000
_CLOSE_TIMEOUT_S = 1.0


class Grabber(Protocol):
    """What a live source owes: frames, one after the other, as they come. Used by one thread at a time."""

    fps: float | None

    def grab(self) -> UInt8Array | None:
        """Wait for the next picture, uint8 [height, width, 3] BGR, the caller's to keep; None at the end."""
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


class OpenCvGrabber:
    """Frames of a cv2.VideoCapture."""

    def __init__(self, capture: cv2.VideoCapture, *, fps: float | None) -> None:
        self.fps = fps
        self._capture = capture

    def grab(self) -> UInt8Array | None:
        """The next picture; None at the end, on an error, or when the read timeout passed."""
        there, image = self._capture.read()
        return cast(UInt8Array, image) if there else None

    def close(self) -> None:
        """Release the capture."""
        self._capture.release()


class NewestSlot:
    """Holds one frame: a new one overwrites the one that nobody took.

    Attributes:
        overwritten: how many were never taken.
    """

    def __init__(self) -> None:
        self.overwritten = 0
        self._frame: Frame | None = None
        self._ended = False
        self._changed = threading.Condition()

    def put(self, frame: Frame) -> None:
        """Leave a frame."""
        with self._changed:
            self.overwritten += self._frame is not None
            self._frame = frame
            self._changed.notify()

    def end(self) -> None:
        """Say that no more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def take(self) -> Frame | None:
        """Wait for a frame newer than the last taken; None when there won't be one."""
        with self._changed:
            while self._frame is None and not self._ended:
                self._changed.wait(1.0)  # where a wait without an end can't be interrupted (Windows)
            frame, self._frame = self._frame, None
            return frame


class LiveCamera:
    """A live source behind a capture thread with one slot.

    Attributes:
        dropped: frames that were captured and overwritten before anyone asked for one.
    """

    live = True
    stills = False
    frames_total: int | None = None
    remark: str | None = None

    def __init__(self, name: str, grabber: Grabber) -> None:
        self.name = name
        self.fps = grabber.fps
        self._slot = NewestSlot()
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._capture, args=(grabber,), name=f"capture {name}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Frames that were overwritten before they were asked for."""
        return self._slot.overwritten

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        frame = self._slot.take()
        if self._stop.is_set():
            raise StopIteration
        if frame is not None:
            return frame
        why = f"failed: {self._failure}" if self._failure else "ended, or gave no frame in time"
        raise DeviceError(
            f"{self.name} {why} (read timeout {READ_TIMEOUT_MS / 1000:g} s): is it still on and connected?"
        ) from self._failure

    def _capture(self, grabber: Grabber) -> None:
        index = 0
        try:
            while not self._stop.is_set():
                image = grabber.grab()
                if image is None:
                    break
                self._slot.put(frame_now(image, index, self.name))
                index += 1
        except Exception as failure:  # belongs to the consumer, who sees it when asking for the next frame
            self._failure = failure
        finally:
            self._slot.end()
            grabber.close()  # here, because a capture may not be released while it is being read

    def close(self) -> None:
        """Stop capturing; a read that hangs ends by itself at its timeout. A second call does nothing."""
        self._stop.set()
        self._slot.end()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_url(url: str) -> LiveCamera | VideoCamera:
    """A network stream; a recording that a web server holds (its length is known) is read as a file is.

    Raises:
        DeviceError: no answer in time, refused, or no video there.
    """
    name = redacted(url)
    capture = open_video(
        url,
        [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS],
    )
    if not capture.isOpened():
        raise DeviceError(
            f"{name} does not open (waited at most {OPEN_TIMEOUT_MS / 1000:g} s): "
            "is the address right, the login accepted, and the server there?"
        )
    over_http = url.lower().startswith("http")
    if over_http and declared_frames(capture) is not None:
        return VideoCamera(name, capture)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
    # MJPEG over HTTP declares no rate: what OpenCV reports is FFmpeg's default of 25
    return LiveCamera(name, OpenCvGrabber(capture, fps=None if over_http else declared_fps(capture)))


def open_device(source: int | str) -> LiveCamera:
    """A camera of this machine, by index or by path (/dev/videoN).

    Raises:
        DeviceError: it is not there, is in use, or is not a camera.
    """
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    name = f"camera {source}" if isinstance(source, int) else source
    with quiet():
        capture = cv2.VideoCapture(source, backend)
    if not capture.isOpened():
        raise DeviceError(f"{name} does not open: {_why_not(source)}")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the thread keeps the newest; a driver's queue would only age
    return LiveCamera(name, OpenCvGrabber(capture, fps=declared_fps(capture)))


def _why_not(source: int | str) -> str:
    if sys.platform != "linux":
        return "is it connected, and free?"
    path = Path(f"/dev/video{source}" if isinstance(source, int) else source)
    if not path.exists():
        there = ", ".join(sorted(str(device) for device in Path("/dev").glob("video*"))) or "none"
        return f"{path} is not there; cameras here: {there}"
    try:
        with path.open("rb"):
            pass
    except OSError as failed:
        return f"{path}: {failed.strerror}; is another program using it, are you in the group 'video'?"
    return f"{path} is there, but gives no video; of a camera's two devices, one is often for metadata"
