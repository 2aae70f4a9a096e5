"""Make the networks that ship: python benchmarks/defaults.py [detector] [segmenter] [--convert] [--ship] [--card].

From published weights, as `recipes/default-*.toml` say: pruned and fine-tuned where they have these tables, converted
and quantized. Weights are trained, and int8 is calibrated, only on the pictures of `coco128/train` whose licence allows
it (`coco_permissive_images.csv`); int8 of the detector also on frames of a video that is CC BY. Which layers stay in
float is found on the other pictures of `train`. Writes `edgecnn/assets`, measures what ships on `coco128/val`, which
took no part, and keeps the figures in `results/defaults.json` and in the model card.
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
import msgspec

import edgecnn
from edgecnn.bundle import Artifact, Bundle, commit, staged
from edgecnn.datasets import iterate_frames, open_dataset
from edgecnn.flow.recipe import Quantize, Recipe
from edgecnn.flow.recipe_file import read_recipe
from edgecnn.flow.stages import settings_of
from edgecnn.processor import processor_name
from edgecnn.pruning.pruning import Pruning
from edgecnn.runners.choose import is_accurate
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
VIDEO_FRAMES = 15
# With 0.40, 74 % of what the detector says of `coco128/train` is right, and 42 % of what is there is found; with the
# usual 0.30 it were 50 and 53 %, and with 0.50, 88 and 32 %.
SCORE_THRESHOLDS = {"detector": 0.4}
CARD = ASSETS / "MODEL_CARD.md"
BEGIN, END = "<!-- metrics -->\n", "<!-- end of metrics -->"
# Kind of labels → folder in coco128, ending, folder that a data set has them in, class names.
LABELS = {
    "detector": ("labels", ".txt", "labels", "classes.txt"),
    "segmenter": ("masks_voc21", ".png", "masks", "classes_voc21.txt"),
}
WORDS = {"map": "AP", "miou": "mean IoU"}
# Formats that ship in float, with its weights in half precision; where every format does, the wheel is too large. Of
# ONNX Runtime and this network, int8 was not faster: there float is needed most.
FLOAT_FORMATS = {"detector": ("onnx",), "segmenter": ("onnx", "openvino", "tflite")}


def recipe_of(name: str) -> Recipe:
    """How a network that ships is made."""
    return read_recipe(RECIPES / f"default-{name}.toml")


def permissive_pictures(name: str) -> Path:
    """A data set of the pictures of `train` that what ships may be trained and calibrated on."""
    return part_of_train(name, BUILD / name, permissive=True)


def pictures_to_search_on(name: str) -> Path:
    """A data set of the other pictures of `train`; they decide which layers stay in float."""
    return part_of_train(name, BUILD / f"{name}-search", permissive=False)


def part_of_train(name: str, folder: Path, *, permissive: bool) -> Path:
    """A data set of those pictures of `train` whose licence is permissive, or of the others."""
    source, ending, target, classes = LABELS[name]
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("images", target):
        (folder / part).mkdir(parents=True)
    shutil.copy(COCO / classes, folder / "classes.txt")
    with (COCO / "coco_permissive_images.csv").open(encoding="utf-8") as file:
        allowed = {row["file"] for row in csv.DictReader(file) if row["split"] == "train2017"}
    for picture in sorted((COCO / "train" / "images").iterdir()):
        label = COCO / "train" / source / f"{picture.stem}{ending}"
        if (picture.name in allowed) == permissive and label.exists():
            shutil.copy(picture, folder / "images")
            shutil.copy(label, folder / target)
    return folder


def add_video_frames(folder: Path) -> None:
    """Frames of the video, from all along it; without labels, for calibration."""
    for number, frame in enumerate(iterate_frames(VIDEO, VIDEO_FRAMES)):
        cv2.imwrite(str(folder / "images" / f"{VIDEO.stem}-{number:02d}.jpg"), frame)


def make(name: str) -> dict[str, Any]:
    """Prune and fine-tune where the recipe says so, convert, quantize, measure; a row of figures."""
    recipe = recipe_of(name)
    origin = edgecnn.load_model(recipe.model, **recipe.model_options)
    data = permissive_pictures(name)
    if name == "detector":
        add_video_frames(data)
    figures: dict[str, Any] = {"metric": origin.task.metric, "trained_on": 0}
    measured = {"origin": origin}
    final = with_threshold(origin, SCORE_THRESHOLDS.get(name))
    if recipe.prune is not None:
        pruned, final = smaller(recipe, name, data, origin)
        measured["pruned"] = edgecnn.load_model(str(pruned.folder))
        figures["trained_on"] = len(list((data / "images").iterdir()))
    measured["shipped"] = ship_network(final, name)
    figures["n"] = len(measured_on(final))
    for what, model in measured.items():
        figures[what] = round(metric_in_torch(model, measured_on(model), recipe.data.ignore_label), 4)
        print(name, what, figures[what], flush=True)
    return figures | convert(name)


def with_threshold(model: TrainedModel, score: float | None) -> TrainedModel:
    """The network, whose results leave out what scores less."""
    return model if score is None else replace(model, task=model.task.with_thresholds(score=score))


def smaller(recipe: Recipe, name: str, data: Path, origin: TrainedModel) -> tuple[Pruning, TrainedModel]:
    """The network with channels removed, and the same trained on."""
    assert recipe.prune is not None and recipe.fine_tune is not None
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
    return pruned, edgecnn.load_model(str(trained.folder))


def convert(name: str) -> dict[str, Any]:
    """Make the bundle of a network that ships; its figures."""
    recipe = recipe_of(name)
    made = edgecnn.convert(
        f"default-{name}",
        to=recipe.convert.to,
        precision=recipe.convert.precision,
        out=BUILD / f"{name}.edge",
        overwrite=True,
    ).bundle
    assert made is not None
    if recipe.quantize is not None:
        quantize(name, made, recipe.quantize, recipe.data.ignore_label)
    return ship(name)


def ship(name: str) -> dict[str, Any]:
    """Put what was converted and quantized last into the assets; its figures."""
    recipe, bundle = recipe_of(name), ship_bundle(name)
    folders = (bundle.folder, ASSETS / f"{name}.model")
    return {
        "macs": sum(layer.macs for layer in bundle.manifest.layers),
        "parameters": bundle.manifest.parameters,
        "machine": processor_name(),
        "bytes": sum(file.stat().st_size for folder in folders for file in folder.iterdir()),
        "artifacts": [measured_artifact(bundle, one, recipe.data.ignore_label) for one in bundle.manifest.artifacts],
    }


def quantize(name: str, bundle: Bundle, settings: Quantize, ignore_label: str | None) -> None:
    """Add int8 artifacts, calibrated on what may be used for what ships, searched on other pictures of `train`."""
    result = edgecnn.quantize(
        bundle,
        to=settings.to,
        calibration=BUILD / name / "images",
        seed=settings.seed,
        data=pictures_to_search_on(name),
        max_drop=settings.max_drop,
        evaluate_on=COCO / "val",
        ignore_label=ignore_label,
        budget_minutes=settings.budget_minutes,
    )
    for refused in result.refused:
        print(name, "refused:", refused.format, refused.reason, flush=True)


def ship_bundle(name: str) -> Bundle:
    """Copy what ships of the bundle that was made into the assets."""
    made = Bundle.open(BUILD / f"{name}.edge")
    shipped = tuple(one for one in made.manifest.artifacts if ships(one, name))
    folder = ASSETS / f"{name}.edge"
    with staged(folder) as staging:
        for record in (file for one in shipped for file in one.files):
            shutil.copyfile(made.folder / record.path, staging / record.path)
        manifest = msgspec.structs.replace(made.manifest, artifacts=shipped, refused=())
        return commit(staging, folder, manifest, overwrite=True)


def ships(artifact: Artifact, name: str) -> bool:
    """Whether an artifact ships: float where it is needed; int8 where it is accurate and faster than float."""
    if artifact.precision == "fp16":
        return artifact.format in FLOAT_FORMATS[name]
    how = artifact.evidence.quantization
    return how is not None and is_accurate(artifact) and how.latency is not None and not how.slower_than_float


def measured_artifact(bundle: Bundle, artifact: Artifact, ignore_label: str | None) -> dict[str, Any]:
    """The metric of an artifact as it ships, and what its evidence says."""
    found = edgecnn.evaluate(
        bundle,
        data=COCO / "val",
        format=artifact.format,
        precision=artifact.precision,
        ignore_label=ignore_label,
    )
    print(artifact.label, round(found.value, 4), flush=True)
    row: dict[str, Any] = {
        "format": artifact.format,
        "precision": artifact.precision,
        "value": round(found.value, 4),
        "bytes": sum(file.bytes for file in artifact.files),
    }
    if (how := artifact.evidence.quantization) is not None:
        row["int8_mac_share"] = round(how.int8_mac_share, 4)
        row["calibrated_on"] = how.calibration.count if how.calibration else 0
        if (times := how.latency) is not None:
            row["times_as_fast_as_float"] = [round(value, 3) for value in (times.low, times.ratio, times.high)]
    return row


def ship_network(model: TrainedModel, name: str) -> TrainedModel:
    """Save a network where it ships, in half precision; as it is then."""
    save(replace(model, name=f"default-{name}"), ASSETS / f"{name}.model", half=True)
    return edgecnn.load_model(f"default-{name}")


def measured_on(model: TrainedModel) -> Any:
    """The pictures that took no part."""
    return open_dataset(COCO / "val", task=model.task.name, labels=model.task.labels)


def card(results: dict[str, Any]) -> str:
    """The metrics as Markdown."""
    lines = [
        "On `coco128/val`, the first 128 pictures of COCO val2017 (100 of them with class maps, without background),",
        "which took no part in training the origins or these, nor in calibration or search (`benchmarks/defaults.py`).",
        "",
        "| | metric | published weights | pruned | shipped | multiply-adds | parameters | trained on |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in results.items():
        pruned = f"{row['pruned']:.4f}" if "pruned" in row else "not pruned"
        trained = f"{row['trained_on']} pictures" if row["trained_on"] else "nothing more"
        lines.append(
            f"| default-{name} | {WORDS[row['metric']]} | {row['origin']:.4f} | {pruned} | {row['shipped']:.4f} | "
            f"{row['macs'] / 1e6:.0f} M | {row['parameters'] / 1e6:.2f} M | {trained} |"
        )
    lines += [
        "",
        "Each artifact, as it ships; how much faster int8 is than fp32 of the same format, where it was made",
        f"({results['detector'].get('machine', 'unknown')}): on yours, `edgecnn bench default-detector` measures it.",
        "",
        "| | artifact | metric | multiply-adds in int8 | MB | times as fast as fp32 |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for name, row in results.items():
        for one in row["artifacts"]:
            share = f"{one['int8_mac_share']:.0%}" if "int8_mac_share" in one else ""
            low, times, high = one.get("times_as_fast_as_float", (0, 0, 0))
            faster = f"{times:.2f} ({low:.2f} to {high:.2f})" if times else ""
            lines.append(
                f"| default-{name} | {one['format']} {one['precision']} | {WORDS[row['metric']]} {one['value']:.4f} | "
                f"{share} | {one['bytes'] / 1e6:.1f} | {faster} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Make what was asked for, then write the card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("names", nargs="*", choices=[*LABELS, []], metavar="NAME")
    parser.add_argument("--convert", action="store_true", help="only convert again what ships")
    parser.add_argument("--ship", action="store_true", help="only copy and measure again what was converted last")
    parser.add_argument("--card", action="store_true", help="only write the model card's figures")
    asked = parser.parse_args()
    results: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in () if asked.card else asked.names or LABELS:
        if asked.convert or asked.ship:
            results[name] |= ship(name) if asked.ship else convert(name)
        else:
            results[name] = make(name)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    before, _, rest = CARD.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    CARD.write_text(before + BEGIN + card(results) + END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
