"""Statistics of the last seconds, in constant memory: percentiles, a rate, and growth of counters."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

RECENT_S: Final = 60.0
_CAPACITY: Final = 4096  # a minute at 68 per second; at higher rates, the newest
# Samples that a percentile needs before it is shown, at 99 % confidence: as in `edgecnn.measure.latency`.
NEEDED: Final = {50: 11, 90: 64, 99: 662}


@dataclass(frozen=True, kw_only=True)
class RecentFigures:
    """Statistics of durations that ended in the last seconds.

    Attributes:
        count: how many.
        rate_hz: how many per second.
        p50_ms, p90_ms, p99_ms: percentiles by nearest rank; None with fewer than 11, 64, 662 durations.
        median_ms, longest_ms: from any number of durations; None without any.
    """

    count: int
    rate_hz: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    median_ms: float | None
    longest_ms: float | None


class RecentDurations:
    """The newest 4096 durations and when they ended."""

    def __init__(self) -> None:
        self._count = 0
        self._ended_ns = np.zeros(_CAPACITY, np.int64)
        self._durations_ns = np.zeros(_CAPACITY, np.int64)
        self._adding = threading.Lock()

    def add(self, duration_ns: int) -> None:
        """Add a duration that ends now; from any thread."""
        with self._adding:
            place = self._count % _CAPACITY
            self._ended_ns[place] = time.monotonic_ns()
            self._durations_ns[place] = duration_ns
            self._count += 1

    def figures(self, over_s: float = RECENT_S) -> RecentFigures:
        """Durations that ended in the last `over_s` seconds, as far as the newest 4096 reach back."""
        with self._adding:
            count, now_ns = self._count, time.monotonic_ns()
            kept = min(count, _CAPACITY)
            ended_ns, durations_ns = self._ended_ns[:kept].copy(), self._durations_ns[:kept].copy()
        inside = ended_ns > now_ns - over_s * 1e9
        found = np.sort(durations_ns[inside]) / 1e6
        ms: list[float] = found.tolist()
        return RecentFigures(
            count=len(ms),
            rate_hz=_rate_hz(ended_ns[inside], now_ns, over_s, whole=len(ms) < count),
            p50_ms=_percentile(ms, 50),
            p90_ms=_percentile(ms, 90),
            p99_ms=_percentile(ms, 99),
            median_ms=ms[(len(ms) - 1) // 2] if ms else None,
            longest_ms=ms[-1] if ms else None,
        )


def _rate_hz(ended_ns: NDArray[np.int64], now_ns: int, over_s: float, *, whole: bool) -> float:
    """Ends per second; `whole`: something ended before the first of these, so the time before it counts too."""
    count = len(ended_ns)
    if count == 0:
        return 0.0
    since_first_s = max((now_ns - int(ended_ns.min())) / 1e9, 1e-6)
    if not whole or count == _CAPACITY:
        return (count - 1) / since_first_s
    return count / over_s


def _percentile(sorted_ms: list[float], percent: int) -> float | None:
    if len(sorted_ms) < NEEDED[percent]:
        return None
    return sorted_ms[math.ceil(len(sorted_ms) * percent / 100) - 1]


class RecentGrowth:
    """Growth of counters in the last seconds.

    Args:
        read: returns the counters' totals; called from any thread.
    """

    def __init__(self, read: Callable[[], Mapping[str, int]]) -> None:
        self._read = read
        self._sampling = threading.Lock()
        self._samples: deque[tuple[float, dict[str, int]]] = deque(maxlen=round(RECENT_S) + 2)
        self.sample()

    def sample(self) -> None:
        """Record the current totals; does nothing within a second of the last call."""
        with self._sampling:
            now_s = time.monotonic()
            if not self._samples or now_s - self._samples[-1][0] >= 1.0:
                self._samples.append((now_s, dict(self._read())))

    def growth(self, over_s: float = RECENT_S) -> dict[str, int]:
        """Growth in the last `over_s` seconds, at most 60; exact to a second if `sample` is called every second."""
        self.sample()
        now = self._read()
        with self._sampling:
            start_s = time.monotonic() - over_s
            before = [totals for when_s, totals in self._samples if when_s <= start_s]
            base = before[-1] if before else self._samples[0][1]
        return {name: total - base.get(name, 0) for name, total in now.items()}
