"""Make the networks that ship: python benchmarks/defaults.py [detector] [segmenter] [--convert] [--card].

From published weights, pruned and fine-tuned with distillation as `recipes/default-*.toml` say, on the pictures of
`coco128/train` whose licence allows it (`coco_permissive_images.csv`), the detector also on frames of a video that is
CC BY, labelled by the published network. Writes `edgecnn/assets`, measures the result on `coco128/val`, which took no
part, and keeps the figures in `results/defaults.json` and in the model card.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2

import edgecnn
from edgecnn.datasets import iterate_frames, open_dataset
from edgecnn.flow.recipe_file import read_recipe
from edgecnn.flow.stages import settings_of
from edgecnn.results import Detections
from edgecnn.sources import TrainedModel
from edgecnn.sources.saved import save
from edgecnn.training.training import metric_in_torch

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "defaults.json"
RECIPES = REPOSITORY / "benchmarks" / "recipes"
BUILD = REPOSITORY / "build" / "defaults"
ASSETS = REPOSITORY / "edgecnn" / "assets"
COCO = REPOSITORY.parent / "shared" / "data" / "coco128"
VIDEO = REPOSITORY.parent / "shared" / "video" / "one-by-one-person-detection.mp4"
VIDEO_FRAMES = 40
LEAST_SCORE = 0.4  # of a box that counts as a label
CARD = ASSETS / "MODEL_CARD.md"
BEGIN, END = "<!-- metrics -->\n", "<!-- end of metrics -->"
# Kind of labels → folder in coco128, ending, folder that a data set has them in, class names.
LABELS = {
    "detector": ("labels", ".txt", "labels", "classes.txt"),
    "segmenter": ("masks_voc21", ".png", "masks", "classes_voc21.txt"),
}
FORMATS = ("onnx", "openvino", "tflite")


def permissive_pictures(name: str) -> Path:
    """A data set of the pictures of `train` that may be trained on for what ships."""
    source, ending, target, classes = LABELS[name]
    folder = BUILD / name
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("images", target):
        (folder / part).mkdir(parents=True)
    shutil.copy(COCO / classes, folder / "classes.txt")
    with (COCO / "coco_permissive_images.csv").open(encoding="utf-8") as file:
        names = [row["file"] for row in csv.DictReader(file) if row["split"] == "train2017"]
    for picture in (COCO / "train" / "images" / name for name in names):
        label = COCO / "train" / source / f"{picture.stem}{ending}"
        if picture.exists() and label.exists():
            shutil.copy(picture, folder / "images")
            shutil.copy(label, folder / target)
    return folder


def add_video_frames(folder: Path, origin: TrainedModel) -> None:
    """Frames of the video, from all along it, labelled with what the published network finds in them."""
    namer = BUILD / "origin.edge"
    edgecnn.convert(origin, to=["onnx"], out=namer)
    with edgecnn.open_runner(namer, score=LEAST_SCORE) as runner:
        frames = iterate_frames(VIDEO, VIDEO_FRAMES)
        for number, frame in enumerate(frames):
            found = runner(frame)
            assert isinstance(found, Detections)
            height, width = frame.shape[:2]
            left, top, right, bottom = (found.boxes_xyxy_px / [width, height, width, height]).T
            rows = zip(found.class_ids, (left + right) / 2, (top + bottom) / 2, right - left, bottom - top, strict=True)
            stem = f"{VIDEO.stem}-{number:02d}"
            cv2.imwrite(str(folder / "images" / f"{stem}.jpg"), frame)
            lines = [f"{class_id} {x:.5f} {y:.5f} {w:.5f} {h:.5f}\n" for class_id, x, y, w, h in rows]
            (folder / "labels" / f"{stem}.txt").write_text("".join(lines), encoding="utf-8")


def make(name: str) -> dict[str, Any]:
    """Prune, fine-tune, convert, measure; a row of figures."""
    data = permissive_pictures(name)
    recipe = read_recipe(RECIPES / f"default-{name}.toml")
    assert recipe.prune is not None and recipe.fine_tune is not None
    origin = edgecnn.load_model(recipe.model, **recipe.model_options)
    if name == "detector":
        add_video_frames(data, origin)
    cost, share = recipe.prune.cost
    pruned = edgecnn.prune(
        recipe.model,
        out=BUILD / f"{name}-pruned.model",
        share=share,
        cost=cost,
        importance=recipe.prune.importance,
        round_to=recipe.prune.round_to,
        data=data,
        **recipe.model_options,
    )
    trained = edgecnn.train(
        str(pruned.folder),
        data=data,
        out=BUILD / f"{name}-trained.model",
        settings=settings_of(recipe.fine_tune),
        teacher=origin,
        keep_classes=True,
    )
    shipped = shipped_from(trained.folder, name)
    ignored = recipe.data.ignore_label
    figures: dict[str, Any] = {
        "metric": shipped.task.metric,
        "n": len(measured_on(shipped)),
        "trained_on": len(list((data / "images").iterdir())),
        "macs": {"origin": pruned.macs[0], "shipped": pruned.macs[1]},
        "parameters": {"origin": pruned.parameters[0], "shipped": pruned.parameters[1]},
    }
    for what, model in (("origin", origin), ("pruned", edgecnn.load_model(str(pruned.folder))), ("shipped", shipped)):
        figures[what] = round(metric_in_torch(model, measured_on(model), ignored), 4)
        print(name, what, figures[what], flush=True)
    return figures | {"bytes": convert(name)}


def convert(name: str) -> int:
    """The bundle of a network that ships; bytes of both."""
    bundle = edgecnn.convert(f"default-{name}", to=FORMATS, precision=["fp16"], out=ASSETS / f"{name}.edge").bundle
    assert bundle is not None and len(bundle.manifest.artifacts) == len(FORMATS)
    files = [*bundle.folder.iterdir(), *(ASSETS / f"{name}.model").iterdir()]
    return sum(file.stat().st_size for file in files)


def shipped_from(folder: Path, name: str) -> TrainedModel:
    """Save a network where it ships, in half precision; as it is then."""
    trained = edgecnn.load_model(str(folder))
    save(replace(trained, name=f"default-{name}"), ASSETS / f"{name}.model", half=True)
    return edgecnn.load_model(f"default-{name}")


def measured_on(model: TrainedModel) -> Any:
    """The pictures that took no part."""
    return open_dataset(COCO / "val", task=model.task.name, labels=model.task.labels)


def card(results: dict[str, Any]) -> str:
    """The metrics as Markdown."""
    lines = [
        "On `coco128/val`, the first 128 pictures of COCO val2017 (100 of them with class maps, without background),",
        "which neither the origins nor these networks were trained on; the torch networks, of which every shipped",
        "artifact is within its format's tolerance (`benchmarks/defaults.py`).",
        "",
        "| | metric | published weights | pruned | shipped | multiply-adds | parameters | trained on |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in results.items():
        macs, parameters = (
            f"{row[what]['shipped'] / 1e6:.2f} M of {row[what]['origin'] / 1e6:.2f} M"
            for what in ("macs", "parameters")
        )
        words = {"map": "AP", "miou": "mean IoU"}[row["metric"]]
        lines.append(
            f"| default-{name} | {words} | {row['origin']:.4f} | {row['pruned']:.4f} | {row['shipped']:.4f} | {macs} | "
            f"{parameters} | {row['trained_on']} pictures |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make what was asked for, then write the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", choices=[*LABELS, []], metavar="NAME")
    parser.add_argument("--convert", action="store_true", help="only convert again what ships")
    parser.add_argument("--card", action="store_true", help="only write the model card's figures")
    asked = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in () if asked.card else asked.names or LABELS:
        results[name] = results[name] | {"bytes": convert(name)} if asked.convert else make(name)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    before, _, rest = CARD.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    CARD.write_text(before + BEGIN + card(results) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
