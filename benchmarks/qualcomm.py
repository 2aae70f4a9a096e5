"""YOLOX-nano on Qualcomm's NPU, in its maker's simulator: accuracy beside float, operators on the NPU, compile time.

    python benchmarks/qualcomm.py                          # v73
    python benchmarks/qualcomm.py qualcomm-htp:v75 …       # these

Calibrated on `coco128/train`, measured on 32 pictures of `coco128/val`, float and compiled on the same ones. Nothing
here is a latency: a simulator has none. Results go to `results/qualcomm.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"
RESULTS = HERE / "results" / "qualcomm.json"
BUILD = HERE.parent / "build" / "qualcomm"
TRAIN, VAL = SHARED / "data" / "coco128" / "train", SHARED / "data" / "coco128" / "val"
WEIGHTS = SHARED / "models" / "yolox-nano" / "yolox_nano.pth"
MAX_DROP = 0.02
PRECISIONS = ("int8-a16", "int8")


def measure(target: str) -> dict[str, Any]:
    """Build for one architecture; its rows by precision."""
    import edgecnn

    start = time.perf_counter()
    made = edgecnn.convert(
        "yolox-nano",
        weights=str(WEIGHTS),
        target=target,
        precision=("fp32", *PRECISIONS),
        calibration=TRAIN,
        evaluate_on=VAL,
        max_drop=MAX_DROP,
        out=BUILD / f"{target.replace(':', '-')}.edge",
    )
    assert made.bundle is not None
    row: dict[str, Any] = {"minutes": round((time.perf_counter() - start) / 60, 2), "max_drop": MAX_DROP}
    for refusal in made.refused:
        row[refusal.precision] = {"refused": refusal.reason}
    for artifact in made.bundle.manifest.artifacts:
        placement, quantization = artifact.evidence.placement, artifact.evidence.quantization
        if placement is None or quantization is None:
            continue
        (accuracy,) = artifact.evidence.accuracy
        row[artifact.precision] = {
            "metric": accuracy.metric,
            "data": accuracy.data,
            "n": accuracy.n,
            "float": accuracy.reference_value,
            "simulated": accuracy.value,
            "interval": [accuracy.low, accuracy.high],
            "drop": accuracy.drop,
            "operators": placement.operators,
            "off_npu": placement.off_device,
            "share_on_npu": placement.share,
            "conversions_at_its_border": placement.conversions,
            "compile_s": placement.compile_s,
            "bytes": artifact.bytes,
            "recipe": quantization.recipe,
            "snr_db": quantization.snr_db,
            "calibration_pictures": None if quantization.calibration is None else quantization.calibration.count,
            "ran_on": msgspec.to_builtins(placement.ran_on),
        }
    return row


def main() -> None:
    """Measure what was asked for, and write it beside what was measured before."""
    from edgecnn._devices import default_threads, processor_name

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=["qualcomm-htp:v73"])
    results: dict[str, Any] = {"targets": {}}
    if RESULTS.exists():
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    for target in parser.parse_args().targets:
        results["targets"][target] = measure(target)
        results["machine"] = {"cpu": processor_name(), "cores": default_threads()}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        for precision in PRECISIONS:
            print(target, precision, json.dumps(results["targets"][target].get(precision)))


if __name__ == "__main__":
    main()
