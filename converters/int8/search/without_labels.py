"""Chooses int8 layers by the noise in the answers, where there are no labels to measure a metric with."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import msgspec

from edgecnn.bundle import LayerRecord
from edgecnn.converters.int8.search.journal import SearchJournal
from edgecnn.converters.int8.search.objective import Objective, Progress, SearchResult, choose_recipe

_FREE_SHARE = 0.08  # share of the multiply-adds that may be float without a measured need
_LITTLE_MORE = 1.05  # times the noise
# 28 dB: above this, less noise is not worth a float layer's time. EfficientNet-Lite0 then gives the same class for 97
# of 100 pictures; ResNet-18 with all layers int8 reaches it and is 4 times faster than float, instead of 2 times.
_LITTLE_NOISE = 10**-2.8


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
