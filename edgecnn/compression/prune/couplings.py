"""Which channels of a network can only go together: Torch-Pruning's groups, and what ties several of these."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgecnn.compression.prune.importance import Score
from edgecnn.compression.prune.layers import Part, is_depthwise, parts_with_channels, width
from edgecnn.compression.prune.tracing import answering_layers, trace

Side: TypeAlias = tuple[str, Literal["in", "out"]]
"""Channels that a layer reads or writes; layers that keep channels apart (batch norms, depthwise, …) have "out"."""


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """Channels of several layers that can only go together, a unit at a time.

    Attributes:
        positions: for each side of a layer that is touched, int [units, channels]: which channels a unit is.
        importance: [units], around 1.
        channels: that convolutions and linear layers write, in one unit.
        step: the count of units that stay is a multiple of it, or all stay.
    """

    positions: Mapping[Side, NDArray[np.int64]]
    importance: NDArray[np.float64]
    channels: int
    step: int

    @property
    def units(self) -> int:
        """How many there are."""
        return len(self.importance)


def find_couplings(
    module: nn.Module, x: Tensor, *, score: Score, kept: Collection[nn.Module], round_to: int
) -> list[Coupling]:
    """Every channel that may go; those of the layers that answer, of `kept`, and of too narrow ones may not.

    Args:
        module: in evaluation mode, all parameters requiring gradients; with gradients where `score` reads them.
        x: one frame, as the network takes it.
        score: importance of a group's channels; groups that have none stay.
        kept: layers that keep all the channels they write.
        round_to: the channels of every convolution and linear layer that is narrowed are a multiple of it.

    Raises:
        Exception: whatever the network or Torch-Pruning raise.
    """
    answering = answering_layers(module, x)
    graph = trace(module, x, until=answering)  # of the answer, only the layers: what decodes it would be followed too
    cover = _Cover(parts_with_channels(module))
    for group in graph.get_all_groups(ignored_layers=[*answering, *kept]):
        cover.add(group, graph, score)
    cover.tie()
    return [coupling for coupling in cover.couplings(round_to) if coupling.units > coupling.step]


class _Cover:
    """Every channel of Torch-Pruning's groups, by number, and where it lies in which layer; a union-find over them."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        self._names = {id(part): name for name, part in parts.items()}
        self._fixed = 0  # what is tied to this one stays
        self._parent = [self._fixed]
        self._importance = [0.0]
        self._at: dict[Side, dict[int, int]] = defaultdict(dict)

    def add(self, group: Any, graph: Any, score: Score) -> None:
        touched = []
        for item in group:
            name = self._names.get(id(item.dep.target.module))
            if name is None:  # an operation without weights
                continue
            side: Side = (name, "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in")
            part = self._parts[name]
            if not _can_be_narrowed(part) or max(item.idxs) >= width(part, side[1]):
                return
            touched.append((side, item.idxs, item.root_idxs))
        importance = score(group)
        if importance is None:
            return
        first = len(self._parent)
        self._parent += range(first, first + len(importance))
        self._importance += importance.tolist()
        for side, channels, roots in touched:
            self._at[side].update(zip(channels, (first + root for root in roots), strict=True))

    def tie(self) -> None:
        """Tie what grouped layers tie: also across Torch-Pruning's groups, where they read a concatenation."""
        for (name, side), at in self._at.items():
            blocks = _blocks(self._parts[name])
            size = width(self._parts[name], side) // blocks
            for place in range(size if blocks > 1 else 0):  # each block of channels must lose the same places
                self._join([at.get(place + block * size, self._fixed) for block in range(blocks)])

    def couplings(self, round_to: int) -> list[Coupling]:
        units: dict[int, dict[Side, list[int]]] = defaultdict(lambda: defaultdict(list))
        for side, at in self._at.items():
            for channel in sorted(at):
                units[self._find(at[channel])][side].append(channel)
        units.pop(self._find(self._fixed), None)
        importance: dict[int, list[float]] = defaultdict(list)
        for number, each in enumerate(self._importance):
            importance[self._find(number)].append(each)
        alike: dict[tuple[tuple[Side, int], ...], list[int]] = defaultdict(list)
        for unit, places in units.items():
            alike[tuple(sorted((side, len(channels)) for side, channels in places.items()))].append(unit)
        couplings = []
        for pattern, members in alike.items():
            written = [n for side, n in pattern if side[1] == "out" and self._is_layer(side[0])]
            couplings.append(
                Coupling(
                    positions={side: np.array([units[unit][side] for unit in members]) for side, _ in pattern},
                    importance=np.array([np.mean(importance[unit]) for unit in members]),
                    channels=sum(written),
                    step=math.lcm(*(round_to // math.gcd(round_to, each) for each in written)),
                )
            )
        return couplings

    def _is_layer(self, name: str) -> bool:
        return isinstance(self._parts[name], _ConvNd | nn.Linear)

    def _find(self, number: int) -> int:
        while self._parent[number] != number:
            self._parent[number] = self._parent[self._parent[number]]
            number = self._parent[number]
        return number

    def _join(self, numbers: Iterable[int]) -> None:
        roots = {self._find(number) for number in numbers}
        lowest = min(roots)
        for root in roots:
            self._parent[root] = lowest


def _can_be_narrowed(part: Part) -> bool:
    if isinstance(part, _ConvNd):
        # One channel to a group, and several made of it: all or none could go, and Torch-Pruning fails to score them.
        multiplies = 1 < part.groups == part.in_channels and not is_depthwise(part)
        return not multiplies and (not part.transposed or part.groups == 1 or is_depthwise(part))
    return not isinstance(part, nn.LayerNorm) or len(part.normalized_shape) == 1


def _blocks(part: Part) -> int:
    """Into how many blocks of equal size a layer splits its channels."""
    if isinstance(part, nn.GroupNorm):
        return part.num_groups
    return part.groups if isinstance(part, _ConvNd) and not is_depthwise(part) else 1
