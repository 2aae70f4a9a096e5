"""Counts labels and problems of a data set, picture by picture, while it is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgecnn.datasets.base import BoxTruth, ClassMap, Dataset, LabelTruth, MapTruth, Sample, Truth, beginning
from edgecnn.pictures import picture_hash
from edgecnn.results import UInt8Array
from edgecnn.tasks.truth import Outline

_TINY_PX = 4.0  # a side
_WHOLE_PICTURE = 0.95  # of the area
_CROWDED = 100  # objects: AP counts at most so many detections of a class per picture
_OVER_THE_EDGE_PX = 2.0  # rounding, and labels that count pixels from 1
_SMALL_PX2, _LARGE_PX2 = 32.0**2, 96.0**2  # COCO's
_NAMED = 3  # pictures named in a finding
_ONE = {
    "pictures": "picture",
    "boxes": "box",
    "outlines": "outline",
    "classes": "class",
    "labels that don't": "label that doesn't",
}


@dataclass(frozen=True)
class Finding:
    """A problem of the data.

    Attributes:
        what: in words, such as "boxes with a side below 4 px".
        count: number of pictures or objects.
        pictures: names of the first few pictures.
        wrong: True if metrics on this data would be wrong.
    """

    what: str
    count: int
    pictures: tuple[str, ...] = ()
    wrong: bool = False

    def __str__(self) -> str:
        """For example "3 boxes with a side below 4 px (a.jpg, b.jpg, …)"."""
        what = self.what
        if self.count == 1:
            many = next((many for many in _ONE if what.startswith(many)), "")
            what = _ONE.get(many, "") + what.removeprefix(many)
        more = ", …" if len(self.pictures) > _NAMED else ""
        names = f" ({', '.join(self.pictures[:_NAMED])}{more})" if self.pictures else ""
        return f"{self.count} {what}{names}"


@dataclass(frozen=True, kw_only=True)
class PartSummary:
    """Content of one part of a data set.

    Attributes:
        split: "train", "val", …; None for an undivided data set.
        defined_by: where the split is defined.
        path, form: path and form of the labels.
        pictures: number of pictures with labels for the task.
        left_out: what is ignored: reason → how many.
        per_class: class → number of objects; for class folders, of pictures; for masks, the share of all pixels.
        objects: number of boxes; None where there are none.
        box_sizes: COCO's small (< 32² px), medium, large (> 96² px) → how many; empty where there are no boxes.
        box_side_px: shortest, median and longest side; None without boxes.
        picture_px: (width, height) of the smallest and the largest picture.
        void_share: share of mask pixels without a class; None where there are no masks.
        findings: problems.
        remarks: remarks about the data set as a whole, in sentences.
        error: why it could not be opened; the other fields are empty then.
    """

    split: str | None
    defined_by: str
    path: str
    form: str
    pictures: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    per_class: dict[str, float] = field(default_factory=dict)
    objects: int | None = None
    box_sizes: dict[str, int] = field(default_factory=dict)
    box_side_px: tuple[float, float, float] | None = None
    picture_px: tuple[tuple[int, int], tuple[int, int]] | None = None
    void_share: float | None = None
    findings: tuple[Finding, ...] = ()
    remarks: tuple[str, ...] = ()
    error: str | None = None

    @property
    def wrong(self) -> bool:
        """Whether metrics on it would be wrong."""
        return self.error is not None or any(finding.wrong for finding in self.findings)


class Look:
    """Collects statistics of labels.

    Args:
        classes: the data set's classes.
    """

    def __init__(self, classes: ClassMap) -> None:
        self._labels = classes.labels
        self._counts: Counter[int] = Counter()
        self._void = self._pixels = self._pictures = self._boxes = 0
        self._sides: list[float] = []
        self._areas: list[float] = []
        self._found: dict[tuple[str, bool], tuple[int, list[str]]] = {}
        self._sizes: list[tuple[int, int]] = []

    def add(self, name: str, image: UInt8Array, truth: Truth) -> None:
        """Add one picture, called `name`, and its labels."""
        height, width = image.shape[:2]
        self._pictures += 1
        self._sizes.append((width, height))
        if isinstance(truth, BoxTruth):
            self._add_boxes(name, truth, width, height)
        elif isinstance(truth, MapTruth):
            counted = np.bincount(truth.classes.ravel() + 1, minlength=len(self._labels) + 1)
            self._void += int(counted[0])
            self._pixels += truth.classes.size
            self._counts.update({i: int(n) for i, n in enumerate(counted[1:].tolist()) if n})
            if not counted[1:].any():
                self.note("pictures without a pixel of a class", name)
        elif isinstance(truth, LabelTruth):
            self._counts[truth.class_id] += 1

    def note(self, what: str, name: str, count: int = 1, *, wrong: bool = False) -> None:
        """Record a problem."""
        if count:
            before, names = self._found.get((what, wrong), (0, []))
            self._found[what, wrong] = before + count, [*names, name] if len(names) <= _NAMED else names

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The problems found so far, the worst first."""
        found = [Finding(what, n, tuple(names), wrong) for (what, wrong), (n, names) in self._found.items()]
        return tuple(sorted(found, key=lambda one: not one.wrong))

    def _add_boxes(self, name: str, truth: BoxTruth, width: int, height: int) -> None:
        boxes, ids = truth.boxes_xyxy_px, truth.class_ids
        self._boxes += len(boxes)
        self._counts.update(ids.tolist())
        if not len(boxes):
            self.note("pictures without an object", name)
            return
        sides = boxes[:, 2:] - boxes[:, :2]
        areas = sides.prod(axis=1)
        self._sides += sides.ravel().tolist()
        self._areas += areas.tolist()
        self.note("boxes with a side below 4 px", name, int((sides < _TINY_PX).any(axis=1).sum()))
        self.note("boxes as large as their picture", name, int((areas >= _WHOLE_PICTURE * width * height).sum()))
        edges = np.array([width, height] * 2) + _OVER_THE_EDGE_PX
        outside = ((boxes < -_OVER_THE_EDGE_PX) | (boxes > edges)).any(axis=1)
        self.note("boxes beyond the edge of their picture", name, int(outside.sum()), wrong=True)
        over = sum(_is_beyond(outline, width, height) for outline in truth.outlines)
        self.note("outlines beyond the edge of their picture", name, over, wrong=True)
        twice = len(boxes) - len(np.unique(np.column_stack([ids, boxes]), axis=0))
        self.note("boxes equal to another", name, twice)
        self.note(f"pictures with more than {_CROWDED} objects", name, int(len(boxes) > _CROWDED))

    def summary(self, dataset: Dataset) -> PartSummary:
        """The summary of all pictures."""
        absent = [self._labels[i] for i in dataset.classes.common_ids if not self._counts[i]]
        findings = self.findings
        if absent and self._pictures and not self._pixels:  # for masks, opening them reported this
            findings += (Finding(f"classes without an object: {beginning(absent)}", len(absent)),)
        common = dataset.classes.common_ids
        if self._pixels:
            per_class = {self._labels[i]: round(self._counts[i] / self._pixels, 6) for i in common}
        else:
            per_class = {self._labels[i]: self._counts[i] for i in common}
        areas, sides = np.array(self._areas), np.array(self._sides)
        small, large = int((areas < _SMALL_PX2).sum()), int((areas > _LARGE_PX2).sum())
        by_area = sorted(self._sizes, key=lambda size: size[0] * size[1])
        boxes = len(areas) > 0
        return PartSummary(
            split=dataset.split,
            defined_by=dataset.defined_by,
            path=str(dataset.path),
            form=dataset.form,
            pictures=self._pictures,
            left_out=dict(dataset.left_out),
            per_class=per_class,
            objects=self._boxes if boxes else None,
            box_sizes={"small": small, "medium": len(areas) - small - large, "large": large} if boxes else {},
            box_side_px=(float(sides.min()), float(np.median(sides)), float(sides.max())) if boxes else None,
            picture_px=(by_area[0], by_area[-1]) if by_area else None,
            void_share=round(self._void / self._pixels, 6) if self._pixels else None,
            findings=findings,
            remarks=dataset.remarks,
        )


