"""Which layers must stay float: the smallest set found that keeps the task's metric within a bound.

The same search for every format. It knows layers, their multiply-adds and which of them are heads; what an int8
artifact is, and how it is measured, it is told (`Objective`). Order of attempts: ranges and corrected weights with
every layer int8; then layers are ranked by the damage that each does alone, and a bisection finds how many of the
worst must stay float, heads first; then layers that do next to no damage are given back.

What is within the bound on the search's pictures by a hair is outside it on others. So the drop is held to the bound
with two standard errors on top: what it would differ by on other pictures, as many, of the same kind.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from edgecnn.bundle import LayerRecord
from edgecnn.compression.journal import Journal
from edgecnn.compression.plan import Plan, RangeMethod

Progress = Callable[[int, int, str], None]

# On top of the drop. With 1 and 1.5, YOLOX-nano in ONNX and TFLite lost 1.06 and 1.01 points on other pictures, of 1.0.
_STANDARD_ERRORS = 2.0
_MARGIN = 0.75  # of the bound, however small the standard error: the choice was made on these pictures
# A metric cannot tell single layers apart, and of many that are tried some are within by luck. The noise can: what is
# given back must not make more of it than so many times what there is.
_NOISE_GIVEN_BACK = 1.1
_RECIPES_MEASURED = 2
_GIVEN_BACK = 40  # attempts
_WORTH_GIVING_BACK = 1 / 400  # of the multiply-adds
_FREE_SHARE = 0.08  # of the multiply-adds that may be float where nobody measured that they must
_LITTLE_MORE = 1.05  # times the noise
# 28 dB: no layer is worth its time in float for less noise. EfficientNet-Lite0 then names the same class for 97 of 100
# pictures; ResNet-18, all int8, has that, and is 4 times faster for it, not 2 times.
_LITTLE_NOISE = 10**-2.8
SMALLEST_SHARE = 0.1  # of the multiply-adds; with less in int8 there is no reason to have the artifact


class Objective(Protocol):
    """An int8 artifact of one format, as the search sees it."""

    range_methods: Sequence[RangeMethod]
    corrects_weights: bool

    @property
    def layers(self) -> Sequence[str]:
        """Names of the layers that can be int8."""
        ...

    def damage(self, plan: Plan) -> float:
        """Noise of the answers against the float artifact's; infinite where the artifact cannot be made or run."""
        ...

    def metric(self, plan: Plan) -> float:
        """The task's metric on the search's pictures; minus infinity where it cannot be made or run."""
        ...

    def uncertainty(self, plan: Plan) -> float:
        """Standard error of the difference between this metric and the float artifact's on the same pictures."""
        ...


@dataclass(frozen=True, kw_only=True)
class Found:
    """What the search ended with.

    Attributes:
        plan: the best.
        metric: of that plan; None where there was nothing to measure.
        within: whether it keeps the bound.
        damage: of each layer alone, where it was measured.
        trials: artifacts measured, those of an earlier, killed run included.
        complete: False where the budget ended it.
    """

    plan: Plan
    metric: float | None
    within: bool
    damage: Mapping[str, float]
    trials: int
    complete: bool


def search_without_labels(
    objective: Objective, layers: Sequence[LayerRecord], journal: Journal, progress: Progress | None = None
) -> Found:
    """The recipe with the least damage, and float for the few layers that do most of it and cost next to nothing.

    No verdict: what noise in the answer is worth, only labels tell. Float are the fewest layers, worst for their
    multiply-adds first, that leave little noise, or little more than all of the worst within `_FREE_SHARE` of the
    multiply-adds do.
    """
    best = choose_recipe(objective, journal, progress)[0]
    if journal.value("damage", best, objective.damage) <= _LITTLE_NOISE:
        return Found(plan=best, metric=None, within=True, damage={}, trials=0, complete=True)
    known = {layer.name: layer for layer in layers if layer.name in best.int8_layers}
    damages = {}
    for done, name in enumerate(known):
        if progress is not None:
            progress(done, len(known), f"damage of {name}")
        alone = msgspec.structs.replace(best, int8_layers=frozenset({name}))
        damages[name] = journal.value("damage", alone, objective.damage)
    order = sorted(known, key=lambda name: -damages[name] / max(known[name].macs, 1))
    total = sum(layer.macs for layer in known.values())
    spent = list(itertools.accumulate(known[name].macs for name in order))
    most = sum(macs <= _FREE_SHARE * total for macs in spent)
    plans = {}
    for count in sorted({0, most, *(2**power for power in range(most.bit_length()))}):
        plan = msgspec.structs.replace(best, int8_layers=best.int8_layers - frozenset(order[:count]))
        plans[journal.value("damage", plan, objective.damage)] = plan
    enough = max(min(plans) * _LITTLE_MORE, _LITTLE_NOISE)
    chosen = next(plan for noise, plan in plans.items() if noise <= enough)
    return Found(plan=chosen, metric=None, within=True, damage=damages, trials=0, complete=True)


