"""Which objects have stayed in a zone, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, field

from edgecnn.results import Detections, ZoneCount
from edgecnn.runners.live.tracking.counting import ZoneCounter

_LOST_S = 1.0  # an object that is hidden for less has not left


@dataclass
class Stay:
    """One object's stay in one place.

    Attributes:
        zone: the zone's name; "" for the whole picture.
        track_id, label: the object's, the label that of its best picture.
        since_s, last_s: when it was first and last seen there.
        score: its highest score.
        box: that picture's box, xyxy in source pixels.
    """

    zone: str
    track_id: int
    label: str
    since_s: float
    last_s: float
    score: float = 0.0
    box: list[float] = field(default_factory=list)


class Dwell:
    """Follows objects in the zones of the results; without zones, in the whole picture.

    Args:
        after_s: time in a zone after which an object counts.
    """

    def __init__(self, after_s: float) -> None:
        self._after_s = after_s
        self._stays: dict[tuple[str, int], Stay] = {}
        self._zones: dict[str, ZoneCounter] = {}

    def update(self, objects: Detections, at_s: float) -> tuple[list[Stay], bool]:
        """The objects that have stayed long enough and are still there; whether one of them is at its best now."""
        zones = {count.name: count for count in objects.counts if isinstance(count, ZoneCount)}
        better = False
        ids = [] if objects.track_ids is None else objects.track_ids.tolist()
        for track_id, box, score, label in zip(
            ids, objects.boxes_xyxy_px.tolist(), objects.scores.tolist(), objects.names, strict=False
        ):
            if track_id < 0:
                continue
            for zone in self._places(zones, ((box[0] + box[2]) / 2, box[3])):
                stay = self._stays.setdefault((zone, track_id), Stay(zone, track_id, label, at_s, at_s))
                stay.last_s = at_s
                if score > stay.score:
                    stay.score, stay.box, stay.label = score, [round(side, 1) for side in box], label
                    better = True
        self._stays = {key: stay for key, stay in self._stays.items() if at_s - stay.last_s <= _LOST_S}
        long = [stay for stay in self._stays.values() if stay.last_s - stay.since_s >= self._after_s]
        return long, better

    def _places(self, zones: dict[str, ZoneCount], at: tuple[float, float]) -> list[str]:
        if not zones:
            return [""]
        for name, zone in zones.items():
            if name not in self._zones:
                self._zones[name] = ZoneCounter(zone.corners_px, name=name)
        return [name for name in zones if self._zones[name].holds(at)]
