"""What int8 costs and gains: networks of the zoo and ResNet-18, in the three formats.

    python benchmarks/int8.py                 # what is not in the results yet, format by format; goes on where stopped
    python benchmarks/int8.py yolox-nano      # these, again
    python benchmarks/int8.py --table         # only the table

Calibrated and searched on `coco128/train`, measured on `coco128/val`, which took no part. Where a network has no labels
there (classifiers), what is measured is how often its best class is the float artifact's. ResNet-18 has random weights:
its latency is what counts. Results go to `results/int8.json`, from which `docs/int8.md` is generated.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

HERE = Path(__file__).resolve().parent
SHARED = HERE.parents[1] / "shared"
RESULTS = HERE / "results" / "int8.json"
TABLE = HERE.parent / "docs" / "int8.md"
BUILD = HERE.parent / "build" / "int8"
FORMATS = ("openvino", "onnx", "tflite")
TRAIN, VAL = SHARED / "data" / "coco128" / "train", SHARED / "data" / "coco128" / "val"
MAX_DROP = 0.01


@dataclass(frozen=True)
class Network:
    """A network to quantize.

    Attributes:
        model, weights: as `convert` takes them.
        labelled: whether `coco128` has labels for its task.
        ignore_label: see `eval`.
    """

    model: str
    weights: str | None
    labelled: bool
    ignore_label: str | None = None


NETWORKS = {
    "yolox-nano": Network("yolox-nano", str(SHARED / "models/yolox-nano/yolox_nano.pth"), True),
    "espnetv2-1.0": Network(
        "espnetv2-1.0", str(SHARED / "models/espnetv2/espnetv2_s_1.0_pascal_384x384.pth"), True, "background"
    ),
    "espnetv2-2.0": Network(
        "espnetv2-2.0", str(SHARED / "models/espnetv2/espnetv2_s_2.0_pascal_384x384.pth"), True, "background"
    ),
    "efficientnet-lite0": Network("efficientnet-lite0", "DEFAULT", False),
    "resnet18": Network("torchvision:resnet18", None, False),
}


def measure(name: str, rows: dict[str, Any], save: Callable[[], None], budget_minutes: float | None) -> None:
    """Convert one network, and quantize it for each format that has no row yet; a killed search goes on."""
    import edgecnn

    network = NETWORKS[name]
    folder = BUILD / f"{name}.edge"
    if not folder.exists():
        edgecnn.convert(network.model, weights=network.weights, to=FORMATS, out=folder)
    for format_name in FORMATS:
        if format_name not in rows:
            print(name, format_name, flush=True)
            rows[format_name] = quantize(network, folder, format_name, budget_minutes) | {"cpu": machine()["cpu"]}
            save()


def quantize(network: Network, folder: Path, name: str, budget_minutes: float | None) -> dict[str, Any]:
    """Make and measure one int8 artifact; its row."""
    import edgecnn

    start = time.perf_counter()
    labelled: dict[str, Any] = {
        "data": TRAIN,
        "max_drop": MAX_DROP,
        "evaluate_on": VAL,
        "ignore_label": network.ignore_label,
        "budget_minutes": budget_minutes,
    }
    made = edgecnn.quantize(
        folder, to=[name], calibration=TRAIN, keep_slower=True, **(labelled if network.labelled else {})
    )
    row: dict[str, Any] = {"minutes": round((time.perf_counter() - start) / 60, 2)}
    if made.bundle is None:
        return row | {"refused": made.refused[0].reason}
    artifact = made.bundle.artifact(name, "int8")
    evidence = artifact.evidence.quantization
    assert evidence is not None
    figures = msgspec.to_builtins(evidence)
    for record in ("calibration", "search"):
        if figures[record] is not None:
            del figures[record]["images"]
    if evidence.search is not None:
        row["minutes"] = max(row["minutes"], evidence.search.minutes)  # of all runs, where it was stopped
    row |= {
        "bytes": artifact.bytes,
        "accuracy": msgspec.to_builtins(artifact.evidence.accuracy),
        "layers": len(made.bundle.manifest.layers),
        **figures,
    }
    return row if network.labelled else row | {"agreement": agreement(folder, name)}


def agreement(folder: Path, name: str) -> dict[str, float]:
    """Share of the pictures that took no part on which int8 has the float artifact's best class."""
    import edgecnn
    from edgecnn.datasets import iterate_frames

    pictures = iterate_frames(VAL, 128)
    answers = []
    for precision in ("fp32", "int8"):
        with edgecnn.open_runner(folder, format=name, precision=precision) as runner:
            answers.append([runner(picture).class_ids[0] for picture in pictures])  # type: ignore[attr-defined]
    same = sum(a == b for a, b in zip(*answers, strict=True))
    return {"value": same / len(pictures), "n": len(pictures)}


