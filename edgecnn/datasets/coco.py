"""COCO JSON: one file with images, annotations and categories (boxes, outlines)."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np

from edgecnn.datasets.base import (
    NO_AREA,
    UNKNOWN_CLASS,
    UNLABELLED,
    BoxTruth,
    Dataset,
    Outline,
    Sample,
    beginning,
    inside,
    map_classes,
    refuse_mostly_outside,
)
from edgecnn.datasets.outlines import read_outline
from edgecnn.datasets.splits import Part, split_in
from edgecnn.datasets.untrusted_documents import read_json
from edgecnn.errors import DataError
from edgecnn.pictures import list_pictures
from edgecnn.results import UInt8Array
from edgecnn.tasks.truth import BOXES, OUTLINES

T = TypeVar("T")

NAME = "COCO JSON"
_PARTS = ("images", "annotations", "categories")
# Usual names of files with this kind of label; in a folder with several files, these are tried first.
_USUAL_NAMES = {
    BOXES: ("boxes", "bbox", "instances"),
    OUTLINES: ("polygons", "segm", "mask", "instances"),
}
_ABSENT = "images that the JSON names and that do not exist"
_NO_OUTLINE = frozenset({b"", b"null", b"[]", b"{}", b"[[]]"})


class _Image(msgspec.Struct):
    id: int | float
    file_name: str
    width: int | float | None = None
    height: int | float | None = None


class _Category(msgspec.Struct):
    id: int | float
    name: str | int


class _Annotation(msgspec.Struct):
    image_id: int | float
    category_id: int | float
    bbox: list[float] | None = None
    area: float | None = None
    iscrowd: int | bool = 0
    segmentation: msgspec.Raw = msgspec.Raw(b"")  # parsed only where outlines are needed


class _Labels(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def coco_parts(path: Path, kind: str) -> list[Part]:
    """The parts in a COCO JSON, or in a folder with some, by the files' names."""
    if path.is_file():
        if path.suffix.lower() != ".json":
            return []
        return [Part(None, path.name, partial(_open, [path], kind, path.parent, asked_for=True), place=path)]
    by_split: dict[str | None, list[Path]] = defaultdict(list)
    for folder in (path, path / "annotations"):
        for file in sorted(folder.glob("*.json")) if folder.is_dir() else ():
            by_split[split_in(file.stem)].append(file)
    return [
        Part(
            split,
            f"the name of {' or '.join(file.name for file in files)}",
            partial(_open, files, kind, path, asked_for=False),
            names=tuple(word for file in files for word in (file.stem, file.stem.rpartition("_")[2])),
            place=files[0],
        )
        for split, files in by_split.items()
    ]


def _open(files: Sequence[Path], kind: str, root: Path, labels: Sequence[str], *, asked_for: bool) -> Dataset | None:
    """The data set of the file with this kind of labels; of several, the one with the usual name.

    Raises:
        DataError: broken JSON, unknown or repeated ids, no image found, no class in common, or
            several possible files.
    """

    def rank(file: Path) -> int:
        words = _USUAL_NAMES[kind]
        return next((i for i, word in enumerate(words) if word in file.stem.lower()), len(words))

    for wanted in sorted({rank(file) for file in files}):
        found = []
        for file in files:
            content = _load(file, asked_for=asked_for) if rank(file) == wanted else None
            if content is not None and _has_labels(content, kind):
                found.append((file, content))
        if len(found) > 1:
            names = ", ".join(file.name for file, _ in found)
            raise DataError(f"{root} has several files with {kind}: {names}; give one of them as DATA")
        if found:
            file, content = found[0]
            return _dataset(file, content, kind=kind, labels=labels, root=root)
    return None


def _load(file: Path, *, asked_for: bool) -> _Labels | None:
    """The file's content; None where it is another kind of JSON and the user did not name it."""
    try:
        found = read_json(file, dict[str, msgspec.Raw])
    except DataError as wrong:
        if asked_for or not isinstance(wrong.__cause__, msgspec.ValidationError):
            raise
        return None
    if not all(bytes(memoryview(found.get(part, b"")))[:1] == b"[" for part in _PARTS):
        if not asked_for:
            return None
        raise DataError(
            f"{file} is not COCO JSON: expected the lists {', '.join(_PARTS)}, found {beginning(list(found))}"
        )
    return _Labels(
        _list(file, "images", found["images"], list[_Image]),
        _list(file, "annotations", found["annotations"], list[_Annotation]),
        _list(file, "categories", found["categories"], list[_Category]),
    )


