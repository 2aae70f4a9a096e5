"""Corrects each layer's bias by the mean error of its rounded weights."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from edgecnn.training.quantize_aware.layers import RoundingConv2d, RoundingLinear


@torch.no_grad()
def correct_means(network: nn.Module, x: Tensor) -> None:
    """Correct biases so that each channel's mean output is that of the unrounded weights.

    Only the rounding of weights is corrected: values beyond the ranges are clipped on purpose, and correcting the mean
    for that would shift all other values. A layer without a bias, and without a batch norm with one, is not changed.
    Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, section 4.2, with
    means from pictures instead of those predicted from batch normalisation.

    Args:
        network: its biases are changed, one layer after the other, in the order of execution.
        x: float32 [batch, 3, height, width], normalised: all frames in one batch.
    """

    def correct(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        assert isinstance(layer, RoundingConv2d | RoundingLinear)
        bias = layer.shift
        if bias is None:
            return output
        added = layer.computed(*inputs) - layer.computed(*inputs, round_weights=False)
        bias -= added.mean(dim=(0, 2, 3)) if added.ndim == 4 else added.flatten(0, -2).mean(dim=0)
        corrected: Tensor = layer.forward(*inputs)
        return corrected

    with ExitStack() as hooks:
        for layer in network.modules():
            if isinstance(layer, RoundingConv2d | RoundingLinear):
                hooks.callback(layer.register_forward_hook(correct).remove)
        network(x)
