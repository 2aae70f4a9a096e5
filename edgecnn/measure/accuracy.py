"""How right a network is on labelled pictures, alone or beside another: the task's metric, and intervals of it.

The intervals are from resampling the pictures. Of two networks on the same pictures, the difference is resampled as
a whole: what makes a picture hard is hard for both and falls out, so far smaller differences show.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.datasets import UNLABELLED, Dataset, Sample, Truth
from edgecnn.errors import DataError, SpecError
from edgecnn.measure.average_precision import AveragePrecision
from edgecnn.measure.mean_iou import MeanIou
from edgecnn.measure.top_k import TopK
from edgecnn.results import Classification, Result, SegmentationMap, UInt8Array
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


@dataclass(frozen=True)
class PairedAccuracy:
    """The metric of two networks on the same pictures.

    Attributes:
        first, second: of each.
        difference: first − second.
        low, high: 95 % interval of the difference, from drawing the same pictures for both.
        agreement: share of pictures with the same best class, or of equal pixels; None for detectors, whose many
            boxes of low score agree or don't by chance.
    """

    first: Accuracy
    second: Accuracy
    difference: float
    low: float
    high: float
    agreement: float | None


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
    metric = _collected(predict, dataset, task, ignore_label, progress)
    return _accuracy(metric, dataset, task, _draws(len(dataset), resamples, seed))[0]


def measure_draws(
    predict: Callable[[UInt8Array], Result],
    dataset: Dataset,
    *,
    task: Task,
    ignore_label: str | int | None = None,
    resamples: int = 100,
    seed: int = 0,
) -> tuple[float, NDArray[np.float64]]:
    """A network's metric, and what it is when the pictures are drawn again.

    The draws are the same in every call, so that those of two networks can be subtracted: the spread of the
    differences tells how much their difference would be another on other pictures.

    Args:
        predict, dataset, task, ignore_label, resamples, seed: as for `measure_accuracy`.

    Returns:
        The figure, and float64 [resamples], NaN where nothing was left to count.

    Raises:
        DataError, SpecError, MissingDependencyError: as `measure_accuracy` does.
    """
    metric = _collected(predict, dataset, task, ignore_label, None)
    accuracy, values = _accuracy(metric, dataset, task, _draws(len(dataset), resamples, seed))
    return accuracy.value, values


def compare_accuracy(
    predict: Callable[[UInt8Array], Result],
    other: Callable[[UInt8Array], Result],
    dataset: Dataset,
    *,
    task: Task,
    ignore_label: str | int | None = None,
    progress: Callable[[int, int], None] | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> PairedAccuracy:
    """Run two networks over the same labelled pictures, picture by picture.

    Each one's own figures are those of `measure_accuracy`.

    Args:
        predict, other: runners, or anything that takes a picture, uint8 [height, width, 3] BGR.
        dataset, task, ignore_label, progress, resamples, seed: as for `measure_accuracy`.

    Raises:
        DataError, SpecError, MissingDependencyError: as `measure_accuracy` does.
    """
    first, second = (_new_metric(dataset, task, ignore_label) for _ in range(2))
    agreements: list[float] = []
    for sample, image in _pictures(dataset, progress):
        truth = sample.truth(image)
        found, others = predict(image), other(image)
        first.add(found, truth, image)
        second.add(others, truth, image)
        agreements += _agreement(found, others)
    draws = _draws(len(dataset), resamples, seed)
    first_accuracy, first_values = _accuracy(first, dataset, task, draws)
    second_accuracy, second_values = _accuracy(second, dataset, task, draws)
    difference = first_accuracy.value - second_accuracy.value
    low, high = _difference_interval(difference, first_values - second_values)
    agreement = float(np.mean(agreements)) if agreements else None
    return PairedAccuracy(first_accuracy, second_accuracy, difference, low, high, agreement)


def _collected(
    predict: Callable[[UInt8Array], Result],
    dataset: Dataset,
    task: Task,
    ignore_label: str | int | None,
    progress: Callable[[int, int], None] | None,
) -> Metric:
    metric = _new_metric(dataset, task, ignore_label)
    for sample, image in _pictures(dataset, progress):
        metric.add(predict(image), sample.truth(image), image)
    return metric


def _new_metric(dataset: Dataset, task: Task, ignore_label: str | int | None) -> Metric:
    return METRICS[task.metric](dataset, task, _ignored_id(dataset, task, ignore_label))


def _ignored_id(dataset: Dataset, task: Task, ignore_label: str | int | None) -> int | None:
    if ignore_label is None:
        return None
    if task.metric != "miou":
        raise SpecError(f"ignore-label leaves pixels out of a segmentation; this network's task is {task.name}")
    found = dataset.classes.find(ignore_label)
    return None if found == UNLABELLED else found  # a class that the network lacks is left out anyway


def _pictures(dataset: Dataset, progress: Callable[[int, int], None] | None) -> Iterator[tuple[Sample, UInt8Array]]:
    total = len(dataset)
    for done, sample in enumerate(dataset):
        if progress is not None:
            progress(done, total)
        yield sample, sample.image()
    if progress is not None:
        progress(total, total)


def _agreement(a: Result, b: Result) -> list[float]:
    """How far two results of one picture are the same, as a list of one; of none for detectors."""
    if isinstance(a, Classification) and isinstance(b, Classification):
        return [float(a.class_ids[0] == b.class_ids[0])]
    if isinstance(a, SegmentationMap) and isinstance(b, SegmentationMap):
        return [float(np.mean(a.classes == b.classes))]
    return []


def _accuracy(metric: Metric, dataset: Dataset, task: Task, draws: Weights) -> tuple[Accuracy, NDArray[np.float64]]:
    """The finished metric, and the figure of each draw, float64 [resamples]."""
    total, value = len(dataset), metric.value()
    if np.isnan(value):
        raise DataError(
            f"{dataset.path} has {total} pictures, but nothing in them counts for the task {task.name}: "
            "no object or pixel of a class that the network has"
        )
    values = metric.resampled(draws) if len(draws) else np.empty(0)
    low, high = _interval(value, values)
    return Accuracy(task.metric, value, low, high, total, metric.details()), values


def _draws(pictures: int, resamples: int, seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=max(resamples, 0))


def _interval(value: float, values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of a figure: the spread of the draws' figures, laid around the figure itself."""
    low, middle, high = _percentiles(value, values)
    # The spread is what resampling tells. Its middle is off where classes are rare: of 128 COCO pictures with
    # 80 classes, resamples have an AP 0.03 higher, since copies of one picture agree with each other.
    return max(value + low - middle, 0.0), min(value + high - middle, 1.0)


def _difference_interval(value: float, values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of a difference: where the draws' figures lie and where `_interval` would lay them.

    Laid around the figure alone, it would leave zero out where one or two pictures make the whole difference: a
    draw without them has a difference of zero, and moving the draws moves that zero too.
    """
    low, middle, high = _percentiles(value, values)
    shift = value - middle
    return max(low + min(shift, 0.0), -1.0), min(high + max(shift, 0.0), 1.0)


def _percentiles(value: float, values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The 2.5th, 50th and 97.5th of the draws' figures that are numbers; of none, the figure itself."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return value, value, value
    low, middle, high = np.percentile(values, [2.5, 50, 97.5]).tolist()
    return low, middle, high
