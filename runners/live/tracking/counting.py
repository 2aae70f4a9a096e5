"""Counts objects that cross a line or are in a zone, by track ids.

An object's position is the middle of its box's lower edge: where it stands on the ground. Near a line or an edge it has
changed sides only when it is clearly beyond, by 5 % of its box's height (at least 2 px), so that a jittering box
counts once.
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

    "In" is to the right of a person who stands at `start_px` and looks to `end_px`: downwards for a line
    drawn from left to right. A path around the line's end does not cross it.

    Args:
        start_px, end_px: (x, y) in source pixels.
        name: the count's name.

    Raises:
        SpecError: the ends are equal or not finite.
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
        """Update the count with the next frame's detections; boxes without a track id don't count.

        Raises:
            SpecError: the detections were not tracked.
        """
        changed = False
        for track_id, label, anchor, margin_px in _ground_points(detections):
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
        """A point's distance along the line and to its side (positive to the right), in px."""
        x, y = point[0] - self.start_px[0], point[1] - self.start_px[1]
        return x * self._along[0] + y * self._along[1], y * self._along[0] - x * self._along[1]

    def _count(self) -> LineCount:
        return LineCount(self.name, self.start_px, self.end_px, dict(self._in), dict(self._out))


@dataclass
class _Path:
    """An object's path relative to a line.

    Attributes:
        along_px, beside_px: its position.
        side: the side on which it was clearly last: 1 right, -1 left, 0 none yet.
        through: how often it passed through the line since: to the right minus to the left.
    """

    along_px: float
    beside_px: float
    side: int = 0
    through: int = 0

    def move(self, along_px: float, beside_px: float, *, margin_px: float, length_px: float) -> int:
        """Move to a position; returns 1 if it has now crossed to the right, -1 to the left, otherwise 0."""
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
    """Counts the objects that are in a polygon, and those that enter it.

    An object first seen inside is inside, but didn't enter.

    Args:
        corners_px: three or more (x, y) in source pixels, in order.
        name: the count's name.

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

    def holds(self, point_px: Point) -> bool:
        """Whether a point, (x, y) in source pixels, is in the polygon or on its edge."""
        return cv2.pointPolygonTest(self._polygon, (float(point_px[0]), float(point_px[1])), False) >= 0

    def update(self, detections: Detections) -> ZoneCount:
        """Update the count with the next frame's detections; boxes without a track id don't count.

        Raises:
            SpecError: the detections were not tracked.
        """
        present: Counter[str] = Counter()
        for track_id, label, anchor, margin_px in _ground_points(detections):
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
    """One value per track; the least recently used are forgotten, however long a camera runs."""

    def __init__(self) -> None:
        self._states: dict[int, State] = {}

    def pop(self, track_id: int) -> State | None:
        return self._states.pop(track_id, None)

    def put(self, track_id: int, state: State) -> None:
        self._states[track_id] = state
        if len(self._states) > _REMEMBERED:
            del self._states[next(iter(self._states))]


def parse_counters(lines: Sequence[str], zones: Sequence[str]) -> tuple[LineCounter | ZoneCounter, ...]:
    """Counters from options: x1,y1,x2,y2 in source px for a line, x1,y1,x2,y2,x3,y3,… for a zone, optionally NAME=….

    Raises:
        SpecError: another form, or two of one name.
    """
    counters: list[LineCounter | ZoneCounter] = []
    for number, text in enumerate(lines, 1):
        name, (start, end, *more) = _parse(text, "count-line", f"line {number}", least=2)
        if more:
            raise SpecError(f"count-line: expected two points, x1,y1,x2,y2; got {2 + len(more)} points in {text!r}")
        counters.append(LineCounter(start, end, name=name))
    for number, text in enumerate(zones, 1):
        name, corners = _parse(text, "zone", f"zone {number}", least=3)
        counters.append(ZoneCounter(corners, name=name))
    for name, times in Counter(counter.name for counter in counters).items():
        if times > 1:
            raise SpecError(f"{times} lines and zones are called {name!r}: give each a different NAME=")
    return tuple(counters)


def check_inside(counters: Sequence[LineCounter | ZoneCounter], *, width_px: int, height_px: int) -> None:
    """Raise SpecError if a line or a zone extends beyond the picture: it was meant for another size."""
    for counter in counters:
        for x, y in counter.points_px:
            if not (0 <= x <= width_px and 0 <= y <= height_px):
                raise SpecError(
                    f"{counter.name!r} extends to {x:g},{y:g}, outside the picture of {width_px}x{height_px} px"
                )


def updated(counters: Sequence[LineCounter | ZoneCounter], detections: Detections) -> tuple[Count, ...]:
    """All counts after the next frame."""
    return tuple(counter.update(detections) for counter in counters)


def _parse(text: str, option: str, default_name: str, *, least: int) -> tuple[str, list[Point]]:
    name, named, places = text.rpartition("=")
    try:
        numbers = [float(word) for word in places.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) % 2 or len(numbers) < 2 * least or (named and not name.strip()):
        form = ",".join(f"x{i},y{i}" for i in range(1, least + 1)) + (",…" if least > 2 else "")
        raise SpecError(f"{option}: expected {form} in pixels of the picture, or NAME={form}; got {text!r}")
    return name.strip() or default_name, list(zip(numbers[::2], numbers[1::2], strict=True))


def _check_finite(name: str, points: Sequence[Point]) -> None:
    if not np.isfinite(np.array(points, np.float64)).all():
        raise SpecError(f"{name!r}: expected finite coordinates, got {tuple(points)}")


def _ground_points(detections: Detections) -> Iterator[tuple[int, str, Point, float]]:
    """For each tracked object: id, label, position in px, and the distance in px that counts as beyond a line."""
    if detections.track_ids is None:
        raise SpecError("counting needs track ids: run the detections through a Tracker first")
    boxes = detections.boxes_xyxy_px.tolist()
    for track_id, class_id, (left, top, right, bottom) in zip(
        detections.track_ids.tolist(), detections.class_ids.tolist(), boxes, strict=True
    ):
        if track_id >= 0:
            margin_px = max(_LEAST_MARGIN_PX, _MARGIN_SHARE * (bottom - top))
            yield track_id, detections.labels[class_id], ((left + right) / 2, bottom), margin_px
