"""Recent values are reported exactly, and older ones are forgotten."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from edgecnn.measure.latency import min_samples
from edgecnn.runners.live.loop import recent as module
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.loop.recent import RecentDurations, RecentGrowth


class Clock:
    """A clock that moves only on request."""

    def __init__(self) -> None:
        self.ns = 10**12

    def monotonic_ns(self) -> int:
        return self.ns

    def monotonic(self) -> float:
        return self.ns / 1e9

    def pass_s(self, seconds: float) -> None:
        self.ns += round(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_percentiles_are_those_of_the_window_alone(clock: Clock) -> None:
    durations = RecentDurations()
    for _ in range(1000):
        durations.add(900_000_000)
        clock.pass_s(0.01)
    clock.pass_s(60)
    samples = np.random.default_rng(1).lognormal(16, 1, 1000).astype(np.int64)
    for sample in samples.tolist():
        clock.pass_s(0.05)
        durations.add(sample)
    recent = durations.figures(60)
    assert recent.count == 1000
    for percent, percentile_ms in ((50, recent.p50_ms), (90, recent.p90_ms), (99, recent.p99_ms)):
        assert percentile_ms == float(np.percentile(samples, percent, method="inverted_cdf")) / 1e6
    assert recent.longest_ms == samples.max() / 1e6
    assert recent.rate_hz == pytest.approx(1000 / 60)
    assert durations.figures(10).rate_hz == pytest.approx(20, rel=0.01)
    clock.pass_s(61)
    gone = durations.figures(60)
    assert (gone.count, gone.rate_hz, gone.median_ms, gone.longest_ms) == (0, 0.0, None, None)


def test_a_percentile_needs_enough_samples() -> None:
    for percent, needed in module.NEEDED.items():
        assert needed == min_samples(percent)
        durations = RecentDurations()
        for _ in range(needed - 1):
            durations.add(1_000_000)
        assert getattr(durations.figures(), f"p{percent}_ms") is None
        durations.add(1_000_000)
        assert getattr(durations.figures(), f"p{percent}_ms") == 1.0


def test_the_rate_is_right_from_the_first_second_and_falls_when_nothing_comes(clock: Clock) -> None:
    durations = RecentDurations()
    assert durations.figures().rate_hz == 0
    for _ in range(11):
        durations.add(1)
        clock.pass_s(0.1)
    assert durations.figures(60).rate_hz == pytest.approx(10, rel=0.1)
    clock.pass_s(9)
    assert durations.figures(60).rate_hz == pytest.approx(1, rel=0.02)


def test_more_than_it_holds_leaves_the_newest(clock: Clock) -> None:
    durations = RecentDurations()
    for index in range(10_000):
        durations.add(index)
        clock.pass_s(0.001)
    recent = durations.figures(60)
    assert (recent.count, recent.longest_ms) == (4096, 9999 / 1e6)
    assert recent.rate_hz == pytest.approx(1000, rel=0.01)


def test_totals_are_reported_by_their_growth(clock: Clock) -> None:
    totals: Counter[str] = Counter(camera=5)
    growth = RecentGrowth(lambda: totals)
    for _ in range(300):
        clock.pass_s(1)
        totals["camera"] += 2
        growth.sample()
    totals["late"] += 1  # a counter that was not there before
    assert growth.growth(60) == {"camera": 120, "late": 1}
    assert growth.growth(10) == {"camera": 20, "late": 1}
    for _ in range(30):
        clock.pass_s(1)
        growth.sample()
    assert growth.growth(10) == {"camera": 0, "late": 0}
    assert len(growth._samples) <= 62


def test_a_loop_s_counters_know_the_last_seconds(clock: Clock) -> None:
    counters = LiveCounters()
    counters.stages["infer"].add(5_000_000)
    counters.age.add(7_000_000)
    counters.dropped["late"] += 3
    assert counters.stages["infer"].newest.figures().longest_ms == 5
    assert counters.age.newest.figures().longest_ms == 7
    assert counters.recently_dropped.growth() == {"infer": 0, "deliver": 0, "late": 3}
