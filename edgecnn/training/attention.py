"""Attention maps of a network, which networks of any width can compare.

Source: Zagoruyko & Komodakis 2017, Paying More Attention to Attention, arXiv:1612.03928, section 3.1 and equation 2.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import FrozenBatchNorm2d

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm, FrozenBatchNorm2d)


def attention(features: Tensor) -> Tensor:
    """The squares of a map's values, summed over the channels, as a vector of length 1.

    Args:
        features: [batch, channels, h, w], any float type.

    Returns:
        float32 [batch, h × w]; zeros where the map is all zero.
    """
    return functional.normalize(features.float().square().sum(dim=1).flatten(1))


def attention_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor]) -> Tensor:
    """How much the student's attention differs: squared distance of the maps, averaged over frames and layers.

    The distance is squared, as in the authors' code, so that it has a gradient at zero.

    Args:
        student, teacher: name of a layer → its `attention`; the teacher's may have additional layers.

    Returns:
        A scalar, float32; 0 for equal maps, 2 at most.
    """
    distances = [(looked - teacher[name]).square().sum(dim=1).mean() for name, looked in student.items()]
    return torch.stack(distances).mean()


@contextmanager
def watching(network: nn.Module, layers: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Context in which the `attention` of these layers is recorded; the last call of one that is called again.

    Nothing is stored on the network, so copies of it are unaffected.
    """
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def look(layer: nn.Module, inputs: Any, answer: Tensor) -> None:
            # A copy, because later operations may change the output, which the gradient of the square needs.
            seen[name] = attention(answer.clone() if answer.requires_grad else answer)

        return look

    hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def layers_in_common(student: nn.Module, teacher: nn.Module, frame: Tensor) -> tuple[str, ...]:
    """The layers to compare: for each map size, the last one that both networks have by name.

    Only norms and activations are used: otherwise the last layer of a size in a detector or segmenter is a bare
    convolution that computes the answer, and answers are compared already. Maps of a single cell are skipped, because
    they have no positions, and maps with another aspect ratio than the frame's, whose axes are not the expected ones.

    Args:
        student, teacher: not changed; the order is the student's.
        frame: float32 [1, 3, height, width].
    """
    theirs = _map_sizes(teacher, frame)
    last = {size: name for name, size in _map_sizes(student, frame).items() if theirs.get(name) == size}
    return tuple(name for size, name in last.items() if size != (1, 1))


def _map_sizes(network: nn.Module, frame: Tensor) -> dict[str, tuple[int, int]]:
    """Norms and activations → height and width of their output, in the order of their last call."""
    sizes: dict[str, tuple[int, int]] = {}

    def keep(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def look(layer: nn.Module, inputs: Any, answer: Any) -> None:
            sizes.pop(name, None)
            if isinstance(answer, Tensor) and answer.ndim == 4 and _is_map_of(frame, answer):
                sizes[name] = (answer.shape[2], answer.shape[3])

        return look

    chosen = [(name, layer) for name, layer in network.named_modules() if _shows_features(layer)]
    hooks = [layer.register_forward_hook(keep(name)) for name, layer in chosen]
    try:
        with answering(network):
            network(frame)
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


def _shows_features(layer: nn.Module) -> bool:
    return isinstance(layer, _NORMS) or type(layer).__module__ == nn.ReLU.__module__


def _is_map_of(frame: Tensor, answer: Tensor) -> bool:
    """Whether its last two axes are height and width; each may have been rounded."""
    height, width = answer.shape[2:]
    return abs(width - height * frame.shape[3] / frame.shape[2]) <= 1


@contextmanager
def answering(network: nn.Module) -> Iterator[None]:
    """Context without gradients and in evaluation mode; each module's mode is restored at the end."""
    modes = [(layer, layer.training) for layer in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for layer, mode in modes:
            layer.training = mode
