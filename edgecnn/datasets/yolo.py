"""YOLO: one text file an image, a line an object: class id, then box or polygon in shares of the picture."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn.datasets.base import (
    NO_AREA,
    UNKNOWN_CLASS,
    UNLABELLED,
    BoxArray,
    BoxTruth,
    Dataset,
    Outline,
    Sample,
    beginning,
    map_classes,
    read_names,
    read_text,
)
from edgecnn.datasets.images import list_images
from edgecnn.errors import DataError
from edgecnn.results import UInt8Array

NAME = "YOLO"
_BOX_FIELDS = 5  # class id, centre x, centre y, width, height


@dataclass(frozen=True)
class _Line:
    """One object: class id of the data set, box xyxy and polygon [n, 2] in shares of the picture."""

    class_id: int
    box_xyxy: tuple[float, float, float, float]
    polygon: BoxArray | None


def open_yolo(path: Path, *, task: str, labels: Sequence[str], split: str | None) -> Dataset | None:
    """The data set, or None where `path` holds no images with YOLO labels for the task.

    Raises:
        DataError: no class names, a line that isn't YOLO's, a class id out of range, no class in common.
    """
    if path.suffix.lower() in {".yaml", ".yml"}:
        path = path.parent
    folders = _folders(path, split) if path.is_dir() else None
    if folders is None:
        return None
    images_folder, labels_folder = folders
    images = list_images(images_folder)
    labelled = [(i, labels_folder / f"{i.stem}.txt") for i in images if (labels_folder / f"{i.stem}.txt").is_file()]
    if not labelled:
        return None
    names = _class_names(path)
    objects = {image: _read_lines(file, names) for image, file in labelled}
    if task == "instances" and not any(line.polygon is not None for lines in objects.values() for line in lines):
        return None
    classes = map_classes(names, labels, where=path)

    left_out: Counter[str] = Counter({"images without labels": len(images) - len(labelled)})
    samples = []
    for image, lines in objects.items():
        if task == "instances" and any(line.polygon is None for line in lines):
            left_out["images without outlines"] += 1
            continue
        known = [line for line in lines if classes.network_ids[line.class_id] != UNLABELLED]
        whole = [line for line in known if _has_area(line)]
        left_out[UNKNOWN_CLASS] += len(lines) - len(known)
        left_out[NO_AREA] += len(known) - len(whole)
        ids = classes.network_ids[[line.class_id for line in whole]] if whole else np.empty(0, np.int64)
        samples.append(Sample(image, _Truth(whole, ids, outlines=task == "instances")))
    return Dataset(path, NAME, classes, tuple(samples), {k: n for k, n in left_out.items() if n})


class _Truth:
    """The objects of one picture, in its pixels once it is there."""

    def __init__(self, lines: list[_Line], class_ids: np.typing.NDArray[np.int64], *, outlines: bool) -> None:
        self._lines, self._class_ids, self._outlines = lines, class_ids, outlines

    def __call__(self, image: UInt8Array) -> BoxTruth:
        height, width = image.shape[:2]
        boxes = np.array([line.box_xyxy for line in self._lines], np.float64).reshape(-1, 4)
        boxes *= (width, height, width, height)
        shapes: list[Outline] = []
        if self._outlines:
            size = np.array([width, height], np.float64)
            shapes = [[(line.polygon * size).ravel().tolist()] for line in self._lines if line.polygon is not None]
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return BoxTruth(boxes, self._class_ids, np.zeros(len(boxes), np.bool_), areas, tuple(shapes))


def _folders(path: Path, split: str | None) -> tuple[Path, Path] | None:
    """The folders of images and of labels: images/ and labels/, or the split below them, or one for both."""
    if (path / "images").is_dir() and (path / "labels").is_dir():
        images, labels = path / "images", path / "labels"
        if split is not None:
            return (images / split, labels / split) if (images / split).is_dir() else None
        if not list_images(images):
            below = next((s for s in ("test", "val", "valid", "train") if (images / s).is_dir()), None)
            return (images / below, labels / below) if below else None
        return images, labels
    beside = split is None and any(image.with_suffix(".txt").is_file() for image in list_images(path))
    return (path, path) if beside else None


def _read_lines(file: Path, names: Sequence[str]) -> list[_Line]:
    lines = []
    for number, text in enumerate(read_text(file).splitlines(), 1):
        fields = text.split()
        if not fields:
            continue
        where = f"{file}, line {number}"
        try:
            class_id, values = int(fields[0]), [float(field) for field in fields[1:]]
        except ValueError as wrong:
            raise DataError(f"{where}: wants a class id and numbers, found {text[:60]!r}") from wrong
        if not 0 <= class_id < len(names):
            raise DataError(f"{where}: class id {class_id}, but there are {len(names)} class names: {beginning(names)}")
        if not all(-0.01 <= value <= 1.01 for value in values):  # a little over the edge is rounding
            raise DataError(f"{where}: wants shares of the picture in 0..1, found {text[:60]!r}")
        lines.append(_parse(class_id, values, where))
    return lines


def _parse(class_id: int, values: list[float], where: str) -> _Line:
    if len(values) == _BOX_FIELDS - 1:
        x, y, width, height = values
        return _Line(class_id, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), None)
    if len(values) >= 6 and len(values) % 2 == 0:
        polygon = np.array(values, np.float64).reshape(-1, 2)
        left, top = polygon.min(axis=0).tolist()
        right, bottom = polygon.max(axis=0).tolist()
        return _Line(class_id, (left, top, right, bottom), polygon)
    raise DataError(
        f"{where}: wants `class x y width height` or `class x1 y1 x2 y2 x3 y3 …`, found {len(values) + 1} fields"
    )


def _has_area(line: _Line) -> bool:
    left, top, right, bottom = line.box_xyxy
    return right > left and bottom > top


def _class_names(path: Path) -> tuple[str, ...]:
    """Class names from classes.txt, a *.yaml with `names:`, or *.names, in the folder or its parent."""
    for folder in (path, path.parent):
        for file in (folder / "classes.txt", *sorted(folder.glob("*.names"))):
            if file.is_file():
                return read_names(file)
        for file in (*sorted(folder.glob("*.yaml")), *sorted(folder.glob("*.yml"))):
            names = names_in_yaml(read_text(file))
            if names:
                return names
    raise DataError(
        f"{path} holds YOLO labels, but no class names: put them, one a line, into {path / 'classes.txt'} "
        "(or a data.yaml with `names:`)"
    )


def names_in_yaml(text: str) -> tuple[str, ...]:
    """The class names of a data.yaml; without a YAML parser, for the forms that its writers use.

    Those are `names: [a, b]`, `names: {0: a, 1: b}` (over several lines too), and blocks of `- a` or `0: a`.
    """
    lines = [re.sub(r"\s+#.*$", "", line) for line in text.splitlines() if not line.lstrip().startswith("#")]
    start = next((i for i, line in enumerate(lines) if re.match(r"names\s*:", line)), None)
    if start is None:
        return ()
    rest = lines[start].partition(":")[2].strip()
    if rest[:1] in {"[", "{"}:
        inside = "\n".join([rest, *lines[start + 1 :]])[1:]
        inside = re.split(r"[\]}]", inside, maxsplit=1)[0]
        items = re.findall(r"""(?:[^,"'\n]|"[^"]*"|'[^']*')+""", inside)
        keyed = rest[0] == "{"
    else:
        block = []
        for line in lines[start + 1 :]:
            if line.strip() and not line.startswith((" ", "\t", "-")):
                break
            block.append(line.strip())
        items = [line.removeprefix("-").strip() if line.startswith("-") else line for line in block]
        keyed = not any(line.startswith("-") for line in block)
    items = [item.strip() for item in items if item.strip()]
    if not keyed:
        return tuple(_unquoted(item) for item in items)
    pairs = [item.partition(":") for item in items]
    if not all(key.strip().isdecimal() for key, _, _ in pairs):
        return ()
    by_id = {int(key): _unquoted(value.strip()) for key, _, value in pairs}
    return tuple(by_id.get(index, f"class {index}") for index in range(max(by_id, default=-1) + 1))


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text
