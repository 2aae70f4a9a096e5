"""How right a network is on labelled pictures: the task's metric, and an interval from resampling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.datasets import UNLABELLED, Dataset, Truth
from edgecnn.errors import DataError, SpecError
from edgecnn.measure.average_precision import AveragePrecision
from edgecnn.measure.mean_iou import MeanIou
from edgecnn.measure.top_k import TopK
from edgecnn.results import Result, UInt8Array
from edgecnn.tasks import Task

# Times that each picture was drawn, int64 [resamples, pictures].
Weights: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Accuracy:
    """A task's metric on labelled pictures.

    Attributes:
        metric: "top1", "map" or "miou".
        value: in [0, 1].
        low, high: 95 % interval: what other pictures of this kind, as many, would have given.
        n: pictures.
        details: the metric's other figures ("map50", "per_class", …); None where nothing was to count.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    details: dict[str, Any] = field(default_factory=dict)


class Metric(Protocol):
    """Collects results picture by picture, then gives the figure, and the figure under resampling."""

    def add(self, result: Result, truth: Truth, image: UInt8Array) -> None:
        """Take one picture's result and truth."""
        ...

    def value(self) -> float:
        """The figure over all pictures; NaN where there was nothing to count."""
        ...

    def resampled(self, weights: Weights) -> NDArray[np.float64]:
        """The figure for each row of weights, float64 [resamples]; NaN where nothing was left to count."""
        ...

    def details(self) -> dict[str, Any]:
        """The other figures."""
        ...


# Name of a task's metric → what measures it: it is told the data set, the task, and the network's id of the
# class to leave out (None for none).
METRICS: dict[str, Callable[[Dataset, Task, int | None], Metric]] = {
    "map": AveragePrecision,
    "miou": MeanIou,
    "top1": TopK,
}


def measure_accuracy(
    predict: Callable[[UInt8Array], Result],
    dataset: Dataset,
    *,
    task: Task,
    ignore_label: str | int | None = None,
    progress: Callable[[int, int], None] | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Accuracy:
    """Run a network over labelled pictures.

    Args:
        predict: a runner, or anything that takes a picture, uint8 [height, width, 3] BGR.
        dataset: opened for this task and its labels.
        task: says which metric.
        ignore_label: for segmentation, a class of the data set (name or id) whose pixels don't count.
        progress: is called with (done, total) pictures.
        resamples: how often the pictures are drawn again for the interval.
        seed: of the drawing; the same seed draws the same.

    Raises:
        DataError: a picture or its truth cannot be read, or the data set has nothing to count.
        SpecError: `ignore_label` for another task.
        MissingDependencyError: mAP, and faster-coco-eval is not installed.
    """
    ignored = _ignored_id(dataset, task, ignore_label)
    metric = METRICS[task.metric](dataset, task, ignored)
    total = len(dataset)
    for done, sample in enumerate(dataset):
        if progress is not None:
            progress(done, total)
        image = sample.image()
        metric.add(predict(image), sample.truth(image), image)
    if progress is not None:
        progress(total, total)
    value = metric.value()
    if np.isnan(value):
        raise DataError(
            f"{dataset.path} has {total} pictures, but nothing in them counts for the task {task.name}: "
            "no object or pixel of a class that the network has"
        )
    low, high = _interval(metric, value, pictures=total, resamples=resamples, seed=seed)
    return Accuracy(task.metric, value, low, high, total, metric.details())


def _ignored_id(dataset: Dataset, task: Task, ignore_label: str | int | None) -> int | None:
    if ignore_label is None:
        return None
    if task.metric != "miou":
        raise SpecError(f"ignore-label leaves pixels out of a segmentation; this network's task is {task.name}")
    found = dataset.classes.find(ignore_label)
    return None if found == UNLABELLED else found  # a class that the network lacks is left out anyway


def _interval(metric: Metric, value: float, *, pictures: int, resamples: int, seed: int) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile over resamples of the pictures, laid around the figure itself."""
    if resamples < 1:
        return value, value
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=resamples)
    values = metric.resampled(weights)
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return value, value
    low, middle, high = np.percentile(values, [2.5, 50, 97.5]).tolist()
    # The spread is what resampling tells. Its middle is off where classes are rare: of 128 COCO pictures with
    # 80 classes, resamples have an AP 0.03 higher, since copies of one picture agree with each other.
    return max(value + low - middle, 0.0), min(value + high - middle, 1.0)
