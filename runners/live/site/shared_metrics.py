"""Prometheus metrics of several cameras: those of a run, each with the label `camera`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.address import parse_address
from edgecnn.runners.live.sinks.metrics import serve_metrics
from edgecnn.runners.live.sinks.run_collector import RunCollector
from edgecnn.runners.live.site.camera_run import CameraRun
from edgecnn.runners.live.site.shared_sinks import SummedCounts, info_of

if TYPE_CHECKING:
    from typing import Self


class SiteMetrics(Collector):
    """Serves the counters of several cameras; a sink.

    Args:
        address: as for `MetricsSink`.
        cameras: returns the cameras that run now.

    Attributes:
        url: address of the metrics, while they are served.

    Raises:
        SpecError: `address` is neither a port nor a host with one.
    """

    shows_only = True

    def __init__(self, address: str | int, cameras: Callable[[], Sequence[CameraRun]]) -> None:
        self._host, self._port = parse_address(address, "metrics")
        self._cameras = cameras
        self._collectors: dict[CameraRun, RunCollector] = {}
        self.url: str | None = None
        self._close: Callable[[], None] = lambda: None

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Keep the newest result of its camera."""
        for camera in self._cameras():
            if camera.plan.name == frame.source:
                self._of(camera).newest = (frame.captured_unix_ns, result)

    def collect(self) -> Iterator[Metric]:
        """All metrics, as of now: one family for all cameras."""
        cameras = list(self._cameras())
        self._collectors = {camera: each for camera, each in list(self._collectors.items()) if camera in cameras}
        families: dict[str, Metric] = {}
        for camera in cameras:
            for family in self._of(camera).collect():
                of_all = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                of_all.samples += [_labelled(sample, camera.plan.name) for sample in family.samples]
        yield from families.values()

    def _of(self, camera: CameraRun) -> RunCollector:
        if camera not in self._collectors:
            of_one = lambda: [camera]  # noqa: E731 - the camera of this call
            self._collectors[camera] = RunCollector(
                camera.counters,
                SummedCounts(of_one, "dropped"),
                SummedCounts(of_one, "faults"),
                info_of([camera]),
                {camera.plan.name: camera.state},
            )
            self._collectors[camera].drift = lambda: camera.setting.drift if camera.setting else ()
        return self._collectors[camera]

    def __enter__(self) -> Self:
        """Begin to serve.

        Raises:
            DeviceError: the port is in use or not allowed, or the host is not this machine.
        """
        self.url, self._close = serve_metrics(self._host, self._port, self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Release the port."""
        self._close()
        self.url = None


def _labelled(sample: Sample, camera: str) -> Sample:
    return sample._replace(labels={"camera": camera, **sample.labels})
