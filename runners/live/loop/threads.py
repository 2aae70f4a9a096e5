"""The threads of a loop: one for each camera, which waits for its frames, and one for the network."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol, TypeAlias

from edgecnn.errors import SpecError
from edgecnn.results import Result
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.loop.handover import Handover
from edgecnn.runners.runner import StageTimes

_log = logging.getLogger(__name__)
_PAUSE_S: Final = 0.05


class FrameRunner(Protocol):
    """The part of a runner that the loop uses."""

    @property
    def stage_times(self) -> StageTimes:
        """Stage times of the last call."""
        ...

    def __call__(self, frame: Frame, /) -> Result:
        """The network's result for one frame."""
        ...


Answer: TypeAlias = tuple[Frame, Result]
ErrorListener: TypeAlias = Callable[[BaseException], None]


def log_error(failure: BaseException) -> None:
    """Write a failure to the program's log."""
    _log.error("the live loop: %s: %s", type(failure).__name__, failure)


def check_listener(name: str, listener: Callable[..., object] | None) -> None:
    """See that a listener does its work when it is called.

    Raises:
        SpecError: it is a coroutine function, whose calls would do nothing, or nothing that can be called.
    """
    if listener is None:
        return
    if not callable(listener):
        raise SpecError(f"{name}: expected a function, got {type(listener).__name__}")
    if inspect.iscoroutinefunction(listener) or inspect.iscoroutinefunction(type(listener).__call__):
        raise SpecError(f"{name}: expected a function, got a coroutine function: use live_async and await it there")


