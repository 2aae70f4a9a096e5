"""Replaces activations that quantize badly."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from edgecnn.errors import SourceError, UnknownNameError

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.sources.model import TrainedModel

REPLACEMENTS = ("relu", "relu6")


def replace_activations(model: TrainedModel, by: str) -> TrainedModel:
    """The network with ReLU or ReLU6 instead of SiLU, hard-swish, GELU, Mish or ELU.

    Those have a small negative tail, for which int8 convolutions, whose output is rounded before the activation, use up
    levels that the activation almost discards; ReLU's range starts at zero. The network gives other answers
    until it is trained with them: fine-tune it (its weights load under the same names), then convert.

    Args:
        model: not changed.
        by: "relu" or "relu6".

    Raises:
        UnknownNameError: an unknown activation.
        SourceError: the network has none of those as modules (functional calls cannot be replaced from outside).
    """
    from torch import nn

    new_class = {"relu": nn.ReLU, "relu6": nn.ReLU6}.get(by)
    if new_class is None:
        raise UnknownNameError("replacement for activations", by, REPLACEMENTS)
    replaceable = (nn.SiLU, nn.Hardswish, nn.GELU, nn.Mish, nn.ELU)
    module = copy.deepcopy(model.module)
    count, kinds = 0, set()
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, replaceable):
                setattr(parent, name, new_class())
                kinds.add(type(child).__name__)
                count += 1
    if not count:
        there = sorted({type(child).__name__ for child in module.modules() if _is_activation(child)})
        raise SourceError(
            f"{model.name} has no SiLU, Hardswish, GELU, Mish or ELU module to replace; its activations are "
            f"{', '.join(there) or 'none, or functional calls'}"
        )
    warning = (
        f"{count} activations ({', '.join(sorted(kinds))}) were replaced by {new_class.__name__}: unless the weights "
        "were trained that way, the network gives other answers; fine-tune it before use"
    )
    blueprint = model.blueprint and msgspec.structs.replace(model.blueprint, activations=by)
    return replace(model, module=module, blueprint=blueprint, warnings=(*model.warnings, warning), ranges={})


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ == "torch.nn.modules.activation"
