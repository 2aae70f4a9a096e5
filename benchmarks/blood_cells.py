"""Blood cells from end to end: python -m benchmarks.blood_cells [flow] [rounding] [backbones] [--table].

On BCCD (MIT): its train and val splits are learned from and decided on, its official test split is measured on.

- flow: YOLOX-nano trained, pruned, fine-tuned, quantized as `recipes/bccd.toml` says (an hour and a half on 2 cores).
- rounding: the network that the flow trained, int8 by the book beside int8 after some passes of training with the
  rounding of each format (after the flow; it starts from what that left in `build/`).
- backbones: EfficientNet-Lite0 as a detector of cells, and as a classifier of cells cut out, from ImageNet weights and
  from random ones, with the same settings.

Results go to `results/blood_cells.json`, from which `docs/blood-cells.md` is generated.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import cv2

import edgecnn
from benchmarks.flow_figures import (
    BUILD,
    RECIPES,
    REPOSITORY,
    RESULTS,
    SHARED_DATA,
    fastest_baseline,
    flow_figures,
    flow_lines,
    say,
)
from edgecnn.compression.train.settings import Target, TrainSettings
from edgecnn.datasets import BoxTruth, open_dataset

FIGURES = RESULTS / "blood_cells.json"
TABLE = REPOSITORY / "docs" / "blood-cells.md"
RECIPE = RECIPES / "bccd.toml"
CELLS = SHARED_DATA / "bccd"
FORMATS: tuple[Target, ...] = ("openvino", "onnx", "tflite")
CLASSES = ("Platelets", "RBC", "WBC")
CUT_MARGIN = 0.1  # of a cell's box, on each side
# Few passes: what ImageNet is worth shows there. The same for both.
BACKBONE_SETTINGS = {
    "classifier": TrainSettings(epochs=3, batch=16, ema_decay=0.9),
    "detector": TrainSettings(epochs=6, batch=8, ema_decay=0.95, evaluate_every=3),
}

ROUNDING_EPOCHS = 4


def flow() -> dict[str, Any]:
    """Do the recipe, and add AP at IoU 0.5 on the test split to its figures."""
    return flow_figures(RECIPE, CELLS, more={"ap50": "map50"})


def rounding() -> dict[str, Any]:
    """int8 of the trained network, which still has SiLU: as it is, and after training with each format's rounding."""
    float_network = BUILD / RECIPE.stem / "1-train.model"
    calibration = train_pictures()
    rows: dict[str, Any] = {}
    for format_name in FORMATS:
        settings = TrainSettings(
            epochs=ROUNDING_EPOCHS, batch=8, learning_rate=1e-4, ema_decay=0.98, quantize_for=format_name
        )
        aware = edgecnn.train(
            str(float_network),
            teacher=str(float_network),
            data=CELLS,
            out=BUILD / f"rounding-{format_name}.model",
            settings=settings,
            progress=say,
        )
        row: dict[str, Any] = {"epochs": settings.epochs}
        for name, network in (("by the book", float_network), ("trained with rounding", aware.folder)):
            bundle = BUILD / f"rounding-{format_name}-{network.stem}.edge"
            edgecnn.convert(str(network), to=[format_name], out=bundle)
            made = edgecnn.quantize(bundle, to=[format_name], calibration=calibration)
            row[name] = _int8_row(bundle) if made.bundle is not None else {"refused": made.refused[0].reason}
        rows[format_name] = row
        print(format_name, json.dumps(row), flush=True)
    return rows


def train_pictures() -> Path:
    """A folder with the pictures of the train split alone."""
    folder = BUILD / "bccd-train-pictures"
    folder.mkdir(parents=True, exist_ok=True)
    for sample in open_dataset(CELLS, task="detect", labels=CLASSES, split="train"):
        shutil.copyfile(sample.path, folder / sample.path.name)
    return folder


def _int8_row(bundle: Path) -> dict[str, Any]:
    """AP and AP50 on the test split, float and int8, and the share that is int8."""
    artifact = edgecnn.Bundle.open(bundle).manifest.artifacts[-1]
    row: dict[str, Any] = {}
    for precision in ("fp32", "int8"):
        measured = edgecnn.evaluate(bundle, CELLS, split="test", format=artifact.format, precision=precision)
        row[precision] = {"ap": measured.value, "ap50": measured.details["map50"], "n": measured.n}
    assert artifact.evidence.quantization is not None
    return row | {"int8_mac_share": artifact.evidence.quantization.int8_mac_share}


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
                out=BUILD / f"lite0-{what}-{start}.model",
                settings=settings,
                progress=say,
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
    folder = BUILD / "cells" / split
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


def table(results: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# Blood cells, from end to end",
        "",
        "<!-- generated by benchmarks/blood_cells.py from benchmarks/results/blood_cells.json -->",
        "",
    ]
    if "flow" in results:
        lines += _flow_lines(results["flow"])
    if "rounding" in results:
        lines += _rounding_lines(results["rounding"])
    if "backbones" in results:
        lines += _backbone_lines(results["backbones"])
    return "\n".join(lines) + "\n"


def _flow_lines(flow: dict[str, Any]) -> list[str]:
    return [
        "`edgecnn compress benchmarks/recipes/bccd.toml`: YOLOX-nano at 416x320, learned from BCCD's train split,",
        "pruned to half of its multiply-adds, fine-tuned with distillation, quantized. Measured on the official test",
        f"split ({flow['networks'][-1]['n']} pictures). Latency of a picture of 640x480 px",
        f"with fit and finish, all in turns; faster than the unpruned network in {fastest_baseline(flow)} fp32,",
        "its fastest.",
        "",
        *flow_lines(flow, columns={"AP50": "ap50", "AP": "value"}),
    ]


def _rounding_lines(rows: dict[str, Any]) -> list[str]:
    lines = [
        "## Trained with the rounding of int8",
        "",
        "The network that was trained and not pruned, with its SiLU: int8 by the book (ranges read off the train",
        f"split, every layer in int8), and the same after {rows['onnx']['epochs']} epochs of",
        "`edgecnn train --quantize-for FORMAT`. AP and AP50 on the test split, and the share of multiply-adds in int8.",
        "",
        "| | float AP | by the book AP | AP50 | trained with rounding AP | AP50 | in int8 |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows.items():
        book, aware = row["by the book"], row["trained with rounding"]
        cells = [f"{book['fp32']['ap']:.3f}"] if "fp32" in book else [""]
        for one in (book, aware):
            cells += ["refused", ""] if "refused" in one else [f"{one['int8']['ap']:.3f}", f"{one['int8']['ap50']:.3f}"]
        cells.append("" if "refused" in aware else f"{aware['int8_mac_share']:.0%}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


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
    parser.add_argument("parts", nargs="*", choices=["flow", "rounding", "backbones", []])
    parser.add_argument("--table", action="store_true", help="only write the page")
    asked = parser.parse_args()
    results: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    parts = {"flow": flow, "rounding": rounding, "backbones": backbones}
    for name in () if asked.table else asked.parts or parts:
        results[name] = parts[name]()
        FIGURES.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
