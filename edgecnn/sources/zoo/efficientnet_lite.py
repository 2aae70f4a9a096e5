"""EfficientNet-Lite 0 to 4: image classification without squeeze-and-excitation, with ReLU6.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
arXiv:1905.11946; the lite variants and their scaling after TensorFlow's reference (tensorflow/tpu,
`models/official/efficientnet/lite/efficientnet_lite_builder.py`); attribute names after the PyPI package
efficientnet-lite-pytorch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive blocks of one width; only the first one has the stride.

    Attributes:
        repeats, channels: before scaling.
        expansion: hidden channels per input channel.
    """

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STEM_CHANNELS = 32
HEAD_CHANNELS = 1280
STAGES = (
    Stage(repeats=1, kernel=3, stride=1, expansion=1, channels=16),
    Stage(repeats=2, kernel=3, stride=2, expansion=6, channels=24),
    Stage(repeats=2, kernel=5, stride=2, expansion=6, channels=40),
    Stage(repeats=3, kernel=3, stride=2, expansion=6, channels=80),
    Stage(repeats=3, kernel=5, stride=1, expansion=6, channels=112),
    Stage(repeats=4, kernel=5, stride=2, expansion=6, channels=192),
    Stage(repeats=1, kernel=3, stride=1, expansion=6, channels=320),
)

FrameSize = tuple[int, int]
"""Height and width in pixels."""


class InvertedResidual(nn.Module):
    """Expansion (1x1), depthwise convolution, projection (1x1); a shortcut where the shape is kept."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int, stride: int, expansion: int, frame_px: FrameSize
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = batch_norm(hidden)
        self.pad, padding = same_padding(kernel, stride, frame_px)
        self._depthwise_conv = nn.Conv2d(hidden, hidden, kernel, stride, padding, groups=hidden, bias=False)
        self._bn1 = batch_norm(hidden)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = batch_norm(outputs)
        self.act = nn.ReLU6()
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self.act(self._bn1(self._depthwise_conv(self.pad(y))))
        y = self._bn2(self._project_conv(y))
        return x + y if self.shortcut else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite classifier.

    TensorFlow's "SAME" padding depends on the size of the frame, so the frame is fixed at construction and
    the graph holds plain convolutions: with their own padding where it is symmetric, behind a ZeroPad2d where
    not. The reference's stochastic depth (training only) is left out.

    Args:
        width: multiplier of the channel counts, stem and head excepted.
        depth: multiplier of the repeats of a stage, the first and the last excepted.
        dropout: probability before the classifier, in training only.
        frame_px: height and width of the input.
        classes: length of the class axis.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        dropout: float = 0.2,
        frame_px: FrameSize = (224, 224),
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.frame_px = frame_px
        self.pad, padding = same_padding(3, 2, frame_px)
        self._conv_stem = nn.Conv2d(3, STEM_CHANNELS, 3, 2, padding, bias=False)
        self._bn0 = batch_norm(STEM_CHANNELS)
        size_px = strided(frame_px, 2)

        blocks: list[InvertedResidual] = []
        channels = STEM_CHANNELS
        for stage in STAGES:
            fixed = stage is STAGES[0] or stage is STAGES[-1]
            outputs = scaled_channels(stage.channels, width)
            for repeat in range(stage.repeats if fixed else math.ceil(depth * stage.repeats)):
                stride = stage.stride if repeat == 0 else 1
                blocks.append(
                    InvertedResidual(
                        channels,
                        outputs,
                        kernel=stage.kernel,
                        stride=stride,
                        expansion=stage.expansion,
                        frame_px=size_px,
                    )
                )
                size_px = strided(size_px, stride)
                channels = outputs
        self._blocks = nn.Sequential(*blocks)

        self._conv_head = nn.Conv2d(channels, HEAD_CHANNELS, 1, bias=False)
        self._bn1 = batch_norm(HEAD_CHANNELS)
        self.act = nn.ReLU6()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self._fc = nn.Linear(HEAD_CHANNELS, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify.

        Args:
            x: [N, 3, H, W] float RGB of the frame's size, (pixel - 127) / 128, so about -1..1.

        Returns:
            Logits [N, classes].

        Raises:
            ValueError: x has another size than the frame, whose padding would then be wrong.
        """
        height, width = self.frame_px
        if x.shape[2] != height or x.shape[3] != width:
            raise ValueError(
                f"built for {height}x{width} px (height x width), got {tuple(x.shape[2:])}: "
                "build it with frame_px of that size"
            )
        x = self.act(self._bn0(self._conv_stem(self.pad(x))))
        x = self._blocks(x)
        x = self.act(self._bn1(self._conv_head(x)))
        logits: Tensor = self._fc(self.dropout(self.pool(x).flatten(1)))
        return logits


def batch_norm(channels: int) -> nn.BatchNorm2d:
    """Batch normalisation with the reference's constants (its momentum 0.99 counts the other way round)."""
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


def strided(size_px: FrameSize, stride: int) -> FrameSize:
    """Size after a "SAME" convolution."""
    return math.ceil(size_px[0] / stride), math.ceil(size_px[1] / stride)


def same_padding(kernel: int, stride: int, size_px: FrameSize) -> tuple[nn.Module, FrameSize]:
    """Split TensorFlow's "SAME" padding between an explicit pad and the convolution.

    Args:
        kernel, stride: of the convolution, equal on both axes.
        size_px: height and width of its input.

    Returns:
        The module to run before the convolution, and the convolution's own padding (height, width). One of
        the two does nothing.

    Source: TensorFlow's documentation of tf.nn, "Notes on padding": the odd pixel goes to the bottom and the
    right.
    """
    total = [
        max((out - 1) * stride + kernel - size, 0) for size, out in zip(size_px, strided(size_px, stride), strict=True)
    ]
    before = [pad // 2 for pad in total]
    if all(pad % 2 == 0 for pad in total):
        return nn.Identity(), (before[0], before[1])
    top, left = before
    return nn.ZeroPad2d((left, total[1] - left, top, total[0] - top)), (0, 0)


def scaled_channels(channels: int, width: float) -> int:
    """Scale to a multiple of 8, never losing more than a tenth."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8
