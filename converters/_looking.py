"""What the modules of a network are given when it answers: how rewritings find out what a module is for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn


def look_inside(network: nn.Module, x: Tensor, wanted: Callable[[nn.Module, Tensor], bool]) -> dict[str, Tensor]:
    """What each module is given, by its name.

    Args:
        network: is run once.
        x: its input.
        wanted: which modules and inputs to keep; all of a large network's would take much memory.

    Returns:
        Inputs of the modules that are called once, with one tensor.
    """
    given: dict[str, Tensor] = {}
    calls: dict[str, int] = {}

    def look(name: str, module: nn.Module, arguments: tuple[object, ...]) -> None:
        calls[name] = calls.get(name, 0) + 1
        if len(arguments) == 1 and isinstance(arguments[0], Tensor) and wanted(module, arguments[0]):
            given[name] = arguments[0].detach()

    hooks = [module.register_forward_pre_hook(partial(look, name)) for name, module in network.named_modules()]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: tensor for name, tensor in given.items() if calls[name] == 1}
