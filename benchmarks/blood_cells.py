"""Blood cells from end to end: python benchmarks/blood_cells.py [flow] [backbones] [--table].

On BCCD (MIT): its train and val splits are learned from and decided on, its official test split is measured on.

- flow: YOLOX-nano trained, pruned, fine-tuned, quantized as `recipes/bccd.toml` says (an hour and a half on 2 cores).
- backbones: EfficientNet-Lite0 as a detector of cells, and as a classifier of cells cut out, from ImageNet weights and
  from random ones, with the same settings.

Results go to `results/blood_cells.json`, from which `docs/blood-cells.md` is generated.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import cv2
import msgspec

import edgecnn
from edgecnn.compression.train.settings import TrainSettings
from edgecnn.datasets import BoxTruth, open_dataset

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "blood_cells.json"
TABLE = REPOSITORY / "docs" / "blood-cells.md"
RECIPE = REPOSITORY / "benchmarks" / "recipes" / "bccd.toml"
BUILD = REPOSITORY / "build" / "bccd"
CELLS = REPOSITORY.parent / "shared" / "data" / "bccd"
CLASSES = ("Platelets", "RBC", "WBC")
CUT_MARGIN = 0.1  # of a cell's box, on each side
# Few passes: what ImageNet is worth shows there. The same for both.
BACKBONE_SETTINGS = {
    "classifier": TrainSettings(epochs=3, batch=16, ema_decay=0.9),
    "detector": TrainSettings(epochs=6, batch=8, ema_decay=0.95, evaluate_every=3),
}


def flow() -> dict[str, Any]:
    """Do the recipe, and add AP at IoU 0.5 on the test split to its figures."""
    done = edgecnn.compress(RECIPE, out=BUILD, progress=_say)
    document = done.document()
    for row in document["networks"][1:]:  # the first is as published, with other classes
        row["ap50"] = _ap50(row["path"])
    for row in document["artifacts"]:
        row["ap50"] = _ap50(done.bundle, format=row["format"], precision=row["precision"])
    for row in (*document["networks"], *document["artifacts"], *document["baselines"]):
        del row["path"]
    layers = {} if done.bundle is None else _int8(edgecnn.Bundle.open(done.bundle))
    kept = {name: document[name] for name in ("networks", "artifacts", "baselines", "notes", "machine")}
    refused = [{name: each[name] for name in ("format", "precision", "error")} for each in document["refused"]]
    return {**kept, "refused": refused, "int8": layers}


def _ap50(model: Any, **which: Any) -> float:
    value: float = edgecnn.evaluate(model, CELLS, split="test", **which).details["map50"]
    return value


def _int8(bundle: edgecnn.Bundle) -> dict[str, Any]:
    """What the evidence says of each int8 artifact."""
    said = {}
    for artifact in bundle.manifest.artifacts:
        evidence = artifact.evidence.quantization
        if evidence is not None:
            said[artifact.format] = msgspec.to_builtins(
                {"int8_mac_share": evidence.int8_mac_share, "latency": evidence.latency, "recipe": evidence.recipe}
            )
    return said


def backbones() -> dict[str, Any]:
    """EfficientNet-Lite0 from ImageNet weights and from random ones."""
    cut_out = {split: cut_cells(split) for split in ("train", "test")}
    rows: dict[str, Any] = {}
    for what, settings in BACKBONE_SETTINGS.items():
        classifies = what == "classifier"
        grown: dict[str, Any] = {"size": (128, 128)} if classifies else {"size": (256, 320), "head": "ssdlite"}
        data, test = (cut_out["train"], cut_out["test"]) if classifies else (CELLS, CELLS)
        for start, weights in (("ImageNet", "DEFAULT"), ("random", None)):
            trained = edgecnn.train(
                "efficientnet-lite0",
                weights=weights,
                data=data,
                out=BUILD.parent / f"lite0-{what}-{start}.model",
                settings=settings,
                progress=_say,
                **grown,
            )
            split = None if classifies else "test"
            measured = edgecnn.evaluate(str(trained.folder), test, split=split)
            row = {name: getattr(measured, name) for name in ("metric", "value", "low", "high", "n")}
            rows[f"{what}, {start}"] = row | {"epochs": settings.epochs, "ap50": measured.details.get("map50")}
            print(what, start, rows[f"{what}, {start}"], flush=True)
    return rows


def cut_cells(split: str) -> Path:
    """A folder for each class, with its cells cut out; of red cells, of which there are ten times more, one in ten."""
    folder = BUILD.parent / "cells" / split
    for sample in open_dataset(CELLS, task="detect", labels=CLASSES, split=split):
        image = sample.image()
        truth = sample.truth(image)
        assert isinstance(truth, BoxTruth)
        for number, (box, class_id) in enumerate(zip(truth.boxes_xyxy_px.tolist(), truth.class_ids, strict=True)):
            name = CLASSES[int(class_id)]
            if name == "RBC" and number % 10:
                continue
            left, top, right, bottom = box
            across, down = CUT_MARGIN * (right - left), CUT_MARGIN * (bottom - top)
            rows = slice(max(round(top - down), 0), round(bottom + down))
            columns = slice(max(round(left - across), 0), round(right + across))
            (folder / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / name / f"{sample.path.stem}-{number}.png"), image[rows, columns])
    return folder


def _say(done: int, total: int, what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{what} {done}/{total}\033[K", end="", file=sys.stderr, flush=True)


def table(results: dict[str, Any]) -> str:
    """The page."""
    lines = ["# Blood cells, from end to end", "", "<!-- generated by benchmarks/blood_cells.py -->", ""]
    if "flow" in results:
        lines += _flow_lines(results["flow"])
    if "backbones" in results:
        lines += _backbone_lines(results["backbones"])
    return "\n".join(lines) + "\n"


def _flow_lines(flow: dict[str, Any]) -> list[str]:
    baseline = min(flow["baselines"], key=lambda row: row["latency_ms"] or float("inf"))
    lines = [
        "`edgecnn compress benchmarks/recipes/bccd.toml`: YOLOX-nano at 416x320, learned from BCCD's train split,",
        "pruned to half of its multiply-adds, fine-tuned with distillation, quantized. Measured on the official test",
        f"split ({flow['networks'][-1]['n']} pictures). Latency of a picture of 640x480 px",
        f"with fit and finish, all in turns; faster than the unpruned network in {baseline['format']} fp32,",
        "its fastest.",
        "",
        "| | AP50 | AP | M multiply-adds | MB | ms | times faster |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in (*flow["networks"], *flow["artifacts"]):
        name = row["stage"] if row["stage"] != "shipped" else f"**{row['format']} {row['precision']}**"
        if name == "start":
            continue
        share = flow["int8"].get(row["format"], {}).get("int8_mac_share") if row["precision"] == "int8" else None
        name += "" if share is None else f", {share:.0%} in int8"
        faster = ""
        if row["times_faster"] is not None:
            faster = f"{row['times_faster']:.2f} [{row['times_faster_low']:.2f}, {row['times_faster_high']:.2f}]"
        lines.append(
            f"| {name} | {row['ap50']:.3f} | {row['value']:.3f} | {row['macs'] / 1e6:.0f} | "
            f"{row['file_bytes'] / 1e6:.2f} | {row['latency_ms'] or float('nan'):.1f} | {faster} |"
        )
    lines += [f"\nRefused: {each['format']} {each['precision']} ({each['error']})." for each in flow["refused"]]
    return [*lines, "", f"Machine: {flow['machine']['cpu']}.", ""]


def _backbone_lines(rows: dict[str, Any]) -> list[str]:
    lines = [
        "## What ImageNet is worth",
        "",
        "EfficientNet-Lite0 from ImageNet weights and from random ones, the same few epochs: as a classifier of cells",
        "cut out of the pictures, and with an SSDlite head as a detector. On the test split.",
        "",
        "| | epochs | ImageNet | random |",
        "| --- | ---: | ---: | ---: |",
    ]
    for what, metric in (("classifier", "top-1"), ("detector", "AP50")):
        one, other = rows[f"{what}, ImageNet"], rows[f"{what}, random"]
        name = "value" if what == "classifier" else "ap50"
        lines.append(f"| {what}, {metric} | {one['epochs']} | {one[name]:.3f} | {other[name]:.3f} |")
    return lines


def main() -> None:
    """Do what was asked for, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("parts", nargs="*", choices=["flow", "backbones", []])
    parser.add_argument("--table", action="store_true", help="only write the page")
    asked = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    parts = {"flow": flow, "backbones": backbones}
    for name in () if asked.table else asked.parts or parts:
        results[name] = parts[name]()
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
