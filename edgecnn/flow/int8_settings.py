"""Settings for int8 artifacts, from the options of `convert` and `quantize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.errors import SpecError
from edgecnn.flow.labelled_pictures import LabelledPictures, labelled_or_none
from edgecnn.frame import FrameSpec
from edgecnn.tasks import Task

if TYPE_CHECKING:
    from edgecnn.converters.int8.settings import Int8Settings


DEFAULT_MAX_DROP = 0.01


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
    keep_slower: bool,
    budget_minutes: float | None,
) -> Int8Settings:
    """The options of `convert` and `quantize` as settings; reads calibration pictures, by default those for the search.

    Raises:
        SpecError: no calibration pictures, or a number out of range.
        DataError: pictures that cannot be read, or pictures to evaluate on that are also used otherwise.
    """
    from edgecnn.converters.int8.search.calibration import DEFAULT_COUNT, load_calibration
    from edgecnn.converters.int8.settings import DEFAULT_BUDGET_MINUTES, Int8Settings

    pictures = calibration if calibration is not None or search_on is None else search_on.dataset
    if pictures is None:
        raise SpecError(
            "int8 needs pictures for activation ranges: give --calibration DATA (a folder of pictures like those that "
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
        keep_slower=keep_slower,
        budget_minutes=DEFAULT_BUDGET_MINUTES if budget_minutes is None else budget_minutes,
        journal=out.parent / f".{out.name}.search",
    )
    settings.check()
    return settings
