"""YOLOX detection networks, nano to x, from one definition.

Source: Ge et al., "YOLOX: Exceeding YOLO Series in 2021", arXiv:2107.08430; layer layout, channel widths and
attribute names after the reference implementation (Megvii-BaseDetection/YOLOX, `yolox/models`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

Level = tuple[Tensor, Tensor, Tensor]
"""Raw maps of one stride: regression [N, 4, h, w], objectness [N, 1, h, w], classes [N, C, h, w]."""

STRIDES_PX = (8, 16, 32)


class ConvUnit(nn.Module):
    """Convolution without bias, batch normalisation, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        padding = kernel // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class SeparableUnit(nn.Module):
    """Depthwise ConvUnit followed by a pointwise one."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1) -> None:
        super().__init__()
        self.dconv = ConvUnit(inputs, inputs, kernel, stride=stride, groups=inputs)
        self.pconv = ConvUnit(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pconv(self.dconv(x))
        return y


def spatial_unit(inputs: int, outputs: int, *, depthwise: bool, stride: int = 1) -> ConvUnit | SeparableUnit:
    """Build the 3x3 unit of the chosen kind."""
    if depthwise:
        return SeparableUnit(inputs, outputs, 3, stride=stride)
    return ConvUnit(inputs, outputs, 3, stride=stride)


class Focus(nn.Module):
    """Stem: folds 2x2 pixels into channels, then a 3x3 ConvUnit at half the resolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = ConvUnit(4 * inputs, outputs, 3)

    def forward(self, x: Tensor) -> Tensor:
        # The weights expect the column-major order: top left, bottom left, top right, bottom right.
        top, bottom = x[:, :, ::2], x[:, :, 1::2]
        folded = torch.cat((top[..., ::2], bottom[..., ::2], top[..., 1::2], bottom[..., 1::2]), dim=1)
        y: Tensor = self.conv(folded)
        return y


class Bottleneck(nn.Module):
    """1x1 then 3x3 unit at constant width, with an optional shortcut around both."""

    def __init__(self, channels: int, *, shortcut: bool, depthwise: bool) -> None:
        super().__init__()
        self.conv1 = ConvUnit(channels, channels, 1)
        self.conv2 = spatial_unit(channels, channels, depthwise=depthwise)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.conv1(x))
        return x + y if self.shortcut else y


class CspStage(nn.Module):
    """Cross-stage partial block: half of the channels take the bottlenecks, half go around them."""

    def __init__(self, inputs: int, outputs: int, *, repeats: int, shortcut: bool, depthwise: bool) -> None:
        super().__init__()
        hidden = outputs // 2
        self.conv1 = ConvUnit(inputs, hidden, 1)
        self.conv2 = ConvUnit(inputs, hidden, 1)
        self.conv3 = ConvUnit(2 * hidden, outputs, 1)
        self.m = nn.Sequential(*(Bottleneck(hidden, shortcut=shortcut, depthwise=depthwise) for _ in range(repeats)))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv3(torch.cat((self.m(self.conv1(x)), self.conv2(x)), dim=1))
        return y


