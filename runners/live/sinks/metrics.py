"""Prometheus metrics of a run, served over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from edgecnn.errors import MissingDependencyError
from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.address import listen, parse_address, url_of
from edgecnn.runners.live.sinks.kind import Setting, States
from edgecnn.runners.live.sinks.small_server import SmallServer

if TYPE_CHECKING:
    from typing import Self

try:
    from prometheus_client import CollectorRegistry, ProcessCollector
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector
except ModuleNotFoundError as missing:
    raise MissingDependencyError("serving metrics", "prometheus-client", extra="live") from missing
from edgecnn.runners.live.sinks.run_collector import RunCollector


class MetricsSink:
    """Serves a run's counters for Prometheus.

    Nothing is computed until it is fetched; the numbers are those of the run's summary.

    Args:
        address: PORT, on this machine only, or HOST:PORT; port 0 takes a free one.
        counters: the loop's counters.
        dropped: functions that return, by stage, the number of dropped frames or results so far.
        faults: functions that return, by sink, the number of failures so far.
        info: constant words about the run, by label, without a login.
        drift: returns functions that return the drift from a baseline, by kind.
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
        drift: Callable[[], Sequence[Callable[[], Mapping[str, float]]]] = tuple,
    ) -> None:
        self._host, self._port = parse_address(address, "metrics")
        self._run = RunCollector(counters, dropped, faults, info, states or {})
        self._run.drift = drift
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
        self.url, self._close = serve_metrics(self._host, self._port, self._run)
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
        drift=lambda: setting.drift,
    )


def serve_metrics(host: str, port: int, collector: Collector) -> tuple[str, Callable[[], None]]:
    """Serve what a collector collects, and the process's figures; returns the address, and what closes it.

    Raises:
        DeviceError: the port is in use or not allowed, or the host is not this machine.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)

    def answer(path: str, headers: Mapping[str, str]) -> tuple[int, str, bytes]:
        if path == "/healthz":
            return 200, "text/plain", b"ok\n"
        encode, media_type = choose_encoder(headers.get("accept", ""))
        return 200, media_type, encode(registry)

    listening = listen(host, port, "metrics")
    url = url_of(host, listening.getsockname()[1]) + "metrics"
    return url, SmallServer(listening, answer).close
