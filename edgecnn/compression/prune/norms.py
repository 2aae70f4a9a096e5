"""Batch norms of a narrower network see other values than before; their statistics follow."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgecnn.compression.prune.layers import evaluated
from edgecnn.compression.prune.removal import Removal

# Frames that are looked at, as one batch: so many that each takes its share of memory and of time.
_PIXELS, _FEWEST, _MOST = 6_000_000, 4, 64
_SMALLEST_VARIANCE = 1e-3  # of what the norm itself expects: below it is a channel that hardly moves in these frames


@dataclass(frozen=True)
class Moments:
    """Mean and variance of what a batch norm reads, float32 [channels] each."""

    mean: Tensor
    variance: Tensor


def frames_wanted(height_px: int, width_px: int) -> int:
    """How many frames of this size are enough to look at."""
    return min(max(_PIXELS // (height_px * width_px), _FEWEST), _MOST)


def norm_moments(module: nn.Module, x: Tensor) -> dict[str, Moments]:
    """What the batch norms of a network read, by name; of one that runs several times, the first time.

    Args:
        module: is not changed.
        x: float32 [batch, 3, height, width], normalised.
    """
    found: dict[str, Moments] = {}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], *, name: str) -> None:
        if name not in found:
            found[name] = _moments(inputs[0])

    _run_with(module, x, look)
    return found


def keep_norm_outputs(module: nn.Module, removal: Removal, before: Mapping[str, Moments], x: Tensor) -> None:
    """Give the batch norms of a narrower network the statistics with which they write what they wrote before, in place.

    By as much as the mean and spread of what a norm reads differ from the unpruned network's, on the same frames: so
    that frames unlike those that it was trained on do not move its statistics towards themselves. In the order of
    execution, each with those before it settled.
    Source: Li et al. 2020, EagleEye, arXiv:2007.02491, section 3.2 (adaptive batch normalisation), with differences in
    place of the frames' own statistics.

    Args:
        module: after `remove`.
        removal: what that took out.
        before: `norm_moments` of the unpruned network, of the same frames.
        x: float32 [batch, 3, height, width], normalised.
    """
    waiting = dict(before)

    def settle(layer: nn.Module, inputs: tuple[Tensor, ...], *, name: str) -> None:
        assert isinstance(layer, _BatchNorm)
        read = waiting.pop(name, None)
        if read is None or layer.running_mean is None or layer.running_var is None:
            return
        left = _left(removal, name, len(read.mean)).to(inputs[0].device)
        mean, variance = read.mean[left], read.variance[left]
        now = _moments(inputs[0])
        moves = torch.minimum(variance, now.variance) > _SMALLEST_VARIANCE * layer.running_var
        ratio = torch.where(moves, now.variance / variance.clamp(min=1e-30), 1.0)
        layer.running_mean.sub_(mean).mul_(ratio.sqrt()).add_(now.mean)
        layer.running_var.add_(layer.eps).mul_(ratio).sub_(layer.eps).clamp_(min=0)

    _run_with(module, x, settle)


def _run_with(module: nn.Module, x: Tensor, look: Any) -> None:
    with ExitStack() as hooks, evaluated(module), torch.no_grad():
        for name, layer in module.named_modules():
            if isinstance(layer, _BatchNorm):
                hooks.callback(layer.register_forward_pre_hook(partial(look, name=name)).remove)
        module(x)


def _moments(x: Tensor) -> Moments:
    values = x.float().transpose(0, 1).flatten(1)
    return Moments(values.mean(dim=1), values.var(dim=1, unbiased=False))


def _left(removal: Removal, name: str, channels: int) -> Tensor:
    """The channels of a norm that stay."""
    gone = [channel for (part, _), removed in removal.items() if part == name for channel in removed]
    return torch.from_numpy(np.delete(np.arange(channels), gone))
