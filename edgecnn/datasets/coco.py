"""COCO JSON: one file with images, annotations and categories (boxes, outlines)."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.datasets.base import (
    UNKNOWN_CLASS,
    UNLABELLED,
    BoxTruth,
    Dataset,
    Sample,
    beginning,
    map_classes,
    read_text,
)
from edgecnn.datasets.images import list_images
from edgecnn.errors import DataError
from edgecnn.results import UInt8Array

NAME = "COCO JSON"
_PARTS = ("images", "annotations", "categories")
# What a file of this kind of label is usually called; where a folder holds several, these are tried first.
_USUAL_NAMES = {
    "detect": ("boxes", "bbox", "instances"),
    "instances": ("polygons", "segm", "mask", "instances"),
}
_ABSENT = "images that the JSON names and that are not there"


def open_coco(path: Path, *, task: str, labels: Sequence[str], split: str | None) -> Dataset | None:
    """The data set, or None where `path` neither is nor holds a COCO JSON with labels for the task.

    Raises:
        DataError: broken JSON, ids that point nowhere, no image found, no class in common.
    """
    for file in _candidates(path, task, split):
        data = _load(file, asked_for=file == path)
        if data is not None and _has_labels(data, task):
            return _dataset(file, data, task=task, labels=labels)
    return None


def _candidates(path: Path, task: str, split: str | None) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    found = [f for folder in (path, path / "annotations") if folder.is_dir() for f in folder.glob("*.json")]
    if split is not None:
        found = [file for file in found if split in file.stem]

    def preference(file: Path) -> tuple[int, str]:
        words = _USUAL_NAMES[task]
        return next((i for i, word in enumerate(words) if word in file.stem.lower()), len(words)), file.name

    return sorted(found, key=preference)


def _load(file: Path, *, asked_for: bool) -> dict[str, Any] | None:
    try:
        data = json.loads(read_text(file))
    except json.JSONDecodeError as broken:
        raise DataError(f"{file} is broken JSON: {broken}; copy or export it again") from broken
    lists = isinstance(data, dict) and all(isinstance(data.get(part), list) for part in _PARTS)
    if lists:
        return dict(data)
    if asked_for:
        found = beginning(list(data)) if isinstance(data, dict) else type(data).__name__
        raise DataError(f"{file} is not COCO JSON: it wants the lists {', '.join(_PARTS)}, and holds {found}")
    return None


def _has_labels(data: dict[str, Any], task: str) -> bool:
    key = "segmentation" if task == "instances" else "bbox"
    return any(annotation.get(key) for annotation in data["annotations"])


def _dataset(file: Path, data: dict[str, Any], *, task: str, labels: Sequence[str]) -> Dataset:
    try:
        names = {int(category["id"]): str(category["name"]) for category in data["categories"]}
        images = {int(image["id"]): image for image in data["images"]}
        file_names = {key: str(image["file_name"]) for key, image in images.items()}
    except (KeyError, TypeError, ValueError) as wrong:
        raise DataError(
            f"{file}: a category wants 'id' and 'name', an image 'id' and 'file_name'; found {wrong!r}"
        ) from wrong
    classes = map_classes(list(names.values()), labels, where=file)
    network_ids = dict(zip(names, classes.network_ids.tolist(), strict=True))
    objects = _objects_by_image(file, data["annotations"], network_ids, images)

    folder = _image_folder(file, file_names.values())
    left_out: Counter[str] = Counter()
    samples = []
    for key in sorted(images):
        image_path = folder / file_names[key]
        if not image_path.is_file():
            left_out[_ABSENT] += 1
            continue
        known = [o for o in objects[key] if network_ids[int(o["category_id"])] != UNLABELLED]
        left_out[UNKNOWN_CLASS] += len(objects[key]) - len(known)
        truth = _truth(file, known, network_ids, outlines=task == "instances")
        samples.append(Sample(image_path, _Truth(truth, file, images[key])))
    named = {(folder / name).resolve() for name in file_names.values()}
    beside = {path.resolve() for path in list_images(folder)} - named
    left_out[f"images without {'outlines' if task == 'instances' else 'boxes'}"] += len(beside)
    return Dataset(file, NAME, classes, tuple(samples), {k: n for k, n in left_out.items() if n})


def _objects_by_image(
    file: Path, annotations: list[Any], network_ids: dict[int, int], images: dict[int, Any]
) -> dict[int, list[dict[str, Any]]]:
    objects: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for index, annotation in enumerate(annotations):
        try:
            image_id, category_id = int(annotation["image_id"]), int(annotation["category_id"])
        except (KeyError, TypeError, ValueError) as wrong:
            raise DataError(f"{file}: annotation {index} wants 'image_id' and 'category_id'; {wrong!r}") from wrong
        if category_id not in network_ids:
            raise DataError(
                f"{file}: annotation {index} has category_id {category_id}, but 'categories' has only "
                f"{beginning([str(i) for i in sorted(network_ids)])}"
            )
        if image_id not in images:
            raise DataError(f"{file}: annotation {index} belongs to image_id {image_id}, which 'images' lacks")
        objects[image_id].append(annotation)
    return objects


def _truth(file: Path, objects: list[dict[str, Any]], network_ids: dict[int, int], *, outlines: bool) -> BoxTruth:
    try:
        corners = np.array([o["bbox"] for o in objects], np.float64).reshape(-1, 4)
        areas = [float(o.get("area") or o["bbox"][2] * o["bbox"][3]) for o in objects]
        shapes = tuple(o["segmentation"] for o in objects) if outlines else ()
    except (KeyError, TypeError, ValueError) as wrong:
        wanted = "'bbox' [x, y, width, height]" + (" and 'segmentation'" if outlines else "")
        raise DataError(f"{file}: an annotation lacks {wanted}: {wrong!r}") from wrong
    corners[:, 2:] += corners[:, :2]
    return BoxTruth(
        boxes_xyxy_px=corners,
        class_ids=np.array([network_ids[int(o["category_id"])] for o in objects], np.int64),
        ignored=np.array([bool(o.get("iscrowd", 0)) for o in objects], np.bool_),
        areas_px2=np.array(areas, np.float64),
        outlines=shapes,
    )


class _Truth:
    """A truth in pixels, good only for a picture of the size that the JSON gives."""

    def __init__(self, truth: BoxTruth, file: Path, image: dict[str, Any]) -> None:
        self._truth, self._file, self._image = truth, file, image

    def __call__(self, image: UInt8Array) -> BoxTruth:
        height, width = image.shape[:2]
        said = self._image.get("width"), self._image.get("height")
        if None not in said and said != (width, height):
            raise DataError(
                f"{self._file} says that {self._image['file_name']} has {said[0]}x{said[1]} px, but the "
                f"file has {width}x{height}: its boxes are of another picture, or of this one before a resize"
            )
        return self._truth


def _image_folder(file: Path, names: Iterable[str]) -> Path:
    """The folder that file names start from: beside the JSON, or where COCO and its exporters put it."""
    split = file.stem.rpartition("_")[2]  # instances_val2017.json: val2017/
    folders = []
    for root in (file.parent, file.parent.parent):
        folders += [root, root / "images", root / split, root / "images" / split, root / "JPEGImages"]
    names = list(names)
    for folder in folders:
        if any((folder / name).is_file() for name in names):
            return folder
    raise DataError(
        f"none of the {len(names)} images that {file} names was found, "
        f"the first being {names[0] if names else '-'}; "
        f"looked in {', '.join(str(folder) for folder in folders)}"
    )
