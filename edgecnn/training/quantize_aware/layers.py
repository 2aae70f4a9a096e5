"""Convolutions and matrix products that round as an int8 artifact will, with unrounded trained weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecnn.training.quantize_aware.fake_quantize import LearnedRange, rounded_weights


class AbsorbedNorm(nn.Module):
    """A batch normalisation that the preceding convolution computes, with its present statistics.

    Its tensors keep their names, so that the network's weights load as before.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.eps = norm.eps

    def affine(self) -> tuple[Tensor, Tensor]:
        """Scale and shift, float32 [channels]."""
        mean, variance = self._buffers["running_mean"], self._buffers["running_var"]
        weight, bias = self._parameters["weight"], self._parameters["bias"]
        assert mean is not None and variance is not None
        scale = torch.rsqrt(variance + self.eps)
        scale = scale if weight is None else scale * weight
        shift = -mean * scale
        return scale, shift if bias is None else shift + bias

    @property
    def shift(self) -> Tensor | None:
        """The norm's bias, float32 [channels]; None where it has none."""
        return self._parameters["bias"]

    def forward(self, x: Tensor) -> Tensor:
        """Returns its input."""
        return x


class RoundingConv2d(nn.Conv2d):
    """A convolution with 8-bit weights, and ranges for input and output where it has them. Made by `make_rounding`."""

    reads: LearnedRange | None
    writes: LearnedRange | None
    norm: tuple[AbsorbedNorm, ...]  # a tuple, so that it is not registered as a submodule here

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height, width] in and out."""
        return _through(self.writes, self.computed(x))

    def computed(self, x: Tensor, *, round_weights: bool = True) -> Tensor:
        """The output before its range is applied."""
        weight, bias = self.weight, self.bias
        for norm in self.norm:
            scale, shift = norm.affine()
            weight = weight * scale[:, None, None, None]
            bias = shift if bias is None else bias * scale + shift
        weight = rounded_weights(weight) if round_weights else weight
        output: Tensor = self._conv_forward(_through(self.reads, x), weight, bias)
        return output

    @property
    def shift(self) -> Tensor | None:
        """The bias of its output, float32 [channels], to be changed in place; None where it has none."""
        return self.norm[-1].shift if self.norm else self.bias


class RoundingLinear(nn.Linear):
    """A linear layer with 8-bit weights, and a range for its input where it has one."""

    reads: LearnedRange | None
    writes: LearnedRange | None

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] → [..., outputs]."""
        return _through(self.writes, self.computed(x))

    def computed(self, x: Tensor, *, round_weights: bool = True) -> Tensor:
        """The output before its range is applied."""
        weight = rounded_weights(self.weight) if round_weights else self.weight
        return functional.linear(_through(self.reads, x), weight, self.bias)

    @property
    def shift(self) -> Tensor | None:
        """The bias of its output, float32 [outputs], to be changed in place; None where it has none."""
        return self.bias


def make_rounding(
    layer: nn.Module, *, reads: LearnedRange | None, writes: LearnedRange | None, norm: AbsorbedNorm | None
) -> None:
    """Turn a plain convolution or matrix product, in place, into one that rounds."""
    if isinstance(layer, nn.Conv2d):
        layer.__class__ = RoundingConv2d
        layer.norm = () if norm is None else (norm,)  # type: ignore[assignment]
    else:
        layer.__class__ = RoundingLinear
    layer.reads, layer.writes = reads, writes  # type: ignore[assignment]


def _through(values: LearnedRange | None, x: Tensor) -> Tensor:
    return x if values is None else values(x)