def _is_beyond(outline: Outline, width_px: int, height_px: int) -> bool:
    """Whether a polygon of an outline has a corner beyond the edge of its picture; runs never have."""
    if isinstance(outline, Mapping):
        return False
    corners = np.concatenate([np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in outline])
    edge = np.array([width_px, height_px]) + _OVER_THE_EDGE_PX
    return bool(((corners < -_OVER_THE_EDGE_PX) | (corners > edge)).any())


def watched(dataset: Dataset, look: Look) -> Dataset:
    """The same data set; every label that is read is also passed to `look`."""

    def watch(sample: Sample) -> Sample:
        def read(image: UInt8Array) -> Truth:
            truth = sample.read_truth(image)
            look.add(sample.path.name, image, truth)
            return truth

        return replace(sample, read_truth=read)

    return replace(dataset, samples=tuple(watch(sample) for sample in dataset.samples))


class Duplicates:
    """Finds pictures that occur more than once, by their pixels."""

    def __init__(self) -> None:
        self._places: dict[str, list[tuple[str, str]]] = {}

    def add(self, part: str, name: str, image: UInt8Array) -> None:
        """Add a picture of a part."""
        self._places.setdefault(picture_hash(image), []).append((part, name))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Pictures in two parts, which make metrics too good; and pictures that occur twice in one."""
        between: dict[str, list[str]] = {}
        within: dict[str, list[str]] = {}
        for places in self._places.values():
            parts = sorted({part for part, _ in places})
            if len(parts) > 1:
                between.setdefault(" and ".join(parts), []).append(places[0][1])
            elif len(places) > 1:
                within.setdefault(parts[0], []).append(places[0][1])
        return (
            *(Finding(f"pictures both in {parts}", len(n), tuple(n), wrong=True) for parts, n in between.items()),
            *(Finding(f"pictures more than once in {part}", len(n), tuple(n)) for part, n in within.items()),
        )
