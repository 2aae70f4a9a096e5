"""A live source: a thread reads as fast as frames come, and only the newest one is kept."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, cast

import cv2

from edgecnn.errors import DeviceError
from edgecnn.results import UInt8Array
from edgecnn.runners.live._opencv import quiet
from edgecnn.runners.live.frames import Frame, frame_now, frame_of
from edgecnn.runners.live.handover import Handover
from edgecnn.runners.live.reconnect import CameraState, Reconnect

_CLOSE_TIMEOUT_S = 1.0


class Grabber(Protocol):
    """What a live source owes: frames, one after the other, as they come. Used by one thread at a time.

    Attributes:
        fps: pictures per second, as the source declares them.
        pixel_format: what it sends, in the driver's or codec's words; None where that is not known.
        captured_ns: CLOCK_MONOTONIC when the last picture was taken; None where no better is known than when it came.
    """

    fps: float | None
    pixel_format: str | None
    captured_ns: int | None

    def grab(self) -> UInt8Array | None:
        """Wait for the next picture, uint8 [height, width, 3] BGR, the caller's to keep; None at the end."""
        ...

    def close(self) -> None:
        """Give the device back."""
        ...


class OpenCvGrabber:
    """Frames of a cv2.VideoCapture."""

    captured_ns: int | None = None

    def __init__(self, capture: cv2.VideoCapture, *, fps: float | None) -> None:
        self.fps = fps
        self.pixel_format = declared_format(capture)
        self._capture = capture

    def grab(self) -> UInt8Array | None:
        """The next picture; None at the end, on an error, or when the read timeout passed."""
        with quiet():  # what it would say about a silence, our states say
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
        on_state: called when the state changes, by a thread of the camera's; one call at a time.

    Attributes:
        fps: as the source declares it, and as it did when it was opened last.
        pixel_format: what it sends ("MJPG", "h264"), where that is known.
        size_px: width and height of the newest frame; None before the first.
        reconnects: how often it was opened again.
        notice: where the source is not as it was asked to be, what it is instead.
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
        notice: str | None = None,
    ) -> None:
        self.name = name
        self.fps = grabber.fps
        self.pixel_format = grabber.pixel_format
        self.size_px: tuple[int, int] | None = None
        self.reconnects = 0
        self.notice = notice
        self._reopen = reopen
        self._policy = reconnect or Reconnect()
        self._on_state = on_state
        self._state: CameraState = "connecting"
        self._changing = threading.Lock()
        self._newest: Handover[Frame] = Handover([True])
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._index = 0
        self._attempts = 0
        self._last_frame_s = time.monotonic()
        self._threads = [
            threading.Thread(target=self._capture, args=(grabber,), name=f"capture {name}", daemon=True),
            threading.Thread(target=self._notice_silence, name=f"silence {name}", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def dropped(self) -> int:
        """Frames that were overwritten before they were asked for."""
        return self._newest.replaced[0]

    @property
    def state(self) -> CameraState:
        """What the source does at the moment."""
        return self._state

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
            self._newest.put(0, self._frame(image, grabber.captured_ns))
            self._index += 1
            self._attempts = 0
            self._last_frame_s = time.monotonic()
            if self._state != "live":
                self.fps, self.pixel_format = grabber.fps, grabber.pixel_format
                self._enter("live", f"frames of {image.shape[1]}x{image.shape[0]} px")

    def _frame(self, image: UInt8Array, captured_ns: int | None) -> Frame:
        self.size_px = (image.shape[1], image.shape[0])
        if captured_ns is None:
            return frame_now(image, self._index, self.name)
        return frame_of(image, self._index, self.name, captured_ns=captured_ns)

    def _notice_silence(self) -> None:
        """Say that the source is stalled, also while a read hangs; wakes up once in `stall_s` while frames come."""
        stall_s = self._policy.stall_s
        wait_s = stall_s
        while not self._stop.wait(wait_s) and self._state != "lost":
            silent_s = self._silent_s()
            if silent_s >= stall_s:
                self._enter("stalled", f"no frame in {stall_s:g} s", only_from="live")
            wait_s = stall_s - silent_s if silent_s < stall_s else stall_s

    def _opened_again(self) -> Grabber | None:
        """Open the source once more, as often as it takes; None where it was closed or given up."""
        if self._reopen is None:
            return None
        if self._silent_s() >= self._policy.stall_s:
            self._enter("stalled", f"no frame in {self._policy.stall_s:g} s", only_from="live")
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

    def _enter(self, state: CameraState, why: str, *, only_from: CameraState | None = None) -> None:
        with self._changing:
            if state == self._state or only_from not in (None, self._state):
                return
            self._state = state
            if self._on_state is not None:
                self._on_state(state, why)

    def close(self) -> None:
        """Stop capturing; a read that hangs ends by itself at its timeout. A second call does nothing."""
        self._stop.set()
        self._newest.stop()
        for thread in self._threads:
            if thread is not threading.current_thread():  # a listener may close the camera
                thread.join(_CLOSE_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def declared_format(capture: cv2.VideoCapture) -> str | None:
    """The four characters of what a capture's source sends, as far as it says."""
    number = capture.get(cv2.CAP_PROP_FOURCC)
    if not math.isfinite(number) or number <= 0:
        return None
    code = (int(number) & 0xFFFFFFFF).to_bytes(4, "little").decode("ascii", errors="replace").rstrip("\0 ")
    return code if code.isascii() and code.isprintable() and code else None
