"""What a search for int8 layers works on: the artifacts of one format, as something that is made and measured."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgecnn.converters.int8.search.journal import SearchJournal
from edgecnn.converters.int8.search.plan import Plan, RangeMethod

Progress = Callable[[int, int, str], None]


class Objective(Protocol):
    """An int8 artifact of one format, as the search uses it."""

    range_methods: Sequence[RangeMethod]
    corrects_weights: bool

    @property
    def layers(self) -> Sequence[str]:
        """Names of the layers that can be int8."""
        ...

    @property
    def equalisable(self) -> Sequence[str]:
        """Names of the layers that can be equalised (`edgecnn.converters.int8.search.equalisation`)."""
        ...

    def damage(self, plan: Plan) -> float:
        """Noise of the answers against the float artifact's; infinite where the artifact cannot be made or run."""
        ...

    def metric(self, plan: Plan) -> float:
        """The task's metric on the search's pictures; minus infinity where the artifact cannot be made or run."""
        ...

    def drops(self, plan: Plan) -> Sequence[float]:
        """The float artifact's metric minus the plan's, in random draws of the pictures, the same for all plans.

        NaN where a draw has nothing to count; empty where the artifact cannot be made or run.
        """
        ...

    def relative_latency(self, plan: Plan) -> float:
        """The plan's latency over the float artifact's, measured in turns; infinite where it cannot be run."""
        ...


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """The search's result.

    Attributes:
        plan: the best plan.
        metric: that plan's metric; None where there were no labelled pictures.
        within: whether it is within the limit.
        damage: damage of each layer alone, where it was measured.
        trials: artifacts measured, including those of an earlier, killed run.
        complete: False where the time budget ended the search.
    """

    plan: Plan
    metric: float | None
    within: bool
    damage: Mapping[str, float]
    trials: int
    complete: bool


def choose_recipe(objective: Objective, journal: SearchJournal, progress: Progress | None = None) -> list[Plan]:
    """Plans with every layer in int8, for each range method, with and without corrected weights; least damage first."""
    corrections = (True, False) if objective.corrects_weights else (False,)
    plans = [
        Plan(int8_layers=frozenset(objective.layers), ranges=ranges, correct_weights=corrected)
        for ranges, corrected in itertools.product(objective.range_methods, corrections)
    ]
    for done, plan in enumerate(plans):
        if progress is not None:
            progress(done, len(plans), f"trying {plan.ranges} ranges")
        journal.value("damage", plan, objective.damage)
    return sorted(plans, key=lambda plan: journal.value("damage", plan, objective.damage))
