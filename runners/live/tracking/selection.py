"""Which of a network's objects a camera uses: by class, by score, and by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from edgecnn.arrays import BoolArray
from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.results import Detections, Result, UInt8Array
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.tracking.counting import ZoneCounter, parse_counters
from edgecnn.runners.runner import Runner, StageTimes
from edgecnn.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which objects count; the others are in no result, picture or count.

    Attributes:
        classes: names of the classes to use; empty for all.
        class_scores: for a class, the score that its objects must exceed, in addition to the run's.
        masks: polygons, "[NAME=]x1,y1,x2,y2,x3,y3,…" in source pixels; an object that stands in one is left out.

    Raises:
        SpecError: a score outside 0..1, or a polygon that is none.
    """

    classes: Sequence[str] = ()
    class_scores: Mapping[str, float] = field(default_factory=dict)
    masks: Sequence[str] = ()

    def __post_init__(self) -> None:
        for label, score in self.class_scores.items():
            if not 0 <= score <= 1:
                raise SpecError(f"the score of {label!r} must be in 0..1, got {score:g}")
        _ = self.polygons

    @classmethod
    def parse(cls, classes: Sequence[str] | None, class_scores: Sequence[str], masks: Sequence[str]) -> Selection:
        """From options; a class's score is CLASS=SCORE.

        Raises:
            SpecError: another form.
        """
        scores: dict[str, float] = {}
        for text in class_scores:
            label, _, score = text.rpartition("=")
            try:
                scores[label.strip()] = float(score)
            except ValueError:
                label = ""
            if not label.strip():
                raise SpecError(f"class-score: expected CLASS=SCORE, such as person=0.5; got {text!r}")
        return cls(classes=tuple(classes or ()), class_scores=scores, masks=tuple(masks))

    def __bool__(self) -> bool:
        return bool(self.classes or self.class_scores or self.masks)

    @cached_property
    def polygons(self) -> tuple[ZoneCounter, ...]:
        """The masks."""
        named = [text if "=" in text else f"mask {number}={text}" for number, text in enumerate(self.masks, 1)]
        return tuple(zone for zone in parse_counters((), named) if isinstance(zone, ZoneCounter))

    def check(self, task: Task) -> None:
        """Check that a network has these classes.

        Raises:
            UnknownNameError: it has no class of a name; lists the nearest.
            SpecError: the network finds no objects.
        """
        if self and not task.finds_objects():
            raise SpecError(f"classes, their scores and masks are for objects: the task {task.name} finds none")
        for label in (*self.classes, *self.class_scores):
            if label not in task.labels:
                raise UnknownNameError("class", label, task.labels)

    def kept(self, objects: Detections) -> BoolArray:
        """The objects that count, bool [n]."""
        labels, ids = objects.labels, objects.class_ids
        keep = np.ones(len(objects), np.bool_)
        if self.classes:
            keep &= np.array([name in self.classes for name in labels], np.bool_)[ids]
        if self.class_scores:
            limits = np.array([self.class_scores.get(name, 0.0) for name in labels], np.float32)
            keep &= objects.scores > limits[ids]
        if self.masks:
            left, _, right, bottom = objects.boxes_xyxy_px.astype(np.float64).T
            places = list(zip((left + right) / 2, bottom, strict=True))
            keep &= ~np.array([any(mask.holds(place) for mask in self.polygons) for place in places], np.bool_)
        return keep


class SelectingRunner:
    """A runner whose results have only the selected objects.

    Args:
        runner: runner of a network that finds objects; not closed here.
        selection: which objects.

    Raises:
        SpecError: the network lacks a class, or finds no objects.
    """

    def __init__(self, runner: Runner, selection: Selection) -> None:
        selection.check(runner.task)
        self._runner, self._selection = runner, selection

    @property
    def task(self) -> Task:
        """The runner's task, with its current thresholds."""
        return self._runner.task

    @property
    def stage_times(self) -> StageTimes:
        """Stage times of the last call."""
        return self._runner.stage_times

    def __call__(self, picture: UInt8Array | Frame) -> Result:
        """The network's result for one frame or picture, with the selected objects only."""
        result: Any = self._runner(picture)
        objects = self._runner.task.objects(result)
        if objects is None:
            return result  # type: ignore[no-any-return]
        keep = self._selection.kept(objects)
        return result if keep.all() else result[keep]  # type: ignore[no-any-return]
