"""Convert a trained network to a verified bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn._photographs import photographs
from edgecnn._verbs._labelled import labelled_or_none
from edgecnn._verbs.quantize import DEFAULT_MAX_DROP, int8_settings
from edgecnn.bundle import PRECISIONS, QUANTIZED
from edgecnn.datasets import iterate_frames
from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.registry import CONVERTERS
from edgecnn.results import UInt8Array

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.converters.quantize_bundle import Conversion
    from edgecnn.sources import TrainedModel

_PARITY_PICTURES = 8


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
    calibration: str | Path | None = None,
    calibration_count: int | None = None,
    seed: int = 0,
    evaluate_on: str | Path | None = None,
    budget_minutes: float | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    **options: Any,
) -> Conversion:
    """Convert a network, run every result, and write those that answer as the torch network does.

    Args:
        model: as for `load_model`.
        out: the bundle's folder, NAME.edge; an old bundle there is replaced.
        to: "onnx", "openvino", "tflite"; without it, all whose converter is installed.
        precision: names of `edgecnn.bundle.PRECISIONS`.
        batch: frames per inference; the graph's shape is fixed.
        data: pictures to compare on, and, where they are labelled, to measure the task's metric on; for int8, to
            search on.
        max_drop: how far an artifact's metric may lie below the torch network's (int8: the float artifact's), in the
            metric's own unit (0.01 is one point); 0.01 without it.
        ignore_label: a class of the data whose pixels don't count.
        allow_drop: write artifacts with a larger drop all the same, and say so in their evidence.
        calibration: pictures to read int8's activation ranges off; without it those of `data`.
        calibration_count: so many at most; 128 without it.
        seed: of their choice.
        evaluate_on: labelled pictures that int8's calibration and search must not see; the last word on its drop.
        budget_minutes: of the search for the layers to keep float, each format; 30 without it.
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
    from edgecnn.converters.build import AccuracyGate, build_bundle

    if data is None and evaluate_on is None and max_drop is not None:
        raise SpecError("--max-drop wants labelled pictures to measure the drop on: give --data")
    labelled = labelled_or_none(data, trained.task, ignore_label, wanted=max_drop is not None)
    bound = DEFAULT_MAX_DROP if max_drop is None else max_drop
    int8 = None
    if set(precisions) & set(QUANTIZED):
        int8 = int8_settings(
            trained.frame,
            trained.task,
            out=Path(out),
            calibration=calibration if calibration is not None else data,
            count=calibration_count,
            seed=seed,
            search_on=labelled,
            evaluate_on=evaluate_on,
            ignore_label=ignore_label,
            max_drop=bound,
            allow_drop=allow_drop,
            budget_minutes=budget_minutes,
        )
    return build_bundle(
        trained,
        out=Path(out),
        formats=formats,
        precisions=precisions,
        pictures=_pictures(data),
        batch=batch,
        accuracy=None if labelled is None else AccuracyGate(pictures=labelled, max_drop=bound, allow_drop=allow_drop),
        int8=int8,
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
