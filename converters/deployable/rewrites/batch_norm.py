"""Rewrites batch normalisation, which is a scale and a shift at inference time, before the exporters see it.

Exporters split each one into several operations, which converters would have to join again.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from edgecnn.converters.deployable.rewrites.agreement import answers_agree, shifted_frames
from edgecnn.converters.deployable.rewrites.recorded_inputs import run_hooked
from edgecnn.frame import FrameSpec


class ScaleAndShift(nn.Module):
    """A batch normalisation that cannot be merged into a preceding convolution."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        scale, shift = _affine(norm)
        self.register_buffer("scale", scale.float().reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().reshape(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] in and out."""
        return x * self.scale + self.shift


def fuse_batch_norm(network: nn.Module, spec: FrameSpec) -> nn.Module:
    """The network with its batch normalisations merged into the preceding convolutions, or as scale and shift.

    The network is run to find which convolution feeds which normalisation. If the result does not answer a photograph
    as the original does, the original is returned. The original is not changed.
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    factor = (spec.scale / torch.tensor(spec.std)).reshape(1, 3, 1, 1)
    frames = [levels * factor for levels in shifted_frames(spec)]
    for into_convolutions in (True, False):
        try:
            rewritten = copy.deepcopy(network)
            pairs = _pairs(rewritten, frames[0]) if into_convolutions else {}
            for norm, conv in pairs.items():
                _fuse(conv, norm)
            _replace(rewritten, pairs)
            if answers_agree(network, frames, rewritten, frames):
                return rewritten
        except (RuntimeError, ValueError):
            continue  # this network is too unusual to rewrite: it is exported unchanged
    return network


def _pairs(network: nn.Module, x: Tensor) -> dict[nn.BatchNorm2d, nn.Conv2d]:
    """Normalisation → the convolution whose output it normalises, where both are called once."""
    made_by: dict[int, nn.Conv2d] = {}
    alive: list[Tensor] = []  # keeps tensors alive, so that no id() is used twice
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}
    calls: dict[nn.Module, int] = {}

    def look(module: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        calls[module] = calls.get(module, 0) + 1
        if isinstance(module, nn.Conv2d):
            alive.append(output)
            made_by[id(output)] = module
        elif isinstance(module, nn.BatchNorm2d) and id(arguments[0]) in made_by:
            pairs[module] = made_by[id(arguments[0])]

    hooks = [
        module.register_forward_hook(look)
        for module in network.modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d)
    ]
    run_hooked(network, x, hooks)
    return {norm: conv for norm, conv in pairs.items() if calls[norm] == 1 and calls[conv] == 1}


def _affine(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Scale and shift, float64 [channels]."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a batch normalisation without statistics depends on the frame and cannot be merged")
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    shift = -norm.running_mean.double() * scale
    if norm.weight is not None:
        scale, shift = scale * norm.weight.double(), shift * norm.weight.double()
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return scale.detach(), shift.detach()


def _fuse(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    scale, shift = _affine(norm)
    with torch.no_grad():
        bias = shift if conv.bias is None else conv.bias.double() * scale + shift
        conv.weight.copy_((conv.weight.double() * scale[:, None, None, None]).float())
        conv.bias = nn.Parameter(bias.float())


def _replace(network: nn.Module, fused: dict[nn.BatchNorm2d, nn.Conv2d]) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity() if child in fused else ScaleAndShift(child))
