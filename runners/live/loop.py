"""The loop: frames of a camera through a runner, and what it cost."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Final, Protocol, TypeAlias

import numpy as np

from edgecnn.errors import SpecError
from edgecnn.results import Result, UInt8Array
from edgecnn.runners.base import StageTimes
from edgecnn.runners.live.camera import Camera
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.handover import Handover
from edgecnn.runners.live.window import SlidingTotals, SlidingWindow

STAGES: Final = ("capture", "fit", "infer", "finish", "deliver")
_STEP = math.log(1.01)
_FASTEST_NS = 100
_BUCKETS = int(math.log(1e4 * 1e9 / _FASTEST_NS) / _STEP)


class FrameRunner(Protocol):
    """What the loop wants of a runner."""

    @property
    def stage_times(self) -> StageTimes:
        """Of the last call."""
        ...

    def __call__(self, image: UInt8Array) -> Result:
        """What the network says of one picture, uint8 [height, width, 3] BGR."""
        ...


class Durations:
    """Percentiles of any number of durations in constant memory, to 1 % (from 100 ns to 10,000 s).

    Attributes:
        count, total_ns: of all.
        window: the newest ones.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total_ns = 0
        self.window = SlidingWindow()
        self._counting = threading.Lock()
        self._buckets = np.zeros(_BUCKETS + 1, np.int64)

    def add(self, duration_ns: int) -> None:
        """Count one duration; from any thread."""
        bucket = int(math.log(max(duration_ns, _FASTEST_NS) / _FASTEST_NS) / _STEP)
        with self._counting:
            self.count += 1
            self.total_ns += duration_ns
            self._buckets[min(bucket, _BUCKETS)] += 1
        self.window.add(duration_ns)

    def at_most(self, duration_ns: int) -> int:
        """How many durations did not exceed this one, to 1 % of it."""
        end = round(math.log(max(duration_ns, _FASTEST_NS) / _FASTEST_NS) / _STEP)
        return int(self._buckets[: min(end, _BUCKETS)].sum())

    def percentile_ms(self, percent: float) -> float:
        """The duration that `percent` of all don't exceed; NaN while there is none."""
        if self.count == 0:
            return math.nan
        rank = max(1, math.ceil(self.count * percent / 100))
        bucket = int(np.searchsorted(np.cumsum(self._buckets), rank))
        return _FASTEST_NS * math.exp((bucket + 0.5) * _STEP) / 1e6


class LiveCounters:
    """What a loop did so far.

    Attributes:
        frames: results that were handed over.
        stages: durations by stage. "capture" is the wait for a frame (reading it, for a file), "deliver" all
            that the consumer does with a result.
        age: from capture to the moment the result is handed over.
        dropped: frames by where they were passed over: "infer", because a newer one was there before the network was
            free; "deliver", because a newer result was there before the consumer was; "late", because they were older
            than `max_age_ms`. What the camera dropped by itself is in `Camera.dropped`.
        recently_dropped: by how much `dropped` grew in the last minute.
    """

    def __init__(self) -> None:
        self.frames = 0
        self.stages = {stage: Durations() for stage in STAGES}
        self.age = Durations()
        self.dropped = {"infer": 0, "deliver": 0, "late": 0}
        self.recently_dropped = SlidingTotals(lambda: self.dropped)


def live(
    camera: Camera | Sequence[Camera],
    runner: FrameRunner | Sequence[FrameRunner],
    *,
    max_age_ms: float | None = None,
    counters: LiveCounters | None = None,
) -> Generator[tuple[Frame, Result], None, None]:
    """Each frame of a camera with what the network says of it; of a live camera, the newest frame only.

    Capture, inference and what the consumer does with a result go on side by side, each in a thread of its own: while
    one result is looked at, the next is being made. Of a live camera nothing waits in between: what is not taken in
    time gives way to what is newer, and is counted. Of a recording nothing is lost; up to three frames are read ahead,
    which are gone when the loop is left early.

    Args:
        camera: what `open_camera` gave; stays open. Of several, each gets its turn, and a frame says where it is from
            (`Frame.source`).
        runner: what `open_runner` gave; stays open, and is this loop's alone until it ends. One for all cameras, or
            one for each, as where objects are tracked; they are never called at the same time.
        max_age_ms: results of frames that are older are dropped rather than handed over late; only of live cameras.
        counters: filled as the loop goes.

    Raises:
        DataError, DeviceError: as the camera and the runner do; of several cameras, when the last has ended.
        SpecError: max_age_ms is not positive, or there are runners for another number of cameras.
    """
    pipeline = Pipeline(camera, runner, max_age_ms=max_age_ms, counters=counters)
    try:
        for frame, result in pipeline.results():
            with pipeline.delivery(frame):
                yield frame, result
    finally:
        pipeline.stop()


Answer: TypeAlias = tuple[Frame, Result]


