"""Norms that do nothing, because a network was published with them in its convolutions, norm again before training.

In training a batch norm takes the statistics of the batch: one that knows none of its own would change what the network
answers, and training would begin with the ruins.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgecnn.results import UInt8Array
from edgecnn.sources.model import TrainedModel
from edgecnn.sources.normalise import normalise

_MOST_PIXELS, _FEWEST_FRAMES = 3_000_000, 4  # as one batch: so many that it takes its share of memory and of time


def has_folded_norms(module: nn.Module) -> bool:
    """Whether all batch norms of a network have a mean of 0 and a deviation of exactly 1."""
    norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
    return bool(norms) and all(
        norm.running_mean is not None
        and norm.running_var is not None
        and not norm.running_mean.any()
        and bool((norm.running_var == 1 - norm.eps).all())
        for norm in norms
    )


def with_unfolded_norms(model: TrainedModel, frames: Sequence[UInt8Array]) -> TrainedModel:
    """A copy whose batch norms have the statistics of these frames, and weights with which it answers as before.

    Args:
        model: is not changed.
        frames: uint8 [height, width, 3] BGR each.
    """
    module = copy.deepcopy(model.module).eval()
    enough = max(_MOST_PIXELS // (model.frame.height_px * model.frame.width_px), _FEWEST_FRAMES)
    x = torch.cat([normalise(torch.from_numpy(frame[None].copy()), model.frame) for frame in frames[:enough]])
    with ExitStack() as hooks, torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                hooks.callback(layer.register_forward_pre_hook(_unfold).remove)
        module(x)
    return replace(model, module=module)


def _unfold(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None
    variance, mean = torch.var_mean(inputs[0].transpose(0, 1).flatten(1), dim=1, correction=0)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    norm.bias.add_((mean - norm.running_mean) * scale)
    norm.weight.copy_(scale * (variance + norm.eps).sqrt())
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
