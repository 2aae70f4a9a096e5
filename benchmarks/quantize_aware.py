"""int8 by the book beside training with its rounding: python -m benchmarks.quantize_aware [CASE:FORMAT …] [--table].

- coco: YOLOX-nano as published; trained and calibrated on `coco128/train`, measured on `coco128/val`.
- cells: YOLOX-nano trained for blood cells by `benchmarks.blood_cells flow`, not pruned, with its SiLU; the train and
  the test split.
- imagenet: EfficientNet-Lite0 as published, on the pictures of `coco128` and the four quarters of each. These have no
  such labels: the class is the one that the float network names, so that what is measured is how often int8 agrees.

By the book: the best of the ranges, every layer in int8, none kept float by a search. Beside it, the same network after
a few epochs with each format's rounding (`edgecnn train --quantize-for FORMAT`), the float network as its teacher; made
int8 in the same way, with the ranges that were learned. The last epoch counts; what is measured on decides nothing.

Results go to `results/quantize_aware.json`, row by row, from which `docs/quantize-aware.md` is generated.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

import edgecnn
from benchmarks.flow_figures import BUILD, REPOSITORY, RESULTS, SHARED_DATA, show_progress
from edgecnn.measure.machine import describe_machine
from edgecnn.pictures import read_picture
from edgecnn.results import Classification, UInt8Array
from edgecnn.training.settings import Augmentation, Distillation, TrainSettings

FIGURES = RESULTS / "quantize_aware.json"
TABLE = REPOSITORY / "docs" / "quantize-aware.md"
WEIGHTS = REPOSITORY.parent / "shared" / "models" / "yolox-nano" / "yolox_nano.pth"
PLACE = BUILD / "quantize-aware"
FORMATS: tuple[str, ...] = ("openvino", "onnx", "tflite")
# From the float network alone: on pictures as few as these, labels make a network forget.
DETECTOR = TrainSettings(
    epochs=6,
    batch=8,
    learning_rate=3e-5,
    weight_decay=1e-4,
    freeze_norms=True,
    ema_decay=0.95,
    evaluate_every=6,
    augmentation=Augmentation(smallest_crop=0.5, mosaic=0.25),
    distillation=Distillation(outputs=5.0, labels=0.0),
)
# Dropout would be noise beside int8's.
CLASSIFIER = msgspec.structs.replace(
    DETECTOR,
    epochs=3,
    optimizer="sgd",
    learning_rate=1e-4,
    dropout=0.0,
    evaluate_every=3,
    augmentation=Augmentation(smallest_crop=0.5, mosaic=0.0),
)


@dataclass(frozen=True)
class Case:
    """A network, and the pictures it learns from and is measured on.

    Attributes:
        model, weights: as for `load_model`.
        metric: in words.
        train, train_split, test, test_split: labelled pictures.
        settings: of the training.
        formats: to measure.
    """

    model: str
    weights: Path | str | None
    metric: str
    train: Path
    train_split: str | None
    test: Path
    test_split: str | None
    settings: TrainSettings = DETECTOR
    formats: tuple[str, ...] = FORMATS


COCO = SHARED_DATA / "coco128"
NAMED = BUILD / "named-pictures"
CASES = {
    "coco": Case("yolox-nano", WEIGHTS, "AP", COCO / "train", None, COCO / "val", None),
    "cells": Case(
        str(BUILD / "bccd" / "1-train.model"), None, "AP", SHARED_DATA / "bccd", "train", SHARED_DATA / "bccd", "test"
    ),
    "imagenet": Case(
        "efficientnet-lite0",
        "DEFAULT",
        "agreement",
        NAMED / "train",
        None,
        NAMED / "val",
        None,
        settings=CLASSIFIER,
        formats=("openvino",),
    ),
}
ROWS = [f"{name}:{format_name}" for name, case in CASES.items() for format_name in case.formats]


def name_pictures(case: Case) -> None:
    """Sort the pictures of `coco128`, and the quarters of each, into folders by the class that the network names."""
    shutil.rmtree(NAMED, ignore_errors=True)
    namer = BUILD / "namer.edge"
    edgecnn.convert(case.model, to=["openvino"], out=namer, weights=case.weights)
    with edgecnn.open_runner(namer, format="openvino", precision="fp32") as runner:
        for part in ("train", "val"):
            for path in sorted((COCO / part / "images").iterdir()):
                for number, picture in enumerate(with_quarters(read_picture(path))):
                    named = runner(picture)
                    assert isinstance(named, Classification)
                    folder = NAMED / part / named.labels[named.class_ids[0]].replace("/", "_")
                    folder.mkdir(parents=True, exist_ok=True)
                    cv2.imwrite(str(folder / f"{path.stem}_{number}.png"), picture)


def with_quarters(picture: UInt8Array) -> list[UInt8Array]:
    """A picture and its four quarters, uint8 [height, width, 3] each."""
    height, width = picture.shape[:2]
    tops, lefts = (0, height - height // 2), (0, width - width // 2)
    quarters = [picture[top : top + height // 2, left : left + width // 2] for top in tops for left in lefts]
    return [picture, *(np.ascontiguousarray(quarter) for quarter in quarters)]


def measure(case: Case, format_name: str, place: Path) -> dict[str, Any]:
    """One row."""
    shutil.rmtree(place, ignore_errors=True)
    if not case.train.exists():
        name_pictures(case)
    start = time.monotonic()
    aware = edgecnn.train(
        case.model,
        weights=case.weights,
        teacher=case.model,
        teacher_weights=case.weights,
        data=case.train,
        split=case.train_split,
        validate_on=None if case.train == case.test else case.test,
        keep_classes=True,
        out=place / "aware.model",
        settings=msgspec.structs.replace(case.settings, quantize_for=format_name),
        progress=show_progress,
    )
    row: dict[str, Any] = {"epochs": case.settings.epochs, "train_minutes": round((time.monotonic() - start) / 60, 1)}
    networks: dict[str, tuple[str, Path | str | None]] = {
        "book": (case.model, case.weights),
        "aware": (str(aware.folder), None),
    }
    for name, (network, weights) in networks.items():
        bundle = place / f"{name}.edge"
        edgecnn.convert(network, to=[format_name], out=bundle, weights=weights)
        # A bound that everything keeps: every layer in int8, with the best of the ranges.
        made = edgecnn.quantize(
            bundle, to=[format_name], data=case.train, split=case.train_split, max_drop=1.0, keep_slower=True
        )
        assert made.bundle is not None, made.refused
        evidence = made.bundle.artifact(format_name, "int8").evidence.quantization
        assert evidence is not None
        row[name] = {"int8_mac_share": evidence.int8_mac_share, "times_faster": msgspec.to_builtins(evidence.latency)}
        for precision in ("fp32", "int8"):
            measured = edgecnn.evaluate(
                bundle, case.test, split=case.test_split, format=format_name, precision=precision
            )
            row[name][precision] = {key: getattr(measured, key) for key in ("value", "low", "high", "n")}
    return row


def table(results: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# int8 after calibration and after quantization-aware training",
        "",
        "<!-- generated by benchmarks/quantize_aware.py from benchmarks/results/quantize_aware.json -->",
        "",
        "coco: AP of the published YOLOX-nano on `coco128/val`. cells: AP of YOLOX-nano, trained on blood cells, on",
        "the test split of BCCD. imagenet: the share of 128 pictures and their quarters for which EfficientNet-Lite0",
        "answers the same class as in float. Calibrated: the best activation ranges, every layer in int8. Trained: the",
        "same after a few epochs with the rounding of the format (`edgecnn train --quantize-for FORMAT`), the float",
        "network as teacher. No layer stays in float here; a search for such layers is the other way to keep the",
        "accuracy: [int8 and float](int8.md). OpenVINO rounds only the inputs of convolutions: if that costs almost",
        "nothing, training loses more accuracy than it gains.",
        "",
        "| network | format | metric | float | calibrated: int8 | trained: float | int8 | times faster | epochs |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    measured = [name for name in ROWS if name in results["rows"]]
    for name in measured:
        row = results["rows"][name]
        pairs = [(which, precision) for which in ("book", "aware") for precision in ("fp32", "int8")]
        values = [f"{row[which][precision]['value']:.3f}" for which, precision in pairs]
        faster = row["aware"]["times_faster"]
        faster_text = "" if faster is None else f"{faster['ratio']:.2f} [{faster['low']:.2f}, {faster['high']:.2f}]"
        case, _, format_name = name.partition(":")
        words = f"{case} | {format_name} | {CASES[case].metric}"
        lines.append(f"| {words} | {' | '.join(values)} | {faster_text} | {row['epochs']} |")
    missing = [name for name in ROWS if name not in measured]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    machine = results["machine"]
    lines += ["", f"Machine: {machine['cpu_model']}, threads: {machine['threads_default']}, on a busy machine."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Do what was asked for, else what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="*", choices=[*ROWS, []], metavar="CASE:FORMAT")
    parser.add_argument("--table", action="store_true", help="only write the page")
    asked = parser.parse_args()
    results: dict[str, Any] = {"rows": {}}
    if FIGURES.exists():
        results = json.loads(FIGURES.read_text(encoding="utf-8"))
    missing = [row for row in ROWS if row not in results["rows"]]
    for row in () if asked.table else asked.rows or missing:
        case, _, name = row.partition(":")
        results["machine"] = msgspec.to_builtins(describe_machine())
        results["rows"][row] = measure(CASES[case], next(f for f in FORMATS if f == name), PLACE / case / name)
        print(row, json.dumps(results["rows"][row]), flush=True)
        FIGURES.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    TABLE.write_text(table(results), encoding="utf-8")


if __name__ == "__main__":
    main()
