"""What a loop did so far, counted stage by stage."""

from __future__ import annotations

import math
import threading
import time
from typing import Final

import numpy as np

from edgecnn.runners.live.loop.recent import RecentDurations, RecentGrowth

STAGES: Final = ("capture", "fit", "infer", "finish", "deliver")
STUCK_S: Final = 30.0
NEWEST_S: Final = 5.0
_STEP = math.log(1.01)
_FASTEST_NS = 100
_BUCKETS = int(math.log(1e4 * 1e9 / _FASTEST_NS) / _STEP)


class Durations:
    """Percentiles of any number of durations in constant memory, to 1 % (from 100 ns to 10,000 s).

    Attributes:
        count, total_ns: number and sum of all durations.
        newest: those of the last minute.

    Args:
        total: gets them too.
    """

    def __init__(self, total: Durations | None = None) -> None:
        self._total = total
        self.count = 0
        self.total_ns = 0
        self.newest = RecentDurations()
        self._counting = threading.Lock()
        self._buckets = np.zeros(_BUCKETS + 1, np.int64)

    def add(self, duration_ns: int) -> None:
        """Add one duration; may be called from any thread."""
        bucket = int(math.log(max(duration_ns, _FASTEST_NS) / _FASTEST_NS) / _STEP)
        with self._counting:
            self.count += 1
            self.total_ns += duration_ns
            self._buckets[min(bucket, _BUCKETS)] += 1
        self.newest.add(duration_ns)
        if self._total is not None:
            self._total.add(duration_ns)

    def at_most(self, duration_ns: int) -> int:
        """Number of durations up to this one, accurate to 1 % of it."""
        end = round(math.log(max(duration_ns, _FASTEST_NS) / _FASTEST_NS) / _STEP)
        return int(self._buckets[: min(end, _BUCKETS)].sum())

    def percentile_ms(self, percent: float) -> float:
        """The duration that `percent` of all don't exceed; NaN while there are none."""
        if self.count == 0:
            return math.nan
        rank = max(1, math.ceil(self.count * percent / 100))
        bucket = int(np.searchsorted(np.cumsum(self._buckets), rank))
        return _FASTEST_NS * math.exp((bucket + 0.5) * _STEP) / 1e6


class LiveCounters:
    """What a loop has done so far.

    Attributes:
        frames: number of results that were delivered.
        stages: durations by stage. "capture" is the wait for a frame (for a file, reading it), "deliver" everything
            that the consumer does with a result.
        age: time from capture to delivery of the result.
        dropped: dropped frames by reason: "infer": a newer frame came before the network was
            free; "deliver": a newer result came before the consumer was free; "late": the frame was older
            than `max_age_ms`. Frames dropped by the camera are in `Camera.dropped`.
        recently_dropped: increase of `dropped` in the last minute.
        expected_since_s: monotonic time since which results are expected; infinite while the loop is paused.

    Args:
        total: counts frames and durations too, those of several loops together; what was dropped is not among them.
    """

    def __init__(self, total: LiveCounters | None = None) -> None:
        self.frames = 0
        self._total = total
        self._counting = threading.Lock()
        self.stages: dict[str, Durations] = {
            stage: Durations(total.stages[stage] if total else None) for stage in STAGES
        }
        self.age: Durations = Durations(total.age if total else None)
        self.expected_since_s = 0.0
        self.dropped = {"infer": 0, "deliver": 0, "late": 0}
        self.recently_dropped = RecentGrowth(lambda: self.dropped)

    def results_expected_since(self, when_s: float) -> None:
        """Expect results from this monotonic time on only."""
        self.expected_since_s = when_s
        if self._total is not None:
            self._total.results_expected_since(when_s)

    def count_frame(self) -> None:
        """Count one delivered result."""
        with self._counting:
            self.frames += 1
        if self._total is not None:
            self._total.count_frame()


def why_stuck(counters: LiveCounters, *, since_s: float) -> str | None:
    """Why a program should be restarted: frames come, but none gets a result for 30 s; None where that is not so.

    Args:
        counters: of the loop.
        since_s: time since the loop began.
    """
    capture, infer = counters.stages["capture"].newest, counters.stages["infer"].newest
    waiting = capture.figures(STUCK_S).count - capture.figures(STUCK_S - NEWEST_S).count
    since_s = min(since_s, time.monotonic() - counters.expected_since_s)
    if waiting and not infer.figures(STUCK_S).count and since_s > STUCK_S:
        return f"frames come, but the network has given no result for {STUCK_S:g} s"
    return None
