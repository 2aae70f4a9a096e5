"""Reads a run's counters for Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from edgecnn.results import Count, LineCount, Result, ZoneCount
from edgecnn.runners.live.cameras.reconnect import STATES
from edgecnn.runners.live.loop.counters import Durations, LiveCounters
from edgecnn.runners.live.sinks.kind import States
from edgecnn.tasks import TASKS

_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RunCollector(Collector):
    """Reads the run's counters when Prometheus fetches them; in the server's thread, while the loop runs."""

    def __init__(
        self,
        counters: LiveCounters,
        dropped: Mapping[str, Callable[[], int]],
        faults: Mapping[str, Callable[[], int]],
        info: Mapping[str, str],
        states: States,
    ) -> None:
        self._states = states
        self._counters = counters
        self._dropped = dropped
        self._faults = faults
        self._info = info
        self.newest: tuple[int, Result] | None = None
        self.drift: Callable[[], Sequence[Callable[[], Mapping[str, float]]]] = tuple
        self._seen: set[str] = set()  # labels seen so far, at most the network's: a series never disappears
        self._lock = threading.Lock()  # two clients may fetch at the same time

    def collect(self) -> Iterator[Metric]:
        """All metrics, as of now."""
        counters = self._counters
        info = InfoMetricFamily("edgecnn_run", "What runs.")
        info.add_metric([], dict(self._info))
        yield info
        yield CounterMetricFamily("edgecnn_frames", "Frames whose result was delivered.", value=counters.frames)
        dropped = CounterMetricFamily("edgecnn_dropped", "Frames or results that were given up.", labels=["stage"])
        for stage, count in self._dropped.items():
            dropped.add_metric([stage], count())
        yield dropped
        faults = CounterMetricFamily("edgecnn_faults", "Failures of a sink that the run outlived.", labels=["sink"])
        for sink, count in self._faults.items():
            faults.add_metric([sink], count())
        yield faults
        if self._states:
            yield self._of_sources()
        stages = HistogramMetricFamily("edgecnn_stage_seconds", "Duration of one frame's stage.", labels=["stage"])
        for stage, durations in counters.stages.items():
            _add(stages, [stage], durations)
        yield stages
        age = HistogramMetricFamily("edgecnn_result_age_seconds", "From capture to the result.", labels=[])
        _add(age, [], counters.age)
        yield age
        recent = GaugeMetricFamily(
            "edgecnn_recent_stage_seconds",
            "Percentile of a stage's durations in the last minute, where there are enough for it.",
            labels=["stage", "quantile"],
        )
        for stage, durations in (*counters.stages.items(), ("age", counters.age)):
            lately = durations.newest.figures()
            for quantile, ms in (("0.5", lately.p50_ms), ("0.9", lately.p90_ms), ("0.99", lately.p99_ms)):
                if ms is not None:
                    recent.add_metric([stage, quantile], ms / 1e3)
        yield recent
        drift = GaugeMetricFamily(
            "edgecnn_drift", "Population stability index against the baseline; 0.25 is an alarm.", labels=["of"]
        )
        for each in self.drift():
            for kind, value in each().items():
                drift.add_metric([kind], value)
        if drift.samples:
            yield drift
        if self.newest is not None:
            captured_unix_ns, result = self.newest
            yield GaugeMetricFamily(
                "edgecnn_last_frame_timestamp_seconds",
                "When the newest frame with a result was captured, since the epoch.",
                value=captured_unix_ns / 1e9,
            )
            yield self._of_result(result)
            yield from _of_counts(TASKS.of(result).counts(result))

    def _of_sources(self) -> Metric:
        """One of the states has the value 1; a missing camera is listed too, even if no frame ever came."""
        family = GaugeMetricFamily("edgecnn_source_state", "1 for the state of a source.", labels=["source", "state"])
        for source, current in self._states.items():
            now = current()[0]
            for state in dict.fromkeys((*STATES, now)):
                family.add_metric([source, state], float(state == now))
        return family

    def _of_result(self, result: Result) -> Metric:
        task = TASKS.of(result)
        values = task.figures(result)
        family = GaugeMetricFamily(task.gauge.metric, task.gauge.help, labels=["label"])
        with self._lock:
            self._seen.update(values)
            for label in sorted(self._seen):
                family.add_metric([label], values.get(label, 0.0))
        return family


def _of_counts(counts: Sequence[Count]) -> Iterator[Metric]:
    """What zones and lines have counted, with the words of the JSON lines."""
    zones = [count for count in counts if isinstance(count, ZoneCount)]
    lines = [count for count in counts if isinstance(count, LineCount)]
    if zones:
        inside = GaugeMetricFamily("edgecnn_zone_inside", "Objects in a zone now.", labels=["zone"])
        entered = CounterMetricFamily("edgecnn_zone_entered", "Objects that entered a zone.", labels=["zone", "label"])
        for zone in zones:
            inside.add_metric([zone.name], sum(zone.inside_by_class.values()))
            for label, number in zone.entered_by_class.items():
                entered.add_metric([zone.name, label], number)
        yield inside
        yield entered
    if lines:
        words = ["line", "way", "label"]
        crossed = CounterMetricFamily("edgecnn_line_crossed", "Objects that crossed a line, in or out.", labels=words)
        for line in lines:
            for way, by_class in (("in", line.in_by_class), ("out", line.out_by_class)):
                for label, number in by_class.items():
                    crossed.add_metric([line.name, way, label], number)
        yield crossed


def _add(family: HistogramMetricFamily, labels: list[str], durations: Durations) -> None:
    buckets = [(str(bound_s), float(durations.at_most(round(bound_s * 1e9)))) for bound_s in _BOUNDS_S]
    family.add_metric(labels, [*buckets, ("+Inf", float(durations.count))], durations.total_ns / 1e9)
