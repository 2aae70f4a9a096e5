"""Add int8 artifacts to a bundle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn._shipped import is_shipped
from edgecnn._verbs._labelled import LabelledPictures, labelled_or_none
from edgecnn.bundle import QUANTIZED, Bundle
from edgecnn.errors import BundleError, SpecError, UnknownNameError
from edgecnn.frame import FrameSpec
from edgecnn.registry import INT8_WRITERS
from edgecnn.tasks import Task

if TYPE_CHECKING:
    from edgecnn.converters.int8.bench import Int8Settings
    from edgecnn.converters.quantize_bundle import Conversion

DEFAULT_MAX_DROP = 0.01


def quantize(
    bundle: str | Path | Bundle,
    *,
    out: str | Path | None = None,
    to: Sequence[str] | None = None,
    precision: str = "int8",
    calibration: str | Path | None = None,
    calibration_count: int | None = None,
    seed: int = 0,
    data: str | Path | None = None,
    split: str | None = None,
    max_drop: float | None = None,
    evaluate_on: str | Path | None = None,
    ignore_label: str | None = None,
    allow_drop: bool = False,
    budget_minutes: float | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Conversion:
    """Make an int8 artifact from each fp32 artifact of a bundle, and keep those that are as right.

    With labelled `data`, layers are kept float where the task's metric would drop too far (see
    `edgecnn.compression.search`). Stopped, it goes on where it was when it is called again with the same words.

    Args:
        bundle: a NAME.edge folder with fp32 artifacts.
        out: the bundle to write; without it the int8 artifacts are added to `bundle` itself.
        to: formats; without it, all of which the bundle has an fp32 artifact.
        precision: "int8", or for TFLite "int8-dynamic" or "int8-a16"; see `edgecnn.bundle.PRECISIONS`.
        calibration: pictures to read activation ranges off; without it those of `data`, or of its `split`.
        calibration_count: so many at most; 128 without it.
        seed: of their choice.
        data: labelled pictures to search on.
        split: of these; as for `edgecnn.datasets.open_dataset`.
        max_drop: how far the metric may lie below the float artifact's, in its own unit; 0.01 (a point) without it.
        evaluate_on: labelled pictures that took no part; the last word on the drop.
        ignore_label: a class of the data whose pixels don't count.
        allow_drop: write artifacts with a larger drop all the same, and say so in their evidence.
        budget_minutes: of the search, each format; 30 without it.
        progress: called with (steps done, steps in all, what is being done).

    Raises:
        SpecError, UnknownNameError: what was asked for cannot be.
        BundleError: damaged, or without what is needed.
        DataError: pictures cannot be read, have no labels, or would be evaluated on although they took part.
        StorageError: disk full, or `out` not writable.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    if out is None and is_shipped(opened.folder):
        raise SpecError(f"{opened.folder} ships with edgecnn and stays as it is: give --out NAME.edge")
    manifest = opened.manifest
    if precision not in QUANTIZED:
        raise UnknownNameError("precision to quantize to", precision, QUANTIZED)
    held = [artifact.format for artifact in manifest.artifacts if artifact.precision == "fp32"]
    formats = list(dict.fromkeys(to if to is not None else [name for name in INT8_WRITERS.installed() if name in held]))
    for name in formats:
        INT8_WRITERS.extra(name)
    if not formats:
        raise BundleError(f"{opened.folder} holds no fp32 artifact of a format that can be quantized here")
    if split is not None and data is None:
        raise SpecError("--split is a part of labelled pictures: give --data")
    if data is None and evaluate_on is None and max_drop is not None:
        raise SpecError("--max-drop wants labelled pictures to measure the drop on: give --data")
    from edgecnn.converters.quantize_bundle import quantize_bundle

    target = opened.folder if out is None else Path(out)
    settings = int8_settings(
        manifest.frame,
        manifest.task,
        out=target,
        calibration=calibration if calibration is not None or split is not None else data,
        count=calibration_count,
        seed=seed,
        search_on=labelled_or_none(data, manifest.task, ignore_label, wanted=data is not None, split=split),
        evaluate_on=evaluate_on,
        ignore_label=ignore_label,
        max_drop=DEFAULT_MAX_DROP if max_drop is None else max_drop,
        allow_drop=allow_drop,
        budget_minutes=budget_minutes,
    )
    return quantize_bundle(
        opened, out=target, formats=formats, precision=precision, settings=settings, progress=progress
    )


def int8_settings(
    frame: FrameSpec,
    task: Task,
    *,
    out: Path,
    calibration: str | Path | None,
    count: int | None,
    seed: int,
    search_on: LabelledPictures | None,
    evaluate_on: str | Path | None,
    ignore_label: str | None,
    max_drop: float,
    allow_drop: bool,
    budget_minutes: float | None,
) -> Int8Settings:
    """The words of `convert` and `quantize` as settings; calibration pictures are read, else those to search on.

    Raises:
        SpecError: no calibration pictures, or a number that cannot be.
        DataError: pictures that cannot be read, or that would be evaluated on although they took part.
    """
    from edgecnn.compression.calibration import DEFAULT_COUNT, load_calibration
    from edgecnn.converters.int8.bench import DEFAULT_BUDGET_MINUTES, Int8Settings

    pictures = calibration if calibration is not None or search_on is None else search_on.dataset
    if pictures is None:
        raise SpecError(
            "int8 reads activation ranges off pictures: give --calibration DATA (a folder of pictures like those that "
            "the network will see), or labelled ones as --data"
        )
    if count is not None and count < 1:
        raise SpecError(f"the number of calibration pictures must be at least 1, got {count}")
    if not max_drop >= 0:
        raise SpecError(f"max-drop must be 0 or more, got {max_drop}")
    if budget_minutes is not None and not budget_minutes > 0:
        raise SpecError(f"budget-minutes must be positive, got {budget_minutes}")
    settings = Int8Settings(
        calibration=load_calibration(pictures, frame, count=count or DEFAULT_COUNT, seed=seed),
        search_on=search_on,
        evaluate_on=labelled_or_none(evaluate_on, task, ignore_label, wanted=True),
        max_drop=max_drop,
        allow_drop=allow_drop,
        budget_minutes=DEFAULT_BUDGET_MINUTES if budget_minutes is None else budget_minutes,
        journal=out.parent / f".{out.name}.search",
    )
    settings.check()
    return settings
