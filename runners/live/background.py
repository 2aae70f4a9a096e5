"""The loop in the background: results by callback, or the newest one whenever somebody looks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from edgecnn.results import Result
from edgecnn.runners.live.camera import Camera
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.loop import Answer, FrameRunner, LiveCounters, Pipeline

ResultListener = Callable[[Frame, Result], None]


class LiveLoop:
    """A loop that runs in threads of its own; `start_live` makes it. A context manager, which stops it.

    Attributes:
        counters: what it did so far.
    """

    def __init__(self, pipeline: Pipeline, on_result: ResultListener | None) -> None:
        self.counters = pipeline.counters
        self._pipeline, self._on_result = pipeline, on_result
        self._newest: Answer | None = None
        self._failure: Exception | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._deliver, name="live", daemon=True)
        self._thread.start()

    def newest(self) -> tuple[Frame, Result] | None:
        """The newest frame that was answered, and its result, at once; None while there is none.

        `Frame.age_ns` says how old it is at the moment: a source that fell silent shows there.

        Raises:
            DataError, DeviceError: the source or the network failed, and there will be no more.
            Exception: what `on_result` raised, which ended the loop.
        """
        if self._failure is not None:
            raise self._failure
        return self._newest

    @property
    def ended(self) -> bool:
        """Whether there will be no more results: the recording is over, something failed, or it was stopped."""
        return self._ended.is_set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False where it didn't come in time.

        Raises:
            Exception: as `newest`.
        """
        there = self._ended.wait(timeout_s)
        if self._failure is not None:
            raise self._failure
        return there

    def stop(self) -> None:
        """End it; when this returns, `on_result` is not called any more, and camera and runner may be closed.

        A second call does nothing. `on_result` may call it too.
        """
        self._pipeline.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _deliver(self) -> None:
        try:
            for frame, result in self._pipeline.results():
                self._newest = (frame, result)
                with self._pipeline.delivery(frame):
                    if self._on_result is not None:
                        self._on_result(frame, result)
        except Exception as failure:  # belongs to whoever asks next
            self._failure = failure
        finally:
            self._pipeline.stop()
            self._ended.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_live(
    camera: Camera | Sequence[Camera],
    runner: FrameRunner | Sequence[FrameRunner],
    *,
    on_result: ResultListener | None = None,
    max_age_ms: float | None = None,
    counters: LiveCounters | None = None,
) -> LiveLoop:
    """Begin `live` in the background and return at once: for programs that have a rhythm of their own.

    Args:
        camera, runner, max_age_ms, counters: as for `live`.
        on_result: called with each frame and its result, by one thread of the loop, never twice at once. While it
            works, results of a live camera give way to newer ones, and those of a recording wait. What it raises ends
            the loop.

    Returns:
        The loop: ask it for the `newest` result, `wait` for its end, `stop` it.

    Raises:
        SpecError: max_age_ms is not positive.
    """
    return LiveLoop(Pipeline(camera, runner, max_age_ms=max_age_ms, counters=counters), on_result)
