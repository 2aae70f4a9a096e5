"""Folds colour order, scale and std into the weights of the first convolutions, where that is exact.

A uint8 frame then needs only a cast and one subtraction before the first convolution: less work for each frame, and
one rounding less in int8. The mean stays: a convolution pads with zeros, and zero must continue to mean the mean.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgecnn.converters.deployable.rewrites.agreement import answers_agree, shifted_frames
from edgecnn.converters.deployable.rewrites.recorded_inputs import record_inputs
from edgecnn.frame import FrameSpec


@dataclass(frozen=True)
class Folding:
    """A network and the steps that were folded into it.

    Attributes:
        network: the network, changed where something was folded.
        scale: True if it expects (pixel - shift), without the factor scale / std.
        colour: True if it expects BGR.
    """

    network: nn.Module
    scale: bool
    colour: bool


def fold_normalisation(network: nn.Module, spec: FrameSpec) -> Folding:
    """Fold the steps that can be folded; the original is not changed.

    What a convolution sees of the input is found by looking: frames of one plain colour show which of its input
    channels carry which colour, and a frame with its colours reversed shows how they are permuted. So stems that
    rearrange pixels first (YOLOX's Focus) or see the frame in several sizes (ESPNetv2) are folded as well. Whatever
    was found, the folded network must answer a photograph, also dark, bright and blank, as the original does, else
    nothing is folded.
    """
    factor = spec.scale / torch.tensor(spec.std)
    for fold_colour in [True, False] if spec.colour == "rgb" else [False]:
        folded = copy.deepcopy(network)
        try:
            stems = _find_stems(folded, spec)
            for stem in stems:
                _fold_into(stem, factor, fold_colour)
            if stems and _agrees(network, folded, factor, fold_colour, spec):
                return Folding(folded, scale=True, colour=fold_colour)
        except (RuntimeError, ValueError):
            continue  # a network too unlike an ordinary one to look into: it is normalised in front instead
    return Folding(network, scale=False, colour=False)


@dataclass(frozen=True)
class _Stem:
    """A convolution that sees the input directly.

    Attributes:
        conv: the convolution.
        colours: for each of its input channels, which colour (0..2) it carries.
        mirror: for each of its input channels, which one carries the same place with the colours reversed.
    """

    conv: nn.Conv2d
    colours: list[int]
    mirror: list[int]


def _find_stems(network: nn.Module, spec: FrameSpec) -> list[_Stem]:
    size = (1, 3, spec.height_px, spec.width_px)
    first = torch.tensor([0.37, -1.13, 2.41]).reshape(1, 3, 1, 1)
    plain = _inputs_of_convolutions(network, first.expand(size).contiguous())
    doubled = _inputs_of_convolutions(network, (2 * first).expand(size).contiguous())
    picture = torch.randn(size, generator=torch.Generator().manual_seed(0))
    seen = _inputs_of_convolutions(network, picture)
    reversed_ = _inputs_of_convolutions(network, picture.flip(1))
    stems = []
    for conv, x in plain.items():
        centre = x[0, :, x.shape[2] // 2, x.shape[3] // 2]
        twice = doubled[conv][0, :, x.shape[2] // 2, x.shape[3] // 2]
        distance = (centre[:, None] - first.reshape(1, 3)).abs()
        if distance.min(1).values.max() > 1e-4 or (twice - 2 * centre).abs().max() > 1e-4:
            continue
        mirror = [int((seen[conv][0] - channel).abs().mean(dim=(1, 2)).argmin()) for channel in reversed_[conv][0]]
        stems.append(_Stem(conv, distance.argmin(1).tolist(), mirror))
    return stems


def _inputs_of_convolutions(network: nn.Module, x: Tensor) -> dict[nn.Conv2d, Tensor]:
    """The input of each convolution with few channels for one frame; stems have few channels."""

    def has_few_channels(module: nn.Module, _: Tensor) -> bool:
        return isinstance(module, nn.Conv2d) and module.in_channels % 3 == 0 and module.in_channels <= 48

    seen = {network.get_submodule(name): given for name, given in record_inputs(network, x, has_few_channels).items()}
    return {module: given for module, given in seen.items() if isinstance(module, nn.Conv2d)}


def _fold_into(stem: _Stem, factor: Tensor, fold_colour: bool) -> None:
    conv = stem.conv
    with torch.no_grad():
        weight = conv.weight.double()
        per_group = conv.in_channels // conv.groups
        scales = factor.double()[stem.colours].reshape(conv.groups, per_group)
        group_of = torch.arange(conv.out_channels) // (conv.out_channels // conv.groups)
        weight = weight * scales[group_of][:, :, None, None]
        if fold_colour:
            if conv.groups != 1:
                raise ValueError("a grouped stem cannot have its input channels reordered")
            weight = weight[:, stem.mirror]
        conv.weight.copy_(weight.float())


def _agrees(network: nn.Module, folded: nn.Module, factor: Tensor, colour: bool, spec: FrameSpec) -> bool:
    shifted, factor = shifted_frames(spec), factor.reshape(1, 3, 1, 1)
    rewritten = [levels.flip(1) if colour else levels for levels in shifted]
    return answers_agree(network, [levels * factor for levels in shifted], folded, rewritten)
