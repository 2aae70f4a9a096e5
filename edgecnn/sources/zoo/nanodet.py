"""NanoDet-Plus object detection: ShuffleNetV2, Ghost path aggregation, one head per level that answers distributions.

Source: the published description and configurations of NanoDet-Plus (RangiLyu/nanodet, Apache-2.0), which has no
paper. Its parts are of: Ma et al. 2018, ShuffleNet V2, arXiv:1807.11164; Han et al. 2020, GhostNet, arXiv:1911.11907;
Li et al. 2020, Generalized Focal Loss, arXiv:2006.04388. Attribute names after the published weights, with which
`nanodet_weights` deals.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

STRIDES_PX = (8, 16, 32, 64)
BINS = 8  # of a distance: 0 to 7 strides
SIDES = 4
_STEM_CHANNELS = 24
_REPEATS = (4, 8, 4)
_KERNEL = 5  # of the path aggregation and of the head
_SLOPE = 0.1

Level: TypeAlias = tuple[Tensor, Tensor]
"""Class logits [N, C, h, w] and logits of distances [N, 4 x 8, h, w]: left, top, right, bottom, each 0 to 7 strides."""


class ConvNormAct(nn.Module):
    """Pointwise convolution without bias, batch normalisation, leaky ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.LeakyReLU(_SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class SeparableUnit(nn.Module):
    """Depthwise 5x5, then pointwise convolution; both with batch normalisation and leaky ReLU."""

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = depthwise(inputs, _KERNEL, stride=stride)
        self.dwnorm = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.pwnorm = nn.BatchNorm2d(outputs)
        self.act = nn.LeakyReLU(_SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.dwnorm(self.depthwise(x)))
        y: Tensor = self.act(self.pwnorm(self.pointwise(x)))
        return y


class ShuffleUnit(nn.Module):
    """Half of the channels pass, half are convolved; then they are interleaved. With a stride, all take both ways."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(
                depthwise(inputs, 3, stride=stride),
                nn.BatchNorm2d(inputs),
                nn.Conv2d(inputs, half, 1, bias=False),
                nn.BatchNorm2d(half),
                nn.LeakyReLU(_SLOPE),
            )
        self.branch2 = nn.Sequential(
            nn.Conv2d(inputs if stride > 1 else half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.LeakyReLU(_SLOPE),
            depthwise(half, 3, stride=stride),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.LeakyReLU(_SLOPE),
        )
        self.splits = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        passing, convolved = x.chunk(2, dim=1) if self.splits else (self.branch1(x), x)
        return interleaved(torch.cat((passing, self.branch2(convolved)), dim=1))


class ShuffleNetV2(nn.Module):
    """Backbone; returns the feature maps of strides 8, 16 and 32.

    Args:
        channels: of those maps, even.
    """

    def __init__(self, channels: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, _STEM_CHANNELS, 3, 2, 1, bias=False), nn.BatchNorm2d(_STEM_CHANNELS), nn.LeakyReLU(_SLOPE)
        )
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        stages = []
        for inputs, outputs, repeats in zip((_STEM_CHANNELS, *channels), channels, _REPEATS, strict=False):
            rest = (ShuffleUnit(outputs, outputs, stride=1) for _ in range(repeats - 1))
            stages.append(nn.Sequential(ShuffleUnit(inputs, outputs, stride=2), *rest))
        self.stage2, self.stage3, self.stage4 = stages

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stride8 = self.stage2(self.maxpool(self.conv1(x)))
        stride16 = self.stage3(stride8)
        return stride8, stride16, self.stage4(stride16)


class GhostModule(nn.Module):
    """Half of the outputs by a pointwise convolution; the other half from those, by a depthwise one."""

    def __init__(self, inputs: int, outputs: int, *, activated: bool) -> None:
        super().__init__()
        half = outputs // 2

        def activation() -> nn.Module:
            return nn.LeakyReLU(_SLOPE) if activated else nn.Identity()

        self.primary_conv = nn.Sequential(nn.Conv2d(inputs, half, 1, bias=False), nn.BatchNorm2d(half), activation())
        self.cheap_operation = nn.Sequential(depthwise(half, 3), nn.BatchNorm2d(half), activation())

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary_conv(x)
        return torch.cat((x, self.cheap_operation(x)), dim=1)


class GhostBottleneck(nn.Module):
    """Two Ghost modules, and a separable shortcut around them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.ghost1 = GhostModule(inputs, outputs, activated=True)
        self.ghost2 = GhostModule(outputs, outputs, activated=False)
        self.shortcut = nn.Sequential(
            depthwise(inputs, _KERNEL),
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.ghost2(self.ghost1(x)) + self.shortcut(x)
        return y


class GhostBlocks(nn.Module):
    """What merges two maps: Ghost bottlenecks under the published names, of which there is one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(GhostBottleneck(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks(x)
        return y


class GhostPathAggregation(nn.Module):
    """Feature pyramid downwards, then path aggregation upwards (Ghost-PAN), and a fourth level of stride 64."""

    def __init__(self, inputs: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.reduce_layers = nn.ModuleList(ConvNormAct(channels, width) for channels in inputs)
        self.top_down_blocks = nn.ModuleList(GhostBlocks(2 * width, width) for _ in range(2))
        self.downsamples = nn.ModuleList(SeparableUnit(width, width, stride=2) for _ in range(2))
        self.bottom_up_blocks = nn.ModuleList(GhostBlocks(2 * width, width) for _ in range(2))
        self.extra_lvl_in_conv = nn.ModuleList([SeparableUnit(width, width, stride=2)])
        self.extra_lvl_out_conv = nn.ModuleList([SeparableUnit(width, width, stride=2)])

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        low8, low16, top32 = (reduce(x) for reduce, x in zip(self.reduce_layers, maps, strict=True))
        top16 = self.top_down_blocks[0](torch.cat((_double(top32), low16), dim=1))
        out8 = self.top_down_blocks[1](torch.cat((_double(top16), low8), dim=1))
        out16 = self.bottom_up_blocks[0](torch.cat((self.downsamples[0](out8), top16), dim=1))
        out32 = self.bottom_up_blocks[1](torch.cat((self.downsamples[1](out16), top32), dim=1))
        return out8, out16, out32, self.extra_lvl_in_conv[0](top32) + self.extra_lvl_out_conv[0](out32)


class DistributionHead(nn.Module):
    """Per level two separable units, then classes and distances; no activation at the end.

    The published weights have one last convolution for both. Here they are two, which is the same function: each has
    an int8 scale of its own, and a network for other classes keeps what it knows of boxes.
    """

    def __init__(self, width: int, *, classes: int) -> None:
        super().__init__()
        self.cls_convs = nn.ModuleList(
            nn.Sequential(SeparableUnit(width, width), SeparableUnit(width, width)) for _ in STRIDES_PX
        )
        self.gfl_cls = nn.ModuleList(nn.Conv2d(width, classes, 1) for _ in STRIDES_PX)
        self.gfl_reg = nn.ModuleList(nn.Conv2d(width, SIDES * BINS, 1) for _ in STRIDES_PX)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Level, ...]:
        features = [units(x) for units, x in zip(self.cls_convs, maps, strict=True)]
        predictions = zip(self.gfl_cls, self.gfl_reg, features, strict=True)
        return tuple((classes(x), distances(x)) for classes, distances, x in predictions)


class NanoDetPlus(nn.Module):
    """NanoDet-Plus with raw heads; `decode_nanodet`, among the deployable's decoders, makes boxes and scores of them.

    The published weights want BGR on 0..255, less a mean and over a standard deviation, of pictures that are resized
    without keeping their aspect. The module that guides the assignment in training is `nanodet_guidance`'s.

    Args:
        channels: of the backbone's maps of strides 8, 16 and 32.
        width: channels of the path aggregation and of the head.
        classes: length of the class axis.
    """

    def __init__(self, *, channels: tuple[int, int, int], width: int, classes: int = 80) -> None:
        super().__init__()
        self.backbone = ShuffleNetV2(channels)
        self.fpn = GhostPathAggregation(channels, width)
        self.head = DistributionHead(width, classes=classes)

    @torch.no_grad()
    def start_with_low_scores(self, probability: float = 0.01) -> None:
        """Set every anchor's initial score: from 0.5, the first training steps would only lower it.

        Source: Lin et al. 2017, Focal Loss, arXiv:1708.02002, section 4.1.
        """
        for prediction in self.head.gfl_cls:
            prediction.bias.fill_(-math.log((1 - probability) / probability))  # type: ignore[operator]

    def forward(self, x: Tensor) -> tuple[Level, ...]:
        """Predict raw maps.

        Args:
            x: [N, 3, H, W] float, normalised as the weights want it; H and W are multiples of 32.

        Returns:
            For strides 8, 16, 32, 64: class logits [N, C, h, w]; logits of the distances from a cell's point to the
            box's left, top, right and bottom, [N, 4 x 8, h, w], each over 0 to 7 strides.
        """
        levels: tuple[Level, ...] = self.head(self.fpn(self.backbone(x)))
        return levels


def depthwise(channels: int, kernel: int, *, stride: int = 1) -> nn.Conv2d:
    """Depthwise convolution without bias; keeps the size, or halves it (rounded up)."""
    return nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)


def interleaved(x: Tensor) -> Tensor:
    """The channels of the first half and of the second by turns (ShuffleNetV2's channel shuffle in two groups)."""
    return torch.unflatten(x, 1, (2, x.shape[1] // 2)).transpose(1, 2).flatten(1, 2)


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear")
