"""Chooses how many channels of which layers to remove for a given share of a network's cost."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.flop_counter import FlopCounterMode

from edgecnn.errors import SpecError
from edgecnn.pruning.couplings import Coupling, Side
from edgecnn.pruning.layers import Part, is_depthwise, parts_with_channels, width


@dataclass(frozen=True)
class Cost:
    """Multiply-adds or parameters of a network, as a function of removed channels.

    Attributes:
        total: cost of the whole network.
        terms: parts of it that shrink with layers' channels: the cost, and the sides (input or output) of layers.
        widths: channels of every side.
    """

    total: float
    terms: tuple[tuple[float, tuple[Side, ...]], ...]
    widths: Mapping[Side, int]

    def without(self, removed: Mapping[Side, int]) -> float:
        """The remaining cost after so many channels are removed."""
        gone = 0.0
        for size, sides in self.terms:
            gone += size * (1 - math.prod(1 - removed.get(side, 0) / self.widths[side] for side in sides))
        return self.total - gone


def macs(module: nn.Module, x: Tensor) -> Cost:
    """Multiply-adds of one frame, convolutions and matrix products."""
    parts = parts_with_channels(module)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    counts = {name.partition(".")[2]: sum(each.values()) // 2 for name, each in counter.get_flop_counts().items()}
    terms = [(counts[name], _sides(name, part)) for name, part in parts.items() if name and counts.get(name)]
    return _cost(counter.get_total_flops() // 2, terms, parts)


def parameters(module: nn.Module) -> Cost:
    """Parameters of a network."""
    parts = parts_with_channels(module)
    terms: list[tuple[int, tuple[Side, ...]]] = []
    for name, part in parts.items():
        if isinstance(part, nn.Parameter):
            terms.append((part.numel(), ((name, "out"),)))
            continue
        for attribute, parameter in part.named_parameters(recurse=False):
            sides = _sides(name, part) if attribute == "weight" else ((name, "out"),)
            terms.append((parameter.numel(), sides))
    return _cost(sum(parameter.numel() for parameter in module.parameters()), terms, parts)


def _cost(total: float, terms: Sequence[tuple[float, tuple[Side, ...]]], parts: Mapping[str, Part]) -> Cost:
    widths = {(name, side): width(parts[name], side) for _, sides in terms for name, side in sides}
    return Cost(total, tuple(terms), widths)


def _sides(name: str, part: Part) -> tuple[Side, ...]:
    if isinstance(part, _ConvNd | nn.Linear) and not is_depthwise(part):
        return (name, "in"), (name, "out")
    return ((name, "out"),)


class Selection:
    """Ranks the units of all couplings, the least important first, and decides how many of each are kept.

    Args:
        couplings: the network's couplings.
        global_ranking: True to compare units across layers; otherwise the same share of every layer is removed.
        largest_ratio: largest share of a coupling's units that may be removed.
    """

    def __init__(self, couplings: Sequence[Coupling], *, global_ranking: bool, largest_ratio: float) -> None:
        self._couplings = couplings
        self._fewest = [_fewest(coupling, largest_ratio) for coupling in couplings]
        scores = [coupling.importance if global_ranking else _ranks(coupling.importance) for coupling in couplings]
        self._sorted = [np.sort(each)[::-1] for each in scores]  # the next unit to remove is last
        owner = np.repeat(np.arange(len(couplings)), [coupling.units for coupling in couplings])
        order = np.argsort(np.concatenate([*scores, np.empty(0)]), kind="stable")
        self._owner = owner[order]
        channels = np.array([coupling.channels for coupling in couplings], np.int64)
        self._channels = np.cumsum(channels[self._owner])

    @property
    def is_empty(self) -> bool:
        """Whether nothing can be removed."""
        return all(fewest == coupling.units for fewest, coupling in zip(self._fewest, self._couplings, strict=True))

    def by_ratio(self, ratio: float) -> list[int]:
        """Kept units of each coupling when this share of all channels, the least important ones, is removed."""
        return self._kept(int(np.searchsorted(self._channels, ratio * self._channels[-1], side="right")))

    def by_cost(self, cost: Cost, limit: float) -> list[int]:
        """Kept units of each coupling, so that the cost is just below a limit, as far as rounding allows.

        Raises:
            SpecError: the cost is above the limit even with everything removed that may be removed.
        """
        low, high = -1, len(self._owner)  # how many of the ranking's first units must be removed
        smallest = self._cost(cost, self._kept(high))
        if smallest > limit:
            raise SpecError(
                f"at least {smallest / cost.total:.0%} of the network must remain, but {limit / cost.total:.0%} was "
                "requested: give a larger share, allow a larger ratio per layer, or a smaller rounding"
            )
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self._cost(cost, self._kept(middle)) <= limit else (middle, high)
        return self._keep_more(self._kept(high), cost, limit)

    def _keep_more(self, kept: list[int], cost: Cost, limit: float) -> list[int]:
        """Keep more units, the most important first, as long as the cost is within the limit."""
        waiting = [
            (-self._sorted[i][count], i)
            for i, (count, coupling) in enumerate(zip(kept, self._couplings, strict=True))
            if count < coupling.units
        ]
        heapq.heapify(waiting)
        while waiting:
            _, i = heapq.heappop(waiting)
            coupling = self._couplings[i]
            more = min(kept[i] + coupling.step, coupling.units)
            if self._cost(cost, [*kept[:i], more, *kept[i + 1 :]]) <= limit:
                kept[i] = more
                if more < coupling.units:
                    heapq.heappush(waiting, (-self._sorted[i][more], i))
        return kept

    def _kept(self, lowest: int) -> list[int]:
        gone = np.bincount(self._owner[:lowest], minlength=len(self._couplings))
        return [
            _rounded(coupling.units - int(count), coupling, fewest)
            for coupling, count, fewest in zip(self._couplings, gone, self._fewest, strict=True)
        ]

    def _cost(self, cost: Cost, kept: Sequence[int]) -> float:
        removed: dict[Side, int] = {}
        for coupling, count in zip(self._couplings, kept, strict=True):
            for side, positions in coupling.positions.items():
                removed[side] = removed.get(side, 0) + (coupling.units - count) * positions.shape[1]
        return cost.without(removed)


def _ranks(importance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rank in the order of importance, 0 to 1."""
    ranks = np.empty(len(importance))
    ranks[np.argsort(importance, kind="stable")] = (np.arange(len(importance)) + 0.5) / len(importance)
    return ranks


def _fewest(coupling: Coupling, largest_ratio: float) -> int:
    """Number of units that must be kept."""
    wanted = max(math.ceil(coupling.units * (1 - largest_ratio) - 1e-9), 1)
    return min(-(-wanted // coupling.step) * coupling.step, coupling.units)


def _rounded(count: int, coupling: Coupling, fewest: int) -> int:
    """The nearest count that the rounding allows."""
    if count == coupling.units:
        return count
    nearest = int(count / coupling.step + 0.5) * coupling.step
    return min(max(nearest, fewest), coupling.units)
