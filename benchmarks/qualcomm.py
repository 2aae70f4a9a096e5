"""YOLOX-nano on Qualcomm's NPU, in its maker's simulator: accuracy beside float, operators on the NPU, compile time.

    python benchmarks/qualcomm.py                          # v73
    python benchmarks/qualcomm.py qualcomm-htp:v75 …       # these

Calibrated on `coco128/train`, measured on 32 pictures of `coco128/val`, float and compiled on the same ones. Nothing
here is a latency: a simulator has none. Results go to `results/qualcomm.json`, from which the table in
`docs/how-to/build-for-a-device.md` is written; `--table` writes it alone.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"
RESULTS = HERE / "results" / "qualcomm.json"
PAGE = HERE.parent / "docs" / "how-to" / "build-for-a-device.md"
BEGIN, END = "<!-- written by benchmarks/qualcomm.py -->\n", "<!-- end -->"
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


def write_table(results: dict[str, Any]) -> None:
    """Replace the page's table."""
    lines = [
        "| target | precision | AP float | AP simulated | drop | operators on the NPU | compiled in s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for target, row in results["targets"].items():
        for precision in PRECISIONS:
            figures = row.get(precision)
            if figures is None:
                continue
            if "refused" in figures:
                found = re.search(r"map (\d\.\d+).*float artifact (\d\.\d+).*a drop of (\d\.\d+)", figures["refused"])
                cells = [found[2], found[1], f"{found[3]}: refused", "", ""] if found else ["refused", "", "", "", ""]
            else:
                on_npu = figures["operators"] - sum(figures["off_npu"].values())
                cells = [f"{figures[name]:.4f}" for name in ("float", "simulated", "drop")]
                cells += [f"{on_npu} of {figures['operators']}", f"{figures['compile_s']:.1f}"]
            lines.append(f"| `{target}` | {precision} | {' | '.join(cells)} |")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + after, encoding="utf-8")


def main() -> None:
    """Measure what was asked for, and write it beside what was measured before."""
    from edgecnn.processor import default_threads, processor_name

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("targets", nargs="*", metavar="TARGET", default=["qualcomm-htp:v73"])
    parser.add_argument("--table", action="store_true", help="only write the table")
    asked = parser.parse_args()
    results: dict[str, Any] = {"targets": {}}
    if RESULTS.exists():
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    for target in [] if asked.table else asked.targets:
        results["targets"][target] = measure(target)
        results["machine"] = {"cpu": processor_name(), "cores": default_threads()}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        for precision in PRECISIONS:
            print(target, precision, json.dumps(results["targets"][target].get(precision)))
    write_table(results)


if __name__ == "__main__":
    main()
