"""What a strided stem is worth: python -m benchmarks.stem.

YOLOX-nano, whose stem folds pixels into channels, is converted as it is deployed, and with the stem
left as it was trained; both are timed in turns, in each format. Results go to `results/stem.json`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

import edgecnn
from benchmarks.flow_figures import BUILD, RESULTS
from edgecnn.bundle import Bundle
from edgecnn.measure.int8_speedup import Twin, time_twins
from edgecnn.measure.machine import describe_machine

FORMATS = ("onnx", "openvino", "tflite")
WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "models" / "yolox-nano" / "yolox_nano.pth"


def bundle(folder: Path) -> Bundle:
    """YOLOX-nano in the three formats."""
    made = edgecnn.convert("yolox-nano", weights=WEIGHTS, to=FORMATS, out=folder).bundle
    assert made is not None
    return made


def twin(made: Bundle, format_name: str) -> Twin:
    """One artifact of it."""
    artifact = made.artifact(format_name, "fp32")
    return Twin(manifest=made.manifest, artifact=artifact, files=[made.folder / file.path for file in artifact.files])


def main() -> None:
    """Convert twice, time in turns, keep."""
    strided = bundle(BUILD / "stem-strided.edge")
    with mock.patch("edgecnn.converters.deployable.wrapper.stride_stem", lambda network, _: network):
        folding = bundle(BUILD / "stem-folding.edge")
    result: dict[str, Any] = {"machine": msgspec.to_builtins(describe_machine()), "rows": {}}
    for name in FORMATS:
        timed = time_twins(twin(strided, name), twin(folding, name))
        result["rows"][name] = {
            "strided_ms": timed.latency_ms,
            "folding_ms": timed.float_latency_ms,
            "times_faster": [timed.ratio, timed.low, timed.high],
        }
        print(name, json.dumps(result["rows"][name]), flush=True)
    (RESULTS / "stem.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
