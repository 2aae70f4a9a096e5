"""Records the inputs of a network's modules during a run; rewrites find a module's purpose from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


def record_inputs(network: nn.Module, x: Tensor, wanted: Callable[[nn.Module, Tensor], bool]) -> dict[str, Tensor]:
    """The input of each module, by the module's name.

    Args:
        network: is run once.
        x: its input.
        wanted: which modules and inputs to keep; keeping all of a large network's would need much memory.

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
    run_hooked(network, x, hooks)
    return {name: tensor for name, tensor in given.items() if calls[name] == 1}


def run_hooked(network: nn.Module, x: Tensor, hooks: Sequence[RemovableHandle]) -> None:
    """Run a network once without gradients, then remove the hooks that were registered for it."""
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
