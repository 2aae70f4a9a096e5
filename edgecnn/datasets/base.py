"""What every data set is, whatever form it lies in: samples with truths, and classes mapped by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from edgecnn.datasets.images import read_image
from edgecnn.errors import DataError, SpecError
from edgecnn.results import BoolArray, IntArray, UInt8Array

# Truths are float64: float32 would move the boxes, and AP counts at sharp thresholds.
BoxArray: TypeAlias = NDArray[np.float64]
Outline: TypeAlias = list[Any] | dict[str, Any]  # COCO's: polygons [[x1, y1, ...], ...] in px, or an RLE

UNLABELLED = -1  # in a MapTruth, and for a class that the network doesn't have

UNKNOWN_CLASS = "objects of classes that the network doesn't have"
NO_AREA = "boxes without area"

# Names of one thing in COCO and in Pascal VOC. Near things (rider, cyclist) are not one thing.
_SYNONYMS = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}


@dataclass(frozen=True)
class LabelTruth:
    """The class of a picture, as the network's class id."""

    class_id: int


@dataclass(frozen=True)
class BoxTruth:
    """The objects in a picture.

    Attributes:
        boxes_xyxy_px: float64 [n, 4], left, top, right, bottom in pixels of the picture.
        class_ids: int64 [n], the network's.
        ignored: bool [n]: neither finding nor missing it counts (COCO's crowds, VOC's difficult objects).
        areas_px2: float64 [n], of the object where the data set says it, else of the box.
        outlines: COCO segmentations [n], empty where the data set has boxes only.
    """

    boxes_xyxy_px: BoxArray
    class_ids: IntArray
    ignored: BoolArray
    areas_px2: BoxArray
    outlines: tuple[Outline, ...] = ()


@dataclass(frozen=True)
class MapTruth:
    """The class of every pixel, int64 [height, width]: the network's class id, or UNLABELLED."""

    classes: IntArray


Truth: TypeAlias = LabelTruth | BoxTruth | MapTruth


@dataclass(frozen=True)
class Sample:
    """One picture and what is known of it.

    Attributes:
        path: the image file.
        read_truth: the truth; is given the picture, since some forms need its size.
    """

    path: Path
    read_truth: Callable[[UInt8Array], Truth] = field(repr=False)

    def image(self) -> UInt8Array:
        """Read the picture, uint8 [height, width, 3] BGR; nothing is kept.

        Raises:
            DataError: the file cannot be read.
        """
        return read_image(self.path)

    def truth(self, image: UInt8Array) -> Truth:
        """What is known of the picture that `image` returned.

        Raises:
            DataError: it belongs to a picture of another size, or its file cannot be read.
        """
        return self.read_truth(image)


@dataclass(frozen=True)
class ClassMap:
    """The data set's classes and the network's, matched by name.

    Attributes:
        names: the data set's class names, by its class id.
        labels: the network's class names, by its class id.
        network_ids: int64 [len(names)], the network's class id, UNLABELLED where it has no such class.
    """

    names: tuple[str, ...]
    labels: tuple[str, ...]
    network_ids: IntArray

    @property
    def unknown_names(self) -> tuple[str, ...]:
        """The data set's classes that the network doesn't have."""
        return tuple(n for n, i in zip(self.names, self.network_ids.tolist(), strict=True) if i == UNLABELLED)

    @property
    def common_ids(self) -> list[int]:
        """The network's ids of the classes that both have, rising."""
        return sorted({i for i in self.network_ids.tolist() if i != UNLABELLED})

    def find(self, label: str | int) -> int:
        """The network's id of a class of the data set, given by name or by the data set's id.

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
        raise DataError(
            f"the data set has no class {label!r}; it has {beginning(self.names)} (ids 0 to {len(self.names) - 1})"
        )


@dataclass(frozen=True)
class Dataset(Sequence[Sample]):
    """Labelled pictures.

    Attributes:
        path: where they lie.
        form: "COCO JSON", "YOLO", …
        classes: its class names, and the network's ids of them.
        samples: one for each picture that has labels for the task.
        left_out: what was left out: reason → how many pictures or objects.
    """

    path: Path
    form: str
    classes: ClassMap
    samples: tuple[Sample, ...] = field(repr=False)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.samples:
            why = "; ".join(f"{count} {reason}" for reason, count in self.left_out.items()) or "it holds none"
            raise DataError(f"{self.path} ({self.form}) has no picture to measure on: {why}")

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
        """At most `limit` samples, evenly spaced: where the order is by class, each keeps its share.

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
    """Match the data set's class names with the network's, whatever their case, underscores and dialect.

    Without `labels`, the classes are the data set's own.

    Raises:
        DataError: no name in common.
    """
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
    """How many of `names` are among `labels`."""
    meanings = {_meaning(label) for label in labels}
    return sum(_meaning(name) in meanings for name in names)


def beginning(names: Sequence[str], limit: int = 6) -> str:
    """The first few names, for a message."""
    if not names:
        return "none"
    return ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")


def evenly_spaced(total: int, limit: int) -> list[int]:
    """At most `limit` indices of `total` things, evenly spaced, from the first on."""
    count = min(total, limit)
    return [index * total // count for index in range(count)]


def read_names(path: Path) -> tuple[str, ...]:
    """Class names, one a line.

    Raises:
        DataError: the file cannot be read, or is empty.
    """
    names = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not names:
        raise DataError(f"{path} is empty: it wants the class names, one a line")
    return names


def read_text(path: Path) -> str:
    """A text file.

    Raises:
        DataError: it cannot be read, or isn't text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as failed:
        raise DataError(f"{path} cannot be read: {failed.strerror}") from failed
    except UnicodeDecodeError as failed:
        raise DataError(f"{path} is not UTF-8 text: {failed}") from failed


def _spelling(name: str) -> str:
    return re.sub(r"[\s_\-]+", " ", name).strip().casefold()


def _meaning(name: str) -> str:
    spelling = _spelling(name)
    return _SYNONYMS.get(spelling, spelling)
