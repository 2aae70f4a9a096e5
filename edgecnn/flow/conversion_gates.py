"""What a conversion is held against besides parity: the metric on labelled pictures, and how int8 is searched for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.bundle import QUANTIZED
from edgecnn.errors import SpecError
from edgecnn.flow.int8_settings import DEFAULT_MAX_DROP, int8_settings
from edgecnn.flow.labelled_pictures import labelled_or_none

if TYPE_CHECKING:
    from edgecnn.converters.int8.settings import Int8Settings
    from edgecnn.converters.torch_reference import AccuracyGate
    from edgecnn.sources.model import TrainedModel


def gates(
    trained: TrainedModel,
    precisions: Sequence[str],
    *,
    out: Path,
    data: str | Path | None,
    max_drop: float | None,
    ignore_label: str | None,
    allow_drop: bool,
    keep_slower: bool,
    calibration: str | Path | None,
    calibration_count: int | None,
    seed: int,
    evaluate_on: str | Path | None,
    budget_minutes: float | None,
) -> tuple[AccuracyGate | None, Int8Settings | None]:
    """The gate for float artifacts, None without labelled pictures; and the settings for int8, None where none is made.

    Arguments and errors are those of `convert`.
    """
    from edgecnn.converters.torch_reference import AccuracyGate

    if data is None and evaluate_on is None and max_drop is not None:
        raise SpecError("--max-drop needs labelled pictures to measure the drop on: give --data")
    labelled = labelled_or_none(data, trained.task, ignore_label, wanted=max_drop is not None)
    bound = DEFAULT_MAX_DROP if max_drop is None else max_drop
    int8 = None
    if set(precisions) & set(QUANTIZED):
        int8 = int8_settings(
            trained.frame,
            trained.task,
            out=out,
            calibration=calibration if calibration is not None else data,
            count=calibration_count,
            seed=seed,
            search_on=labelled,
            evaluate_on=evaluate_on,
            ignore_label=ignore_label,
            max_drop=bound,
            allow_drop=allow_drop,
            keep_slower=keep_slower,
            budget_minutes=budget_minutes,
        )
    accuracy = None if labelled is None else AccuracyGate(pictures=labelled, max_drop=bound, allow_drop=allow_drop)
    return accuracy, int8
