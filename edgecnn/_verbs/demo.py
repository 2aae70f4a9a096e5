"""The main job on a network and photographs that need nothing but the package index."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec

import edgecnn
from edgecnn._photographs import photographs
from edgecnn._verbs.bench import bench
from edgecnn._verbs.convert import convert
from edgecnn.bundle import Artifact, Bundle, Refusal
from edgecnn.errors import StorageError
from edgecnn.measure.latency import BenchReport, row
from edgecnn.results import UInt8Array
from edgecnn.runners.base import open_runner
from edgecnn.runners.live.frames import frame_now
from edgecnn.runners.live.sinks import storage_error
from edgecnn.runners.live.sinks.jsonl import record_of

MODEL = "efficientnet-lite0"
FORMATS = ("onnx", "openvino", "tflite")
REPORT = "demo.json"
_PER_FRAME = ("frame", "captured_ns", "captured_unix_ns", "age_ms", "source")


class DemoPicture(msgspec.Struct, frozen=True, kw_only=True):
    """What one artifact says of one photograph.

    Attributes:
        photograph: its name.
        format, precision: what ran.
        picture: the annotated picture, beside `demo.json`.
        result: as `run --jsonl` prints it, without the times of the frame.
    """

    photograph: str
    format: str
    precision: str
    picture: str
    result: dict[str, Any]


class DemoReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a demo did; `demo.json` holds the same.

    Attributes:
        folder: where pictures, bundle and `demo.json` are.
        bundle: the bundle's folder.
        artifacts: those that passed, with their evidence.
        refused: those that didn't.
        pictures: every photograph in every format.
        bench: latencies and the machine; None where nothing passed.
    """

    folder: Path
    bundle: Path | None
    artifacts: tuple[Artifact, ...]
    refused: tuple[Refusal, ...]
    pictures: tuple[DemoPicture, ...]
    bench: BenchReport | None

    def document(self) -> dict[str, Any]:
        """What `demo.json` holds: all but the raw samples; paths relative to it."""
        rows = []
        if self.bench is not None:
            machine = self.bench.machine
            rows += [row(result, machine) for result in self.bench.results]
            rows += [row(failure, machine) for failure in self.bench.failures]
        for figures in rows:
            del figures["machine"]  # once for all is enough
        return {
            "edgecnn": edgecnn.__version__,
            "model": MODEL,
            "bundle": self.bundle.name if self.bundle else None,
            "artifacts": [
                {
                    "format": artifact.format,
                    "precision": artifact.precision,
                    "path": f"{self.bundle.name}/{artifact.path}" if self.bundle else artifact.path,
                    "sha256": artifact.sha256,
                    "bytes": artifact.bytes,
                    "tool": artifact.tool,
                    "parity": msgspec.to_builtins(artifact.evidence.parity),
                }
                for artifact in self.artifacts
            ],
            "refused": msgspec.to_builtins(self.refused),
            "photographs": msgspec.to_builtins(self.pictures),
            "latency": rows,
            "machine": msgspec.to_builtins(self.bench.machine) if self.bench else None,
        }


def demo(out: str | Path = "demo", *, progress: Callable[[int, int, str], None] | None = None) -> DemoReport:
    """Convert a trained network to three formats, run each on photographs, and measure it.

    The network is EfficientNet-Lite0 with ImageNet weights from the package index, the photographs come with
    edgecnn.

    Args:
        out: a folder for annotated pictures, the bundle and `demo.json`; made if absent.
        progress: called with (steps done, steps in all, what is being done), stage by stage.

    Raises:
        MissingDependencyError: the package with the weights, or a part for building, is not installed.
        GateError: the network failed before any conversion.
        StorageError: disk full, or `out` not writable.
    """
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as failed:
        raise storage_error(folder, failed) from failed
    conversion = convert(MODEL, weights="DEFAULT", to=FORMATS, out=folder / f"{MODEL}.edge", progress=progress)
    bundle = conversion.bundle
    report = DemoReport(
        folder=folder,
        bundle=bundle.folder if bundle else None,
        artifacts=bundle.manifest.artifacts if bundle else (),
        refused=conversion.refused,
        pictures=_run(bundle, folder) if bundle else (),
        bench=bench(bundle, profile="quick", progress=progress) if bundle else None,
    )
    _write(folder / REPORT, msgspec.json.format(msgspec.json.encode(report.document()), indent=1) + b"\n")
    return report


def _run(bundle: Bundle, folder: Path) -> tuple[DemoPicture, ...]:
    """Every photograph through every artifact; the annotated ones go to `folder`."""
    pictures = []
    for artifact in bundle.manifest.artifacts:
        with open_runner(bundle, format=artifact.format, precision=artifact.precision) as runner:
            for index, (name, image) in enumerate(photographs().items()):
                result = runner(image)
                target = folder / f"{name}-{artifact.format}.jpg"
                _write_picture(target, runner.task.draw(image, result))  # type: ignore[arg-type]
                record = record_of(frame_now(image, index, name), result)
                pictures.append(
                    DemoPicture(
                        photograph=name,
                        format=artifact.format,
                        precision=artifact.precision,
                        picture=target.name,
                        result={key: value for key, value in record.items() if key not in _PER_FRAME},
                    )
                )
    return tuple(pictures)


def _write_picture(target: Path, picture: UInt8Array) -> None:
    encoded, data = cv2.imencode(target.suffix, picture)
    if not encoded:
        raise StorageError(f"{target} could not be encoded")
    _write(target, data.tobytes())


def _write(target: Path, data: bytes) -> None:
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        partial.write_bytes(data)
        os.replace(partial, target)
    except OSError as failed:
        raise storage_error(target, failed) from failed
    finally:
        partial.unlink(missing_ok=True)
