"""A runner whose results have track ids and counts: what tracks and counts stands between it and the loop."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from edgecnn.errors import DataError, SpecError
from edgecnn.results import Count, Detections, Instances, Result, UInt8Array
from edgecnn.runners.base import Runner, StageTimes
from edgecnn.runners.live.camera import Camera
from edgecnn.runners.live.counting import LineCounter, ZoneCounter, check_inside, parse_counters, updated
from edgecnn.runners.live.track import DEFAULT_FPS, UNTRACKED, Tracker
from edgecnn.tasks import Task


class TrackedRunner:
    """A detector's runner, and what follows and counts its objects.

    Args:
        runner: of a detector or of instances; stays the caller's.
        tracker: follows the objects.
        counters: count them.
        live: frames come when they come: the clock says how far apart; else each is one frame after the last.

    Attributes:
        counts: what was counted so far.

    Raises:
        SpecError: the network finds no objects.
    """

    def __init__(
        self,
        runner: Runner,
        tracker: Tracker,
        counters: Sequence[LineCounter | ZoneCounter] = (),
        *,
        live: bool = False,
    ) -> None:
        _check_task(runner)
        self.counts: tuple[Count, ...] = tuple(counter.count for counter in counters)
        self._runner, self._tracker, self._counters, self._live = runner, tracker, counters, live
        self._times = runner.stage_times
        self._size: tuple[int, int] | None = None
        self._boxes = 0
        self._followed = False

    @property
    def task(self) -> Task:
        """The runner's, with the thresholds that it has now."""
        return self._runner.task

    @property
    def stage_times(self) -> StageTimes:
        """Of the last call; tracking and counting are part of "finish"."""
        return self._times

    @property
    def remark(self) -> str | None:
        """What is to be said at the end: that objects were found, and none could be followed."""
        if self._followed or not self._boxes:
            return None
        return (
            f"of {self._boxes} boxes none was followed: an object must be seen twice, once with a score of "
            f"{self._tracker.start_score:g} or more"
        )

    def __call__(self, image: UInt8Array) -> Result:
        """What the network says of one picture (uint8 [height, width, 3] BGR), with track ids and counts.

        Raises:
            SpecError: a line or zone reaches out of the picture.
            DataError: the picture's size changed, so that lines and zones lie elsewhere.
        """
        captured_ns = time.monotonic_ns() if self._live else None
        self._check_size(image)
        result = self._runner(image)
        start = time.perf_counter_ns()
        if isinstance(result, Instances):
            result = dataclasses.replace(result, detections=self._follow(result.detections, captured_ns))
        elif isinstance(result, Detections):
            result = self._follow(result, captured_ns)
        times = self._runner.stage_times
        self._times = dataclasses.replace(times, finish_ns=times.finish_ns + time.perf_counter_ns() - start)
        return result

    def _follow(self, found: Detections, captured_ns: int | None) -> Detections:
        found = self._tracker(found, captured_ns=captured_ns)
        self._boxes += len(found)
        self._followed = self._followed or bool((found.track_ids != UNTRACKED).any())  # type: ignore[union-attr]
        self.counts = updated(self._counters, found)
        return dataclasses.replace(found, counts=self.counts)

    def _check_size(self, image: UInt8Array) -> None:
        size = (image.shape[1], image.shape[0])
        if size == self._size or not self._counters:
            return
        if self._size is not None:
            raise DataError(
                f"the picture's size changed from {self._size[0]}x{self._size[1]} to {size[0]}x{size[1]} px, "
                "and lines and zones are in pixels"
            )
        check_inside(self._counters, width_px=size[0], height_px=size[1])
        self._size = size


def tracked_runner(
    runner: Runner, camera: Camera, *, track: bool, count_lines: Sequence[str], zones: Sequence[str]
) -> TrackedRunner | None:
    """The runner that tracks and counts as the words ask for; None where they don't.

    Raises:
        SpecError: lines or zones that can't be understood, or a network that finds no objects.
        MissingDependencyError: the tracker is not installed.
    """
    if not (track or count_lines or zones):
        return None
    counters = parse_counters(count_lines, zones)
    _check_task(runner)
    return TrackedRunner(runner, Tracker(fps=camera.fps or DEFAULT_FPS), counters, live=camera.live)


def _check_task(runner: Runner) -> None:
    if runner.task.name not in ("detect", "instances"):
        raise SpecError(
            f"only a detector's objects can be tracked and counted; this network's task is {runner.task.name}"
        )
