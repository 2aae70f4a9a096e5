"""What lines and zones have counted: part of the result of a picture in which objects are followed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

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

    def record(self) -> dict[str, Any]:
        """What JSON says of it: figures by label."""
        return {"line": self.name, "in": dict(self.in_by_class), "out": dict(self.out_by_class)}


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

    def record(self) -> dict[str, Any]:
        """What JSON says of it: figures by label."""
        return {
            "zone": self.name,
            "inside": dict(self.inside_by_class),
            "entered": dict(self.entered_by_class),
            "most_inside": self.most_inside,
        }


Count: TypeAlias = LineCount | ZoneCount