class LoopThreads:
    """The threads of a loop: one for each camera, which waits for its frames, and one for the network.

    Args:
        camera, runner, max_age_ms, counters: as for `live`.
        on_answer: called in a thread of the loop when there is something to take, or when the loop has ended.
        on_error, on_remark: as for `live`.
        paused: while it is set, frames of live cameras are passed over, and a recording waits.

    Attributes:
        counters: what the loop has done so far.
        failures: exceptions of cameras and the network; the first is raised at the end.

    Raises:
        SpecError: max_age_ms is not positive, or the number of runners is neither one nor the number of cameras.
    """

    def __init__(
        self,
        camera: Camera | Sequence[Camera],
        runner: FrameRunner | Sequence[FrameRunner],
        *,
        max_age_ms: float | None = None,
        counters: LiveCounters | None = None,
        on_answer: Callable[[], None] | None = None,
        on_error: ErrorListener | None = None,
        on_remark: Callable[[str], None] | None = None,
        paused: threading.Event | None = None,
    ) -> None:
        check_listener("on_error", on_error)
        if max_age_ms is not None and not max_age_ms > 0:
            raise SpecError(f"max_age_ms: expected a positive number, got {max_age_ms}")
        cameras = list(camera) if isinstance(camera, Sequence) else [camera]
        runners = list(runner) if isinstance(runner, Sequence) else [runner] * len(cameras)
        if len(runners) != len(cameras):
            raise SpecError(f"{len(cameras)} cameras need one runner or one for each, got {len(runners)}")
        self.counters = counters or LiveCounters()
        self._cameras, self._runners = cameras, runners
        self._max_age_ns = math.inf if max_age_ms is None else max_age_ms * 1e6
        lives = [camera.live for camera in cameras]
        self._frames: Handover[Frame] = Handover(lives)
        self._answers: Handover[Answer] = Handover(lives, on_change=on_answer)
        self.failures: list[BaseException] = []
        self._untold: list[BaseException] = []
        self._on_error = on_error
        self._on_remark = on_remark or _log.warning
        self._free = threading.Lock()  # held while the network runs
        self._counting = threading.Lock()
        self._paused = paused or threading.Event()
        self._stopped = False
        self._watchers = [
            threading.Thread(target=self._watch, args=(index,), name=f"watch {camera.name}", daemon=True)
            for index, camera in enumerate(cameras)
        ]
        self._threads = (*self._watchers, threading.Thread(target=self._infer, name="infer", daemon=True))
        for thread in self._threads:
            thread.start()

    def results(self) -> Iterator[Answer]:
        """Wait for each result until there are no more."""
        while (taken := self._answers.take()) is not None:
            sender, answer = taken
            if not self._late(sender, answer[0]):
                yield answer
        self._raise_failure()

    def result_now(self) -> Answer | None:
        """The next result, if there is one; see `over`."""
        while (taken := self._answers.take_now()) is not None:
            sender, answer = taken
            if not self._late(sender, answer[0]):
                return answer
        return None

    def over(self) -> bool:
        """Whether all results were delivered and no more will come.

        Raises:
            DataError, DeviceError: the failure that ended the results.
        """
        ended = self._answers.ended
        if ended:
            self._raise_failure()
        return ended

    @contextlib.contextmanager
    def delivery(self, frame: Frame) -> Iterator[None]:
        """Context for the consumer's work on a frame's result: measures its duration."""
        self.counters.age.add(frame.age_ns)
        self.counters.count_frame()
        self.counters.recently_dropped.sample()
        handed_over = time.perf_counter_ns()
        try:
            yield
        finally:  # also if the consumer leaves the loop here
            self.counters.stages["deliver"].add(time.perf_counter_ns() - handed_over)

    def report_failure(self, failure: BaseException) -> None:
        """Report a failure at once: to `on_error`, otherwise to the log."""
        if self._stopped:
            return  # failures while closing are not reported
        if self._on_error is None:
            if len(self._cameras) > 1:
                log_error(failure)
            else:
                self._untold.append(failure)  # the consumer gets it at once, unless it leaves before
            return
        try:
            self._on_error(failure)
        except BaseException:  # it must not end the thread that still has something to say
            _log.exception("on_error raised an exception while it handled %s: %s", type(failure).__name__, failure)

    def _raise_failure(self) -> None:
        if self.failures:
            self._untold.clear()
            raise self.failures[0]

    def stop(self) -> None:
        """Stop; returns when the network and the recordings are free and may be closed.

        A thread that waits for a live camera ends with its next frame, or when the camera is closed.
        """
        self._stopped = True
        self._frames.stop()
        self._answers.stop()
        with self._free:
            pass
        for camera, watcher in zip(self._cameras, self._watchers, strict=True):
            # OpenCV hangs if a file is closed while it is being read; `on_error` may stop the loop from that thread
            if not camera.live and watcher is not threading.current_thread():
                watcher.join()
        while self._untold:  # of a consumer that left in the same moment
            log_error(self._untold.pop())

    def is_current_thread(self) -> bool:
        """Whether a thread of the loop asks, as one that calls `on_error`: nobody may wait for its end there."""
        return threading.current_thread() in self._threads

    def _watch(self, index: int) -> None:
        """Hand over a camera's frames."""
        waits, clock = self.counters.stages["capture"], time.perf_counter_ns
        try:
            asked = clock()
            for frame in self._cameras[index]:
                waits.add(clock() - asked)
                if not self._frames.put(index, frame):
                    return
                self._count_replaced()
                asked = clock()
            remark = getattr(self._cameras[index], "remark", None)
            if remark and not self._stopped:
                self._on_remark(remark)
        except BaseException as failure:  # raised to the consumer
            self.failures.append(failure)
            self.report_failure(failure)
        finally:
            self._frames.end(index)

    def _infer(self) -> None:
        """Run the network on the newest frames, camera by camera."""
        stages = self.counters.stages
        try:
            while (taken := self._frames.take()) is not None:
                sender, frame = taken
                if self._late(sender, frame) or self._passed_over(sender):
                    continue
                with self._free:
                    if self._stopped:
                        return
                    result = self._runners[sender](frame)
                    times = self._runners[sender].stage_times
                stages["fit"].add(times.fit_ns)
                stages["infer"].add(times.infer_ns)
                stages["finish"].add(times.finish_ns)
                self._answers.put(sender, (frame, result))
                self._count_replaced()
        except BaseException as failure:  # raised to the consumer
            self.failures.insert(0, failure)  # the network's failure matters more than the cameras'
            self.report_failure(failure)
        finally:
            for sender in range(len(self._cameras)):
                self._answers.end(sender)

    def _passed_over(self, sender: int) -> bool:
        """Whether the loop is paused, for a frame of a live camera; one of a recording waits here."""
        while self._paused.is_set() and not self._stopped:
            if self._cameras[sender].live:
                return True
            time.sleep(_PAUSE_S)
        return False

    def _late(self, sender: int, frame: Frame) -> bool:
        """Whether a frame is too old to be useful; counts it then."""
        late = self._cameras[sender].live and frame.age_ns > self._max_age_ns
        if late:
            with self._counting:  # called in the network's thread and in the consumer's
                self.counters.dropped["late"] += 1
        return late

    def _count_replaced(self) -> None:
        """Count at once, so that a hanging consumer doesn't hide drops."""
        with self._counting:  # counts must never decrease between reads
            self.counters.dropped["infer"] = sum(self._frames.replaced)
            self.counters.dropped["deliver"] = sum(self._answers.replaced)
