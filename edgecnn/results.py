"""What a network says of one picture: plain numpy, in pixels of the picture that was given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

FloatArray: TypeAlias = NDArray[np.float32]
UInt8Array: TypeAlias = NDArray[np.uint8]
IntArray: TypeAlias = NDArray[np.int64]
BoolArray: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Classification:
    """The classes of one picture, best first.

    Attributes:
        class_ids: int64 [k], best first.
        scores: float32 [k], probabilities in [0, 1], falling.
        labels: names of all classes, by class id.
    """

    class_ids: IntArray
    scores: FloatArray
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.class_ids)

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """(label, score), best first."""
        for class_id, score in zip(self.class_ids.tolist(), self.scores.tolist(), strict=True):
            yield self.labels[class_id], score


Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class LineCount:
    """What has crossed a line so far.

    Attributes:
        name: what the line is called.
        start_px, end_px: its ends, (x, y) in source pixels.
        in_by_class: how many crossed to the right-hand side of who looks from start to end, by label.
        out_by_class: how many crossed to the left-hand side.
    """

    name: str
    start_px: Point
    end_px: Point
    in_by_class: Mapping[str, int]
    out_by_class: Mapping[str, int]

    def __str__(self) -> str:
        """As in "door: 3 in, 1 out"."""
        return f"{self.name}: {sum(self.in_by_class.values())} in, {sum(self.out_by_class.values())} out"


@dataclass(frozen=True)
class ZoneCount:
    """What is in a zone, and what has come into it so far.

    Attributes:
        name: what the zone is called.
        corners_px: of the polygon, each (x, y) in source pixels.
        inside_by_class: how many are in it in this picture, by label.
        entered_by_class: how many came in from outside; what was first seen inside did not.
        most_inside: how many were in it at once at most.
    """

    name: str
    corners_px: tuple[Point, ...]
    inside_by_class: Mapping[str, int]
    entered_by_class: Mapping[str, int]
    most_inside: int

    def __str__(self) -> str:
        """As in "yard: 2 inside, 5 entered"."""
        return (
            f"{self.name}: {sum(self.inside_by_class.values())} inside, {sum(self.entered_by_class.values())} entered"
        )


Count: TypeAlias = LineCount | ZoneCount


@dataclass(frozen=True)
class Detections:
    """The objects found in one picture, best first.

    Attributes:
        boxes_xyxy_px: float32 [n, 4], left, top, right, bottom in source pixels, clipped to the picture.
        scores: float32 [n] in [0, 1], falling.
        class_ids: int64 [n].
        labels: names of all classes, by class id.
        track_ids: int64 [n], the same object keeps its id over frames; -1 of a box that is no followed object
            (yet); None where nothing tracks.
        counts: what the lines and zones that are watched have counted, this picture included.
    """

    boxes_xyxy_px: FloatArray
    scores: FloatArray
    class_ids: IntArray
    labels: tuple[str, ...]
    track_ids: IntArray | None = None
    counts: tuple[Count, ...] = ()

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[tuple[FloatArray, float, str]]:
        """(box xyxy in px, score, label), best first."""
        for box, score, class_id in zip(self.boxes_xyxy_px, self.scores.tolist(), self.class_ids.tolist(), strict=True):
            yield box, score, self.labels[class_id]


@dataclass(frozen=True)
class SegmentationMap:
    """A class for every pixel of one picture.

    Attributes:
        classes: uint8 [height, width] of the source picture, class ids.
        labels: names of all classes, by class id.
    """

    classes: UInt8Array
    labels: tuple[str, ...]

    def shares(self) -> dict[str, float]:
        """Share of the picture's pixels of each class that occurs, largest first."""
        counts = np.bincount(self.classes.ravel(), minlength=1)
        order = np.argsort(-counts, kind="stable")
        return {self.labels[i]: float(counts[i] / self.classes.size) for i in order.tolist() if counts[i]}


@dataclass(frozen=True)
class Instances:
    """Objects with their outlines, best first.

    Attributes:
        detections: boxes, scores and classes, as of a detector.
        masks: bool [n, height, width] of the source picture.
    """

    detections: Detections
    masks: BoolArray = field(repr=False)

    def __len__(self) -> int:
        return len(self.detections)


Result: TypeAlias = Classification | Detections | SegmentationMap | Instances
