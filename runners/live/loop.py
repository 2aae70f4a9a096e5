"""The loop: frames of a camera through a runner, and what it cost."""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from typing import Final, Protocol

import numpy as np

from edgecnn.results import Result, UInt8Array
from edgecnn.runners.base import StageTimes
from edgecnn.runners.live.camera import Camera
from edgecnn.runners.live.frames import Frame

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
    """Percentiles of any number of durations in constant memory, to 1 % (from 100 ns to 10,000 s)."""

    def __init__(self) -> None:
        self.count = 0
        self.total_ns = 0
        self._buckets = np.zeros(_BUCKETS + 1, np.int64)

    def add(self, duration_ns: int) -> None:
        """Count one duration."""
        self.count += 1
        self.total_ns += duration_ns
        bucket = int(math.log(max(duration_ns, _FASTEST_NS) / _FASTEST_NS) / _STEP)
        self._buckets[min(bucket, _BUCKETS)] += 1

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
    """

    def __init__(self) -> None:
        self.frames = 0
        self.stages = {stage: Durations() for stage in STAGES}
        self.age = Durations()


def live(
    camera: Camera, runner: FrameRunner, *, counters: LiveCounters | None = None
) -> Generator[tuple[Frame, Result], None, None]:
    """Each frame of a camera with what the network says of it; of a live camera, the newest frame only.

    Args:
        camera: what `open_camera` gave; stays open.
        runner: what `open_runner` gave; stays open.
        counters: filled as the loop goes.

    Raises:
        DataError, DeviceError: as the camera and the runner do.
    """
    record = counters or LiveCounters()
    stages = record.stages
    clock = time.perf_counter_ns
    asked = clock()
    for frame in camera:
        stages["capture"].add(clock() - asked)
        result = runner(frame.image)
        times = runner.stage_times
        stages["fit"].add(times.fit_ns)
        stages["infer"].add(times.infer_ns)
        stages["finish"].add(times.finish_ns)
        record.age.add(frame.age_ns)
        record.frames += 1
        handed_over = clock()
        try:
            yield frame, result
        finally:  # also where the consumer leaves the loop here
            asked = clock()
            stages["deliver"].add(asked - handed_over)
