"""Accuracy of a network on labelled pictures, alone or compared with another: the task's metric and its intervals.

The intervals come from resampling the pictures. For two networks on the same pictures, the difference is resampled:
a hard picture is hard for both and cancels out, so much smaller differences become visible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.datasets import UNLABELLED, Dataset, Sample
from edgecnn.errors import DataError, SpecError
from edgecnn.results import Result, UInt8Array
from edgecnn.tasks import Task
from edgecnn.tasks.base import Metric

# How often each picture was drawn, int64 [resamples, pictures].
Weights: TypeAlias = NDArray[np.int64]


class Predictor(Protocol):
    """Answers pictures for a task: a runner, or several of which each answers some.

    Attributes:
        task: the task; a measurement sets the thresholds that its metric needs.
    """

    task: Task

    def __call__(self, picture: UInt8Array, /) -> Result:
        """The result for one picture, uint8 [height, width, 3] BGR."""
        ...


@dataclass(frozen=True)
class Accuracy:
    """A task's metric on labelled pictures.

    Attributes:
        metric: its name ("top1", "map", "miou").
        value: in [0, 1].
        low, high: 95 % interval: the value on as many other pictures of this kind.
        n: number of pictures.
        details: the metric's other figures ("map50", "per_class", …); None where there was nothing to count.
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
        first, second: the two networks' metrics.
        difference: first − second.
        low, high: 95 % interval of the difference, with the same draws of pictures for both.
        agreement: share of pictures with the same best class, or of equal pixels; None for detectors, whose many
            low-scored boxes agree by chance.
    """

    first: Accuracy
    second: Accuracy
    difference: float
    low: float
    high: float
    agreement: float | None


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
        predict: a runner, or any function of a picture, uint8 [height, width, 3] BGR.
        dataset: a data set opened for this task and its labels.
        task: decides the metric.
        ignore_label: for segmentation, a class of the data set (name or id) whose pixels are ignored.
        progress: called with (done, total) pictures.
        resamples: number of draws for the interval.
        seed: seed of the draws; the same seed gives the same draws.

    Raises:
        DataError: a picture or its label cannot be read, or the data set has nothing to count.
        SpecError: `ignore_label` for another task.
        MissingDependencyError: mAP is needed, and faster-coco-eval is not installed.
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
    """A network's metric, and its values for random draws of the pictures.

    The draws are the same in every call, so that two networks' values can be subtracted: the spread of the
    differences shows how much their difference may change on other pictures.

    Args:
        predict, dataset, task, ignore_label, resamples, seed: as for `measure_accuracy`.

    Returns:
        The metric, and float64 [resamples], NaN where a draw has nothing to count.

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
        predict, other: runners, or any functions of a picture, uint8 [height, width, 3] BGR.
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
        agreement = task.agreement(found, others)
        agreements += [] if agreement is None else [agreement]
    draws = _draws(len(dataset), resamples, seed)
    first_accuracy, first_values = _accuracy(first, dataset, task, draws)
    second_accuracy, second_values = _accuracy(second, dataset, task, draws)
    difference = first_accuracy.value - second_accuracy.value
    low, high = _difference_interval(difference, first_values - second_values)
    alike = float(np.mean(agreements)) if agreements else None
    return PairedAccuracy(first_accuracy, second_accuracy, difference, low, high, alike)


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
    return task.new_metric(dataset.classes.common_ids, _ignored_id(dataset, task, ignore_label))


def _ignored_id(dataset: Dataset, task: Task, ignore_label: str | int | None) -> int | None:
    if ignore_label is None:
        return None
    if not task.leaves_out_a_class:
        raise SpecError(f"ignore-label is for segmentation only; this network's task is {task.name}")
    found = dataset.classes.find(ignore_label)
    return None if found == UNLABELLED else found  # a class that the network lacks is ignored anyway


def _pictures(dataset: Dataset, progress: Callable[[int, int], None] | None) -> Iterator[tuple[Sample, UInt8Array]]:
    total = len(dataset)
    for done, sample in enumerate(dataset):
        if progress is not None:
            progress(done, total)
        yield sample, sample.image()
    if progress is not None:
        progress(total, total)


def _accuracy(metric: Metric, dataset: Dataset, task: Task, draws: Weights) -> tuple[Accuracy, NDArray[np.float64]]:
    """The metric's value, and its value for each draw, float64 [resamples]."""
    total, value = len(dataset), metric.value()
    if np.isnan(value):
        raise DataError(
            f"{dataset.path} has {total} pictures, but none has an object or pixel that counts for the task "
            f"{task.name}: expected classes that the network has"
        )
    values = metric.resampled(draws) if len(draws) else np.empty(0)
    low, high = _interval(value, values)
    return Accuracy(task.metric, value, low, high, total, metric.details()), values


def _draws(pictures: int, resamples: int, seed: int) -> Weights:
    rng = np.random.default_rng(seed)
    return rng.multinomial(pictures, np.full(pictures, 1 / pictures), size=max(resamples, 0))


def _interval(value: float, values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of a value: the spread of the draws, centred on the value itself."""
    low, middle, high = _percentiles(value, values)
    # Resampling gives the spread. Its centre is wrong where classes are rare: for 128 COCO pictures with
    # 80 classes, draws have an AP that is 0.03 higher, since copies of one picture agree with each other.
    return max(value + low - middle, 0.0), min(value + high - middle, 1.0)


def _difference_interval(value: float, values: NDArray[np.float64]) -> tuple[float, float]:
    """95 % interval of a difference: covers the draws and the interval of `_interval`.

    `_interval` alone would exclude zero where one or two pictures make the whole difference: a
    draw without them has a difference of zero, and centring the draws moves that zero too.
    """
    low, middle, high = _percentiles(value, values)
    shift = value - middle
    return max(low + min(shift, 0.0), -1.0), min(high + max(shift, 0.0), 1.0)


def _percentiles(value: float, values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The 2.5th, 50th and 97.5th percentile of the finite values; the value itself where there are none."""
    values = values[~np.isnan(values)]
    if len(values) == 0:
        return value, value, value
    low, middle, high = np.percentile(values, [2.5, 50, 97.5]).tolist()
    return low, middle, high
