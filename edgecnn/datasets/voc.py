"""Pascal VOC XML: JPEGImages/, Annotations/ with one XML per image, and lists of names in ImageSets/Main/.

Or, as exporters write it, each XML next to its picture.
"""

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
    BoxArray,
    BoxTruth,
    ClassMap,
    Dataset,
    Sample,
    beginning,
    map_classes,
    refuse_mostly_outside,
)
from edgecnn.datasets.splits import Part, is_split_name, split_by_name
from edgecnn.datasets.untrusted_documents import read_text, read_xml
from edgecnn.errors import DataError
from edgecnn.pictures import list_pictures
from edgecnn.results import UInt8Array

NAME = "Pascal VOC XML"
_IMAGE_FOLDERS = ("JPEGImages", "images")
_ANNOTATION_FOLDERS = ("Annotations", "annotations")

_Object = tuple[str, bool, tuple[float, float, float, float]]  # name, difficult, box xyxy in px
_Read = tuple[list[_Object], tuple[int, int]]  # with (width, height) in px, 0 where the XML gives none


def voc_parts(path: Path, kind: str) -> list[Part]:
    """The parts listed in ImageSets/Main/; otherwise all pictures that have an XML."""
    del kind  # this form has only boxes
    if not path.is_dir():
        return []
    images = next((path / name for name in _IMAGE_FOLDERS if (path / name).is_dir()), path)
    labels = next((path / name for name in _ANNOTATION_FOLDERS if any((path / name).glob("*.xml"))), path)
    if not any(labels.glob("*.xml")):
        return []
    lists = sorted((path / "ImageSets" / "Main").glob("*.txt"))
    # the lists of single classes ("cat_train.txt") have other names
    if any(is_split_name(file.stem) or file.stem == "trainval" for file in lists):
        return [
            Part(
                split_by_name(file.stem),
                f"ImageSets/Main/{file.name}",
                partial(_open, path, images, labels, file),
                names=(file.stem,),
                place=file,
            )
            for file in lists
        ]
    return [Part(None, "its folders", partial(_open, path, images, labels, None), place=path)]


def _open(path: Path, images_folder: Path, xml_folder: Path, listed: Path | None, labels: Sequence[str]) -> Dataset:
    """Open the data set.

    Raises:
        DataError: a broken XML, a listed image that does not exist, no class in common.
    """
    images = {image.stem: image for image in list_pictures(images_folder)}
    left_out: Counter[str] = Counter()
    if listed is not None:
        names = _names_in(listed)
        if absent := [name for name in names if name not in images]:
            raise DataError(f"{images_folder} lacks {len(absent)} images of the split: {beginning(absent)}")
        images = {name: images[name] for name in names}
    objects = {name: _read(file) for name in images if (file := xml_folder / f"{name}.xml").is_file()}
    left_out["images without boxes"] += len(images) - len(objects)
    _refuse_outside(objects, xml_folder)

    names = sorted({name for found, _ in objects.values() for name, _, _ in found})
    classes = map_classes(names, labels, where=path)
    samples = []
    for stem, (found, size) in objects.items():
        truth = _truth(found, classes, left_out)
        samples.append(Sample(images[stem], _Truth(truth, xml_folder / f"{stem}.xml", size)))
    return Dataset(path, NAME, classes, tuple(samples), {k: n for k, n in left_out.items() if n}, root=path)


class _Truth:
    """Labels in pixels, valid only for a picture of the size in the XML."""

    def __init__(self, truth: BoxTruth, file: Path, size: tuple[int, int]) -> None:
        self._truth, self._file, self._size = truth, file, size

    def __call__(self, image: UInt8Array) -> BoxTruth:
        height, width = image.shape[:2]
        if 0 not in self._size and self._size != (width, height):  # some programs write a size of 0
            raise DataError(
                f"{self._file} is for an image of {self._size[0]}x{self._size[1]} px, but it "
                f"has {width}x{height}: the boxes belong to another picture, or to this one before it was resized"
            )
        return self._truth


def _names_in(file: Path) -> list[str]:
    # the lists of single classes have a second column
    return list(dict.fromkeys(line.split()[0] for line in read_text(file).splitlines() if line.strip()))


def _read(file: Path) -> _Read:
    """The objects in one XML, and the (width, height) in px that it gives, 0 where it gives none."""
    root = read_xml(file)
    try:
        objects: list[_Object] = []
        for node in root.iter("object"):
            left, top, right, bottom = (
                float(node.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax")
            )
            if not np.isfinite((left, top, right, bottom)).all():
                raise ValueError("a coordinate that is not a number")
            name = node.findtext("name", "").strip()
            if not name:
                raise ValueError("an object without a name")
            difficult = node.findtext("difficult", "0").strip() == "1"
            # Pascal VOC counts pixels from 1 and includes the last: edge to edge is (min - 1, max)
            objects.append((name, difficult, (max(left - 1, 0.0), max(top - 1, 0.0), right, bottom)))
        size = int(float(root.findtext("size/width", "0"))), int(float(root.findtext("size/height", "0")))
    except (ValueError, OverflowError) as wrong:
        raise DataError(f"{file}: expected bndbox with xmin, ymin, xmax, ymax in px, and a name; {wrong}") from wrong
    return objects, size


def _refuse_outside(objects: dict[str, _Read], folder: Path) -> None:
    boxes = [(box, size) for found, size in objects.values() for _, _, box in found]
    corners = np.array([box for box, _ in boxes], np.float64).reshape(-1, 4)
    if len(corners) >= 4 and corners.max() <= 1.5:
        raise DataError(f"{folder}: all boxes lie in one pixel: expected px, not shares of the picture")
    sizes: BoxArray = np.array([size for _, size in boxes], np.float64).reshape(-1, 2)
    refuse_mostly_outside(corners, sizes, where=str(folder), meant="two corners in px, not a corner and a size")


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
