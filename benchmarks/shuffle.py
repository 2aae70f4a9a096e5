"""What it is worth to read shuffled channels in slices: python -m benchmarks.shuffle.

NanoDet-Plus and ShuffleNetV2 (random weights: time and graphs are what counts here) are converted as they are deployed,
and with their channel shuffles left as they were trained; both are timed in turns, in each format. The machine of the
results is shared and has no VNNI: read them as ratios.
Results go to `results/shuffle.json`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
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
NETWORKS = ("nanodet-plus-m", "torchvision:shufflenet_v2_x1_0")
REWRITE = "edgecnn.converters.deployable.wrapper.read_shuffles_in_slices"


def bundle(network: str, folder: Path) -> Bundle:
    """The network in the three formats."""
    made = edgecnn.convert(network, to=FORMATS, out=folder, overwrite=True).bundle
    assert made is not None
    return made


def twin(made: Bundle, format_name: str) -> Twin:
    """One artifact of it."""
    artifact = made.artifact(format_name, "fp32")
    return Twin(manifest=made.manifest, artifact=artifact, files=[made.folder / file.path for file in artifact.files])


def moving_operators(file: Path) -> dict[str, int]:
    """How often a TFLite file moves channels about."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file))
    names = Counter(details["op_name"] for details in interpreter._get_ops_details())
    return {name: names[name] for name in ("TRANSPOSE", "RESHAPE", "SLICE", "STRIDED_SLICE", "CONCATENATION")}


def main() -> None:
    """Convert twice, time in turns, keep."""
    rows: dict[str, Any] = {}
    for network in NETWORKS:
        name = network.rpartition(":")[2]
        sliced = bundle(network, BUILD / f"{name}-sliced.edge")
        with mock.patch(REWRITE, lambda module, _: module):
            shuffling = bundle(network, BUILD / f"{name}-shuffling.edge")
        rows[name] = {}
        for form in FORMATS:
            timed = time_twins(twin(sliced, form), twin(shuffling, form))
            rows[name][form] = {
                "sliced_ms": timed.latency_ms,
                "shuffling_ms": timed.float_latency_ms,
                "times_faster": [timed.ratio, timed.low, timed.high],
            }
            print(name, form, json.dumps(rows[name][form]), flush=True)
        for kind, made in (("sliced", sliced), ("shuffling", shuffling)):
            rows[name]["tflite"][f"{kind}_operators"] = moving_operators(twin(made, "tflite").files[0])
    machine = {**msgspec.to_builtins(describe_machine()), "load": os.getloadavg()[0]}
    result = {"machine": machine, "rows": rows}
    (RESULTS / "shuffle.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
