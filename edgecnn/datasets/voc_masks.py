"""Pascal VOC's class maps: JPEGImages/, SegmentationClass/ with palette PNGs, lists in ImageSets/Segmentation/."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edgecnn.datasets.base import Dataset, beginning, read_names
from edgecnn.datasets.masks import mask_dataset
from edgecnn.datasets.splits import Part, is_split_name, split_by_name
from edgecnn.datasets.untrusted_documents import read_text
from edgecnn.errors import DataError
from edgecnn.pictures import list_pictures

NAME = "Pascal VOC masks"
_IMAGES, _MASKS, _LISTS = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation"
_LABEL_MAP = "labelmap.txt"  # as annotation tools export it: NAME:R,G,B:: a line, in the order of the ids
# The classes of Pascal VOC itself, whose data says them nowhere.
_VOC21 = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def voc_mask_parts(path: Path, kind: str) -> list[Part]:
    """The parts that the lists name; otherwise all pictures that have a mask."""
    del kind  # this form has only class maps
    if not (path / _IMAGES).is_dir() or not (path / _MASKS).is_dir():
        return []
    lists = sorted((path / _LISTS).glob("*.txt"))
    if any(is_split_name(file.stem) or file.stem == "trainval" for file in lists):
        return [
            Part(
                split_by_name(file.stem),
                f"{_LISTS}/{file.name}",
                partial(_open, path, file),
                names=(file.stem,),
                place=file,
            )
            for file in lists
        ]
    return [Part(None, "its folders", partial(_open, path, None), place=path)]


def _open(path: Path, listed: Path | None, labels: Sequence[str]) -> Dataset:
    """Open the data set.

    Raises:
        DataError: a listed picture that does not exist, no class in common, or ids that are certainly wrong.
    """
    images = {image.stem: image for image in list_pictures(path / _IMAGES)}
    if listed is not None:
        stems = list(dict.fromkeys(line.strip() for line in read_text(listed).splitlines() if line.strip()))
        if absent := [stem for stem in stems if stem not in images]:
            raise DataError(f"{path / _IMAGES} lacks {len(absent)} images of {listed}: {beginning(absent)}")
        images = {stem: images[stem] for stem in stems}
    names = _class_names(path) or _VOC21
    return mask_dataset(path, path / _MASKS, list(images.values()), names, labels, form=NAME)


def _class_names(path: Path) -> tuple[str, ...] | None:
    if (path / "classes.txt").is_file():
        return read_names(path / "classes.txt")
    if not (path / _LABEL_MAP).is_file():
        return None
    lines = [line.strip() for line in read_text(path / _LABEL_MAP).splitlines()]
    return tuple(line.partition(":")[0] for line in lines if line and not line.startswith("#")) or None
