"""The data set class, common to all forms: samples with labels, and classes matched by name."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np

from edgecnn.datasets.untrusted_documents import read_text
from edgecnn.errors import DataError, SpecError
from edgecnn.pictures import read_picture
from edgecnn.results import IntArray, UInt8Array
from edgecnn.tasks.truth import UNLABELLED, BoxArray, BoxTruth, LabelTruth, MapTruth, Outline, Truth

__all__ = [
    "UNLABELLED",
    "BoxArray",
    "BoxTruth",
    "LabelTruth",
    "MapTruth",
    "Outline",
    "Truth",
]  # exported for users of this module

UNKNOWN_CLASS = "objects of classes that the network doesn't have"
NO_AREA = "boxes without area"

_FEW_BOXES = 4
_LONGEST_NAME = 255  # of a file
_OVER_THE_EDGE = 0.02  # of the picture

# Names of the same class in COCO and in Pascal VOC. Similar classes (rider, cyclist) are not the same.
_SYNONYMS = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}


@dataclass(frozen=True)
class Sample:
    """One picture and its labels.

    Attributes:
        path: the image file.
        read_truth: returns the labels; gets the picture, because some forms need its size.
    """

    path: Path
    read_truth: Callable[[UInt8Array], Truth] = field(repr=False)

    def image(self) -> UInt8Array:
        """Read the picture, uint8 [height, width, 3] BGR; it is not cached.

        Raises:
            DataError: the file cannot be read.
        """
        return read_picture(self.path)

    def truth(self, image: UInt8Array) -> Truth:
        """The labels of the picture that `image` returned.

        Raises:
            DataError: they belong to a picture of another size, or their file cannot be read.
        """
        return self.read_truth(image)


@dataclass(frozen=True)
class ClassMap:
    """The data set's classes and the network's, matched by name.

    Attributes:
        names: the data set's class names, by its class id.
        labels: the network's class names, by its class id.
        network_ids: int64 [len(names)], the network's class id, UNLABELLED where it has no such class.
        unnamed_ids: ids in masks that no class has; their pixels are ignored.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    network_ids: IntArray
    unnamed_ids: frozenset[int] = frozenset()

    @property
    def unknown_names(self) -> tuple[str, ...]:
        """The data set's classes that the network doesn't have."""
        return tuple(n for n, i in zip(self.names, self.network_ids.tolist(), strict=True) if i == UNLABELLED)

    @property
    def common_ids(self) -> list[int]:
        """The network's ids of the classes that both have, in increasing order."""
        return sorted({i for i in self.network_ids.tolist() if i != UNLABELLED})

    def find(self, label: str | int) -> int:
        """The network's id for a class of the data set, given by name or by the data set's id.

        Returns:
            The id, or UNLABELLED where the network has no such class.

        Raises:
            DataError: the data set has no such class.
        """
        wanted = str(label).strip()
        spelled = [_spelling(name) for name in self.names]
        if _spelling(wanted) in spelled:
            return int(self.network_ids[spelled.index(_spelling(wanted))])
        if wanted.isdecimal() and int(wanted) < len(self.names):
            return int(self.network_ids[int(wanted)])
        if wanted.isdecimal() and int(wanted) in self.unnamed_ids:
            return UNLABELLED
        raise DataError(
            f"the data set has no class {label!r}; it has {beginning(self.names)} (ids 0 to {len(self.names) - 1})"
        )


@dataclass(frozen=True)
class Dataset(Sequence[Sample]):
    """Labelled pictures.

    Attributes:
        path: the folder or file of the data set.
        form: "COCO JSON", "YOLO", …
        classes: its class names, and the network's ids for them.
        samples: one for each picture with labels for the task.
        left_out: what is ignored: reason → how many pictures or objects.
        remarks: problems and decisions, in sentences.
        split: "train", "val", "test" or another part; None for all of it.
        defined_by: where the split is defined: "data.yaml", "the folder valid/".
        root: the data set's folder: all its files are inside.
    """

    path: Path
    form: str
    classes: ClassMap
    samples: tuple[Sample, ...] = field(repr=False)
    left_out: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    split: str | None = None
    defined_by: str = ""
    root: Path = Path()

    def __post_init__(self) -> None:
        if not self.samples:
            why = "; ".join(f"{count} {reason}" for reason, count in self.left_out.items()) or "it has none"
            raise DataError(f"{self.path} ({self.form}) has no picture to measure on: {why}")

    @property
    def described(self) -> str:
        """A description of these pictures, in one line."""
        part = f"{self.split}, by {self.defined_by}" if self.split is not None else "all of it"
        pictures = "picture" if len(self) == 1 else "pictures"
        return f"{self.path} ({self.form}; {part}): {len(self):,} {pictures}"

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...

    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        return self.samples[index]

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def limited(self, limit: int) -> Dataset:
        """At most `limit` samples, evenly spaced: where the order is by class, all classes keep their share.

        Raises:
            SpecError: a limit below 1.
        """
        if limit < 1:
            raise SpecError(f"limit must be at least 1, got {limit}")
        if limit >= len(self.samples):
            return self
        kept = tuple(self.samples[i] for i in evenly_spaced(len(self.samples), limit))
        left_out = {**self.left_out, "images beyond the limit": len(self.samples) - limit}
        return dataclasses.replace(self, samples=kept, left_out=left_out)