def table(results: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# int8 and float",
        "",
        "<!-- generated by benchmarks/int8.py from benchmarks/results/int8.json -->",
        "",
        f"Calibrated and searched on 128 pictures, measured on 128 others; limit {MAX_DROP:g} (a point of",
        "AP or mIoU) on the pictures of the search. Latency of whole frames, float and int8 in turns, with a 95 %",
        "interval of the ratio, on a busy machine: compare only within a row. OpenVINO's float is f32, not bf16. In",
        "int8: the share of the multiply-adds that the runtime computes in int8.",
        "",
        "| network | format | float → int8 | drop | in int8 | float layers | ms float → int8 | times faster | min |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for network, rows in results["networks"].items():
        lines += [_line(network, name, rows[name]) for name in FORMATS if name in rows]
    refused = [
        f"- **{network}**, {name}: {row['refused']}"
        for network, rows in results["networks"].items()
        for name, row in rows.items()
        if "refused" in row
    ]
    if refused:
        lines += ["", "## Refused", "", *refused]
    waiting = [
        f"{network} ({name})"
        for network in NETWORKS
        for name in FORMATS
        if name not in results["networks"].get(network, {})
    ]
    if waiting:
        lines += ["", f"Not measured yet: {', '.join(waiting)}."]
    where: dict[str, list[str]] = {}
    for network, rows in results["networks"].items():
        for name, row in rows.items():
            threads = (row.get("latency") or {}).get("threads", results["machine"]["cores"])
            on = f"{row['cpu']}, {threads} thread{'' if threads == 1 else 's'}"
            where.setdefault(on, []).append(f"{network} ({name})")
    lines += ["", ", ".join(f"{k} {v}" for k, v in results["machine"]["versions"].items()) + "."]
    if len(where) == 1:
        lines.append(f"Machine: {next(iter(where))}.")
    else:
        lines += ["Machines:", "", *(f"- {cpu}: {', '.join(measured)}" for cpu, measured in where.items())]
    return "\n".join(lines) + "\n"


def _line(network: str, name: str, row: dict[str, Any]) -> str:
    if "refused" in row:
        return f"| {network} | {name} | refused | | | | | | {row['minutes']} |"
    if row["accuracy"]:
        last = row["accuracy"][-1]
        value = f"{last['metric']} {last['reference_value']:.4f} → {last['value']:.4f}"
        drop = f"{last['reference_value'] - last['value']:+.4f}"
    else:
        value, drop = f"same best class on {row['agreement']['value']:.1%} of {row['agreement']['n']}", ""
    latency = row["latency"]
    return (
        f"| {network} | {name} | {value} | {drop} | {row['int8_mac_share']:.0%} | {len(row['float_layers'])} of "
        f"{row['layers']} | {latency['float_latency_ms']:.1f} → {latency['latency_ms']:.1f} | {latency['ratio']:.2f} "
        f"[{latency['low']:.2f}, {latency['high']:.2f}] | {row['minutes']} |"
    )


def machine() -> dict[str, Any]:
    """Where and with what this was made."""
    from importlib.metadata import version

    from edgecnn.processor import default_threads, processor_name

    packages = ("onnxruntime", "openvino", "nncf", "ai-edge-litert", "ai-edge-quantizer")
    return {
        "cpu": processor_name(),
        "cores": default_threads(),
        "versions": {name: version(name) for name in packages},
    }


def save(results: dict[str, Any]) -> None:
    """Keep what there is."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Run what was asked for, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", metavar="NETWORK")
    parser.add_argument("--table", action="store_true", help="only write the table")
    parser.add_argument("--budget-minutes", type=float, help="of each search; without it, that of `quantize`")
    asked = parser.parse_args()
    results: dict[str, Any] = {"networks": {}}
    if RESULTS.exists():
        results = json.loads(RESULTS.read_text(encoding="utf-8"))
    if not asked.table:
        results["machine"] = machine()
        for name in asked.names or NETWORKS:
            if name in asked.names:
                results["networks"].pop(name, None)
                shutil.rmtree(BUILD / f"{name}.edge", ignore_errors=True)
            rows = results["networks"].setdefault(name, {})
            measure(name, rows, partial(save, results), asked.budget_minutes)
    TABLE.write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
