"""Layers whose channels can be removed: names, widths, and Torch-Pruning's functions for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch_pruning.ops import OPTYPE, module2type
from torch_pruning.pruner.function import PrunerBox

Part: TypeAlias = nn.Module | nn.Parameter
"""A layer with a channel axis, or a parameter that belongs to the network's own code."""


def parts_with_channels(module: nn.Module) -> dict[str, Part]:
    """Layers whose tensors have a channel axis, and parameters outside torch's layers, by name."""
    layers = {name: part for name, part in module.named_modules() if _has_channels(part)}
    theirs = {id(parameter) for layer in layers.values() for parameter in layer.parameters()}
    return {**layers, **{name: each for name, each in module.named_parameters() if id(each) not in theirs}}


def _has_channels(part: nn.Module) -> bool:
    if isinstance(part, nn.PReLU):
        return part.num_parameters > 1
    return isinstance(part, _ConvNd | nn.Linear | _BatchNorm | nn.LayerNorm | nn.GroupNorm)


def is_depthwise(layer: object) -> bool:
    """Whether it is a convolution with one filter per input channel."""
    return isinstance(layer, _ConvNd) and 1 < layer.groups == layer.in_channels == layer.out_channels


def width(part: Part, side: str) -> int:
    """Number of input or output channels of a layer, or channels of a parameter."""
    match part:
        case _ConvNd():
            return part.in_channels if side == "in" else part.out_channels
        case nn.Linear():
            return part.in_features if side == "in" else part.out_features
        case _BatchNorm():
            return part.num_features
        case nn.LayerNorm():
            return part.normalized_shape[-1]
        case nn.GroupNorm():
            return part.num_channels
        case nn.PReLU():
            return part.num_parameters
        case nn.Parameter():
            return int(part.shape[channel_axis(part)])
        case _:
            raise TypeError(f"{type(part).__name__} has no axis of channels")


def channel_axis(parameter: Tensor) -> int:
    """For a parameter outside a layer: the last axis longer than 1, which Torch-Pruning uses too."""
    return max((axis for axis, length in enumerate(parameter.shape) if length > 1), default=0)


def pruner_of(part: Any) -> Any:
    """Torch-Pruning's functions for a layer; it mistakes some convolutions for depthwise ones."""
    if isinstance(part, _ConvNd):
        return PrunerBox[OPTYPE.DEPTHWISE_CONV if is_depthwise(part) else OPTYPE.CONV]
    return PrunerBox[module2type(part)]


def idle_parts(module: nn.Module, x: Tensor) -> list[str]:
    """Parts with layers that the network never ran, by the shortest names (the auxiliary heads of Inception)."""
    ran: set[nn.Module] = set()
    hooks = [part.register_forward_hook(lambda part, _, __: ran.add(part)) for part in module.modules()]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    idle: list[str] = []
    for name, part in module.named_modules():
        has_layers = any(isinstance(each, _ConvNd | nn.Linear) for each in part.modules())
        inside = any(name.startswith(f"{each}.") for each in idle)
        if has_layers and not inside and not any(each in ran for each in part.modules()):
            idle.append(name)
    return idle


@contextmanager
def all_trainable(module: nn.Module) -> Iterator[None]:
    """Context with gradients required for every parameter, in evaluation mode; both are restored at the end."""
    trainable = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    with evaluated(module):
        module.requires_grad_(True)
        try:
            yield
        finally:
            for name, parameter in module.named_parameters():  # pruning replaces parameters under the same names
                parameter.requires_grad_(trainable[name])
                parameter.grad = None


@contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """Context in which the network is in evaluation mode; each part's mode is restored at the end."""
    modes = {name: part.training for name, part in module.named_modules()}
    module.eval()
    try:
        yield
    finally:
        for name, part in module.named_modules():
            part.training = modes[name]
