"""Replaces a stem that folds pixels into channels by one convolution with a stride, which computes the same.

YOLOX's Focus moves every second pixel of every second row into separate channels and then convolves: k x k over the
folded pixels equals 2k x 2k over the frame with stride 2, with the same number of multiply-adds. The slices and their
concatenation disappear; `benchmarks/stem.py` measures the gain in each runtime.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgecnn.converters.deployable.rewrites.agreement import answers_agree, shifted_frames
from edgecnn.converters.deployable.rewrites.recorded_inputs import record_inputs
from edgecnn.frame import FrameSpec

_BLOCKS_PX = (2, 3, 4)
# Colour, row and column in the block of pixels.
Place = tuple[int, int, int]


class StridedStem(nn.Module):
    """The rest of a stem after the pixel folding was removed; its child keeps its old name."""

    def __init__(self, name: str, part: nn.Module) -> None:
        super().__init__()
        self.add_module(name, part)
        self._name = name

    def forward(self, x: Tensor) -> Tensor:
        """Float [batch, 3, height, width] in."""
        y: Tensor = self.get_submodule(self._name)(x)
        return y


@dataclass(frozen=True)
class _Stem:
    """A stem that folds pixels.

    Attributes:
        name: name of the module that gets the frame.
        part: name of its child that gets the folded pixels.
        conv: name of the convolution that gets them too: the child, or a module inside it.
        block_px: side of a block of pixels.
        places: position in the block of pixels from which each input channel of the convolution comes.
    """

    name: str
    part: str
    conv: str
    block_px: int
    places: list[Place]


def stride_stem(network: nn.Module, spec: FrameSpec) -> nn.Module:
    """The network with such a stem replaced, if it has one; the original is not changed.

    The network is run to find which channel holds which pixel. If the result does not answer a photograph as the
    original does, the original is returned.
    """
    folded_channels = {3 * block_px**2 for block_px in _BLOCKS_PX}
    if not any(isinstance(module, nn.Conv2d) and module.in_channels in folded_channels for module in network.modules()):
        return network
    factor = (spec.scale / torch.tensor(spec.std)).reshape(1, 3, 1, 1)
    frames = [levels * factor for levels in shifted_frames(spec)]
    try:
        stem = _find(network, spec)
        if stem is not None:
            rewritten = copy.deepcopy(network)
            _rewrite(rewritten, stem)
            if answers_agree(network, frames, rewritten, frames):
                return rewritten
    except (RuntimeError, ValueError):
        pass  # this network is too unusual to rewrite: it is exported unchanged
    return network


def _find(network: nn.Module, spec: FrameSpec) -> _Stem | None:
    picture = torch.randn((1, 3, spec.height_px, spec.width_px), generator=torch.Generator().manual_seed(0))
    given = record_inputs(network, picture, lambda _, seen: seen.shape == picture.shape or _block_px(seen, picture) > 0)
    for name, seen in given.items():
        if not name or seen.shape != picture.shape or not torch.equal(seen, picture):
            continue
        for part, _ in network.get_submodule(name).named_children():
            folded = given.get(f"{name}.{part}")
            block_px = 0 if folded is None else _block_px(folded, picture)
            if folded is None or not block_px:
                continue
            places = _places(folded, picture, block_px)
            if places is None:
                continue
            for inside, module in network.get_submodule(f"{name}.{part}").named_modules():
                conv = f"{name}.{part}.{inside}".rstrip(".")
                if conv in given and given[conv].data_ptr() == folded.data_ptr() and _can_stride(module):
                    return _Stem(name, part, conv, block_px, places)
    return None


def _places(folded: Tensor, picture: Tensor, block_px: int) -> list[Place] | None:
    """The position that each channel comes from, if the channels are the picture's pixels, each once."""
    by_corner = {
        float(picture[0, colour, row, column]): (colour, row, column)
        for colour in range(3)
        for row in range(block_px)
        for column in range(block_px)
    }
    places = [by_corner.get(float(channel[0, 0])) for channel in folded[0]]
    known = [place for place in places if place is not None]
    unfolded = [picture[0, colour, row::block_px, column::block_px] for colour, row, column in known]
    if len(set(known)) != folded.shape[1] or not torch.equal(torch.stack(unfolded), folded[0]):
        return None
    return known


def _block_px(seen: Tensor, picture: Tensor) -> int:
    """Side of the blocks that were folded, as the shape shows it; 0 where the shape does not fit."""
    if seen.dim() != 4:
        return 0
    _, channels, height, width = seen.shape
    whole = tuple(picture.shape[2:])
    fitting = (b for b in _BLOCKS_PX if channels == 3 * b**2 and (b * height, b * width) == whole)
    return next(fitting, 0)


def _can_stride(module: nn.Module) -> bool:
    return (
        isinstance(module, nn.Conv2d)
        and (module.groups, module.stride, module.dilation, module.padding_mode) == (1, (1, 1), (1, 1), "zeros")
        and isinstance(module.padding, tuple)
    )


def _rewrite(network: nn.Module, stem: _Stem) -> None:
    """Put the strided convolution in the place of the other, and remove the folding."""
    old = network.get_submodule(stem.conv)
    assert isinstance(old, nn.Conv2d) and isinstance(old.padding, tuple)
    block_px = stem.block_px
    kernel, padding = ([block_px * side for side in sides] for sides in (old.kernel_size, old.padding))
    conv = nn.Conv2d(
        3, old.out_channels, (kernel[0], kernel[1]), block_px, (padding[0], padding[1]), bias=old.bias is not None
    )
    with torch.no_grad():
        for channel, (colour, row, column) in enumerate(stem.places):
            conv.weight[:, colour, row::block_px, column::block_px] = old.weight[:, channel]
        if conv.bias is not None and old.bias is not None:
            conv.bias.copy_(old.bias)
    conv.train(old.training)
    network.set_submodule(stem.conv, conv)
    network.set_submodule(stem.name, StridedStem(stem.part, network.get_submodule(f"{stem.name}.{stem.part}")))
