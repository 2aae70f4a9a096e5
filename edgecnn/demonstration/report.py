"""The report of a demo, in Python and as `demo.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgecnn._version import __version__
from edgecnn.bundle import Artifact, Refusal
from edgecnn.demonstration.stills import Still
from edgecnn.measure.latency import BenchReport, row

REPORT = "demo.json"


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that was not run, and the reason."""

    format: str
    precision: str
    reason: str


class AnnotatedVideo(msgspec.Struct, frozen=True, kw_only=True):
    """The footage with a network's results drawn on it.

    Attributes:
        path: relative to `demo.json`.
        format, precision: what ran.
        frames: number of frames.
        frames_per_s: frames read, run, drawn and written per second.
    """

    path: str
    format: str
    precision: str
    frames: int
    frames_per_s: float


class NetworkReport(msgspec.Struct, frozen=True, kw_only=True):
    """Results of one of the shipped networks.

    Attributes:
        word: its name, "default-detector".
        name: the network's name, "yolox-nano".
        task: "detect" or "segment".
        bundle: the folder that ran; None where no artifact passed.
        converted: whether it was converted here; otherwise it is the shipped bundle.
        artifacts: the bundle's artifacts, with their evidence.
        refused: artifacts that did not pass.
        left_out: artifacts that were not run here.
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
        """The record for `demo.json`: without raw samples and machine; paths relative to it."""
        rows = []
        if self.bench is not None:
            rows += [row(result, self.bench.machine) for result in self.bench.results]
            rows += [row(failure, self.bench.machine) for failure in self.bench.failures]
        for figures in rows:
            del figures["machine"]  # it is recorded once for all
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
    """The results of a demo, also stored in `demo.json`.

    Attributes:
        folder: the folder with everything in it.
        footage: the video for the networks: a file in `folder`, or the user's own.
        networks: the detector and the segmenter.
        contact_sheet: a picture of all stills of one format, relative to `folder`; None where nothing ran.
        remarks: further remarks.
    """

    folder: Path
    footage: str
    networks: tuple[NetworkReport, ...]
    contact_sheet: str | None
    remarks: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether everything that could be tried passed and was measured."""
        return not any(n.refused or n.bench is None or n.bench.failures for n in self.networks)

    def document(self) -> dict[str, Any]:
        """The content of `demo.json`."""
        machine = next((n.bench.machine for n in self.networks if n.bench is not None), None)
        return {
            "edgecnn": __version__,
            "footage": self.footage,
            "networks": [network.document() for network in self.networks],
            "contact_sheet": self.contact_sheet,
            "remarks": list(self.remarks),
            "machine": msgspec.to_builtins(machine),
        }
