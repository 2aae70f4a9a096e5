"""The live loop in the background: results by callback, or the newest one on request."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from edgecnn.errors import SpecError
from edgecnn.results import Result
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.loop.threads import Answer, ErrorListener, FrameRunner, LoopThreads, check_listener, log_error

if TYPE_CHECKING:
    from typing import Self

ResultListener = Callable[[Frame, Result], object]


class LiveLoop:
    """A loop in separate threads, made by `start_live`. A context manager that stops the loop.

    Attributes:
        counters: what it has done so far.
    """

    def __init__(self, threads: LoopThreads, on_result: ResultListener | None) -> None:
        self.counters = threads.counters
        self._threads, self._on_result = threads, on_result
        self._newest: Answer | None = None
        self._failure: BaseException | None = None
        self._raised = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._deliver, name="live", daemon=True)
        self._thread.start()

    def newest(self) -> tuple[Frame, Result] | None:
        """The newest frame with a result, and that result, without waiting; None while there is none.

        `Frame.age_ns` gives its age now, which also shows that a source became silent.

        Raises:
            DataError, DeviceError: the source or the network failed, and there will be no more results.
            Exception: an exception from `on_result`, which ended the loop.
        """
        self._raise_failure()
        return self._newest

    @property
    def ended(self) -> bool:
        """Whether there will be no more results: the recording has ended, something failed, or the loop was stopped."""
        return self._ended.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False if it didn't come in time.

        Raises:
            Exception: as `newest`.
        """
        there = self._ended.wait(timeout_s)
        self._raise_failure()
        return there

    def stop(self) -> None:
        """End the loop; afterwards, `on_result` is not called any more, and camera and runner may be closed.

        A second call does nothing. `on_result` and `on_error` may call it too; then it doesn't wait for the other.
        """
        self._threads.stop()
        if threading.current_thread() is not self._thread and not self._threads.is_current_thread():
            self._thread.join()

    def _deliver(self) -> None:
        try:
            for frame, result in self._threads.results():
                self._newest = (frame, result)
                with self._threads.delivery(frame):
                    if self._on_result is not None:
                        _check_done(self._on_result(frame, result))
        except BaseException as failure:  # raised at the next request
            self._failure = failure
            if failure not in self._threads.failures:  # the threads have already reported those
                self._threads.report_failure(failure)
        finally:
            self._threads.stop()
            self._ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the loop.

        Raises:
            DataError, DeviceError, Exception: what ended the loop, unless it was raised before or another exception
                leaves the block.
        """
        self.stop()
        if error is None and not self._raised:
            self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            self._raised = True
            raise self._failure


def _check_done(returned: object) -> None:
    """Raise SpecError if a callback has left its work to somebody who awaits it."""
    if returned is not None and inspect.isawaitable(returned):
        if inspect.iscoroutine(returned):
            returned.close()
        raise SpecError(
            "on_result: expected a function that does its work, got one that returns an awaitable: use live_async"
        )


def start_live(
    camera: Camera | Sequence[Camera],
    runner: FrameRunner | Sequence[FrameRunner],
    *,
    on_result: ResultListener | None = None,
    on_error: ErrorListener | None = None,
    max_age_ms: float | None = None,
    counters: LiveCounters | None = None,
) -> LiveLoop:
    """Start `live` in the background and return at once, for programs with their own main loop.

    Args:
        camera, runner, max_age_ms, counters: as for `live`.
        on_result: called with each frame and its result, in one thread of the loop, one call at a time. While it runs,
            results of a live camera are replaced by newer ones, and those of a recording wait. An exception from it
            ends the loop and is reported as any failure: at once to `on_error`, and to the caller who requests the
            newest result, waits for the end or leaves the block.
        on_error: called at once, in a thread of the loop, with an exception from `on_result`, a camera or the network;
            by default it is logged. With several cameras, the others continue when one has failed.

    Returns:
        The loop: request its `newest` result, `wait` for its end, or `stop` it.

    Raises:
        SpecError: max_age_ms is not positive, or a callback is a coroutine function.
    """
    check_listener("on_result", on_result)
    threads = LoopThreads(camera, runner, max_age_ms=max_age_ms, counters=counters, on_error=on_error or log_error)
    return LiveLoop(threads, on_result)
