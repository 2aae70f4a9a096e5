"""Estimates the importance of each channel, with Torch-Pruning's estimators."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import torch
import torch_pruning
from numpy.typing import NDArray
from torch import Tensor, nn

from edgecnn.errors import SpecError, UnknownNameError

Importance: TypeAlias = Literal["magnitude", "batch-norm", "taylor"]
IMPORTANCES: tuple[str, ...] = get_args(Importance)
Score: TypeAlias = "Callable[[Any], NDArray[np.float64] | None]"
"""From a group of Torch-Pruning: [channels of its first layer], 1 on average; None where there is no estimate."""


def scorer(importance: str) -> Score:
    """An estimator by name; layers that are pruned together are scored together, by their mean.

    "magnitude": squared weights, L2 (Li et al., "Pruning Filters for Efficient ConvNets", arXiv:1608.08710, has L1).
    "batch-norm": scales of the batch normalisations (Liu et al., "Learning Efficient Convolutional Networks through
    Network Slimming", arXiv:1708.06519).
    "taylor": the first order term of the loss, |weight · gradient| summed over a channel (after Molchanov et al.,
    "Importance Estimation for Neural Network Pruning", CVPR 2019).

    Raises:
        UnknownNameError: an unknown name.
    """
    if importance not in IMPORTANCES:
        raise UnknownNameError("importance", importance, IMPORTANCES)
    kinds: dict[str, Any] = {"magnitude": _Magnitude, "batch-norm": _BatchNorm, "taylor": _Taylor}
    estimate = kinds[importance](normalizer=None)

    def score(group: Any) -> NDArray[np.float64] | None:
        raw = estimate(group)
        if raw is None:
            return None
        channels: NDArray[np.float64] = raw[: len(group[0].idxs)].double().cpu().numpy()
        mean = float(channels.mean())
        return channels / mean if mean > 0 else channels

    return score


class _WholeGroup:
    """Sums over as many channels as the group has, where its first scored layer has only some of them."""

    def _reduce(self, parts: list[Tensor], channels: list[list[int]]) -> Tensor:
        wanted = 1 + max(max(each) for each in channels)
        short = max(wanted - len(parts[0]), 0)
        padded = torch.cat((parts[0], parts[0].new_zeros(short)))
        reduced: Tensor = super()._reduce([padded, *parts[1:]], [[*channels[0], *[0] * short], *channels[1:]])  # type: ignore[misc]
        return reduced


class _Magnitude(_WholeGroup, torch_pruning.importance.GroupMagnitudeImportance):  # type: ignore[misc]
    pass


class _BatchNorm(_WholeGroup, torch_pruning.importance.BNScaleImportance):  # type: ignore[misc]
    pass


class _Taylor(_WholeGroup, torch_pruning.importance.GroupTaylorImportance):  # type: ignore[misc]
    pass


def take_gradients(module: nn.Module, gradients: Callable[[nn.Module], None] | None) -> None:
    """Give a network's parameters the gradients for "taylor", in place; zeros where there are none.

    Args:
        module: in evaluation mode; only its parameters' gradients change.
        gradients: runs the network that it gets (a copy) forward and backward on labelled batches.

    Raises:
        SpecError: no function was given, or it gave no gradients.
    """
    if gradients is None:
        raise SpecError('the importance "taylor" needs gradients: give a function that runs backward on some batches')
    asked = copy.deepcopy(module)
    with torch.enable_grad():
        gradients(asked)
    arrived = {name: parameter.grad for name, parameter in asked.named_parameters()}
    if not any(gradient is not None and gradient.any() for gradient in arrived.values()):
        raise SpecError(
            'the importance "taylor" needs gradients, but all are missing or zero: the function must '
            "call backward() on a loss of the network that it gets"
        )
    for name, parameter in module.named_parameters():
        gradient = arrived.get(name)
        parameter.grad = torch.zeros_like(parameter) if gradient is None else gradient.detach().clone()
