"""Counts what crosses a line and what is in a zone, by track ids.

An object is where its box's lower edge has its middle: for what stands on the ground, the point where it stands.
Near a line or an edge it has changed sides only when it is clearly beyond, by 5 % of its box's height (at least
2 px), so that a trembling box counts once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import cv2
import numpy as np

from edgecnn.errors import SpecError
from edgecnn.results import Count, Detections, LineCount, Point, ZoneCount

_MARGIN_SHARE: Final = 0.05
_LEAST_MARGIN_PX: Final = 2.0
_REMEMBERED: Final = 4096


class LineCounter:
    """Counts the objects that cross a line, in two directions.

    "In" is to the right-hand side of who stands at `start_px` and looks to `end_px`: downwards for a line that is
    drawn from left to right. A path that leads round the line's end crosses nothing.

    Args:
        start_px, end_px: (x, y) in source pixels.
        name: what the count is called.

    Raises:
        SpecError: the ends are one point, or not finite.
    """

    def __init__(self, start_px: Point, end_px: Point, *, name: str = "line") -> None:
        _check_finite(name, (start_px, end_px))
        self._length_px = math.dist(start_px, end_px)
        if self._length_px == 0:
            raise SpecError(f"line {name!r} must have two different ends, got {start_px} twice")
        self.name, self.start_px, self.end_px = name, start_px, end_px
        self._along = (end_px[0] - start_px[0]) / self._length_px, (end_px[1] - start_px[1]) / self._length_px
        self._paths: _Remembered[_Path] = _Remembered()
        self._in: Counter[str] = Counter()
        self._out: Counter[str] = Counter()
        self.count = self._count()

    @property
    def points_px(self) -> tuple[Point, ...]:
        """The line's two ends."""
        return self.start_px, self.end_px

    def update(self, detections: Detections) -> LineCount:
        """Count with what the next frame shows; boxes without a track id don't count.

        Raises:
            SpecError: nothing tracked these detections.
        """
        changed = False
        for track_id, label, anchor, margin_px in _standing(detections):
            path = self._paths.pop(track_id)
            at = self._place(anchor)
            if path is None:
                path = _Path(*at)
            direction = path.move(*at, margin_px=margin_px, length_px=self._length_px)
            self._paths.put(track_id, path)
            if direction:
                (self._in if direction > 0 else self._out)[label] += 1
                changed = True
        if changed:
            self.count = self._count()
        return self.count

    def _place(self, point: Point) -> tuple[float, float]:
        """How far a point lies along the line and beside it (to the right is positive), in px."""
        x, y = point[0] - self.start_px[0], point[1] - self.start_px[1]
        return x * self._along[0] + y * self._along[1], y * self._along[0] - x * self._along[1]

    def _count(self) -> LineCount:
        return LineCount(self.name, self.start_px, self.end_px, dict(self._in), dict(self._out))


@dataclass
class _Path:
    """An object's way, as seen from a line.

    Attributes:
        along_px, beside_px: where it is.
        side: on which side it was clearly last: 1 right, -1 left, 0 on none yet.
        through: how often it went through the line since, to the right less to the left.
    """

    along_px: float
    beside_px: float
    side: int = 0
    through: int = 0

    def move(self, along_px: float, beside_px: float, *, margin_px: float, length_px: float) -> int:
        """Go on to a place; 1 where it has now crossed to the right, -1 to the left, else 0."""
        to_right = beside_px >= 0
        if to_right != (self.beside_px >= 0):
            share = self.beside_px / (self.beside_px - beside_px)
            if 0 <= self.along_px + share * (along_px - self.along_px) <= length_px:
                self.through += 1 if to_right else -1
        self.along_px, self.beside_px = along_px, beside_px
        if abs(beside_px) < margin_px:
            return 0
        side = 1 if to_right else -1
        crossed = self.side == -side and self.through * side > 0
        self.side, self.through = side, 0
        return side if crossed else 0


