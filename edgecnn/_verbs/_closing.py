"""The closing figures of a flow: every network and artifact, how right, how large and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

import edgecnn
from edgecnn.bundle import Refusal
from edgecnn.measure.latency import BenchFailure
from edgecnn.measure.machine import Machine

SHIPPED = "shipped"


@dataclass(frozen=True, kw_only=True)
class Point:
    """A row of the closing table: a network on its way, or an artifact of the bundle.

    Attributes:
        stage: what left the network ("start" for the recipe's own), or "shipped".
        format, precision: of the artifact; of a network, of the one that was timed. "" where none was.
        path: of the network or the bundle; the model's name at the start.
        metric, value, low, high, n: what was measured, on how many pictures; None where nothing was. A network is
            measured in torch.
        measured_on: "evaluate_on", or "validation" where the recipe has no such pictures: those that decided.
        macs, parameters: multiply-adds of one frame, and parameters, of the network.
        file_bytes: of the artifact's files, or the network's weights.
        latency_ms: median latency of a picture; None where it could not be measured.
        times_faster, times_faster_low, times_faster_high: than the fastest fp32 artifact of the unpruned network, with
            a 95 % interval over rounds in turns.
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
        """For people: "prune", "openvino int8"."""
        return f"{self.format} {self.precision}" if self.stage == SHIPPED else self.stage


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What a flow did.

    Attributes:
        folder: with everything in it.
        bundle: to ship; None where nothing passed.
        networks: the network before pruning, and what each later stage left.
        artifacts: of the bundle.
        baselines: the fp32 artifacts of the first network, in every format, as rows of the same kind.
        refused: what was made and did not pass, or could not be made.
        failures: artifacts that could not be timed.
        before: stage → whether it was done already.
        notes: what the user should know, in sentences.
        machine: that it was timed on.
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
        """What was measured: "top1", "map" or "miou"; "" for nothing."""
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
        """What `compress.json` holds, and --json prints."""
        return {
            "edgecnn": edgecnn.__version__,
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
