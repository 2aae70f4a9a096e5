"""Searches for the smallest set of layers that must stay float to keep the task's metric within a limit.

The search is the same for every format. It knows the layers, their multiply-adds and which of them are heads; an
`Objective` makes and measures int8 artifacts. Order of attempts: ranges and corrected weights with every layer int8;
then layers are ranked by the damage that each does alone, and a bisection finds how many of the worst must stay
float, heads first; then layers that do almost no damage become int8 again.

A drop just within the limit on the search's pictures exceeds it on others. So the drop plus two standard errors must be
within the limit: that is the spread of the drop over other samples of as many pictures of the same kind.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from edgecnn.bundle import LayerRecord
from edgecnn.converters.int8.search.journal import SearchJournal
from edgecnn.converters.int8.search.plan import Plan, RangeMethod

Progress = Callable[[int, int, str], None]

# Standard errors added to the drop. With 1 and 1.5, YOLOX-nano in ONNX and TFLite dropped 1.06 and 1.01 points on
# others.
_STANDARD_ERRORS = 2.0
_MARGIN = 0.75  # of the limit, however small the standard error: the choice was made on these pictures
# A metric cannot distinguish single layers, and of many that are tried some pass by luck. The noise can: layers that
# become int8 again may raise it by this factor at most.
_NOISE_GROWTH_ALLOWED = 1.1
_RECIPES_MEASURED = 2
_TRIED_IN_INT8 = 40  # attempts
_SHARE_WORTH_TRYING = 1 / 400  # of the multiply-adds
_FREE_SHARE = 0.08  # share of the multiply-adds that may be float without a measured need
_LITTLE_MORE = 1.05  # times the noise
# 28 dB: above this, less noise is not worth a float layer's time. EfficientNet-Lite0 then gives the same class for 97
# of 100 pictures; ResNet-18 with all layers int8 reaches it and is 4 times faster than float, instead of 2 times.
_LITTLE_NOISE = 10**-2.8
SMALLEST_SHARE = 0.1  # of the multiply-adds; an artifact with less in int8 is not worth having


class Objective(Protocol):
    """An int8 artifact of one format, as the search uses it."""

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
        """The task's metric on the search's pictures; minus infinity where the artifact cannot be made or run."""
        ...

    def uncertainty(self, plan: Plan) -> float:
        """Standard error of the difference between this metric and the float artifact's on the same pictures."""
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


def search_without_labels(
    objective: Objective, layers: Sequence[LayerRecord], journal: SearchJournal, progress: Progress | None = None
) -> SearchResult:
    """The recipe with the least damage, and float for the few cheap layers that cause most of it.

    There is no verdict: only labels show what noise in the answers costs. The float layers are the fewest, in the order
        of damage per multiply-add, that leave little noise, or hardly more than all of the worst layers within
        `_FREE_SHARE` of the multiply-adds leave.
    """
    best = choose_recipe(objective, journal, progress)[0]
    if journal.value("damage", best, objective.damage) <= _LITTLE_NOISE:
        return SearchResult(plan=best, metric=None, within=True, damage={}, trials=0, complete=True)
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
    return SearchResult(plan=chosen, metric=None, within=True, damage=damages, trials=0, complete=True)


class _OutOfTimeError(Exception):
    """The time budget is used up."""


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


