"""Judges int8 artifacts on pictures that their calibration has not seen, though both get the same pictures.

Two artifacts of one plan are calibrated on a half of the pictures each, and each answers the pictures that the other
one was calibrated on (two-fold cross-validation). So all labelled pictures count, and none of them fitted the ranges
and the rounded weights that it judges.
"""

from __future__ import annotations

from collections.abc import Collection

from edgecnn.measure.accuracy import Predictor
from edgecnn.pictures import picture_hash
from edgecnn.results import Result, UInt8Array
from edgecnn.tasks import Task


class Crossed:
    """Answers each picture by the artifact that was not calibrated on it.

    Args:
        first: answers all pictures but those that it has seen.
        second: answers these.
        seen_by_first: content hashes of the pictures that `first` was calibrated on.
    """

    def __init__(self, first: Predictor, second: Predictor, seen_by_first: Collection[str]) -> None:
        self._first, self._second, self._seen_by_first = first, second, seen_by_first

    @property
    def task(self) -> Task:
        """The task of both."""
        return self._first.task

    @task.setter
    def task(self, task: Task) -> None:
        self._first.task = self._second.task = task

    def __call__(self, picture: UInt8Array, /) -> Result:
        """The result for one picture, uint8 [height, width, 3] BGR."""
        seen = picture_hash(picture) in self._seen_by_first
        return self._second(picture) if seen else self._first(picture)