class _OutOfTimeError(Exception):
    """The budget is used up."""


def choose_recipe(objective: Objective, journal: Journal, progress: Progress | None = None) -> list[Plan]:
    """Every layer in int8, with each of the ranges, with weights corrected and not; least damage first."""
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


def search(
    objective: Objective,
    layers: Sequence[LayerRecord],
    *,
    float_metric: float,
    max_drop: float,
    budget_minutes: float,
    journal: Journal,
    progress: Progress | None = None,
) -> Found:
    """Find the layers to keep float.

    Args:
        objective: the format's artifacts and what they are measured on.
        layers: of the network.
        float_metric: of the float artifact of the same format, on the same pictures.
        max_drop: how far below it the int8 artifact may lie.
        budget_minutes: then the best so far is taken; minutes of an earlier, killed run count too.
        journal: what was measured already is not measured again.
        progress: called with (measurements done, estimate of all, what is being done).
    """
    run = _Search(objective, layers, float_metric, max_drop, budget_minutes, journal, progress)
    complete = True
    try:
        run.recipes()
        if not run.within(run.best):
            run.rank()
            run.bisect()
            run.give_back()
    except _OutOfTimeError:
        complete = False
    return Found(
        plan=run.best,
        metric=run.journal.known("metric", run.best),
        within=run.within(run.best),
        damage=run.damage,
        trials=journal.count("metric"),
        complete=complete,
    )


