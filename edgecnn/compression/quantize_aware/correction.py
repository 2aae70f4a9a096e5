"""Takes from each layer's bias what rounding adds to the mean of its channels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from edgecnn.compression.quantize_aware.layers import RoundingConv2d, RoundingLinear
from edgecnn.compression.quantize_aware.placement import LayerPlace


@torch.no_grad()
def correct_means(rounding: nn.Module, plain: nn.Module, x: Tensor, places: Mapping[str, LayerPlace]) -> None:
    """Give the layers of a network that rounds the mean output, channel by channel, that they have without rounding.

    One layer after the other, as they run, so that each makes up for those before it. A layer without a bias and
    without a batch norm that has one stays as it is.
    Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, section 4.2 and
    its appendix on empirical correction.

    Args:
        rounding: as `make_quantize_aware` makes it of `plain`; its biases are changed.
        plain: is not changed.
        x: float32 [batch, 3, height, width], normalised: all frames in one batch.
        places: the layers that round.
    """
    wanted: dict[str, Tensor] = {}

    def remember(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def look(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            wanted[name] = _channel_means(layer, output)

        return look

    def correct(name: str) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def shift(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            assert isinstance(layer, RoundingConv2d | RoundingLinear)
            bias = layer.shift
            if bias is None:
                return output
            # Before the range that it writes through: that cuts what the next activation would cut.
            bias += wanted[name] - _channel_means(layer, layer.computed(*inputs))
            return layer.forward(*inputs)

        return shift

    reference = copy.deepcopy(plain).eval()
    with ExitStack() as hooks:
        for name, place in places.items():
            layer = rounding.get_submodule(name)
            norm = place.norm if isinstance(layer, RoundingConv2d) and layer.norm else name
            for handle in (
                reference.get_submodule(norm).register_forward_hook(remember(name)),
                layer.register_forward_hook(correct(name)),
            ):
                hooks.callback(handle.remove)
        reference(x)
        rounding(x)


def _channel_means(layer: nn.Module, output: Tensor) -> Tensor:
    """Float32 [channels]."""
    return output.mean(dim=(0, 2, 3)) if output.ndim == 4 else output.flatten(0, -2).mean(dim=0)