def search(
    objective: Objective,
    layers: Sequence[LayerRecord],
    *,
    float_metric: float,
    max_drop: float,
    budget_minutes: float,
    journal: SearchJournal,
    progress: Progress | None = None,
) -> SearchResult:
    """Find the layers to keep float.

    Args:
        objective: makes and measures the format's artifacts.
        layers: the network's layers.
        float_metric: metric of the float artifact of the same format, on the same pictures.
        max_drop: largest allowed drop below it.
        budget_minutes: after this time the best plan so far is used; includes the time of an earlier, killed run.
        journal: saved measurements, which are not repeated.
        progress: called with (measurements done, estimated total, name of the step).
    """
    run = _Search(objective, layers, float_metric, max_drop, budget_minutes, journal, progress)
    complete = True
    try:
        run.recipes()
        if not run.within(run.best):
            run.rank()
            run.bisect()
            run.make_int8_again()
    except _OutOfTimeError:
        complete = False
    return SearchResult(
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
        journal: SearchJournal,
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
        # Damage of every layer, bisections in both orders, layers made int8 again.
        bisections = 2 * _RECIPES_MEASURED * len(self._layers).bit_length()
        self._expected = 8 + len(self._layers) + bisections + _TRIED_IN_INT8

    def within(self, plan: Plan) -> bool:
        """Whether a measured plan is within the limit, as far as these pictures can tell."""
        metric, error = (self.journal.known(what, plan) for what in ("metric", "uncertainty"))
        if metric is None or error is None:
            return False
        kept_back = max(_STANDARD_ERRORS * error, (1 - _MARGIN) * self._max_drop)
        return self._float_metric - metric <= self._max_drop - kept_back

    def recipes(self) -> None:
        """Measure the best of the recipes with every layer int8."""
        plans = choose_recipe(self.objective, self.journal, lambda done, total, what: self._report(what))
        # Rounding is part of a network that was trained for int8: noise against its float artifact, a by-product, says
        # little.
        as_trained = [plan for plan in plans if plan.ranges == "learned" and not plan.correct_weights]
        self._recipes = list(dict.fromkeys((*as_trained, *plans)))[:_RECIPES_MEASURED]
        self.best = self._recipes[0]
        for plan in self._recipes:
            self._measure(plan, "every layer int8")
            if self.within(plan) and not as_trained:
                return

    def rank(self) -> None:
        """Measure each layer's damage when it alone is int8."""
        for name in self._layers:
            alone = self._with(frozenset({name}))
            self.damage[name] = self._noise(alone, f"damage of {name}")

    def bisect(self) -> None:
        """Find how many of the worst layers must stay float, in both orders and recipes; the largest int8 share wins.

        The metric cannot tell which of two recipes is better where both are outside the limit.
        """
        found = [
            plan
            for recipe in self._recipes
            for order in self._orders()
            if (plan := self._bisected(order, recipe)) is not None
        ]
        if found:
            self.best = max(found, key=self.share)

    def make_int8_again(self) -> None:
        """Make float layers int8 again as long as the noise hardly grows.

        Layers with the most multiply-adds per noise come first.
        """
        if not self.within(self.best):
            return
        most = _NOISE_GROWTH_ALLOWED * self._noise(self.best, "noise")
        least = _SHARE_WORTH_TRYING * sum(layer.macs for layer in self._layers.values())
        kept_float = [
            layer for name, layer in self._layers.items() if name not in self.best.int8_layers and layer.macs >= least
        ]
        for layer in sorted(kept_float, key=lambda layer: self._damage_per_mac(layer.name))[:_TRIED_IN_INT8]:
            bolder = self._with(self.best.int8_layers | {layer.name})
            what = f"trying {layer.name} in int8 again"
            if self._noise(bolder, what) <= most:
                self._measured(bolder, what)
                if self.within(bolder):
                    self.best = bolder

    def share(self, plan: Plan) -> float:
        """Share of the multiply-adds that are in the plan's int8 layers."""
        total = sum(layer.macs for layer in self._layers.values())
        return sum(self._layers[name].macs for name in plan.int8_layers) / max(total, 1)

    def _orders(self) -> list[list[str]]:
        """Orders in which layers become float: heads first, then by damage, or by damage per multiply-add."""
        by_damage = sorted(self._layers, key=lambda n: (not self._layers[n].head, -self.damage[n]))
        by_damage_per_mac = sorted(self._layers, key=lambda n: (not self._layers[n].head, -self._damage_per_mac(n)))
        return [by_damage, by_damage_per_mac] if by_damage != by_damage_per_mac else [by_damage]

    def _damage_per_mac(self, name: str) -> float:
        """A layer's damage per multiply-add."""
        return self.damage[name] / max(self._layers[name].macs, 1)

    def _bisected(self, order: Sequence[str], recipe: Plan) -> Plan | None:
        """The plan within the limit that keeps the fewest of the first layers of `order` float."""
        low, high, found = 0, len(order), None  # all int8 is outside the limit; all float is within
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
        """Measure a plan, and keep it if it is the best so far."""
        metric = self._measured(plan, what)
        best = self.journal.known("metric", self.best)
        if best is None or self._rank_of(plan, metric) > self._rank_of(self.best, best):
            self.best = plan

    def _noise(self, plan: Plan, what: str) -> float:
        self._check_time(plan, "damage")
        self._report(what)
        return self.journal.value("damage", plan, self.objective.damage)

    def _measured(self, plan: Plan, what: str) -> float:
        self._check_time(plan, "metric")
        metric = self.journal.value("metric", plan, self.objective.metric)
        self.journal.value("uncertainty", plan, self.objective.uncertainty)
        self._report(f"{what}: {metric:.4f}")
        return metric

    def _rank_of(self, plan: Plan, metric: float) -> tuple[bool, bool, float, float]:
        """Sort key: within the limit with the larger int8 share; then worth having at all; then the higher metric."""
        within, share = self.within(plan), self.share(plan)
        return within, within or share >= SMALLEST_SHARE, share if within else 0.0, metric

    def _check_time(self, plan: Plan, what: str) -> None:
        if self.journal.known(what, plan) is None and time.monotonic() > self._deadline:
            raise _OutOfTimeError

    def _report(self, what: str) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(min(self._done, self._expected), self._expected, what)
