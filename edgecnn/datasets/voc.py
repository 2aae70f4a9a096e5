"""Pascal VOC XML: JPEGImages/, Annotations/ with one XML an image, and lists of names in ImageSets/Main/."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from edgecnn.datasets.base import (
    NO_AREA,
    UNKNOWN_CLASS,
    UNLABELLED,
    BoxTruth,
    ClassMap,
    Dataset,
    Sample,
    beginning,
    map_classes,
    read_text,
)
from edgecnn.datasets.images import list_images
from edgecnn.errors import DataError, SplitError
from edgecnn.results import UInt8Array

NAME = "Pascal VOC XML"
_IMAGE_FOLDERS = ("JPEGImages", "images")
_ANNOTATION_FOLDERS = ("Annotations", "annotations")
_DEFAULT_SPLITS = ("test", "val")

_Object = tuple[str, bool, tuple[float, float, float, float]]  # name, difficult, box xyxy in px


def open_voc(path: Path, *, task: str, labels: Sequence[str], split: str | None) -> Dataset | None:
    """The data set, or None where `path` has no images with XML annotations.

    Raises:
        DataError: no such split, a broken XML, a listed image that is not there, no class in common.
    """
    del task  # detect alone: nothing else is in the XML
    images_folder = next((path / name for name in _IMAGE_FOLDERS if (path / name).is_dir()), None)
    xml_folder = next((path / name for name in _ANNOTATION_FOLDERS if any((path / name).glob("*.xml"))), None)
    if images_folder is None or xml_folder is None:
        return None
    images = {image.stem: image for image in list_images(images_folder)}
    listed = _listed_names(path, split)
    left_out: Counter[str] = Counter()
    if listed is not None:
        absent = [name for name in listed if name not in images]
        if absent:
            raise DataError(f"{images_folder} lacks {len(absent)} images of the split: {beginning(absent)}")
        images = {name: images[name] for name in listed}
    objects = {name: _read(xml_folder / f"{name}.xml") for name in images if (xml_folder / f"{name}.xml").is_file()}
    left_out["images without boxes"] += len(images) - len(objects)

    names = sorted({name for found, _ in objects.values() for name, _, _ in found})
    classes = map_classes(names, labels, where=path)
    samples = []
    for stem, (found, size) in objects.items():
        truth = _truth(found, classes, left_out)
        samples.append(Sample(images[stem], _Truth(truth, xml_folder / f"{stem}.xml", size)))
    return Dataset(path, NAME, classes, tuple(samples), {k: n for k, n in left_out.items() if n})


class _Truth:
    """A truth in pixels, good only for a picture of the size that the XML gives."""

    def __init__(self, truth: BoxTruth, file: Path, size: tuple[int, int]) -> None:
        self._truth, self._file, self._size = truth, file, size

    def __call__(self, image: UInt8Array) -> BoxTruth:
        height, width = image.shape[:2]
        if 0 not in self._size and self._size != (width, height):  # some writers leave the size at 0
            raise DataError(
                f"{self._file} is for an image of {self._size[0]}x{self._size[1]} px, but it "
                f"has {width}x{height}: its boxes are of another picture, or of this one before a resize"
            )
        return self._truth


def _listed_names(path: Path, split: str | None) -> list[str] | None:
    """The names in the split's list, or None where all images count."""
    folder = path / "ImageSets" / "Main"
    if split is None:
        split = next((name for name in _DEFAULT_SPLITS if (folder / f"{name}.txt").is_file()), None)
        if split is None:
            return None
    file = folder / f"{split}.txt"
    if not file.is_file():
        there = sorted(list_file.stem for list_file in folder.glob("*.txt"))
        raise SplitError(f"{path} has no split {split!r}; it has {beginning(there, 10)}")
    # the lists of single classes have a second column
    return list(dict.fromkeys(line.split()[0] for line in read_text(file).splitlines() if line.strip()))


def _read(file: Path) -> tuple[list[_Object], tuple[int, int]]:
    """The objects in one XML, and the (width, height) in px that it gives, 0 where it gives none."""
    try:
        root = ElementTree.fromstring(read_text(file))
    except ElementTree.ParseError as broken:
        raise DataError(f"{file} is broken XML: {broken}; copy or export it again") from broken
    try:
        objects: list[_Object] = []
        for node in root.iter("object"):
            left, top, right, bottom = (
                float(node.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax")
            )
            name = node.findtext("name", "").strip()
            difficult = node.findtext("difficult", "0").strip() == "1"
            # Pascal VOC counts pixels from 1 and includes the last: edge to edge is (min - 1, max)
            objects.append((name, difficult, (max(left - 1, 0.0), max(top - 1, 0.0), right, bottom)))
        size = int(float(root.findtext("size/width", "0"))), int(float(root.findtext("size/height", "0")))
    except ValueError as wrong:
        raise DataError(f"{file}: wants bndbox with xmin, ymin, xmax, ymax in px; {wrong}") from wrong
    return objects, size


def _truth(found: list[_Object], classes: ClassMap, left_out: Counter[str]) -> BoxTruth:
    ids = {name: int(i) for name, i in zip(classes.names, classes.network_ids.tolist(), strict=True)}
    known = [(ids[name], difficult, box) for name, difficult, box in found if ids[name] != UNLABELLED]
    whole = [(i, difficult, b) for i, difficult, b in known if b[2] > b[0] and b[3] > b[1]]
    left_out[UNKNOWN_CLASS] += len(found) - len(known)
    left_out[NO_AREA] += len(known) - len(whole)
    boxes = np.array([box for _, _, box in whole], np.float64).reshape(-1, 4)
    return BoxTruth(
        boxes_xyxy_px=boxes,
        class_ids=np.array([i for i, _, _ in whole], np.int64),
        ignored=np.array([difficult for _, difficult, _ in whole], np.bool_),
        areas_px2=(boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]),
    )