class SpatialPyramidPooling(nn.Module):
    """Stacks max pools of 5, 9 and 13 pixels beside the input.

    The larger pools are chains of the 5 pixel one, which is the same function at a third of the work.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = channels // 2
        self.conv1 = ConvUnit(channels, hidden, 1)
        self.conv2 = ConvUnit(4 * hidden, channels, 1)
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        pool5 = self.pool(x)
        pool9 = self.pool(pool5)
        pool13 = self.pool(pool9)
        y: Tensor = self.conv2(torch.cat((x, pool5, pool9, pool13), dim=1))
        return y


class CspDarknet(nn.Module):
    """Backbone; returns the feature maps of strides 8, 16 and 32 with 4, 8 and 16 times the base width."""

    def __init__(self, *, depth: float, width: float, depthwise: bool) -> None:
        super().__init__()
        base = int(width * 64)
        repeats = max(round(depth * 3), 1)

        def down(inputs: int) -> nn.Module:
            return spatial_unit(inputs, 2 * inputs, depthwise=depthwise, stride=2)

        def stage(channels: int, count: int, *, shortcut: bool = True) -> CspStage:
            return CspStage(channels, channels, repeats=count, shortcut=shortcut, depthwise=depthwise)

        self.stem = Focus(3, base)
        self.dark2 = nn.Sequential(down(base), stage(base * 2, repeats))
        self.dark3 = nn.Sequential(down(base * 2), stage(base * 4, repeats * 3))
        self.dark4 = nn.Sequential(down(base * 4), stage(base * 8, repeats * 3))
        self.dark5 = nn.Sequential(
            down(base * 8),
            SpatialPyramidPooling(base * 16),
            stage(base * 16, repeats, shortcut=False),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stride8 = self.dark3(self.dark2(self.stem(x)))
        stride16 = self.dark4(stride8)
        stride32 = self.dark5(stride16)
        return stride8, stride16, stride32


class PathAggregation(nn.Module):
    """Feature pyramid downwards, then path aggregation upwards (PAFPN); keeps the three strides."""

    def __init__(self, *, depth: float, width: float, depthwise: bool) -> None:
        super().__init__()
        narrow, middle, wide = level_channels(width)
        repeats = round(3 * depth)

        def stage(inputs: int, outputs: int) -> CspStage:
            return CspStage(inputs, outputs, repeats=repeats, shortcut=False, depthwise=depthwise)

        self.backbone = CspDarknet(depth=depth, width=width, depthwise=depthwise)
        self.lateral_conv0 = ConvUnit(wide, middle, 1)
        self.C3_p4 = stage(2 * middle, middle)
        self.reduce_conv1 = ConvUnit(middle, narrow, 1)
        self.C3_p3 = stage(2 * narrow, narrow)
        self.bu_conv2 = spatial_unit(narrow, narrow, depthwise=depthwise, stride=2)
        self.C3_n3 = stage(2 * narrow, middle)
        self.bu_conv1 = spatial_unit(middle, middle, depthwise=depthwise, stride=2)
        self.C3_n4 = stage(2 * middle, wide)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        stride8, stride16, stride32 = self.backbone(x)

        top32 = self.lateral_conv0(stride32)
        top16 = self.reduce_conv1(self.C3_p4(torch.cat((_double(top32), stride16), dim=1)))
        out8 = self.C3_p3(torch.cat((_double(top16), stride8), dim=1))
        out16 = self.C3_n3(torch.cat((self.bu_conv2(out8), top16), dim=1))
        out32 = self.C3_n4(torch.cat((self.bu_conv1(out16), top32), dim=1))
        return out8, out16, out32


class DecoupledHead(nn.Module):
    """Per level one branch for classes and one for boxes and objectness; no activation at the end."""

    def __init__(self, *, width: float, depthwise: bool, classes: int) -> None:
        super().__init__()
        hidden = int(256 * width)

        def branch() -> nn.Sequential:
            return nn.Sequential(*(spatial_unit(hidden, hidden, depthwise=depthwise) for _ in range(2)))

        def prediction(channels: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(hidden, channels, 1) for _ in STRIDES_PX)

        self.stems = nn.ModuleList(ConvUnit(channels, hidden, 1) for channels in level_channels(width))
        self.cls_convs = nn.ModuleList(branch() for _ in STRIDES_PX)
        self.reg_convs = nn.ModuleList(branch() for _ in STRIDES_PX)
        self.cls_preds = prediction(classes)
        self.reg_preds = prediction(4)
        self.obj_preds = prediction(1)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> tuple[Level, Level, Level]:
        levels: list[Level] = []
        for index, features in enumerate(maps):
            stem = self.stems[index](features)
            box_features = self.reg_convs[index](stem)
            class_features = self.cls_convs[index](stem)
            levels.append(
                (
                    self.reg_preds[index](box_features),
                    self.obj_preds[index](box_features),
                    self.cls_preds[index](class_features),
                )
            )
        return levels[0], levels[1], levels[2]


class Yolox(nn.Module):
    """YOLOX with raw heads; `decode_yolox`, among the deployable's decoders, turns them into boxes and scores.

    What the published weights want as pixels depends on the release, not on the architecture: the "legacy
    models" (release 0.0.1) want RGB, /255, ImageNet mean and std; those from 0.1.1rc0 on want BGR on 0..255.
    Both want the image in the top left corner of a frame of 114.

    Args:
        depth: multiplier of the number of bottlenecks in a stage.
        width: multiplier of the channel counts.
        depthwise: whether 3x3 convolutions are depthwise separable.
        classes: length of the class axis.
    """

    def __init__(self, *, depth: float, width: float, depthwise: bool, classes: int = 80) -> None:
        super().__init__()
        self.backbone = PathAggregation(depth=depth, width=width, depthwise=depthwise)
        self.head = DecoupledHead(width=width, depthwise=depthwise, classes=classes)

    @torch.no_grad()
    def start_with_low_scores(self, probability: float = 0.01) -> None:
        """Set every anchor's initial score: from 0.5, the first training steps would only lower it.

        Source: Lin et al. 2017, Focal Loss, arXiv:1708.02002, section 4.1.
        """
        for prediction in (*self.head.cls_preds, *self.head.obj_preds):
            prediction.bias.fill_(-math.log((1 - probability) / probability))

    def forward(self, x: Tensor) -> tuple[Level, Level, Level]:
        """Predict raw maps.

        Args:
            x: [N, 3, H, W] float, normalised as the weights want it; H and W are multiples of 32.

        Returns:
            For strides 8, 16, 32: regression [N, 4, h, w] (dx, dy in cells from the cell's top left corner,
            log width, log height in cells), objectness logits [N, 1, h, w], class logits [N, C, h, w].
        """
        levels: tuple[Level, Level, Level] = self.head(self.backbone(x))
        return levels


def level_channels(width: float) -> tuple[int, int, int]:
    """Channels of the feature maps of strides 8, 16 and 32."""
    return int(256 * width), int(512 * width), int(1024 * width)


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")
