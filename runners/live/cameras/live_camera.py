"""A live source: a thread reads frames as fast as they come, and only the newest one is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import cv2

from edgecnn.errors import DeviceError, LoginError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.base import CameraBase
from edgecnn.runners.live.cameras.grabber import FoundRecordingError, Grabber
from edgecnn.runners.live.cameras.kind import Opening
from edgecnn.runners.live.cameras.reconnect import CameraState, Reconnect, StateListener
from edgecnn.runners.live.frame import Frame, frame_now, frame_of
from edgecnn.runners.live.loop.handover import Handover

if TYPE_CHECKING:
    from edgecnn.runners.live.cameras.camera import Camera

CLOSE_S: Final = 0.7  # for a running read; a hanging read ends at its own timeout


class LiveCamera(CameraBase):
    """A live source with a capture thread that keeps the newest frame; opened again when it becomes silent.

    The thread opens the source, also for the first time: a consumer that waits for a frame meanwhile can be
    interrupted.

    Args:
        name: the source's name, without credentials.
        opener: opens it; raises DeviceError where that fails.
        reconnect: when and how often it is opened again.
        on_state: called when the state changes, in one of the camera's threads; one call at a time. An exception from
            it ends the camera, and is raised to the consumer at the next frame.

    Attributes:
        fps: the declared rate, from the last time it was opened.
        pixel_format: what it sends ("MJPG", "h264"), where that is known.
        size_px: width and height of the newest frame; None before the first.
        reconnects: how often it was opened again.
        notice: settings that differ from the requested ones.
    """

    live = True
    stills = False
    frames_total: int | None = None

    def __init__(
        self,
        name: str,
        opener: Callable[[], Grabber],
        *,
        reconnect: Reconnect | None = None,
        on_state: StateListener | None = None,
    ) -> None:
        self.name = name
        self.fps: float | None = None
        self.pixel_format: str | None = None
        self.size_px: tuple[int, int] | None = None
        self.reconnects = 0
        self.notice: str | None = None
        self._opener = opener
        self._policy = reconnect or Reconnect()
        self._on_state = on_state
        self._state: CameraState = "connecting"
        self._reported = False
        self._changing = threading.Lock()
        self._newest: Handover[Frame] = Handover([True])
        self._stop = threading.Event()
        self._first_attempt = threading.Event()  # set after the first attempt to open it
        self._opened_once = False
        self._failure: Exception | None = None  # of the source, which is tried again
        self._end: BaseException | None = None  # what ended the camera
        self._index = 0
        self._attempts = 0
        self._last_frame_s = time.monotonic()
        self._threads = [
            threading.Thread(target=self._capture, name=f"capture {name}", daemon=True),
            threading.Thread(target=self._check_silence, name=f"silence {name}", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def wait_for_first_attempt(self) -> Camera:
        """Wait for the first attempt to open the source, successful or not.

        Returns:
            The camera, open or waiting for its source; another one if the source is a recording.

        Raises:
            DeviceError: the source does not open, and `reconnect` does not wait for it.
        """
        self._first_attempt.wait()
        if isinstance(self._end, FoundRecordingError):
            return self._end.camera
        if self._end is not None:
            raise self._end
        return self

    @property
    def dropped(self) -> int:
        """Frames that were replaced before they were taken."""
        return self._newest.replaced[0]

    @property
    def state(self) -> CameraState:
        """The source's current state."""
        return self._state

    @property
    def remark(self) -> str | None:
        """How often it had to be opened again."""
        times = "once" if self.reconnects == 1 else f"{self.reconnects} times"
        return f"{self.name} became silent and was opened again {times}" if self.reconnects else None

    def __next__(self) -> Frame:
        taken = self._newest.take()
        if self._stop.is_set():
            raise StopIteration
        if taken is not None:
            return taken[1]
        if isinstance(self._end, FoundRecordingError):
            raise DeviceError(f"{self.name} now answers, but as a recording, not a stream: start the run again")
        if self._end is not None:
            raise self._end
        last = "its last frame" if self._index else "the first request"
        raise DeviceError(
            f"{self.name} {self._why()}; it was given up {self._silent_s():.1f} s after {last}: "
            "check that it is switched on and connected"
        ) from self._failure

    def _capture(self) -> None:
        try:
            while (grabber := self._opened()) is not None:
                self._read(grabber)
                grabber.close()  # in this thread, because a capture may not be released while it is being read
        except BaseException as end:  # raised to the consumer at the next frame
            self._end = end
            if isinstance(end, FoundRecordingError) and (self._stop.is_set() or self._first_attempt.is_set()):
                end.camera.close()  # nobody will use it
        finally:
            try:
                if not self._stop.is_set() and self._first_attempt.is_set():
                    self._enter("lost", str(self._end) if self._end is not None else self._why())
            except Exception as fault:  # raised by the listener
                self._end = self._end or fault
            finally:
                self._newest.end(0)
                self._first_attempt.set()

    def _read(self, grabber: Grabber) -> None:
        """Read frames until there are none."""
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

    def _check_silence(self) -> None:
        """Report a stalled source, even while a read hangs; wakes up once in `stall_s` while frames come."""
        stall_s = self._policy.stall_s
        wait_s = stall_s
        try:
            while not self._stop.wait(wait_s) and self._state != "lost":
                silent_s = self._silent_s()
                if silent_s >= stall_s:
                    self._enter("stalled", f"no frame in {stall_s:g} s", only_from="live")
                wait_s = stall_s - silent_s if silent_s < stall_s else stall_s
        except Exception as fault:  # raised by the listener
            self._end = fault
            self._newest.end(0)

    def _opened(self) -> Grabber | None:
        """Open the source, with repeated attempts; None if the camera was closed or the source given up."""
        if self._opened_once and self._silent_s() >= self._policy.stall_s:
            self._enter("stalled", f"no frame in {self._policy.stall_s:g} s", only_from="live")
        allowed_s = self._policy.give_up_s
        while not self._stop.is_set():
            tried_before = self._first_attempt.is_set()
            if tried_before:
                if allowed_s is not None and self._silent_s() >= allowed_s:
                    return None
                self._enter("connecting", self._why())
                if self._attempts:  # no wait before the first attempt
                    self._stop.wait(self._policy.wait_s(self._attempts))
                    if self._stop.is_set():
                        return None
            self._attempts += 1
            try:
                grabber = self._opener()
            except DeviceError as failure:
                self._failure = failure
                given_up = allowed_s is not None and self._silent_s() >= allowed_s
                if not tried_before and (given_up or isinstance(failure, LoginError)):
                    raise
            else:
                self.reconnects += self._opened_once
                self._opened_once = True
                self.fps, self.pixel_format, self.notice = grabber.fps, grabber.pixel_format, grabber.notice
                self._first_attempt.set()
                return grabber
            self._first_attempt.set()
        return None

    def _silent_s(self) -> float:
        return time.monotonic() - self._last_frame_s

    def _why(self) -> str:
        if self._failure is None:
            return f"ended, or gave no frame in {self._policy.stall_s:g} s"
        return str(self._failure).removeprefix(f"{self.name} ")  # the error already names the source

    def _enter(self, state: CameraState, why: str, *, only_from: CameraState | None = None) -> None:
        with self._changing:
            if (state == self._state and self._reported) or only_from not in (None, self._state):
                return
            self._state, self._reported = state, True
            if self._on_state is not None:
                self._on_state(state, why)

    def stop(self) -> None:
        """Ask the threads to stop; `close` waits for them."""
        self._stop.set()
        self._newest.stop()

    def close(self, *, timeout_s: float = CLOSE_S) -> None:
        """Stop capturing; a hanging read ends at its own timeout. A second call does nothing."""
        self.stop()
        end_s = time.monotonic() + timeout_s
        for thread in self._threads:
            if thread is not threading.current_thread():  # a listener may close the camera
                thread.join(max(0.0, end_s - time.monotonic()))


def open_live(opening: Opening, opener: Callable[[], Grabber]) -> Camera:
    """A live source, open or being waited for; a recording if the opener finds one.

    Args:
        opening: how it is opened.
        opener: opens it. Raises DeviceError where that fails, `FoundRecordingError` where it is not live.

    Raises:
        DeviceError: it doesn't open, and `reconnect` does not wait for it, or it refuses the login.
    """
    camera = LiveCamera(opening.name, opener, reconnect=opening.reconnect, on_state=opening.on_state)
    try:
        found = camera.wait_for_first_attempt()
    except BaseException:
        camera.close(timeout_s=0.0)
        raise
    if found is not camera:
        camera.close()
    return found