class ZoneCounter:
    """Counts the objects that are in a polygon, and those that come into it.

    What is first seen inside is inside, but didn't enter.

    Args:
        corners_px: three or more (x, y) in source pixels, in order.
        name: what the count is called.

    Raises:
        SpecError: fewer corners, corners that enclose nothing, or not finite.
    """

    def __init__(self, corners_px: Sequence[Point], *, name: str = "zone") -> None:
        _check_finite(name, corners_px)
        self._polygon = np.array(corners_px, np.float32).reshape(-1, 1, 2)
        if len(corners_px) < 3 or cv2.contourArea(self._polygon) == 0:
            raise SpecError(f"zone {name!r} must have 3 or more corners that enclose an area, got {tuple(corners_px)}")
        self.name, self.points_px = name, tuple(corners_px)
        self._inside: _Remembered[bool] = _Remembered()
        self._entered: Counter[str] = Counter()
        self.count = ZoneCount(name, self.points_px, {}, {}, 0)

    def update(self, detections: Detections) -> ZoneCount:
        """Count with what the next frame shows; boxes without a track id don't count.

        Raises:
            SpecError: nothing tracked these detections.
        """
        present: Counter[str] = Counter()
        for track_id, label, anchor, margin_px in _standing(detections):
            depth_px = cv2.pointPolygonTest(self._polygon, anchor, True)
            before = self._inside.pop(track_id)
            inside = depth_px >= 0 if before is None or abs(depth_px) >= margin_px else before
            self._inside.put(track_id, inside)
            present[label] += inside
            self._entered[label] += inside and before is False
        most = max(self.count.most_inside, present.total())
        self.count = ZoneCount(self.name, self.points_px, dict(+present), dict(+self._entered), most)
        return self.count


State = TypeVar("State")


class _Remembered(Generic[State]):
    """Something for each track; what was not asked for longest is forgotten, however long a camera runs."""

    def __init__(self) -> None:
        self._states: dict[int, State] = {}

    def pop(self, track_id: int) -> State | None:
        return self._states.pop(track_id, None)

    def put(self, track_id: int, state: State) -> None:
        self._states[track_id] = state
        if len(self._states) > _REMEMBERED:
            del self._states[next(iter(self._states))]


def parse_counters(lines: Sequence[str], zones: Sequence[str]) -> tuple[LineCounter | ZoneCounter, ...]:
    """Counters from words: x1,y1,x2,y2 in source pixels for a line, x1,y1,x2,y2,x3,y3,… for a zone, after NAME= or not.

    Raises:
        SpecError: not such words, or two of one name.
    """
    counters: list[LineCounter | ZoneCounter] = []
    for number, text in enumerate(lines, 1):
        name, (start, end, *more) = _parse(text, "count-line", f"line {number}", least=2)
        if more:
            raise SpecError(f"count-line has two ends, x1,y1,x2,y2; got {2 + len(more)} points in {text!r}")
        counters.append(LineCounter(start, end, name=name))
    for number, text in enumerate(zones, 1):
        name, corners = _parse(text, "zone", f"zone {number}", least=3)
        counters.append(ZoneCounter(corners, name=name))
    for name, times in Counter(counter.name for counter in counters).items():
        if times > 1:
            raise SpecError(f"{times} lines and zones are called {name!r}: give each its own NAME=")
    return tuple(counters)


def check_inside(counters: Sequence[LineCounter | ZoneCounter], *, width_px: int, height_px: int) -> None:
    """Raise SpecError where a line or a zone reaches out of the picture: it was meant for another."""
    for counter in counters:
        for x, y in counter.points_px:
            if not (0 <= x <= width_px and 0 <= y <= height_px):
                raise SpecError(
                    f"{counter.name!r} reaches to {x:g},{y:g}, outside the picture of {width_px}x{height_px} px"
                )


def updated(counters: Sequence[LineCounter | ZoneCounter], detections: Detections) -> tuple[Count, ...]:
    """What all count with the next frame."""
    return tuple(counter.update(detections) for counter in counters)


def _parse(text: str, option: str, default_name: str, *, least: int) -> tuple[str, list[Point]]:
    name, named, places = text.rpartition("=")
    try:
        numbers = [float(word) for word in places.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) % 2 or len(numbers) < 2 * least or (named and not name.strip()):
        form = ",".join(f"x{i},y{i}" for i in range(1, least + 1)) + (",…" if least > 2 else "")
        raise SpecError(f"{option} must be {form} in pixels of the picture, or NAME={form}; got {text!r}")
    return name.strip() or default_name, list(zip(numbers[::2], numbers[1::2], strict=True))


def _check_finite(name: str, points: Sequence[Point]) -> None:
    if not np.isfinite(np.array(points, np.float64)).all():
        raise SpecError(f"{name!r} must have finite coordinates, got {tuple(points)}")


def _standing(detections: Detections) -> Iterator[tuple[int, str, Point, float]]:
    """Of each tracked object: id, label, where it stands in px, and how far beyond a line it must be in px."""
    if detections.track_ids is None:
        raise SpecError("counting needs track ids: let a Tracker give them first")
    boxes = detections.boxes_xyxy_px.tolist()
    for track_id, class_id, (left, top, right, bottom) in zip(
        detections.track_ids.tolist(), detections.class_ids.tolist(), boxes, strict=True
    ):
        if track_id >= 0:
            margin_px = max(_LEAST_MARGIN_PX, _MARGIN_SHARE * (bottom - top))
            yield track_id, detections.labels[class_id], ((left + right) / 2, bottom), margin_px
