"""Training pictures, validation pictures, and the classes of both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgecnn.datasets import Dataset, open_dataset
from edgecnn.datasets.base import beginning
from edgecnn.errors import DataError, SplitError

if TYPE_CHECKING:
    from edgecnn.sources.model import TrainedModel


Progress = Callable[[int, int, str], None]


_HELD_OUT = 0.1  # share of the pictures held out for validation, where no others are given


@dataclass(frozen=True)
class LearningPictures:
    """Training pictures, validation pictures, and the classes of both."""

    train: Dataset
    validation: Dataset
    labels: tuple[str, ...]

    def check(self, progress: Progress | None) -> tuple[str, ...]:
        """Content hashes of all pictures, including validation pictures; see `check_pictures`."""
        from edgecnn.training.picture_check import check_apart, check_pictures

        train, validation = (check_pictures(part, progress) for part in (self.train, self.validation))
        check_apart(train, validation, where=str(self.validation.path))
        return (*train, *validation)


def open_pictures(
    model: TrainedModel,
    data: str | Path,
    validate_on: str | Path | None,
    *,
    split: str | None,
    head: str | None,
    keep_classes: bool = False,
    seed: int,
) -> LearningPictures:
    """Pictures to train and to validate on, with the data's own classes (in the network's order, if equal).

    Or with the network's classes, of which the data has some.
    """
    task = task_with_head(model, head)
    train = open_dataset(data, task=task, labels=(), split=split, use="learn")
    labels = train.classes.names
    if head is None and (keep_classes or _same(labels, model.task.labels)):
        labels = model.task.labels
    train = open_dataset(data, task=task, labels=labels, split=split, use="learn")
    if keep_classes:
        _check_known(train, model)
    if validate_on is not None:
        return LearningPictures(train, open_dataset(validate_on, task=task, labels=labels), labels)
    if train.split == "train":
        try:
            return LearningPictures(train, open_dataset(data, task=task, labels=labels, split="val"), labels)
        except SplitError:
            pass
    return LearningPictures(*_held_out(train, seed), labels)


def _check_known(pictures: Dataset, model: TrainedModel) -> None:
    if strange := pictures.classes.unknown_names:
        raise DataError(
            f"{pictures.path} has classes that {model.name} doesn't: {beginning(strange)}. Leave out --keep-classes to "
            "train for the data's classes, or rename them"
        )


def task_with_head(model: TrainedModel, head: str | None) -> str:
    """Name of a network's task, with the head that is to be added to it."""
    from edgecnn.sources.grow import HEADS

    return HEADS.get(head or "", model.task.name)


def _same(names: Sequence[str], labels: Sequence[str]) -> bool:
    return {name.casefold() for name in names} == {label.casefold() for label in labels}


def _held_out(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    count = max(round(len(dataset) * _HELD_OUT), 1)
    if count >= len(dataset):
        raise DataError(
            f"{dataset.path} has {len(dataset)} picture: expected at least one for training and one for validation"
        )
    order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
    parts = sorted(order[count:]), sorted(order[:count])
    train, validation = (
        dataclasses.replace(dataset, samples=tuple(dataset.samples[index] for index in part)) for part in parts
    )
    return train, validation