_WANTED = {
    "images": "an image 'id' and 'file_name'",
    "annotations": "an annotation 'image_id', 'category_id' and 'bbox' [x, y, width, height]",
    "categories": "a category 'id' and 'name'",
}


def _list(file: Path, part: str, raw: msgspec.Raw, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        declared = str(wrong).replace("`$", f"`{part}")
        raise DataError(f"{file}: expected {_WANTED[part]}; {declared}") from wrong


def _has_labels(content: _Labels, kind: str) -> bool:
    if kind == OUTLINES:
        return any(bytes(memoryview(one.segmentation)) not in _NO_OUTLINE for one in content.annotations)
    return any(one.bbox for one in content.annotations)


def _dataset(file: Path, content: _Labels, *, kind: str, labels: Sequence[str], root: Path) -> Dataset:
    names = _by_id(file, content.categories, "category", lambda category: str(category.name))
    images = _by_id(file, content.images, "image", lambda image: image)
    _refuse_twice(file, "the name", dict(names), "categories")
    _refuse_twice(file, "the file", {i: image.file_name for i, image in images.items()}, "images")
    classes = map_classes(list(names.values()), labels, where=file)
    network_ids = dict(zip(names, classes.network_ids.tolist(), strict=True))
    objects = _objects_by_image(file, content.annotations, names, images)

    folder, root = _image_folder(file, _root(file, root), [image.file_name for image in images.values()])
    outlines = kind == OUTLINES
    left_out: Counter[str] = Counter()
    samples, named = [], set()
    for key in sorted(images):
        image = images[key]
        image_path = inside(root, folder, image.file_name, where=f"{file}: image {key}")
        named.add(image_path)
        if not image_path.is_file():
            left_out[_ABSENT] += 1
            continue
        known = [one for one in objects[key] if network_ids[int(one.category_id)] != UNLABELLED]
        left_out[UNKNOWN_CLASS] += len(objects[key]) - len(known)
        whole = [one for one in known if not one.bbox or min(one.bbox[2:]) > 0]
        left_out[NO_AREA] += len(known) - len(whole)
        truth = _truth(file, whole, network_ids, image, outlines=outlines)
        samples.append(Sample(image_path, _Truth(truth, file, image)))
    _refuse_other_units(file, content.annotations, images)
    unlisted = {Path(path.absolute()) for path in list_pictures(folder)} - named
    left_out[f"images without {'outlines' if outlines else 'boxes'}"] += len(unlisted)
    return Dataset(file, NAME, classes, tuple(samples), {k: n for k, n in left_out.items() if n}, root=root)


def _by_id(file: Path, rows: Iterable[Any], what: str, value: Callable[[Any], T]) -> dict[int, T]:
    found: dict[int, T] = {}
    twice = []
    for row in rows:
        if not math.isfinite(row.id) or row.id != int(row.id):
            raise DataError(f"{file}: the {what} id {row.id} is not an integer")
        if int(row.id) in found:
            twice.append(str(int(row.id)))
        found[int(row.id)] = value(row)
    if twice:
        raise DataError(
            f"{file} has {len(twice)} {what} id{'s' if len(twice) > 1 else ''} twice: {beginning(twice)}. If files "
            "were merged, number their ids again: otherwise labels are mixed up"
        )
    return found


def _refuse_twice(file: Path, what: str, values: dict[int, str], part: str) -> None:
    ids: dict[str, list[int]] = defaultdict(list)
    for key, value in values.items():
        ids[value].append(key)
    twice = {value: keys for value, keys in ids.items() if len(keys) > 1}
    if twice:
        some = beginning([f"{value!r} in {', '.join(map(str, keys))}" for value, keys in twice.items()], 3)
        raise DataError(f"{file}: several {part} share {what}: {some} (ids); merge them into one")


def _objects_by_image(
    file: Path, annotations: list[_Annotation], names: dict[int, str], images: dict[int, _Image]
) -> dict[int, list[_Annotation]]:
    objects: dict[int, list[_Annotation]] = defaultdict(list)
    for index, one in enumerate(annotations):
        if one.category_id not in names:
            raise DataError(
                f"{file}: annotation {index} has category_id {one.category_id}, but 'categories' has only "
                f"{beginning([str(i) for i in sorted(names)])}"
            )
        if one.image_id not in images:
            raise DataError(f"{file}: annotation {index} has image_id {one.image_id}, which is not in 'images'")
        if one.bbox is not None and one.bbox != [] and len(one.bbox) != 4:
            raise DataError(
                f"{file}: annotation {index} has a bbox of {len(one.bbox)} numbers; expected [x, y, width, height]"
            )
        objects[int(one.image_id)].append(one)
    return objects


def _truth(
    file: Path, objects: list[_Annotation], network_ids: dict[int, int], image: _Image, *, outlines: bool
) -> BoxTruth:
    without = [one for one in objects if not one.bbox]
    if without:
        raise DataError(f"{file}: {len(without)} annotations of {image.file_name} have no 'bbox' [x, y, width, height]")
    corners = np.array([one.bbox for one in objects], np.float64).reshape(-1, 4)
    areas = [one.area if one.area else one.bbox[2] * one.bbox[3] for one in objects if one.bbox]
    corners[:, 2:] += corners[:, :2]
    shapes: tuple[Outline, ...] = ()
    if outlines:
        where = f"{file}: an outline of {image.file_name}"
        shapes = tuple(read_outline(one.segmentation, image.width, image.height, where=where) for one in objects)
    return BoxTruth(
        boxes_xyxy_px=corners,
        class_ids=np.array([network_ids[int(one.category_id)] for one in objects], np.int64),
        ignored=np.array([bool(one.iscrowd) for one in objects], np.bool_),
        areas_px2=np.array(areas, np.float64),
        outlines=shapes,
    )


def _refuse_other_units(file: Path, annotations: list[_Annotation], images: dict[int, _Image]) -> None:
    """Check that boxes are in px, as corner and size: another convention would silently give wrong figures."""
    boxed = [one for one in annotations if one.bbox]
    boxes = np.array([one.bbox for one in boxed], np.float64).reshape(-1, 4)
    if len(boxes) >= 4 and boxes.max() <= 1.5:
        raise DataError(f"{file}: all boxes lie in one pixel: expected px, not shares of the picture")
    boxes[:, 2:] += boxes[:, :2]
    sizes = [(images[int(o.image_id)].width or 0, images[int(o.image_id)].height or 0) for o in boxed]
    limits = np.array(sizes, np.float64).reshape(-1, 2)
    refuse_mostly_outside(boxes, limits, where=str(file), meant="[x, y, width, height] in px, not two corners")


class _Truth:
    """Labels in pixels, valid only for a picture of the size in the JSON."""

    def __init__(self, truth: BoxTruth, file: Path, image: _Image) -> None:
        self._truth, self._file, self._image = truth, file, image

    def __call__(self, image: UInt8Array) -> BoxTruth:
        height, width = image.shape[:2]
        declared = self._image.width, self._image.height
        if None not in declared and declared != (width, height):
            raise DataError(
                f"{self._file} says that {self._image.file_name} has {declared[0]}x{declared[1]} px, but the "
                f"file has {width}x{height}: the boxes belong to another picture, or to this one before it was resized"
            )
        return self._truth


def _root(file: Path, root: Path) -> Path:
    """The data set's folder: the user's path, or for a JSON in annotations/ the parent folder."""
    return file.parent.parent if root == file.parent and file.parent.name in {"annotations", "labels"} else root


def _image_folder(file: Path, root: Path, names: Sequence[str]) -> tuple[Path, Path]:
    """The folder for file names (next to the JSON, or where COCO and its exporters put it), and the root."""
    split = file.stem.rpartition("_")[2]  # instances_val2017.json: val2017/
    folders = []
    for place in (file.parent, file.parent.parent):
        folders += [place, place / "images", place / split, place / "images" / split, place / "JPEGImages"]
    leaves: DataError | None = None
    for folder in folders:
        outer = root if folder.is_relative_to(root) else folder
        for name in names:
            try:
                if inside(outer, folder, name, where=str(file)).is_file():
                    return folder, outer
            except DataError as error:
                leaves = error
    if leaves is not None:
        raise leaves
    raise DataError(
        f"none of the {len(names)} images named in {file} was found; "
        f"the first is {names[0] if names else '-'}; "
        f"searched in {', '.join(str(folder) for folder in folders)}"
    )
