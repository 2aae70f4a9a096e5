"""ESPNetv2 semantic segmentation.

Source: Mehta et al., "ESPNetv2: A Light-weight, Power Efficient, and General Purpose Convolutional Neural
Network", arXiv:1811.11431; the decoder (efficient pyramid pooling), the channel table and the attribute names
after the reference implementation (sacmehta/EdgeNets, `model/segmentation/espnetv2.py`, `nn_layers`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

BRANCHES = 4
REINFORCEMENT_CHANNELS = 3
LEVEL3_REPEATS, LEVEL4_REPEATS = 3, 7
# Dilations of the four branches, where the paper limits the receptive field to 13, 11 and 9 pixels or to 7.
WIDE_DILATIONS = (1, 2, 3, 4)
LIMITED_DILATIONS = (1, 1, 2, 3)
PYRAMID_SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)
PYRAMID_MIN_PX = 5


class ConvNorm(nn.Module):
    """Convolution without bias, batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.conv(x))
        return y


class ConvNormAct(nn.Module):
    """Convolution without bias, batch normalisation, PReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(self.conv(x)))
        return y


class NormAct(nn.Module):
    """Batch normalisation, PReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.act = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.bn(x))
        return y


class DilatedDepthwise(nn.Module):
    """3x3 depthwise convolution alone (its normalisation comes after the concatenation)."""

    def __init__(self, channels: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            channels, channels, 3, stride, padding=dilation, dilation=dilation, groups=channels, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class Eesp(nn.Module):
    """Extremely efficient spatial pyramid: reduce, split into dilated branches, sum up, merge (figure 1).

    With stride 1 the input is added and the last activation applied; with stride 2 both are left to
    DownSampler, though the weights hold that activation.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        branch = outputs // BRANCHES
        self.proj_1x1 = ConvNormAct(inputs, branch, 1, groups=BRANCHES)
        self.spp_dw = nn.ModuleList(
            DilatedDepthwise(branch, stride=stride, dilation=dilation) for dilation in dilations
        )
        self.conv_1x1_exp = ConvNorm(outputs, outputs, 1, groups=BRANCHES)
        self.br_after_cat = NormAct(outputs)
        self.module_act = nn.PReLU(outputs)
        self.keeps_size = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.proj_1x1(x)
        fused: list[Tensor] = []
        for branch in self.spp_dw:
            y: Tensor = branch(reduced)
            # Hierarchical feature fusion: each branch adds the one before, against gridding artefacts.
            fused.append(y + fused[-1] if fused else y)
        merged: Tensor = self.conv_1x1_exp(self.br_after_cat(torch.cat(fused, dim=1)))
        if self.keeps_size:
            merged = self.module_act(merged + x)
        return merged


class DownSampler(nn.Module):
    """Halves the resolution: average pool beside a strided Eesp, plus a projection of the shrunken image."""

    def __init__(self, inputs: int, outputs: int, *, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.eesp = Eesp(inputs, outputs - inputs, stride=2, dilations=dilations)
        self.avg = halving_pool()
        self.inp_reinf = nn.Sequential(
            ConvNormAct(3, REINFORCEMENT_CHANNELS, 3), ConvNorm(REINFORCEMENT_CHANNELS, outputs, 1)
        )
        self.act = nn.PReLU(outputs)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """Halve x, given the image [N, 3, ceil(h / 2), ceil(w / 2)] already pooled to the output's size."""
        y: Tensor = self.act(torch.cat((self.avg(x), self.eesp(x)), dim=1) + self.inp_reinf(image))
        return y


class Encoder(nn.Module):
    """Levels 1 to 4 of the ImageNet network; returns the maps of strides 2, 4, 8 and 16."""

    def __init__(self, channels: tuple[int, int, int, int]) -> None:
        super().__init__()
        level1, level2, level3, level4 = channels
        self.level1 = ConvNormAct(3, level1, 3, stride=2)
        self.level2_0 = DownSampler(level1, level2, dilations=WIDE_DILATIONS)
        self.level3_0 = DownSampler(level2, level3, dilations=WIDE_DILATIONS)
        self.level3 = nn.Sequential(
            *(Eesp(level3, level3, stride=1, dilations=WIDE_DILATIONS) for _ in range(LEVEL3_REPEATS))
        )
        self.level4_0 = DownSampler(level3, level4, dilations=WIDE_DILATIONS)
        self.level4 = nn.Sequential(
            *(Eesp(level4, level4, stride=1, dilations=LIMITED_DILATIONS) for _ in range(LEVEL4_REPEATS))
        )
        self.pool = halving_pool()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        # The reference pools the image anew at each level until the sizes agree; one chain gives the same.
        quarter = self.pool(self.pool(x))
        eighth = self.pool(quarter)
        sixteenth = self.pool(eighth)

        stride2 = self.level1(x)
        stride4 = self.level2_0(stride2, quarter)
        stride8 = self.level3(self.level3_0(stride4, eighth))
        stride16 = self.level4(self.level4_0(stride8, sixteenth))
        return stride2, stride4, stride8, stride16


class DecoderUnit(nn.Module):
    """Convolution without bias, batch normalisation, PReLU, under the decoder's names."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, groups: int = 1) -> None:
        super().__init__()
        self.cbr = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs),
            nn.PReLU(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cbr(x)
        return y


class DecoderNormAct(nn.Module):
    """Batch normalisation, PReLU, under the decoder's names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.br = norm_act(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.br(x)
        return y


class ChannelShuffle(nn.Module):
    """Interleaves groups of channels: [g, c] order becomes [c, g]. At most four axes, for TFLite."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.unflatten(x.flatten(2), 1, (self.groups, -1))
        return rows.transpose(1, 2).reshape(x.shape)


class PyramidPooling(nn.Module):
    """Efficient pyramid pooling: depthwise convolutions at several scales of the same map, merged."""

    def __init__(self, inputs: int, hidden: int, outputs: int, *, last: bool = False) -> None:
        super().__init__()
        scales = len(PYRAMID_SCALES)
        self.projection_layer = DecoderUnit(inputs, hidden, 1)
        self.stages = nn.ModuleList(
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False) for _ in range(scales)
        )
        self.merge_layer = nn.Sequential(
            DecoderNormAct(hidden * scales),
            ChannelShuffle(scales),
            DecoderUnit(hidden * scales, hidden, 3, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=last),
        )
        self.br: nn.Module = nn.Identity() if last else DecoderNormAct(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.projection_layer(x)
        height, width = int(x.shape[2]), int(x.shape[3])
        maps: list[Tensor] = []
        for scale, stage in zip(PYRAMID_SCALES, self.stages, strict=True):
            size_px = (
                max(math.ceil(height * scale), PYRAMID_MIN_PX),
                max(math.ceil(width * scale), PYRAMID_MIN_PX),
            )
            if scale > 1.0:
                maps.append(average_to(stage(resize(x, size_px)), (height, width)))
            elif scale < 1.0:
                maps.append(resize(stage(average_to(x, size_px)), (height, width)))
            else:
                maps.append(stage(x))
        y: Tensor = self.br(self.merge_layer(torch.cat(maps, dim=1)))
        return y


class GatedProjection(nn.Module):
    """3x3 grouped projection of an encoder map, scaled per channel by a gate from its global average."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.wt_layer = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(inputs, outputs, 1, bias=False), nn.Sigmoid())
        self.expansion_layer = DecoderUnit(inputs, outputs, 3, groups=math.gcd(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.expansion_layer(x) * self.wt_layer(x)
        return y


class EspNetV2Segmenter(nn.Module):
    """ESPNetv2 with its segmentation decoder.

    Args:
        scale: width of the encoder, 0.5 to 2.0 in steps of 1/16; published are 0.5, 1.0, 1.25, 1.5 and 2.0.
        classes: length of the class axis, background included.
        decoder_channels: base width of the decoder; 16 for Pascal VOC and Cityscapes, 32 for COCO.

    Raises:
        ValueError: scale is outside of the range or between the steps.
    """

    def __init__(self, *, scale: float, classes: int, decoder_channels: int = 16) -> None:
        super().__init__()
        level1, level2, level3, level4 = encoder_channels(scale)
        wide, middle, narrow = 4 * decoder_channels, 3 * decoder_channels, 2 * decoder_channels
        hidden = min(classes // 2, decoder_channels)

        self.base_net = Encoder((level1, level2, level3, level4))
        self.bu_dec_l1 = PyramidPooling(level4, hidden, wide)
        self.bu_dec_l2 = PyramidPooling(wide, hidden, middle)
        self.bu_dec_l3 = PyramidPooling(middle, hidden, narrow)
        self.bu_dec_l4 = PyramidPooling(narrow, hidden, classes, last=True)
        self.merge_enc_dec_l2 = GatedProjection(level3, wide)
        self.merge_enc_dec_l3 = GatedProjection(level2, middle)
        self.merge_enc_dec_l4 = GatedProjection(level1, narrow)
        self.bu_br_l2 = norm_act(wide)
        self.bu_br_l3 = norm_act(middle)
        self.bu_br_l4 = norm_act(narrow)

    def forward(self, x: Tensor) -> Tensor:
        """Segment.

        Args:
            x: [N, 3, H, W] float RGB, ImageNet mean and std on a 0..1 scale; H and W are multiples of 16.

        Returns:
            Logits [N, classes, H, W].
        """
        stride2, stride4, stride8, stride16 = self.base_net(x)
        y = self.bu_dec_l1(stride16)
        y = self.bu_dec_l2(self.bu_br_l2(self.merge_enc_dec_l2(stride8) + _double(y)))
        y = self.bu_dec_l3(self.bu_br_l3(self.merge_enc_dec_l3(stride4) + _double(y)))
        y = self.bu_dec_l4(self.bu_br_l4(self.merge_enc_dec_l4(stride2) + _double(y)))
        return _double(y)


def encoder_channels(scale: float) -> tuple[int, int, int, int]:
    """Channels at strides 2, 4, 8 and 16.

    Raises:
        ValueError: scale is outside of 0.5..2.0, or its width does not split into the four branches.
    """
    width = 64 * scale
    if not 0.5 <= scale <= 2.0 or width % BRANCHES:
        raise ValueError(f"scale must be 0.5 to 2.0 in steps of {BRANCHES}/64, got {scale}")
    stem = 16 if scale < 1.0 else 32
    return stem, int(width), int(2 * width), int(4 * width)


def norm_act(channels: int) -> nn.Sequential:
    """Batch normalisation and PReLU."""
    return nn.Sequential(nn.BatchNorm2d(channels), nn.PReLU(channels))


def halving_pool() -> nn.AvgPool2d:
    """Average over 3x3 at stride 2; the zeros of the border count, as in the reference."""
    return nn.AvgPool2d(3, stride=2, padding=1)


def resize(x: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Bilinear, corners aligned, as everywhere in the reference."""
    return functional.interpolate(x, size_px, mode="bilinear", align_corners=True)


def average_to(x: Tensor, size_px: tuple[int, int]) -> Tensor:
    """Pool adaptively to a fixed size, in operators that every back end has.

    Args:
        x: [N, C, h, w].
        size_px: height and width of the result.

    Returns:
        [N, C, *size_px], equal to torch's adaptive_avg_pool2d, which exporters unroll into hundreds of
        gathers where the sizes do not divide. There the windows are either of one length (a pool at stride 1,
        then a pick) or not (a product with a constant matrix on either side).
    """
    height, width = int(x.shape[2]), int(x.shape[3])
    rows, columns = average_windows(height, size_px[0]), average_windows(width, size_px[1])
    row_lengths, column_lengths = window_lengths(rows), window_lengths(columns)
    if len(row_lengths) > 1 or len(column_lengths) > 1:
        return averaging_matrix(rows, height, x) @ (x @ averaging_matrix(columns, width, x).T)

    (row_length,), (column_length,) = row_lengths, column_lengths
    kernel = (row_length, column_length)
    if (height, width) == (row_length * size_px[0], column_length * size_px[1]):
        return functional.avg_pool2d(x, kernel)
    pooled = functional.avg_pool2d(x, kernel, stride=1)
    top = torch.tensor([start for start, _ in rows], device=x.device)
    left = torch.tensor([start for start, _ in columns], device=x.device)
    return pooled.index_select(2, top).index_select(3, left)


def average_windows(length: int, count: int) -> list[tuple[int, int]]:
    """Start and end of each window of torch's adaptive pooling along one axis."""
    return [(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def window_lengths(windows: list[tuple[int, int]]) -> set[int]:
    """The distinct lengths of windows."""
    return {end - start for start, end in windows}


def averaging_matrix(windows: list[tuple[int, int]], length: int, like: Tensor) -> Tensor:
    """[len(windows), length] matrix whose product with a column averages each window."""
    rows = [[1.0 / (end - start) if start <= i < end else 0.0 for i in range(length)] for start, end in windows]
    return torch.tensor(rows, dtype=like.dtype, device=like.device)


def _double(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
