"""Convert a trained network to a verified bundle."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn._photographs import photographs
from edgecnn._verbs._labelled import labelled_or_none
from edgecnn._verbs.quantize import DEFAULT_MAX_DROP, int8_settings
from edgecnn.bundle import PRECISIONS, QUANTIZED
from edgecnn.datasets import iterate_frames
from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.frame import FrameSpec
from edgecnn.registry import CONVERTERS
from edgecnn.results import UInt8Array
from edgecnn.targets import Target, load_target
from edgecnn.tasks import Task

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
    precision: Sequence[str] | None = None,
    target: str | None = None,
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
        to: "onnx", "openvino", "tflite"; without it those of the target, else all, whose converter is installed.
        precision: names of `edgecnn.bundle.PRECISIONS`; without it the target's, else fp32.
        target: a device to build for, a name of `edgecnn.targets` as in "qualcomm-htp:v73"; it says what is worth
            making, and some files are compiled for it.
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

    device = None if target is None else load_target(target)
    formats = _formats(to, device)
    has_pictures = calibration is not None or data is not None
    precisions, notes = _precisions(precision, device, has_pictures=has_pictures)
    _check(formats, precisions, batch)
    trained = load_model(model, **options)
    notes += [] if device is None else target_notes(device, trained.frame, trained.task)
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
    conversion = build_bundle(
        trained,
        out=Path(out),
        formats=formats,
        precisions=precisions,
        pictures=_pictures(data),
        batch=batch,
        accuracy=None if labelled is None else AccuracyGate(pictures=labelled, max_drop=bound, allow_drop=allow_drop),
        int8=int8,
        target=device,
        progress=progress,
    )
    return dataclasses.replace(conversion, warnings=(*conversion.warnings, *notes))


def _formats(asked: Sequence[str] | None, target: Target | None) -> list[str]:
    """What to write: what was asked for, else what the target's runtimes open, where it can be written here."""
    installed = CONVERTERS.installed()
    if target is None:
        return list(dict.fromkeys(asked if asked is not None else installed))
    if asked is None:
        here = [name for name in target.formats if name in installed]
        if not here:
            CONVERTERS.get(target.formats[0])  # says what to install
        return here
    for name in asked:
        CONVERTERS.extra(name)  # refuses an unknown name, with what is near
        if name not in target.formats:
            raise SpecError(f"target {target.name} opens {', '.join(target.formats)}; --to {name} is not among them")
    return list(dict.fromkeys(asked))


def _precisions(
    asked: Sequence[str] | None, target: Target | None, *, has_pictures: bool
) -> tuple[list[str], list[str]]:
    """What to write, and what is to be said of it."""
    if target is None:
        return list(dict.fromkeys(("fp32",) if asked is None else asked)), []
    if asked is not None:
        for name in asked:
            if name in PRECISIONS and name not in target.precisions:
                known = ", ".join(target.precisions)
                raise SpecError(f"target {target.name} runs {known}; --precision {name} is not among them")
        return list(dict.fromkeys(asked)), []
    unmade = [name for name in target.makes if name in QUANTIZED and not has_pictures]
    made = [name for name in target.makes if name not in unmade]
    if not made or set(unmade) & set(target.compiled):  # it is what the target is named for
        return list(target.makes), []
    notes = [f"{', '.join(unmade)} is worth trying on {target.name}: give --calibration DATA"] if unmade else []
    return made, notes


def target_notes(target: Target, frame: FrameSpec, task: Task) -> list[str]:
    """What the user should know of a network on a target."""
    notes = [f"{target.name}: {note}" for note in target.notes]
    largest = target.largest_side_px.get(task.name)
    if largest is not None and max(frame.height_px, frame.width_px) > largest:
        notes.append(
            f"{target.name}: a frame of {frame.width_px}x{frame.height_px} px is much for it; --size {largest} is "
            "worth measuring, in time and in accuracy"
        )
    return notes


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
