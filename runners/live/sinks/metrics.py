"""Prometheus metrics of a run, served over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Final, Self

from edgecnn.errors import MissingDependencyError
from edgecnn.results import Classification, Detections, Instances, Result
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.loop import Durations, LiveCounters
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.address import not_served, parse_address, url_of
from edgecnn.runners.live.sinks.figures import figures_of

try:
    from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
        Metric,
    )
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    raise MissingDependencyError("serving metrics", "prometheus-client", extra="live") from missing

_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class MetricsSink:
    """Serves what a run counts, for Prometheus to fetch.

    Nothing is computed until it is fetched; numbers are those of the run's summary.

    Args:
        address: PORT, on this machine only, or HOST:PORT; port 0 takes a free one.
        counters: what the loop fills.
        dropped: what tells, by stage, how many frames or results were dropped so far.
        faults: what tells, by sink, how many faults it had so far.
        info: words about the run that don't change, by label; they hold no login.

    Attributes:
        url: where metrics are served, while they are.
        shows_only: nobody waits for its results.

    Raises:
        SpecError: `address` is neither a port nor a host with one.
    """

    shows_only = True

    def __init__(
        self,
        address: str | int,
        *,
        counters: LiveCounters,
        dropped: Mapping[str, Callable[[], int]],
        faults: Mapping[str, Callable[[], int]],
        info: Mapping[str, str],
    ) -> None:
        self._host, self._port = parse_address(address, "metrics")
        self._run = _RunCollector(counters, dropped, faults, info)
        self.url: str | None = None
        self._close: Callable[[], None] = lambda: None

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Keep the newest result."""
        self._run.newest = (frame.captured_unix_ns, result)

    def __enter__(self) -> Self:
        """Begin to serve.

        Raises:
            DeviceError: the port is taken or not allowed, or the host is not this machine.
        """
        registry = CollectorRegistry()
        registry.register(self._run)
        ProcessCollector(registry=registry)
        try:
            server, thread = start_http_server(self._port, self._host, registry)
        except OSError as failed:
            raise not_served("metrics", self._host, self._port, failed) from failed
        self.url = url_of(self._host, server.server_port) + "metrics"

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        self._close = close
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the port back."""
        self._close()
        self.url = None


class _RunCollector(Collector):
    """Reads the run's counters when Prometheus asks; in the server's thread, while the loop goes on."""

    def __init__(
        self,
        counters: LiveCounters,
        dropped: Mapping[str, Callable[[], int]],
        faults: Mapping[str, Callable[[], int]],
        info: Mapping[str, str],
    ) -> None:
        self._counters = counters
        self._dropped = dropped
        self._faults = faults
        self._info = info
        self.newest: tuple[int, Result] | None = None
        self._seen: set[str] = set()  # labels, at most those of the network: a series that was there stays there
        self._lock = threading.Lock()  # two may fetch at once

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
            window = durations.window.recent()
            for quantile, ms in (("0.5", window.p50_ms), ("0.9", window.p90_ms), ("0.99", window.p99_ms)):
                if ms is not None:
                    recent.add_metric([stage, quantile], ms / 1e3)
        yield recent
        if self.newest is not None:
            captured_unix_ns, result = self.newest
            yield GaugeMetricFamily(
                "edgecnn_last_frame_timestamp_seconds",
                "When the newest frame with a result was captured, since the epoch.",
                value=captured_unix_ns / 1e9,
            )
            yield self._of_result(result)

    def _of_result(self, result: Result) -> Metric:
        values = figures_of(result)
        if isinstance(result, Detections | Instances):
            family = GaugeMetricFamily("edgecnn_objects", "Objects in the newest result.", labels=["label"])
        elif isinstance(result, Classification):
            family = GaugeMetricFamily("edgecnn_class_score", "Of the newest result, 0 to 1.", labels=["label"])
        else:
            family = GaugeMetricFamily("edgecnn_area_ratio", "Share of the newest picture's area.", labels=["label"])
        with self._lock:
            self._seen.update(values)
            for label in sorted(self._seen):
                family.add_metric([label], values.get(label, 0.0))
        return family


def _add(family: HistogramMetricFamily, labels: list[str], durations: Durations) -> None:
    buckets = [(str(bound_s), float(durations.at_most(round(bound_s * 1e9)))) for bound_s in _BOUNDS_S]
    family.add_metric(labels, [*buckets, ("+Inf", float(durations.count))], durations.total_ns / 1e9)
