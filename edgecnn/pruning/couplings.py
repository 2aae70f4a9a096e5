"""Finds channels that can only be removed together: Torch-Pruning's groups, and connections between them."""

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

from edgecnn.pruning.importance import Score
from edgecnn.pruning.layers import Part, is_depthwise, parts_with_channels, width
from edgecnn.pruning.tracing import answering_layers, trace

Side: TypeAlias = tuple[str, Literal["in", "out"]]
"""Input or output channels of a layer; layers without mixing of channels (batch norms, depthwise, …) have "out"."""


@dataclass(frozen=True, kw_only=True)
class Coupling:
    """Channels of several layers that can only be removed together, in units.

    Attributes:
        positions: for each affected side of a layer, int [units, channels]: the channels of each unit.
        importance: [units], around 1.
        channels: number of output channels of convolutions and linear layers in one unit.
        step: the number of kept units is a multiple of this, or all.
    """

    positions: Mapping[Side, NDArray[np.int64]]
    importance: NDArray[np.float64]
    channels: int
    step: int

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.importance)


def find_couplings(
    module: nn.Module, x: Tensor, *, score: Score, kept: Collection[nn.Module], round_to: int
) -> list[Coupling]:
    """All removable channels: not those of layers that compute the answer, of `kept`, and of too narrow layers.

    Args:
        module: in evaluation mode, with gradients required for all parameters; with gradients if `score` reads them.
        x: one frame, in the network's form.
        score: importance of a group's channels; groups without one are kept.
        kept: layers that keep all their output channels.
        round_to: every narrowed convolution and linear layer keeps a multiple of this number of channels.

    Raises:
        Exception: any exception of the network or of Torch-Pruning.
    """
    answering = answering_layers(module, x)
    graph = trace(module, x, until=answering)  # the answer's decoding must not be traced
    cover = _Cover(parts_with_channels(module))
    for group in graph.get_all_groups(ignored_layers=[*answering, *kept]):
        cover.add(group, graph, score)
    cover.tie()
    return [coupling for coupling in cover.couplings(round_to) if coupling.units > coupling.step]


class _Cover:
    """Every channel of Torch-Pruning's groups, by number, with its layer and position; a union-find over them."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        self._names = {id(part): name for name, part in parts.items()}
        self._fixed = 0  # channels tied to this one are kept
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
        """Tie channels that grouped layers connect, also across Torch-Pruning's groups (reading a concatenation)."""
        for (name, side), at in self._at.items():
            blocks = _blocks(self._parts[name])
            size = width(self._parts[name], side) // blocks
            for place in range(size if blocks > 1 else 0):  # each block must lose the channels at the same positions
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
        # One input channel per group and several output channels: Torch-Pruning fails to score these.
        multiplies = 1 < part.groups == part.in_channels and not is_depthwise(part)
        return not multiplies and (not part.transposed or part.groups == 1 or is_depthwise(part))
    return not isinstance(part, nn.LayerNorm) or len(part.normalized_shape) == 1


def _blocks(part: Part) -> int:
    """Number of equal blocks into which a layer splits its channels."""
    if isinstance(part, nn.GroupNorm):
        return part.num_groups
    return part.groups if isinstance(part, _ConvNd) and not is_depthwise(part) else 1
