"""Adapts batch-norm statistics of a narrower network, whose batch norms get other inputs than before."""

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

from edgecnn.pruning.layers import evaluated
from edgecnn.pruning.removal import Removal

# Number of frames, used as one batch: enough for stable statistics, few enough for memory and time.
_PIXELS, _FEWEST, _MOST = 6_000_000, 4, 64
_SMALLEST_VARIANCE = 1e-3  # share of the norm's own variance: below it, a channel hardly varies in these frames


@dataclass(frozen=True)
class Moments:
    """Mean and variance of a batch norm's input, float32 [channels] each."""

    mean: Tensor
    variance: Tensor


def frames_wanted(height_px: int, width_px: int) -> int:
    """Number of frames of this size that are enough."""
    return min(max(_PIXELS // (height_px * width_px), _FEWEST), _MOST)


def norm_moments(module: nn.Module, x: Tensor) -> dict[str, Moments]:
    """Moments of the inputs of a network's batch norms, by name; the first call of one that runs several times.

    Args:
        module: not changed.
        x: float32 [batch, 3, height, width], normalised.
    """
    found: dict[str, Moments] = {}

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], *, name: str) -> None:
        if name not in found:
            found[name] = _moments(inputs[0])

    _run_with(module, x, look)
    return found


def keep_norm_outputs(module: nn.Module, removal: Removal, before: Mapping[str, Moments], x: Tensor) -> None:
    """Set batch-norm statistics of a narrower network so that its outputs stay as before, in place.

    Mean and spread are changed by the difference of the norm's input between this and the unpruned network, on the same
    frames, so that frames unlike the training data do not shift the statistics towards themselves. Done in the order of
    execution, each after the ones before it.
    Source: Li et al. 2020, EagleEye, arXiv:2007.02491, section 3.2 (adaptive batch normalisation), with differences in
    use instead of the frames' own statistics.

    Args:
        module: after `remove`.
        removal: the channels that were removed.
        before: `norm_moments` of the unpruned network, on the same frames.
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
    """The kept channels of a norm."""
    gone = [channel for (part, _), removed in removal.items() if part == name for channel in removed]
    return torch.from_numpy(np.delete(np.arange(channels), gone))
