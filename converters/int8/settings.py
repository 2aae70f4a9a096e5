"""How an int8 artifact is made, and the limits that it must keep."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edgecnn.converters.candidate import LabelledPictures
from edgecnn.converters.int8.search.calibration import Calibration
from edgecnn.errors import DataError

DEFAULT_BUDGET_MINUTES = 30.0


@dataclass(frozen=True, kw_only=True)
class Int8Settings:
    """How an int8 artifact is made, and the limits that it must keep.

    Attributes:
        calibration: frames from which activation ranges are taken.
        search_on: labelled pictures for the search of the layers to keep float; None makes every layer int8 and
            gives figures but no verdict.
        evaluate_on: held-out labelled pictures; where given, they decide.
        max_drop: largest drop of the metric below the float artifact's.
        allow_drop: write an artifact with a larger drop too.
        keep_slower: write an artifact that is no faster than the float artifact here too.
        budget_minutes: time for the search in each format.
        journal: file in which a search records its measurements; None keeps them in memory.
    """

    calibration: Calibration
    search_on: LabelledPictures | None = None
    evaluate_on: LabelledPictures | None = None
    max_drop: float = 0.01
    allow_drop: bool = False
    keep_slower: bool = False
    budget_minutes: float = DEFAULT_BUDGET_MINUTES
    journal: Path | None = None

    def forget_search(self) -> None:
        """Delete the searches' records: their result is now in a bundle."""
        if self.journal is not None:
            shutil.rmtree(self.journal, ignore_errors=True)

    def check(self) -> None:
        """Check that no picture for evaluation was used to make the artifact.

        Raises:
            DataError: the sets share pictures.
        """
        if self.evaluate_on is None:
            return
        used = {"calibration": self.calibration.record.images}
        if self.search_on is not None:
            used["search"] = self.search_on.images
        for what, images in used.items():
            shared = len(set(images) & set(self.evaluate_on.images))
            if shared:
                raise DataError(
                    f"{shared} of the {len(self.evaluate_on.images)} pictures to evaluate on ({self.evaluate_on.name}) "
                    f"were also used for {what}: accuracy measured on them would be too high; give pictures that were "
                    f"not used"
                )
