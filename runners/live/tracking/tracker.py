"""Stable ids for objects over frames: ByteTrack, from edgefirst-tracker."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from edgecnn.errors import MissingDependencyError, SpecError
from edgecnn.results import Detections, IntArray, changed

UNTRACKED: Final = -1
DEFAULT_FPS: Final = 30.0
START_SCORE: Final = 0.4
# Overlap that a box must have with an object's predicted place, and how far the filter follows a box rather than its
# own prediction; see the measurements in docs/decisions/0010-tracker.md.
_LEAST_IOU: Final = 0.1
_UPDATE: Final = 0.8
_FEWEST_STEPS_KEPT: Final = 5


class Tracker:
    """Gives each object an id that it keeps from frame to frame.

    All boxes are returned, in their order. Ids count from 1, in the order in which objects were seen a second
    time; before that, and where a box scores below `start_score` and belongs to no tracked object, the id is
    -1. The class is ignored: a car that is detected as a truck in one frame keeps its id.

    A tracker has state: use one per camera, with every frame in order, by one thread at a time.

    Args:
        fps: the source's frames per second, which decides how far objects move between frames.
        start_score: the score that an object's first box must have; later boxes may score lower.
        keep_lost_s: an object that was not seen for this time (and for 5 frames) is forgotten, and gets
            another id when it comes back.

    Raises:
        MissingDependencyError: edgefirst-tracker is not installed.
        SpecError: a rate or a time that is not above zero, or a score outside 0..1.
    """

    def __init__(self, *, fps: float = DEFAULT_FPS, start_score: float = START_SCORE, keep_lost_s: float = 1.0) -> None:
        for name, value in (("fps", fps), ("keep_lost_s", keep_lost_s)):
            if not (math.isfinite(value) and value > 0):
                raise SpecError(f"{name}: expected a number above 0, got {value}")
        if not 0 <= start_score <= 1:
            raise SpecError(f"start_score: expected a number in 0..1, got {start_score}")
        try:
            from edgefirst.tracker import ByteTrack
        except ImportError as missing:
            raise MissingDependencyError("tracking", "edgefirst-tracker", extra="track") from missing
        self.start_score = start_score
        self._step_ns = round(1e9 / fps)
        self._keep_ns = max(round(keep_lost_s * 1e9), _FEWEST_STEPS_KEPT * self._step_ns)
        self._tracker = ByteTrack(high_conf=start_score, iou=_LEAST_IOU, update=_UPDATE, lifespan_ns=self._keep_ns)
        self._ids: dict[str, int] = {}
        self._next_id = 1
        self._now_ns: int | None = None

    def __call__(self, found: Detections, *, captured_ns: int | None = None) -> Detections:
        """The same detections with track ids.

        Args:
            found: the next frame's detections (for instances, their `detections`).
            captured_ns: capture time (`Frame.captured_ns`), for a camera whose frames may be dropped; by
                default, one frame after the last.
        """
        now_ns = self._advance(captured_ns)
        tracks = self._tracker.update(
            np.ascontiguousarray(found.boxes_xyxy_px, np.float32),
            np.ascontiguousarray(found.scores, np.float32),
            found.class_ids.astype(np.uintp),
            now_ns,
        )
        ids: IntArray = np.array(
            [UNTRACKED if track is None else self._id_of(track.uuid) for track in tracks], np.int64
        )
        followed = {track.info.uuid for track in self._tracker.get_active_tracks()}
        self._ids = {uuid: number for uuid, number in self._ids.items() if uuid in followed}
        return changed(found, track_ids=ids)

    def _advance(self, captured_ns: int | None) -> int:
        """Advance the filter to this frame, over dropped ones; returns the filter's time."""
        if self._now_ns is None:
            self._now_ns = captured_ns or 0
            return self._now_ns
        last_ns = self._now_ns
        now_ns = last_ns + self._step_ns if captured_ns is None else max(captured_ns, last_ns + 1)
        if now_ns - last_ns > self._keep_ns:
            self._update_without_boxes(now_ns - 1)  # forgets all: no new box gets an old id
        else:
            # One update is one step of the filter's motion model, whatever its time.
            for step in range(1, round((now_ns - last_ns) / self._step_ns)):
                self._update_without_boxes(min(last_ns + step * self._step_ns, now_ns))
        self._now_ns = now_ns
        return now_ns

    def _update_without_boxes(self, at_ns: int) -> None:
        none = np.empty(0, np.float32)
        self._tracker.update(none.reshape(0, 4), none, np.empty(0, np.uintp), at_ns)

    def _id_of(self, uuid: str) -> int:
        if uuid not in self._ids:  # seen once: most objects that a network sees only once do not exist
            self._ids[uuid] = UNTRACKED
        elif self._ids[uuid] == UNTRACKED:
            self._ids[uuid] = self._next_id
            self._next_id += 1
        return self._ids[uuid]
