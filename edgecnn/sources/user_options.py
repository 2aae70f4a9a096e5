"""Applies the user's options to a network's defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from edgecnn.bounded import read_bounded
from edgecnn.errors import DataError, SpecError
from edgecnn.frame import FrameSpec
from edgecnn.sources.model import ModelOptions, TrainedModel

_LARGEST_BYTES = 16 << 20


def read_labels(labels: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Class names from a file with one name per line, or from a sequence.

    Raises:
        DataError: the file cannot be read or is empty.
    """
    if not isinstance(labels, str | Path):
        return tuple(labels)
    try:
        lines = read_bounded(Path(labels), _LARGEST_BYTES).decode("utf-8").splitlines()
    except OSError as failed:
        raise DataError(f"the label file {labels} cannot be read: {failed.strerror}") from failed
    except UnicodeDecodeError as failed:
        raise DataError(f"the label file {labels} is not UTF-8 text: {failed}") from failed
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise DataError(f"the label file {labels} is empty: expected one class name per line")
    return names


def apply_to_frame(frame: FrameSpec, options: ModelOptions) -> FrameSpec:
    """The FrameSpec with the user's changes; a centre crop keeps its ratio of crop to resize."""
    changes = {
        "fit": options.fit,
        "alignment": options.alignment,
        "interpolation": options.interpolation,
        "colour": options.color,
        "scale": options.scale,
        "mean": options.mean,
        "std": options.std,
        "pad_value": options.pad_value,
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if options.interpolation in {"nearest", "area"}:
        changes["antialias"] = False
    fit = changes.get("fit", frame.fit)
    height, width = options.size or (frame.height_px, frame.width_px)
    resize_short = None
    if fit == "centre-crop":
        share = (frame.resize_short_px or 0) / max(frame.height_px, frame.width_px)
        resize_short = round(max(share, 1.0) * max(height, width))
    return msgspec.structs.replace(frame, height_px=height, width_px=width, resize_short_px=resize_short, **changes)


def apply(model: TrainedModel, options: ModelOptions) -> TrainedModel:
    """The network with the user's frame, labels and head.

    Raises:
        SpecError: a task that differs from the network's own, or a wrong number of labels.
    """
    if options.task is not None and options.task != model.task.name:
        raise SpecError(f"{model.name} is a network to {model.task.name}, not to {options.task}")
    frame = apply_to_frame(model.frame, options)
    if frame != model.frame and model.reference is not None:
        model = replace(model, reference=None)
    task = model.task
    if options.labels is not None:
        labels = read_labels(options.labels)
        if len(labels) != len(task.labels):
            raise SpecError(
                f"{model.name} has {len(task.labels)} classes, but {len(labels)} labels were given "
                f"({', '.join(labels[:3])}, …): give one name for each class, in the network's order"
            )
        task = task.with_labels(labels)
    return replace(model, frame=frame, task=task, decode=options.head or model.decode)
