"""The closing figures of a flow: accuracy, size and speed of every network and artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgecnn._version import __version__
from edgecnn.bundle import Refusal
from edgecnn.measure.latency import BenchFailure
from edgecnn.measure.machine import Machine

SHIPPED = "shipped"


@dataclass(frozen=True, kw_only=True)
class Point:
    """A row of the closing table: a network after a stage, or an artifact of the bundle.

    Attributes:
        stage: the stage that made the network ("start" for the recipe's own), or "shipped".
        format, precision: of the artifact; for a network, of the artifact that was timed. "" where none was.
        path: path of the network or the bundle; the model's name at the start.
        metric, value, low, high, n: the metric and the number of pictures; None where it was not measured. A network is
            measured in torch.
        measured_on: "evaluate_on", or "validation" where the recipe has no such pictures: the validation pictures.
        macs, parameters: the network's multiply-adds per frame, and its parameters.
        file_bytes: size of the artifact's files, or of the network's weights.
        latency_ms: median latency of a picture; None where it could not be measured. times_faster, times_faster_low,
            times_faster_high: compared with the fastest fp32 artifact of the unpruned network, with a 95 % interval
            over rounds in turns.
    """

    stage: str
    format: str = ""
    precision: str = ""
    path: str
    metric: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    measured_on: str | None = None
    macs: int | None = None
    parameters: int | None = None
    file_bytes: int
    latency_ms: float | None = None
    times_faster: float | None = None
    times_faster_low: float | None = None
    times_faster_high: float | None = None

    @property
    def name(self) -> str:
        """The row's name: "prune", "openvino int8"."""
        return f"{self.format} {self.precision}" if self.stage == SHIPPED else self.stage


@dataclass(frozen=True, kw_only=True)
class Compression:
    """The result of a flow.

    Attributes:
        folder: the folder with everything in it.
        bundle: the bundle to ship; None where no artifact passed.
        networks: the network before pruning, and the network of each later stage.
        artifacts: the bundle's artifacts.
        baselines: the fp32 artifacts of the first network, in every format, as rows of the same kind.
        refused: artifacts that did not pass, or could not be made.
        failures: artifacts that could not be timed.
        before: stage → whether it was already done.
        notes: notes for the user, in sentences.
        machine: the machine that it was timed on.
    """

    folder: Path
    bundle: Path | None
    networks: tuple[Point, ...]
    artifacts: tuple[Point, ...]
    baselines: tuple[Point, ...]
    refused: tuple[Refusal, ...]
    failures: tuple[BenchFailure, ...]
    before: Mapping[str, bool]
    notes: tuple[str, ...]
    machine: Machine

    @property
    def metric(self) -> str:
        """The task's metric ("top1", "map", "miou", …); "" where nothing was measured."""
        return next((p.metric for p in (*self.networks, *self.artifacts) if p.metric is not None), "")

    @property
    def plotted(self) -> list[tuple[str, bool, float, float]]:
        """Name, whether it is shipped, ms and metric of each row that has both."""
        return [
            (point.name, point.stage == SHIPPED, point.latency_ms, point.value)
            for point in (*self.networks, *self.artifacts)
            if point.latency_ms is not None and point.value is not None
        ]

    def document(self) -> dict[str, Any]:
        """The content of `compress.json`, and the output of --json."""
        return {
            "edgecnn": __version__,
            "folder": str(self.folder),
            "bundle": None if self.bundle is None else str(self.bundle),
            "stages": [{"stage": name, "done_before": before} for name, before in self.before.items()],
            "networks": [asdict(point) for point in self.networks],
            "artifacts": [asdict(point) for point in self.artifacts],
            "baselines": [asdict(point) for point in self.baselines],
            "refused": msgspec.to_builtins(self.refused),
            "failures": msgspec.to_builtins(self.failures),
            "notes": list(self.notes),
            "machine": msgspec.to_builtins(self.machine),
        }
