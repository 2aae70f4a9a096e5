"""Convert a trained network to a verified bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn._photographs import photographs
from edgecnn._verbs.evaluate import evaluation_task
from edgecnn.bundle import AccuracyEvidence
from edgecnn.datasets import Dataset, iterate_frames, open_dataset
from edgecnn.errors import DataError, SpecError, UnknownNameError
from edgecnn.registry import CONVERTERS
from edgecnn.results import UInt8Array
from edgecnn.runners.base import Runner

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.converters.build import AccuracyGate, Conversion
    from edgecnn.sources import TrainedModel

PRECISIONS = ("fp32", "fp16")
_PARITY_PICTURES = 8
DEFAULT_MAX_DROP = 0.01


def convert(
    model: str | TrainedModel | nn.Module,
    *,
    out: str | Path,
    to: Sequence[str] | None = None,
    precision: Sequence[str] = ("fp32",),
    batch: int = 1,
    data: str | Path | None = None,
    max_drop: float | None = None,
    ignore_label: str | None = None,
    allow_drop: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    **options: Any,
) -> Conversion:
    """Convert a network, run every result, and write those that answer as the torch network does.

    Args:
        model: as for `load_model`.
        out: the bundle's folder, NAME.edge; an old bundle there is replaced.
        to: "onnx", "openvino", "tflite"; without it, all whose converter is installed.
        precision: "fp32", "fp16".
        batch: frames per inference; the graph's shape is fixed.
        data: pictures to compare on, and, where they are labelled, to measure the task's metric on.
        max_drop: how far an artifact's metric may lie below the torch network's, in the metric's own unit (0.01 is
            one point); 0.01 without it.
        ignore_label: a class of the data whose pixels don't count.
        allow_drop: write artifacts with a larger drop all the same, and say so in their evidence.
        progress: called with (steps done, steps in all, what is being done).
        options: the fields of `edgecnn.sources.ModelOptions`.

    Raises:
        SpecError, UnknownNameError: what was asked for cannot be.
        SourceError, WeightsError: the network cannot be loaded.
        BlindError, ParityError: the network or its pre-processing fails before any conversion.
        DataError: the data cannot be read, or `max_drop` was given and it has no labels.
        StorageError: disk full, or `out` not writable.
    """
    from edgecnn.sources import load_model

    formats = list(dict.fromkeys(to if to is not None else CONVERTERS.installed()))
    precisions = list(dict.fromkeys(precision))
    _check(formats, precisions, batch)
    trained = load_model(model, **options)
    from edgecnn.converters.build import build_bundle

    if data is None and max_drop is not None:
        raise SpecError("--max-drop wants labelled pictures to measure the drop on: give --data")
    return build_bundle(
        trained,
        out=Path(out),
        formats=formats,
        precisions=precisions,
        pictures=_pictures(data),
        batch=batch,
        accuracy=_accuracy_gate(trained, data, max_drop, ignore_label, allow_drop),
        progress=progress,
    )


def _check(formats: Sequence[str], precisions: Sequence[str], batch: int) -> None:
    if not formats:
        raise SpecError("no converter is installed: pip install 'edgecnn[convert]'")
    for name in formats:
        CONVERTERS.extra(name)  # refuses an unknown name, with what is near
    for name in precisions:
        if name not in PRECISIONS:
            raise UnknownNameError("precision to convert to", name, PRECISIONS)
    if batch < 1:
        raise SpecError(f"batch must be at least 1, got {batch}")


def _pictures(data: str | Path | None) -> list[UInt8Array]:
    if data is None:
        return list(photographs().values())
    return iterate_frames(data, _PARITY_PICTURES)


def _accuracy_gate(
    trained: TrainedModel,
    data: str | Path | None,
    max_drop: float | None,
    ignore_label: str | None,
    allow_drop: bool,
) -> AccuracyGate | None:
    """The gate on labelled data; None where the data has no labels and nobody asked for a bound."""
    from edgecnn.converters.build import AccuracyGate

    if data is None:
        return None
    try:
        dataset = open_dataset(data, task=trained.task.name, labels=trained.task.labels)
    except DataError:
        if max_drop is not None:
            raise
        return None
    measure = _Measure(dataset, str(data), ignore_label)
    return AccuracyGate(
        measure=measure, max_drop=DEFAULT_MAX_DROP if max_drop is None else max_drop, allow_drop=allow_drop
    )


class _Measure:
    """The task's metric of a runner on one data set, as evidence."""

    def __init__(self, dataset: Dataset, data: str, ignore_label: str | None) -> None:
        self._dataset, self._data, self._ignore_label = dataset, data, ignore_label

    def __call__(self, runner: Runner) -> AccuracyEvidence:
        from edgecnn.measure.accuracy import measure_accuracy

        runner.task = evaluation_task(runner.task)
        measured = measure_accuracy(runner, self._dataset, task=runner.task, ignore_label=self._ignore_label)
        return AccuracyEvidence(
            metric=measured.metric,
            value=measured.value,
            low=measured.low,
            high=measured.high,
            n=measured.n,
            data=Path(self._data).name,
            precision=runner.precision,
            device=runner.backend.opened.device_name,
        )
