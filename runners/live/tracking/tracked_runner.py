"""A runner whose results have track ids and counts, as the loop's runner."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from edgecnn.errors import DataError, SpecError
from edgecnn.results import Count, Detections, Result, UInt8Array, changed, found_in
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.tracking.counting import LineCounter, ZoneCounter, check_inside, parse_counters, updated
from edgecnn.runners.live.tracking.selection import SelectingRunner
from edgecnn.runners.live.tracking.tracker import DEFAULT_FPS, UNTRACKED, Tracker
from edgecnn.runners.runner import Runner, StageTimes, image_and_source
from edgecnn.tasks import Task

if TYPE_CHECKING:
    from edgecnn.given_pictures import GivenPicture


class TrackedRunner:
    """A detector's runner with a tracker and counters.

    Args:
        runner: runner of a detector or of an instance-segmentation network; not closed here.
        tracker: tracks the objects of one source.
        counters: counters for them.
        live: True if frames come at irregular times: their time stamps are used (`Frame.captured_ns`; for a picture
            without one, the clock). Otherwise a recording's own time is used, or each frame is one frame after the
            last.

    Attributes:
        counts: the counts so far.

    Raises:
        SpecError: the network's task has no objects.
    """

    def __init__(
        self,
        runner: Runner | SelectingRunner,
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
        """The runner's task, with its current thresholds."""
        return self._runner.task

    @property
    def stage_times(self) -> StageTimes:
        """Stage times of the last call; tracking and counting are part of "finish"."""
        return self._times

    @property
    def remark(self) -> str | None:
        """A remark for the end of the run: objects were found, but none could be tracked."""
        if self._followed or not self._boxes:
            return None
        return (
            f"none of {self._boxes} boxes was tracked: an object must be seen twice, once with a score of "
            f"{self._tracker.start_score:g} or more"
        )

    @overload
    def __call__(self, picture: GivenPicture | Frame, /) -> Result: ...

    @overload
    def __call__(self, picture: list[Any] | tuple[Any, ...], /) -> list[Result]: ...

    def __call__(self, picture: GivenPicture | Frame | list[Any] | tuple[Any, ...], /) -> Result | list[Result]:
        """The network's result for a frame or picture, with track ids and counts.

        Args:
            picture: as `Runner` takes it. A list, a tuple or a batch is a sequence of frames, oldest first, which are
                answered one at a time.

        Raises:
            SpecError: as `Runner`, or a line or zone extends beyond the picture.
            DataError: as `Runner`, or the picture's size changed, so that lines and zones no longer fit.
            DeviceError: the runtime failed.
        """
        if isinstance(picture, np.ndarray) and picture.ndim == 4:
            picture = list(picture)  # of views
        if isinstance(picture, list | tuple):
            return [self(each) for each in picture]
        captured_ns = self._taken_ns(picture)
        image, source = image_and_source(picture)
        self._check_size(image)
        result = self._runner(picture if isinstance(picture, Frame) else image)
        start = time.perf_counter_ns()
        task = self._runner.task
        if (objects := task.objects(result)) is not None:
            result = task.with_objects(result, self._follow(objects, captured_ns))
        times = self._runner.stage_times
        self._times = dataclasses.replace(times, finish_ns=times.finish_ns + time.perf_counter_ns() - start)
        return found_in(result, source)

    def _taken_ns(self, picture: GivenPicture | Frame) -> int | None:
        """Its capture time on the source's own clock, not the time at which the network got it."""
        if isinstance(picture, Frame):
            return picture.captured_ns if self._live else picture.media_ns
        return time.monotonic_ns() if self._live else None

    def _follow(self, found: Detections, captured_ns: int | None) -> Detections:
        found = self._tracker(found, captured_ns=captured_ns)
        self._boxes += len(found)
        self._followed = self._followed or bool((found.track_ids != UNTRACKED).any())  # type: ignore[union-attr]
        self.counts = updated(self._counters, found)
        return changed(found, counts=self.counts)

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
    runner: Runner | SelectingRunner,
    camera: Camera,
    *,
    track: bool,
    count_lines: Sequence[str],
    zones: Sequence[str],
) -> TrackedRunner | None:
    """A runner that tracks and counts as the options say; None where they select neither.

    Raises:
        SpecError: lines or zones in another form, or a network whose task has no objects.
        MissingDependencyError: the tracker is not installed.
    """
    if not (track or count_lines or zones):
        return None
    counters = parse_counters(count_lines, zones)
    _check_task(runner)
    return TrackedRunner(runner, Tracker(fps=camera.fps or DEFAULT_FPS), counters, live=camera.live)


def _check_task(runner: Runner | SelectingRunner) -> None:
    if not runner.task.finds_objects():
        raise SpecError(
            f"only a detector's objects can be tracked and counted, but this network's task is {runner.task.name}"
        )
