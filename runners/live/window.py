"""What was the case lately: percentiles, a rate and growth over a window that slides, in constant memory."""

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

WINDOW_S: Final = 60.0
_CAPACITY: Final = 4096  # a minute of 68 a second; of more, the newest
# Samples that a percentile needs before it may be told, at 99 % confidence: as `edgecnn.measure.latency` has them.
_NEEDED: Final = {50: 11, 90: 64, 99: 662}


@dataclass(frozen=True, kw_only=True)
class Recent:
    """Durations that ended within a window.

    Attributes:
        count: how many.
        rate_hz: how many a second.
        p50_ms, p90_ms, p99_ms: percentiles by nearest rank; None of fewer than 11, 64, 662 durations.
        median_ms, longest_ms: of however few; None of none.
    """

    count: int
    rate_hz: float
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    median_ms: float | None
    longest_ms: float | None


class SlidingWindow:
    """The newest 4096 durations and when they ended."""

    def __init__(self) -> None:
        self._count = 0
        self._ended_ns = np.zeros(_CAPACITY, np.int64)
        self._durations_ns = np.zeros(_CAPACITY, np.int64)
        self._adding = threading.Lock()

    def add(self, duration_ns: int) -> None:
        """Note a duration that ends now; from any thread."""
        with self._adding:
            place = self._count % _CAPACITY
            self._ended_ns[place] = time.monotonic_ns()
            self._durations_ns[place] = duration_ns
            self._count += 1

    def recent(self, window_s: float = WINDOW_S) -> Recent:
        """What ended in the last `window_s` seconds, or in as many of them as the newest 4096 reach back."""
        with self._adding:
            count, now_ns = self._count, time.monotonic_ns()
            kept = min(count, _CAPACITY)
            ended_ns, durations_ns = self._ended_ns[:kept].copy(), self._durations_ns[:kept].copy()
        inside = ended_ns > now_ns - window_s * 1e9
        found = np.sort(durations_ns[inside]) / 1e6
        ms: list[float] = found.tolist()
        return Recent(
            count=len(ms),
            rate_hz=_rate_hz(ended_ns[inside], now_ns, window_s, whole=len(ms) < count),
            p50_ms=_percentile(ms, 50),
            p90_ms=_percentile(ms, 90),
            p99_ms=_percentile(ms, 99),
            median_ms=ms[(len(ms) - 1) // 2] if ms else None,
            longest_ms=ms[-1] if ms else None,
        )


def _rate_hz(ended_ns: NDArray[np.int64], now_ns: int, window_s: float, *, whole: bool) -> float:
    """Ends a second; `whole`: something ended before the first of these, so that the time before it counts too."""
    count = len(ended_ns)
    if count == 0:
        return 0.0
    since_first_s = max((now_ns - int(ended_ns.min())) / 1e9, 1e-6)
    if not whole or count == _CAPACITY:
        return (count - 1) / since_first_s
    return count / window_s


def _percentile(sorted_ms: list[float], percent: int) -> float | None:
    if len(sorted_ms) < _NEEDED[percent]:
        return None
    return sorted_ms[math.ceil(len(sorted_ms) * percent / 100) - 1]


class SlidingTotals:
    """By how much counters, which only grow, grew within a window.

    Args:
        read: gives the counters' totals; from whichever thread asks.
    """

    def __init__(self, read: Callable[[], Mapping[str, int]]) -> None:
        self._read = read
        self._sampling = threading.Lock()
        self._samples: deque[tuple[float, dict[str, int]]] = deque(maxlen=round(WINDOW_S) + 2)
        self.sample()

    def sample(self) -> None:
        """Note the totals as of now; does nothing within a second of the last time."""
        with self._sampling:
            now_s = time.monotonic()
            if not self._samples or now_s - self._samples[-1][0] >= 1.0:
                self._samples.append((now_s, dict(self._read())))

    def recent(self, window_s: float = WINDOW_S) -> dict[str, int]:
        """Growth in the last `window_s` seconds, at most 60, to a second as far as `sample` was called each second."""
        self.sample()
        now = self._read()
        with self._sampling:
            start_s = time.monotonic() - window_s
            before = [totals for when_s, totals in self._samples if when_s <= start_s]
            base = before[-1] if before else self._samples[0][1]
        return {name: total - base.get(name, 0) for name, total in now.items()}