class _Search:
    def __init__(
        self,
        objective: Objective,
        layers: Sequence[LayerRecord],
        float_metric: float,
        max_drop: float,
        budget_minutes: float,
        journal: Journal,
        progress: Progress | None,
    ) -> None:
        self.objective, self.journal = objective, journal
        self.damage: dict[str, float] = {}
        self.best = Plan(int8_layers=frozenset(objective.layers))
        self._recipes = [self.best]
        self._layers = {layer.name: layer for layer in layers if layer.name in set(objective.layers)}
        self._float_metric, self._max_drop = float_metric, max_drop
        self._deadline = time.monotonic() + 60 * (budget_minutes - journal.minutes)
        self._progress = progress
        self._done = 0
        # Damage of every layer, bisections in both orders, layers given back.
        bisections = 2 * _RECIPES_MEASURED * len(self._layers).bit_length()
        self._expected = 8 + len(self._layers) + bisections + _GIVEN_BACK

    def within(self, plan: Plan) -> bool:
        """Whether a measured plan keeps the bound, as far as these pictures can tell."""
        metric, error = (self.journal.known(what, plan) for what in ("metric", "uncertainty"))
        if metric is None or error is None:
            return False
        kept_back = max(_STANDARD_ERRORS * error, (1 - _MARGIN) * self._max_drop)
        return self._float_metric - metric <= self._max_drop - kept_back

    def recipes(self) -> None:
        """The best of the recipes with every layer int8."""
        plans = choose_recipe(self.objective, self.journal, lambda done, total, what: self._tell(what))
        # A network that was trained for int8 is what its rounding made of it: the noise against its float artifact,
        # which is a by-product, says little.
        as_trained = [plan for plan in plans if plan.ranges == "learned" and not plan.correct_weights]
        self._recipes = list(dict.fromkeys((*as_trained, *plans)))[:_RECIPES_MEASURED]
        self.best = self._recipes[0]
        for plan in self._recipes:
            self._measure(plan, "every layer int8")
            if self.within(plan) and not as_trained:
                return

    def rank(self) -> None:
        """Each layer's damage when it alone is int8."""
        for name in self._layers:
            alone = self._with(frozenset({name}))
            self.damage[name] = self._noise(alone, f"damage of {name}")

    def bisect(self) -> None:
        """How many of the worst layers must stay float, in both orders and recipes; the largest share of int8 wins.

        Which of two recipes is better, a metric cannot tell where both are outside of the bound.
        """
        found = [
            plan
            for recipe in self._recipes
            for order in self._orders()
            if (plan := self._bisected(order, recipe)) is not None
        ]
        if found:
            self.best = max(found, key=self.share)

    def give_back(self) -> None:
        """Layers that need not be float after all, as long as there is hardly more noise.

        First those that bring the most multiply-adds for the noise they make alone.
        """
        if not self.within(self.best):
            return
        most = _NOISE_GIVEN_BACK * self._noise(self.best, "noise")
        least = _WORTH_GIVING_BACK * sum(layer.macs for layer in self._layers.values())
        kept_float = [
            layer for name, layer in self._layers.items() if name not in self.best.int8_layers and layer.macs >= least
        ]
        for layer in sorted(kept_float, key=lambda layer: self._price(layer.name))[:_GIVEN_BACK]:
            bolder = self._with(self.best.int8_layers | {layer.name})
            what = f"giving back {layer.name}"
            if self._noise(bolder, what) <= most:
                self._measured(bolder, what)
                if self.within(bolder):
                    self.best = bolder

    def share(self, plan: Plan) -> float:
        """Of the multiply-adds, those in layers that the plan has in int8."""
        total = sum(layer.macs for layer in self._layers.values())
        return sum(self._layers[name].macs for name in plan.int8_layers) / max(total, 1)

    def _orders(self) -> list[list[str]]:
        """First to stay float first: heads, then by damage, or by damage for each multiply-add."""
        by_damage = sorted(self._layers, key=lambda n: (not self._layers[n].head, -self.damage[n]))
        by_price = sorted(self._layers, key=lambda n: (not self._layers[n].head, -self._price(n)))
        return [by_damage, by_price] if by_damage != by_price else [by_damage]

    def _price(self, name: str) -> float:
        """Damage for each multiply-add that a layer brings to int8."""
        return self.damage[name] / max(self._layers[name].macs, 1)

    def _bisected(self, order: Sequence[str], recipe: Plan) -> Plan | None:
        """The plan that keeps the fewest of the first layers of `order` float and is within the bound."""
        low, high, found = 0, len(order), None  # all int8 is outside; all float is within
        while high - low > 1:
            middle = (low + high) // 2
            plan = msgspec.structs.replace(recipe, int8_layers=frozenset(order[middle:]))
            self._measure(plan, f"{middle} of {len(order)} layers float")
            if self.within(plan):
                high, found = middle, plan
            else:
                low = middle
        return found

    def _with(self, int8_layers: frozenset[str]) -> Plan:
        return Plan(int8_layers=int8_layers, ranges=self.best.ranges, correct_weights=self.best.correct_weights)

    def _measure(self, plan: Plan, what: str) -> None:
        """Measure a plan, and keep it as the best where it is."""
        metric = self._measured(plan, what)
        best = self.journal.known("metric", self.best)
        if best is None or self._merit(plan, metric) > self._merit(self.best, best):
            self.best = plan

    def _noise(self, plan: Plan, what: str) -> float:
        self._check_time(plan, "damage")
        self._tell(what)
        return self.journal.value("damage", plan, self.objective.damage)

    def _measured(self, plan: Plan, what: str) -> float:
        self._check_time(plan, "metric")
        metric = self.journal.value("metric", plan, self.objective.metric)
        self.journal.value("uncertainty", plan, self.objective.uncertainty)
        self._tell(f"{what}: {metric:.4f}")
        return metric

    def _merit(self, plan: Plan, metric: float) -> tuple[bool, bool, float, float]:
        """Within the bound with the larger share in int8; else worth having at all; then the higher metric."""
        within, share = self.within(plan), self.share(plan)
        return within, within or share >= SMALLEST_SHARE, share if within else 0.0, metric

    def _check_time(self, plan: Plan, what: str) -> None:
        if self.journal.known(what, plan) is None and time.monotonic() > self._deadline:
            raise _OutOfTimeError

    def _tell(self, what: str) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(min(self._done, self._expected), self._expected, what)
