"""Prometheus metrics of a run, served over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final

from edgecnn.errors import MissingDependencyError
from edgecnn.results import Result
from edgecnn.runners.live.cameras.reconnect import STATES
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.loop.counters import Durations, LiveCounters
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.address import listen, parse_address, url_of
from edgecnn.runners.live.sinks.kind import Setting, States
from edgecnn.runners.live.sinks.small_server import SmallServer
from edgecnn.tasks import TASKS

if TYPE_CHECKING:
    from typing import Self

try:
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
        InfoMetricFamily,
        Metric,
    )
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    raise MissingDependencyError("serving metrics", "prometheus-client", extra="live") from missing

_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class MetricsSink:
    """Serves a run's counters for Prometheus.

    Nothing is computed until it is fetched; the numbers are those of the run's summary.

    Args:
        address: PORT, on this machine only, or HOST:PORT; port 0 takes a free one.
        counters: the loop's counters.
        dropped: functions that return, by stage, the number of dropped frames or results so far.
        faults: functions that return, by sink, the number of failures so far.
        info: constant words about the run, by label, without a login.
        states: functions that return each source's state.

    Attributes:
        url: address of the metrics, while they are served.
        shows_only: True: the run does not continue for this sink alone.

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
        states: States | None = None,
    ) -> None:
        self._host, self._port = parse_address(address, "metrics")
        self._run = _RunCollector(counters, dropped, faults, info, states or {})
        self.url: str | None = None
        self._close: Callable[[], None] = lambda: None

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Keep the newest result."""
        self._run.newest = (frame.captured_unix_ns, result)

    def __enter__(self) -> Self:
        """Begin to serve.

        Raises:
            DeviceError: the port is in use or not allowed, or the host is not this machine.
        """
        registry = CollectorRegistry()
        registry.register(self._run)
        ProcessCollector(registry=registry)

        def answer(path: str, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
            if path == "/healthz":
                return 200, "text/plain", b"ok\n"
            encode, media_type = choose_encoder(headers.get("accept", ""))
            return 200, media_type, encode(registry)

        listening = listen(self._host, self._port, "metrics")
        self.url = url_of(self._host, listening.getsockname()[1]) + "metrics"
        self._close = SmallServer(listening, answer).close
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the port."""
        self._close()
        self.url = None


def open_metrics(address: str | int, setting: Setting) -> MetricsSink:
    """The sink that serves a run's metrics."""
    return MetricsSink(
        address,
        counters=setting.counters,
        dropped=setting.dropped,
        faults=setting.faults,
        info=setting.info,
        states=setting.states,
    )


class _RunCollector(Collector):
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
        if self.newest is not None:
            captured_unix_ns, result = self.newest
            yield GaugeMetricFamily(
                "edgecnn_last_frame_timestamp_seconds",
                "When the newest frame with a result was captured, since the epoch.",
                value=captured_unix_ns / 1e9,
            )
            yield self._of_result(result)

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


def _add(family: HistogramMetricFamily, labels: list[str], durations: Durations) -> None:
    buckets = [(str(bound_s), float(durations.at_most(round(bound_s * 1e9)))) for bound_s in _BOUNDS_S]
    family.add_metric(labels, [*buckets, ("+Inf", float(durations.count))], durations.total_ns / 1e9)
