"""YOLO: one text file per image, one line per object: class id, then box or polygon in shares of the picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from edgecnn.datasets.base import (
    NO_AREA,
    UNKNOWN_CLASS,
    UNLABELLED,
    BoxTruth,
    Dataset,
    Outline,
    Sample,
    map_classes,
)
from edgecnn.datasets.data_yaml import DataYaml, description_of, pictures_in_list
from edgecnn.datasets.splits import TEST, TRAIN, VAL, Part, split_by_name
from edgecnn.datasets.untrusted_documents import read_text
from edgecnn.datasets.yolo_labels import Row, read_rows
from edgecnn.errors import DataError
from edgecnn.pictures import is_picture, list_pictures
from edgecnn.results import UInt8Array
from edgecnn.tasks.truth import OUTLINES

NAME = "YOLO"


def yolo_parts(path: Path, kind: str) -> list[Part]:
    """The parts in a data.yaml; otherwise those of the folders images/ and labels/, or of lists such as val.txt.

    Raises:
        DataError: a broken data.yaml.
    """
    if path.is_file() and path.suffix.lower() not in {".yaml", ".yml"}:
        return []
    described = description_of(path)
    root = path.parent if path.is_file() else path
    if described is not None and described.splits:
        return [
            Part(split, described.file.name, partial(_open_described, described, split, kind), place=described.file)
            for split in described.splits
            if split != TEST or described.is_there(split)  # exporters list a test part that they didn't write
        ]
    found = [
        Part(
            split_by_name(split) if split else None,
            defined_by,
            partial(_open, pictures, kind, root, described),
            names=(split,) if split else (),
            place=place,
        )
        for split, defined_by, place, pictures in _folders(root)
    ]
    return found or _lists(root, kind, described)


def _open_described(described: DataYaml, split: str, kind: str, labels: Sequence[str]) -> Dataset | None:
    return _open(described.pictures(split), kind, described.file.parent, described, labels)


def _folders(root: Path) -> list[tuple[str | None, str, Path, list[Path]]]:
    """(split, where it is defined, folder, pictures): from images/ and labels/, or pictures next to their labels."""
    images, labels = root / "images", root / "labels"
    if images.is_dir() and labels.is_dir():
        if list_pictures(images):
            return [(None, "images/", images, list_pictures(images))]
        below = [folder for folder in sorted(images.iterdir()) if folder.is_dir() and (labels / folder.name).is_dir()]
        return [(folder.name, f"the folder images/{folder.name}", folder, list_pictures(folder)) for folder in below]
    labelled = [picture for picture in list_pictures(root) if picture.with_suffix(".txt").is_file()]
    return [(None, "labels next to the pictures", root, list_pictures(root))] if labelled else []


def _lists(root: Path, kind: str, described: DataYaml | None) -> list[Part]:
    """Lists of pictures named after a split, in darknet's form."""
    files = [root / f"{name}.txt" for name in (TRAIN, VAL, "valid", TEST)]
    files = [file for file in files if file.is_file() and _names_pictures(file)]
    return [
        Part(split_by_name(file.stem), file.name, partial(_open_list, file, kind, root, described), place=file)
        for file in files
    ]


def _names_pictures(file: Path) -> bool:
    first = next((line.strip() for line in read_text(file).splitlines() if line.strip()), "")
    return is_picture(Path(first))


def _open_list(file: Path, kind: str, root: Path, described: DataYaml | None, labels: Sequence[str]) -> Dataset | None:
    return _open(pictures_in_list(file, root), kind, root, described, labels)


def label_file_of(picture: Path) -> Path:
    """Path of a picture's labels: in labels/ next to its images/, otherwise next to it."""
    parts = list(picture.parts)
    at = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if at:
        parts[at[-1]] = "labels"
        return Path(*parts).with_suffix(".txt")
    return picture.with_suffix(".txt")


def _open(
    pictures: Sequence[Path], kind: str, root: Path, described: DataYaml | None, labels: Sequence[str]
) -> Dataset | None:
    """The data set of these pictures; None where none has this kind of labels.

    Raises:
        DataError: no class names, a line in another form, a class id out of range, no class in common.
    """
    files = {picture: file for picture in pictures if (file := label_file_of(picture)).is_file()}
    if not files:
        return None
    remarks: tuple[str, ...] = ()
    names = described.names if described is not None else ()
    if not names and labels:
        names = tuple(labels)
        remarks = ("the data has no class names: its class ids are used as the network's",)
    if not names:
        raise DataError(
            f"{root} has YOLO labels, but no class names: put them into {root / 'classes.txt'}, one per line "
            "(or into a data.yaml with `names:`)"
        )
    kpt_shape = described.kpt_shape if described is not None else None
    objects = read_rows(files, len(names), names=names, kpt_shape=kpt_shape)
    if kind == OUTLINES and not any(row.polygon is not None for rows in objects.values() for row in rows):
        return None
    classes = map_classes(names, labels, where=root)
    left_out: Counter[str] = Counter({"images without labels": len(pictures) - len(files)})
    samples = []
    for picture, rows in objects.items():
        if kind == OUTLINES and any(row.polygon is None for row in rows):
            left_out["images without outlines"] += 1
            continue
        known = [row for row in rows if classes.network_ids[row.class_id] != UNLABELLED]
        whole = [row for row in known if row.has_area]
        left_out[UNKNOWN_CLASS] += len(rows) - len(known)
        left_out[NO_AREA] += len(known) - len(whole)
        ids = classes.network_ids[[row.class_id for row in whole]] if whole else np.empty(0, np.int64)
        samples.append(Sample(picture, _Truth(whole, ids, outlines=kind == OUTLINES)))
    if kpt_shape is not None:
        remarks += ("the labels have key points, of which only the boxes are used",)
    kept = {reason: count for reason, count in left_out.items() if count}
    return Dataset(root, NAME, classes, tuple(samples), kept, remarks, root=root)


class _Truth:
    """The objects of one picture, converted to pixels when its size is known."""

    def __init__(self, rows: list[Row], class_ids: np.typing.NDArray[np.int64], *, outlines: bool) -> None:
        self._rows, self._class_ids, self._outlines = rows, class_ids, outlines

    def __call__(self, image: UInt8Array) -> BoxTruth:
        height, width = image.shape[:2]
        boxes = np.array([row.box_xyxy for row in self._rows], np.float64).reshape(-1, 4)
        boxes *= (width, height, width, height)
        shapes: list[Outline] = []
        if self._outlines:
            size = np.array([width, height], np.float64)
            shapes = [[(row.polygon * size).ravel().tolist()] for row in self._rows if row.polygon is not None]
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        return BoxTruth(boxes, self._class_ids, np.zeros(len(boxes), np.bool_), areas, tuple(shapes))