def map_classes(names: Sequence[str], labels: Sequence[str], *, where: Path) -> ClassMap:
    """Match the data set's class names with the network's, ignoring case, underscores and synonyms.

    Without `labels`, the classes are the data set's own.

    Raises:
        DataError: no name in common, or one name for two classes.
    """
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        duplicates = [f"{one!r} is {', '.join(str(i) for i, name in enumerate(names) if name == one)}" for one in twice]
        raise DataError(f"{where} gives one name to several classes: {beginning(duplicates)}; rename or merge them")
    if not labels:
        return ClassMap(tuple(names), tuple(names), np.arange(len(names), dtype=np.int64))
    by_spelling: dict[str, int] = {}
    by_meaning: dict[str, int] = {}
    for index, label in enumerate(labels):
        by_spelling.setdefault(_spelling(label), index)
        by_meaning.setdefault(_meaning(label), index)
    ids = [by_spelling.get(_spelling(n), by_meaning.get(_meaning(n), UNLABELLED)) for n in names]
    if all(i == UNLABELLED for i in ids):
        raise DataError(
            f"{where} and the network have no class name in common: the data set has {beginning(names)}, "
            f"the network {beginning(labels)}; give the network's class names (--labels), "
            "or rename the data set's"
        )
    return ClassMap(tuple(names), tuple(labels), np.array(ids, np.int64))


def has_common_class(names: Sequence[str], labels: Sequence[str]) -> int:
    """How many of `names` are also in `labels`."""
    meanings = {_meaning(label) for label in labels}
    return sum(_meaning(name) in meanings for name in names)


def beginning(names: Sequence[str], limit: int = 6) -> str:
    """The first few names, for a message."""
    if not names:
        return "none"
    return ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")


def evenly_spaced(total: int, limit: int) -> list[int]:
    """At most `limit` of the indices 0 to `total` - 1, evenly spaced, starting with the first."""
    count = min(total, limit)
    return [index * total // count for index in range(count)]


def read_names(path: Path) -> tuple[str, ...]:
    """Class names, one per line.

    Raises:
        DataError: the file cannot be read, or is empty.
    """
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not names:
        raise DataError(f"{path} is empty: expected class names, one per line")
    return names


def inside(root: Path, folder: Path, name: str, *, where: str) -> Path:
    """The path of a file that a data set names; it must be inside the data set.

    Args:
        root: the data set's folder.
        folder: the folder that names are relative to.
        name: the name in the data set.
        where: where the name is, for messages.

    Raises:
        DataError: an absolute path elsewhere, a path that leaves the data set by "..", or not a file name.
    """
    if not name.strip() or "\0" in name or max(map(len, name.split("/"))) > _LONGEST_NAME:
        raise DataError(f"{where} names a file {name[:60]!r}, which is not a valid file name")
    lexical = os.path.normpath(os.path.join(os.path.abspath(folder), name))
    if not Path(lexical).is_relative_to(os.path.abspath(root)):
        raise DataError(
            f"{where} names {name[:200]!r}, which lies outside {root}: a data set's pictures must be inside its "
            "folder. Copy them there, and write their names relative to it"
        )
    return Path(lexical)


def refuse_mostly_outside(boxes_xyxy: BoxArray, limits: BoxArray, *, where: str, meant: str) -> None:
    """Refuse boxes that mostly lie outside their pictures: they were written in another convention than the form's.

    Args:
        boxes_xyxy: float64 [n, 4].
        limits: float64 [n, 2], width and height of each one's picture, in the same unit; 0 where it is unknown.
        where: the file or folder with the boxes, for the message.
        meant: this form's convention for boxes, for the message.

    Raises:
        DataError: more than half of them, and at least four, exceed their picture by more than a fiftieth of it.
    """
    known = (limits > 0).all(axis=1)
    boxes, sizes = boxes_xyxy[known], limits[known]
    if len(boxes) < _FEW_BOXES:
        return
    room = sizes * _OVER_THE_EDGE
    outside = (boxes[:, :2] < -room).any(axis=1) | (boxes[:, 2:] > sizes + room).any(axis=1)
    outside |= (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    count = int(outside.sum())
    if count * 2 > len(boxes):
        raise DataError(
            f"{count} of the {len(boxes)} boxes of {where} lie outside their pictures, or have negative sizes: "
            f"expected {meant}"
        )


def _spelling(name: str) -> str:
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


def _meaning(name: str) -> str:
    spelling = _spelling(name)
    return _SYNONYMS.get(spelling, spelling)
