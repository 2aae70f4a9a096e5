"""Keeps a search's measurements on disk, so that a killed search continues where it stopped."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from edgecnn.converters.int8.search.plan import Plan
from edgecnn.journal import Journal


class SearchJournal:
    """Measurements by plan; with a file, each is saved as soon as it is measured.

    Args:
        path: see `Journal`.
        about: identifies what is measured: hashes of network, frames and data.

    Attributes:
        minutes: time that earlier runs took, as far as it was saved.
    """

    def __init__(self, path: Path | None = None, *, about: str = "") -> None:
        self._journal = Journal(path, about=about)
        self._start = time.monotonic()
        taken = [value for _, value in self._journal.of("minutes") if isinstance(value, int | float)]
        self.minutes = float(max(taken, default=0.0))

    @property
    def minutes_now(self) -> float:
        """Time of this run and all earlier runs."""
        return self.minutes + (time.monotonic() - self._start) / 60

    def value(self, what: str, plan: Plan, measure: Callable[[Plan], float]) -> float:
        """The saved value for this plan; otherwise measures and saves it."""
        key = what, _key(plan)
        if key not in self._journal:
            measured = measure(plan)
            # None means that the artifact could not be made: JSON has no infinity.
            self._journal.put(*key, measured if abs(measured) < float("inf") else None)
            self._journal.put("minutes", "", self.minutes_now)
        return self._as_number(what, self._journal.get(*key))

    def values(self, what: str, plan: Plan, measure: Callable[[Plan], Sequence[float]]) -> list[float]:
        """The saved values for this plan, NaN where there is none; otherwise measures and saves them."""
        key = what, _key(plan)
        if key not in self._journal:
            self._journal.put(*key, [float(value) for value in measure(plan)])
            self._journal.put("minutes", "", self.minutes_now)
        found = self._journal.get(*key)
        numbers = found if isinstance(found, list) else []
        return [float(value) if isinstance(value, int | float) else float("nan") for value in numbers]

    def known(self, what: str, plan: Plan) -> float | None:
        """The saved value for this plan; None where it was not measured."""
        key = what, _key(plan)
        return self._as_number(what, self._journal.get(*key)) if key in self._journal else None

    def count(self, what: str) -> int:
        """How many plans were measured."""
        return sum(1 for _ in self._journal.of(what))

    @staticmethod
    def _as_number(what: str, value: float | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        return float("-inf") if what == "metric" else float("inf")


def _key(plan: Plan) -> str:
    equalised = sorted(plan.equalised & plan.int8_layers)
    parts = [plan.ranges, str(plan.correct_weights), *sorted(plan.int8_layers)]
    text = "\n".join([*parts, "|", *equalised] if equalised else parts)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
