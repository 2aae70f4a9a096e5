"""Labelled pictures, opened for a network, for accuracy gates and searches."""

from __future__ import annotations

import copy
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle.evidence import AccuracyEvidence
from edgecnn.datasets import open_dataset
from edgecnn.errors import DataError
from edgecnn.measure.accuracy import Predictor, measure_accuracy, measure_draws
from edgecnn.pictures import picture_hash
from edgecnn.runners.runner import Runner
from edgecnn.tasks import Task


class LabelledPictures:
    """Labelled pictures for one task and its labels.

    Attributes:
        name: the data's name.
        metric: the task's metric.
        dataset: the pictures.
    """

    def __init__(
        self, data: str | Path, task: Task, ignore_label: str | None = None, *, split: str | None = None
    ) -> None:
        """Open them.

        Raises:
            DataError: no pictures, or no labels for this task.
        """
        self.name = Path(data).name if split is None else f"{Path(data).name} {split}"
        self.metric: str = task.metric
        self.dataset = open_dataset(data, task=task.name, labels=task.labels, split=split)
        self._ignore_label = ignore_label

    def limited(self, count: int) -> LabelledPictures:
        """At most `count` of them, evenly spaced."""
        some = copy.copy(self)
        some.__dict__.pop("images", None)  # cached for all pictures
        some.dataset = self.dataset.limited(count)
        return some

    @cached_property
    def images(self) -> tuple[str, ...]:
        """Content hashes; every picture is read for them, once."""
        return tuple(picture_hash(sample.image()) for sample in self.dataset)

    def measure(self, runner: Runner, *, resamples: int = 200) -> AccuracyEvidence:
        """A runner's metric, as evidence; the runner gets the thresholds that the metric needs."""
        runner.task = runner.task.for_evaluation()
        measured = measure_accuracy(
            runner, self.dataset, task=runner.task, ignore_label=self._ignore_label, resamples=resamples
        )
        return AccuracyEvidence(
            metric=measured.metric,
            value=measured.value,
            low=measured.low,
            high=measured.high,
            n=measured.n,
            data=self.name,
            precision=runner.precision,
            device=runner.backend.opened.device_name,
            ran_on=runner.backend.opened,
        )

    def measure_draws(self, runner: Predictor, *, resamples: int) -> tuple[float, NDArray[np.float64]]:
        """The metric, and its values for draws of the pictures, float64 [resamples]; NaN where nothing counts."""
        runner.task = runner.task.for_evaluation()
        return measure_draws(
            runner, self.dataset, task=runner.task, ignore_label=self._ignore_label, resamples=resamples
        )


def labelled_or_none(
    data: str | Path | None, task: Task, ignore_label: str | None, *, wanted: bool, split: str | None = None
) -> LabelledPictures | None:
    """The pictures with their labels; None where there are none and they are not required.

    Raises:
        DataError: `wanted`, and there are none.
    """
    if data is None:
        return None
    try:
        return LabelledPictures(data, task, ignore_label, split=split)
    except DataError:
        if wanted:
            raise
        return None
