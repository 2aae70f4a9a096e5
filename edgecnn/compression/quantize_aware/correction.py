"""Takes from each layer's bias what rounding its weights adds to the mean of its channels."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from edgecnn.compression.quantize_aware.layers import RoundingConv2d, RoundingLinear


@torch.no_grad()
def correct_means(network: nn.Module, x: Tensor) -> None:
    """Give the layers of a network that rounds the mean output, channel by channel, of the weights as they were.

    Of the weights' rounding alone: what the ranges cut off is cut on purpose, and moving the mean back for it moves all
    that was not cut. A layer without a bias, and without a batch norm that has one, stays as it is.
    Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, section 4.2, with
    means seen in pictures instead of those that batch normalisation foretells.

    Args:
        network: its biases are changed, one layer after the other as they run.
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
