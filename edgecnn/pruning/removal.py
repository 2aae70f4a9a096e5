"""Removes channels from a network, and checks that nothing else changed."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from edgecnn.pruning.couplings import Coupling, Side
from edgecnn.pruning.layers import channel_axis, parts_with_channels, pruner_of

Removal: TypeAlias = Mapping[Side, Sequence[int]]
"""For each side of a layer, the channels to remove, by their numbers in the unpruned network."""
_ALIKE = 1e-3  # share of the change that the removal causes
_ROUNDING = 1e4  # units in the last place of the answer's type, accumulated over a whole network


def least_important(couplings: Sequence[Coupling], kept: Sequence[int]) -> dict[Side, list[int]]:
    """The channels to remove if so many units of each coupling are kept."""
    gone: dict[Side, set[int]] = defaultdict(set)
    for coupling, count in zip(couplings, kept, strict=True):
        units = np.argsort(coupling.importance, kind="stable")[: coupling.units - count]
        for side, positions in coupling.positions.items():
            gone[side].update(positions[units].ravel().tolist())
    return {side: sorted(channels) for side, channels in gone.items() if channels}


def remove(module: nn.Module, removal: Removal) -> None:
    """Remove channels, in place; the others keep their order and values."""
    parts = parts_with_channels(module)
    steps = []
    for (name, side), channels in removal.items():
        part = parts[name]
        if isinstance(part, nn.Parameter):
            steps.append(partial(_remove_from_parameter, module, name, part, channels))
        else:  # the right function is chosen before any layer is changed
            pruner = pruner_of(part)
            take_out = pruner.prune_out_channels if side == "out" else pruner.prune_in_channels
            steps.append(partial(take_out, part, list(channels)))
    for step in steps:
        step()


def _remove_from_parameter(module: nn.Module, name: str, parameter: nn.Parameter, channels: Sequence[int]) -> None:
    axis = channel_axis(parameter)
    left = np.delete(np.arange(parameter.shape[axis]), channels)
    narrowed = parameter.detach().index_select(axis, torch.from_numpy(left).to(parameter.device))
    owner, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(owner), attribute, nn.Parameter(narrowed))


def disconnect(module: nn.Module, removal: Removal) -> None:
    """Make every layer ignore the input channels that would be removed, in place; no shape changes."""
    parts = parts_with_channels(module)
    for (name, side), channels in removal.items():
        layer = parts[name]
        if side == "out" or not isinstance(layer, _ConvNd | nn.Linear):
            continue
        with torch.no_grad():
            if isinstance(layer, nn.Linear) or layer.groups == 1:
                axis = 0 if getattr(layer, "transposed", False) else 1
                layer.weight.index_fill_(axis, torch.tensor(channels, device=layer.weight.device), 0)
                continue
            inputs, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
            for channel in channels:
                block, place = divmod(channel, inputs)
                layer.weight[block * outputs : (block + 1) * outputs, place] = 0


class Check:
    """Checks that a network without some channels answers like the network that ignores them.

    That is the meaning of pruning, and it is checked instead of assumed: a network that shuffles, splits or counts
    its channels may run without them and give another answer. It is computed in float64 where possible, so that
    rounding plays no role. Layers that average over channels are replaced by identities, because a zero channel differs
    from a removed one for them; if the network's own code averages, its channels count as mixed up.
    """

    def __init__(self, module: nn.Module, x: Tensor) -> None:
        self._network, self._x = _in_double(module, x)
        for part in self._network.modules():
            if isinstance(part, nn.LayerNorm | nn.GroupNorm):
                part.register_forward_hook(_bridge)
        self._answer = self._ask(self._network)
        if not all(part.isfinite().all() for part in self._answer):
            raise ValueError("it answers NaN or infinity")

    def fault(self, removal: Removal) -> str | None:
        """What is wrong without these channels, in words; None if nothing is."""
        narrow, deaf = copy.deepcopy(self._network), copy.deepcopy(self._network)
        disconnect(deaf, removal)
        try:
            remove(narrow, removal)
            answer = self._ask(narrow)
        except Exception as failed:
            return f"it no longer runs ({type(failed).__name__}: {str(failed).splitlines()[0] if str(failed) else ''})"
        if [part.shape for part in answer] != [part.shape for part in self._answer]:
            return "its answer has another shape"
        for before, without, silent in zip(self._answer, answer, self._ask(deaf), strict=True):
            scale = float(before.abs().max()) * torch.finfo(before.dtype).eps * _ROUNDING
            if not (without - silent).abs().max() <= _ALIKE * (silent - before).abs().max() + scale:
                return "the remaining channels are mixed up"
        return None

    def sound(self, couplings: Sequence[Coupling]) -> list[Coupling]:
        """Couplings whose channels can be removed without effect on others, found by removing halves, then quarters."""
        kept = [coupling.units - coupling.step for coupling in couplings]
        if self.fault(least_important(couplings, kept)) is None:
            return list(couplings)
        if len(couplings) < 2:
            return []
        middle = len(couplings) // 2
        return self.sound(couplings[:middle]) + self.sound(couplings[middle:])

    def _ask(self, network: nn.Module) -> list[Tensor]:
        with torch.no_grad():
            answer = network(self._x)
        return [leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _in_double(module: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
    exact = copy.deepcopy(module).double().eval()
    try:
        with torch.no_grad():
            exact(x.double())
    except RuntimeError:  # its own code creates float32 tensors
        return copy.deepcopy(module).eval(), x
    return exact, x.double()


def _bridge(_: nn.Module, inputs: tuple[Any, ...], __: Any) -> Any:
    return inputs[0]