class Pipeline:
    """The threads of a loop: one for each camera, which waits for its frames, and one for the network.

    Args:
        camera, runner, max_age_ms, counters: as for `live`.
        on_answer: called by a thread of the loop when there is something to take, or when all is over.

    Attributes:
        counters: what the loop did so far.

    Raises:
        SpecError: max_age_ms is not positive, or there are runners for another number of cameras.
    """

    def __init__(
        self,
        camera: Camera | Sequence[Camera],
        runner: FrameRunner | Sequence[FrameRunner],
        *,
        max_age_ms: float | None = None,
        counters: LiveCounters | None = None,
        on_answer: Callable[[], None] | None = None,
    ) -> None:
        if max_age_ms is not None and not max_age_ms > 0:
            raise SpecError(f"max_age_ms must be positive, got {max_age_ms}")
        cameras = list(camera) if isinstance(camera, Sequence) else [camera]
        runners = list(runner) if isinstance(runner, Sequence) else [runner] * len(cameras)
        if len(runners) != len(cameras):
            raise SpecError(f"{len(cameras)} cameras need one runner, or one each, got {len(runners)}")
        self.counters = counters or LiveCounters()
        self._cameras, self._runners = cameras, runners
        self._max_age_ns = math.inf if max_age_ms is None else max_age_ms * 1e6
        lives = [camera.live for camera in cameras]
        self._frames: Handover[Frame] = Handover(lives)
        self._answers: Handover[Answer] = Handover(lives, on_change=on_answer)
        self._failures: list[Exception] = []
        self._free = threading.Lock()  # held while the network works
        self._counting = threading.Lock()
        self._stopped = False
        self._watchers = [
            threading.Thread(target=self._watch, args=(index,), name=f"watch {camera.name}", daemon=True)
            for index, camera in enumerate(cameras)
        ]
        for thread in (*self._watchers, threading.Thread(target=self._infer, name="infer", daemon=True)):
            thread.start()

    def results(self) -> Iterator[Answer]:
        """Wait for each, until there are no more."""
        while (taken := self._answers.take()) is not None:
            sender, answer = taken
            if not self._late(sender, answer[0]):
                yield answer
        self._raise_failure()

    def result_now(self) -> Answer | None:
        """The next, if it is there; see `over`."""
        while (taken := self._answers.take_now()) is not None:
            sender, answer = taken
            if not self._late(sender, answer[0]):
                return answer
        return None

    def over(self) -> bool:
        """Whether there are no more results, and won't be.

        Raises:
            DataError, DeviceError: there won't be, because of this.
        """
        ended = self._answers.ended
        if ended:
            self._raise_failure()
        return ended

    @contextlib.contextmanager
    def delivery(self, frame: Frame) -> Iterator[None]:
        """While the consumer works on the result of this frame: counts it."""
        self.counters.age.add(frame.age_ns)
        self.counters.frames += 1
        self.counters.recently_dropped.sample()
        handed_over = time.perf_counter_ns()
        try:
            yield
        finally:  # also where the consumer leaves the loop here
            self.counters.stages["deliver"].add(time.perf_counter_ns() - handed_over)

    def _raise_failure(self) -> None:
        if self._failures:
            raise self._failures[0]

    def stop(self) -> None:
        """Let go; returns when the network and the recordings are free again, which may be closed then.

        A thread that waits for a live camera ends with its next frame, or when the camera is closed.
        """
        self._stopped = True
        self._frames.stop()
        self._answers.stop()
        with self._free:
            pass
        for camera, watcher in zip(self._cameras, self._watchers, strict=True):
            if not camera.live:  # OpenCV hangs where a file is closed while it is being read
                watcher.join()

    def _watch(self, index: int) -> None:
        """Hand on a camera's frames."""
        waits, clock = self.counters.stages["capture"], time.perf_counter_ns
        try:
            asked = clock()
            for frame in self._cameras[index]:
                waits.add(clock() - asked)
                if not self._frames.put(index, frame):
                    return
                self._count_replaced()
                asked = clock()
        except Exception as failure:
            self._failures.append(failure)
        finally:
            self._frames.end(index)

    def _infer(self) -> None:
        """Answer the newest frames, camera by camera."""
        stages = self.counters.stages
        try:
            while (taken := self._frames.take()) is not None:
                sender, frame = taken
                if self._late(sender, frame):
                    continue
                with self._free:
                    if self._stopped:
                        return
                    result = self._runners[sender](frame.image)
                    times = self._runners[sender].stage_times
                stages["fit"].add(times.fit_ns)
                stages["infer"].add(times.infer_ns)
                stages["finish"].add(times.finish_ns)
                self._answers.put(sender, (frame, result))
                self._count_replaced()
        except Exception as failure:
            self._failures.insert(0, failure)  # without a network, what cameras said is of no interest
        finally:
            for sender in range(len(self._cameras)):
                self._answers.end(sender)

    def _late(self, sender: int, frame: Frame) -> bool:
        """Whether a frame is too old to be of use; counts it then."""
        late = self._cameras[sender].live and frame.age_ns > self._max_age_ns
        if late:
            with self._counting:  # the network's thread and the consumer's both come here
                self.counters.dropped["late"] += 1
        return late

    def _count_replaced(self) -> None:
        """At once, so that a consumer that hangs doesn't hide it."""
        with self._counting:  # a number once read must not come after a later one
            self.counters.dropped["infer"] = sum(self._frames.replaced)
            self.counters.dropped["deliver"] = sum(self._answers.replaced)
