"""Cameras and network streams: a thread reads as fast as frames come, and only the newest one is kept."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, cast

import cv2

from edgecnn.errors import DeviceError
from edgecnn.results import UInt8Array
from edgecnn.runners.live._opencv import open_video, quiet
from edgecnn.runners.live.files import VideoCamera, declared_fps, declared_frames
from edgecnn.runners.live.frames import Frame, frame_now, redacted
from edgecnn.runners.live.handover import Handover
from edgecnn.runners.live.reconnect import CameraState, Reconnect

OPEN_TIMEOUT_MS = 5000
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


StateListener = Callable[[CameraState, str], None]  # the new state, and why


class LiveCamera:
    """A live source behind a capture thread with one slot, opened again when it falls silent.

    Args:
        name: of the source, without credentials.
        grabber: open.
        reopen: opens it again; raises DeviceError where that fails. Without it, the first fault is the end.
        reconnect: when, and how often.
        on_state: called by the capture thread, when the state changes.
    """

    live = True
    stills = False
    frames_total: int | None = None

    def __init__(
        self,
        name: str,
        grabber: Grabber,
        *,
        reopen: Callable[[], Grabber] | None = None,
        reconnect: Reconnect | None = None,
        on_state: StateListener | None = None,
    ) -> None:
        self.name = name
        self.fps = grabber.fps
        self.reconnects = 0
        self._reopen = reopen
        self._policy = reconnect or Reconnect()
        self._on_state = on_state
        self._state: CameraState = "connecting"
        self._newest: Handover[Frame] = Handover([True])
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._index = 0
        self._attempts = 0
        self._last_frame_s = time.monotonic()
        self._thread = threading.Thread(target=self._capture, args=(grabber,), name=f"capture {name}", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Frames that were overwritten before they were asked for."""
        return self._newest.replaced[0]

    @property
    def state(self) -> CameraState:
        """What the source does at the moment."""
        silent_s = time.monotonic() - self._last_frame_s
        return "stalled" if self._state == "live" and silent_s > self._policy.stall_s else self._state

    @property
    def remark(self) -> str | None:
        """How often it had to be opened again."""
        times = "once" if self.reconnects == 1 else f"{self.reconnects} times"
        return f"{self.name} fell silent and was opened again {times}" if self.reconnects else None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        taken = self._newest.take()
        if self._stop.is_set():
            raise StopIteration
        if taken is not None:
            return taken[1]
        raise DeviceError(
            f"{self.name} {self._why()}; it was given up {self._silent_s():.1f} s after its last frame: "
            "is it still on and connected?"
        ) from self._failure

    def _capture(self, grabber: Grabber) -> None:
        open_now: Grabber | None = grabber
        try:
            while open_now is not None:
                self._read(open_now)
                open_now.close()  # here, because a capture may not be released while it is being read
                open_now = self._opened_again()
        except Exception as failure:  # belongs to the consumer, who sees it when asking for the next frame
            self._failure = failure
        finally:
            if not self._stop.is_set():
                self._enter("lost", self._why())
            self._newest.end(0)

    def _read(self, grabber: Grabber) -> None:
        """Take frames for as long as there are any."""
        self._failure = None
        while not self._stop.is_set():
            try:
                image = grabber.grab()
            except (DeviceError, cv2.error) as failure:
                self._failure, image = failure, None
            if image is None:
                return
            self._newest.put(0, frame_now(image, self._index, self.name))
            self._index += 1
            self._attempts = 0
            self._last_frame_s = time.monotonic()
            if self._state != "live":
                self._enter("live", f"frames of {image.shape[1]}x{image.shape[0]} px")

    def _opened_again(self) -> Grabber | None:
        """Open the source once more, as often as it takes; None where it was closed or given up."""
        if self._reopen is None:
            return None
        while not self._stop.is_set():
            allowed_s = self._policy.give_up_s
            if allowed_s is not None and self._silent_s() >= allowed_s:
                return None
            self._enter("connecting", self._why())
            if self._attempts:  # the first comes at once
                self._stop.wait(self._policy.wait_s(self._attempts))
            self._attempts += 1
            try:
                grabber = self._reopen()
            except DeviceError as failure:
                self._failure = failure
            else:
                self.reconnects += 1
                return grabber
        return None

    def _silent_s(self) -> float:
        return time.monotonic() - self._last_frame_s

    def _why(self) -> str:
        if self._failure is None:
            return f"ended, or gave no frame in {self._policy.stall_s:g} s"
        return str(self._failure).removeprefix(f"{self.name} ")  # an error names the source itself

    def _enter(self, state: CameraState, why: str) -> None:
        if state != self._state:
            self._state = state
            if self._on_state is not None:
                self._on_state(state, why)

    def close(self) -> None:
        """Stop capturing; a read that hangs ends by itself at its timeout. A second call does nothing."""
        self._stop.set()
        self._newest.stop()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_url(
    url: str, *, reconnect: Reconnect | None = None, on_state: StateListener | None = None
) -> LiveCamera | VideoCamera:
    """A network stream; a recording that a web server holds (its length is known) is read as a file is.

    Raises:
        DeviceError: no answer in time, refused, or no video there.
    """
    policy, name = reconnect or Reconnect(), redacted(url)
    capture = _open_stream(url, policy)
    over_http = url.lower().startswith("http")
    if over_http and declared_frames(capture) is not None:
        return VideoCamera(name, capture)

    # MJPEG over HTTP declares no rate: what OpenCV reports is FFmpeg's default of 25
    def grabber(opened: cv2.VideoCapture) -> OpenCvGrabber:
        opened.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return OpenCvGrabber(opened, fps=None if over_http else declared_fps(opened))

    return LiveCamera(
        name,
        grabber(capture),
        reopen=lambda: grabber(_open_stream(url, policy)),
        reconnect=policy,
        on_state=on_state,
    )


def _open_stream(url: str, policy: Reconnect) -> cv2.VideoCapture:
    stall_ms = round(policy.stall_s * 1000)
    capture = open_video(
        url, [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, stall_ms]
    )
    if not capture.isOpened():
        raise DeviceError(
            f"{redacted(url)} does not open (waited at most {OPEN_TIMEOUT_MS / 1000:g} s): "
            "is the address right, the login accepted, and the server there?"
        )
    return capture


def open_device(
    source: int | str, *, reconnect: Reconnect | None = None, on_state: StateListener | None = None
) -> LiveCamera:
    """A camera of this machine, by index or by path (/dev/videoN).

    Raises:
        DeviceError: it is not there, is in use, or is not a camera.
    """
    name = f"camera {source}" if isinstance(source, int) else source
    return LiveCamera(
        name,
        _open_driver(source, name),
        reopen=lambda: _open_driver(source, name),
        reconnect=reconnect,
        on_state=on_state,
    )


def _open_driver(source: int | str, name: str) -> OpenCvGrabber:
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    with quiet():
        capture = cv2.VideoCapture(source, backend)
    if not capture.isOpened():
        raise DeviceError(f"{name} does not open: {_why_not(source)}")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the thread keeps the newest; a driver's queue would only age
    return OpenCvGrabber(capture, fps=declared_fps(capture))


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
