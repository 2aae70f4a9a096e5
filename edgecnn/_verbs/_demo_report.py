"""What a demo did, in Python and as `demo.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

import edgecnn
from edgecnn._verbs._stills import Still
from edgecnn.bundle import Artifact, Refusal
from edgecnn.measure.latency import BenchReport, row

REPORT = "demo.json"


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that was not run, and why."""

    format: str
    precision: str
    reason: str


class AnnotatedVideo(msgspec.Struct, frozen=True, kw_only=True):
    """The footage, with what a network sees in it.

    Attributes:
        path: relative to `demo.json`.
        format, precision: what ran.
        frames: how many it has.
        frames_per_s: that were read, run, drawn and written on the way.
    """

    path: str
    format: str
    precision: str
    frames: int
    frames_per_s: float


class NetworkReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was done with one of the networks that ship.

    Attributes:
        word: that names it, "default-detector".
        name: of the network, "yolox-nano".
        task: "detect" or "segment".
        bundle: the folder that ran; None where nothing passed.
        converted: whether it was made here; else it is the one that ships.
        artifacts: those of the bundle, with their evidence.
        refused: those that did not pass.
        left_out: those that were not run here.
        stills: every photograph through every artifact that ran.
        video: None where nothing ran.
        bench: latencies; None where nothing ran.
    """

    word: str
    name: str
    task: str
    bundle: Path | None
    converted: bool
    artifacts: tuple[Artifact, ...]
    refused: tuple[Refusal, ...]
    left_out: tuple[LeftOut, ...]
    stills: tuple[Still, ...]
    video: AnnotatedVideo | None
    bench: BenchReport | None

    def document(self) -> dict[str, Any]:
        """As it stands in `demo.json`: all but the raw samples and the machine; paths relative to it."""
        rows = []
        if self.bench is not None:
            rows += [row(result, self.bench.machine) for result in self.bench.results]
            rows += [row(failure, self.bench.machine) for failure in self.bench.failures]
        for figures in rows:
            del figures["machine"]  # once for all is enough
        place = None if self.bundle is None else self.bundle.name if self.converted else self.word
        return {
            "word": self.word,
            "name": self.name,
            "task": self.task,
            "bundle": place,
            "converted": self.converted,
            "artifacts": [
                {
                    "format": artifact.format,
                    "precision": artifact.precision,
                    "path": f"{place}/{artifact.path}",
                    "sha256": artifact.sha256,
                    "bytes": artifact.bytes,
                    "tool": artifact.tool,
                    "parity": msgspec.to_builtins(artifact.evidence.parity),
                }
                for artifact in self.artifacts
            ],
            "refused": msgspec.to_builtins(self.refused),
            "left_out": msgspec.to_builtins(self.left_out),
            "stills": msgspec.to_builtins(self.stills),
            "video": msgspec.to_builtins(self.video),
            "latency": rows,
        }


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a demo did; `demo.json` holds the same.

    Attributes:
        folder: where everything is.
        footage: what the networks were run on: a file in `folder`, or the user's own.
        networks: the detector and the segmenter.
        contact_sheet: a picture of all stills of one format, relative to `folder`; None where nothing ran.
        remarks: what else is to be said.
    """

    folder: Path
    footage: str
    networks: tuple[NetworkReport, ...]
    contact_sheet: str | None
    remarks: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether everything that could be tried passed, and was measured."""
        return not any(n.refused or n.bench is None or n.bench.failures for n in self.networks)

    def document(self) -> dict[str, Any]:
        """What `demo.json` holds."""
        machine = next((n.bench.machine for n in self.networks if n.bench is not None), None)
        return {
            "edgecnn": edgecnn.__version__,
            "footage": self.footage,
            "networks": [network.document() for network in self.networks],
            "contact_sheet": self.contact_sheet,
            "remarks": list(self.remarks),
            "machine": msgspec.to_builtins(machine),
        }
