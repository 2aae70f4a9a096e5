"""Searches for the smallest set of layers that must stay float to keep the task's metric within a limit.

The search is the same for every format. It knows the layers, their multiply-adds and which of them are heads; an
`Objective` makes and measures int8 artifacts. Order of attempts: ranges and corrected weights with every layer int8;
then layers are ranked by the damage that each does alone, and the worst are equalised, where that is possible; a
bisection finds how many of the worst must stay float, heads first; then layers become int8 again until the limit is
used up; and of what is within the limit, the fastest on this machine is taken.

A drop just within the limit on the search's pictures exceeds it on others. So the drop plus two standard errors must be
within the limit; see `edgecnn.converters.int8.search.drop` for how it is estimated.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import msgspec

from edgecnn.bundle import LayerRecord
from edgecnn.converters.int8.search.drop import DropEstimates, PlanFigures
from edgecnn.converters.int8.search.journal import SearchJournal
from edgecnn.converters.int8.search.objective import Objective, Progress, SearchResult, choose_recipe
from edgecnn.converters.int8.search.plan import Plan

_RECIPES_MEASURED = 2
_TRIED_IN_INT8 = 80  # attempts
_EQUALISED_ALONE = 128  # layers whose damage is measured
_EQUALISED_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128)  # layers that are equalised together
_TIMED = 3  # plans with the largest int8 shares
_AS_FAST = 0.02  # relative latencies that differ less are equal: the larger share is taken
_SMALL_SHARE = 1 / 400  # of the multiply-adds: a layer that int8 hardly makes faster
SMALLEST_SHARE = 0.1  # of the multiply-adds; an artifact with less in int8 is not worth having


class _OutOfTimeError(Exception):
    """The time budget is used up."""


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
            run.equalise()
            if not run.within(run.best):
                run.bisect()
                run.make_int8_again()
        run.take_fastest()
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
        self._estimates: dict[tuple[str, bool], DropEstimates] = {}
        self._measured_plans: dict[Plan, float] = {}
        self._deadline = time.monotonic() + 60 * (budget_minutes - journal.minutes)
        self._progress = progress
        self._done = 0
        # Damage of every layer, bisections in both orders, layers made int8 again.
        bisections = 2 * _RECIPES_MEASURED * len(self._layers).bit_length()
        self._expected = 8 + len(_EQUALISED_COUNTS) + 5 * len(self._layers) // 2 + bisections

    def within(self, plan: Plan) -> bool:
        """Whether a measured plan is within the limit, as far as these pictures can tell."""
        return plan in self._measured_plans and self._estimates[_rounding(plan)].within(plan)

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

    def equalise(self) -> None:
        """Equalise the layers that gain by it, with the most damage first, until all layers in int8 are within.

        Equalising costs an operator, so that no more layers are than it takes. Where even all are not enough, what
        makes the least noise is one more recipe.
        """
        usable = sorted(set(self.objective.equalisable) & set(self._layers), key=lambda name: -self.damage[name])
        gains, damage = {}, dict(self.damage)
        for name in usable[:_EQUALISED_ALONE]:
            alone = msgspec.structs.replace(self._with(frozenset({name})), equalised=frozenset({name}))
            damage[name] = self._noise(alone, f"damage of {name}, equalised")
            gains[name] = self.damage[name] - damage[name]
        order = [name for name in sorted(gains, key=lambda name: -gains[name]) if gains[name] > 0]
        quietest, least = self.best, self._noise(self.best, "noise")
        for count in _EQUALISED_COUNTS:
            if len(quietest.equalised) == len(order):
                break
            plan = msgspec.structs.replace(
                self.best, int8_layers=frozenset(self._layers), equalised=frozenset(order[:count])
            )
            noise = self._noise(plan, f"{len(plan.equalised)} layers equalised")
            if noise >= least:
                continue
            quietest, least = plan, noise
            self._measure(plan, f"{len(plan.equalised)} layers equalised")
            if self.within(plan):
                break
        if quietest.equalised:
            self._recipes = [quietest, *self._recipes][:_RECIPES_MEASURED]
            self.damage.update({name: damage[name] for name in quietest.equalised})

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
        """Make float layers int8 again until the limit is used up.

        Layers with the most multiply-adds per damage come first. What they add is judged by the noise, because the
        metric cannot tell single layers apart; the metric judges the result.
        """
        self.best = self._largest(self._measured_plans)
        if not self.within(self.best):
            return
        start = self.best
        most = self._estimates[_rounding(start)].most_noise(self._noise(start, "noise"))
        bolder, added = start, []
        kept_float = [layer for name, layer in self._layers.items() if name not in start.int8_layers]
        for layer in sorted(kept_float, key=lambda layer: self._damage_per_mac(layer.name))[:_TRIED_IN_INT8]:
            attempt = msgspec.structs.replace(bolder, int8_layers=bolder.int8_layers | {layer.name})
            if self._noise(attempt, f"trying {layer.name} in int8 again") <= most:
                bolder = attempt
                added.append(layer.name)
        low, high = 0, len(added) + 1
        count = len(added)  # how many of them are within the limit: all, if their noise says the truth
        while count > low:
            plan = msgspec.structs.replace(start, int8_layers=start.int8_layers.union(added[:count]))
            self._measure(plan, f"{len(self._layers) - len(plan.int8_layers)} layers float")
            low, high = (count, high) if self.within(plan) else (low, count)
            count = (low + high) // 2
        self.best = self._largest(self._measured_plans)

    def take_fastest(self) -> None:
        """Of the plans within the limit, take the fastest on this machine; also try some kinds of layers in float."""
        if not self.within(self.best):
            return
        plans = sorted((plan for plan in self._measured_plans if self.within(plan)), key=self.share)[-_TIMED:]
        times = {plan: self._relative_latency(plan) for plan in plans}
        fastest = min(times, key=lambda plan: times[plan])
        for plan in self._with_kinds_in_float(fastest):
            times[plan] = self._relative_latency(plan)
            if times[plan] < times[fastest] - _AS_FAST:
                self._measure(plan, "a faster mix")
                fastest = plan if self.within(plan) else fastest
        as_fast = [plan for plan in times if self.within(plan) and times[plan] <= times[fastest] + _AS_FAST]
        self.best = max(as_fast, key=self.share)

    def _with_kinds_in_float(self, plan: Plan) -> Iterable[Plan]:
        """The plan with all its depthwise layers in float, and with all its small layers in float."""
        least = _SMALL_SHARE * sum(layer.macs for layer in self._layers.values())
        int8 = [self._layers[name] for name in plan.int8_layers]
        kinds = {layer.name for layer in int8 if layer.kind == "depthwise"}, {la.name for la in int8 if la.macs < least}
        for names in kinds:
            rest = msgspec.structs.replace(plan, int8_layers=plan.int8_layers - names)
            if names and self.share(rest) >= SMALLEST_SHARE:
                yield rest

    def _largest(self, plans: Iterable[Plan]) -> Plan:
        """The plan with the largest int8 share among those within the limit; without any, the best so far."""
        return max((plan for plan in plans if self.within(plan)), key=self.share, default=self.best)

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
        return msgspec.structs.replace(self.best, int8_layers=int8_layers)

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
        noise = self.journal.value("damage", plan, self.objective.damage)
        draws = self.journal.values("drops", plan, self.objective.drops)
        self._measured_plans[plan] = metric
        estimates = self._estimates.setdefault(_rounding(plan), DropEstimates(self._max_drop))
        estimates.add(plan, PlanFigures(noise, self._float_metric - metric, draws))
        self._report(f"{what}: {metric:.4f}")
        return metric

    def _relative_latency(self, plan: Plan) -> float:
        self._check_time(plan, "relative latency")
        self._report("timing it together with the float artifact")
        return self.journal.value("relative latency", plan, self.objective.relative_latency)

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


def _rounding(plan: Plan) -> tuple[str, bool]:
    """What plans must have in common for equal noise to mean an equal drop."""
    return plan.ranges, plan.correct_weights
