"""Traces a network's channels from layer to layer with Torch-Pruning's dependency graph.

Source: Fang et al., "DepGraph: Towards Any Structural Pruning", arXiv:2301.12900, and its package torch-pruning.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves
from torch_pruning.ops import OPTYPE

from edgecnn.pruning.layers import is_depthwise, pruner_of


def trace(module: nn.Module, x: Tensor, *, until: Sequence[nn.Module]) -> Any:
    """Torch-Pruning's DependencyGraph of a network.

    Args:
        module: in evaluation mode, with gradients required for all parameters.
        x: one frame, in the network's form.
        until: layers; operations after their outputs are not traced.
    """
    graph = _Graph()
    with warnings.catch_warnings(), _structure_only():
        warnings.simplefilter("ignore")
        graph.build_dependency(
            module, x, forward_fn=lambda network, frame: _outputs(network, frame, until), verbose=False
        )
    return graph


@contextmanager
def _structure_only() -> Iterator[None]:
    """Context in which torch records operations but forgets the values, which only gradients would need."""
    with torch.enable_grad(), saved_tensors_hooks(lambda _: None, lambda _: torch.empty(0)):
        yield


def answering_layers(module: nn.Module, x: Tensor) -> list[nn.Module]:
    """Convolutions and linear layers with no other one before the network's answer; depthwise ones don't count."""
    made_by: dict[Any, nn.Module] = {}

    def look(layer: nn.Module, _: Any, output: Tensor) -> None:
        made_by[output.grad_fn] = layer

    hooks = [part.register_forward_hook(look) for part in module.modules() if isinstance(part, _ConvNd | nn.Linear)]
    try:
        with _structure_only():
            answer = module(x)
    finally:
        for hook in hooks:
            hook.remove()
    found: dict[nn.Module, None] = {}
    pending = [leaf.grad_fn for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]
    seen = set()
    while pending:
        operation = pending.pop()
        if operation is None or operation in seen:
            continue
        seen.add(operation)
        layer = made_by.get(operation)
        if layer is not None:
            found[layer] = None
        if layer is None or is_depthwise(layer):
            pending.extend(earlier for earlier, _ in operation.next_functions)
    return list(found)


def _outputs(network: nn.Module, frame: Tensor, layers: Sequence[nn.Module]) -> list[Tensor]:
    """These layers' outputs for a frame: tracing starts here, so that no decoding after them is traced."""
    outputs: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, __, output: outputs.append(output)) for layer in layers]
    try:
        network(frame)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


class _Graph(torch_pruning.DependencyGraph):  # type: ignore[misc]
    """Does not trace channels through splits, nor through reshapes other than a flattening.

    Torch-Pruning fails at some of them (ShuffleNetV2), and its pruning around others no longer matches the numbers in
    the network's code. If such operations are ignored, the trace ends there, or `Check` finds the error.
    """

    def get_pruner_of_module(self, module: nn.Module) -> Any:
        return pruner_of(module) if isinstance(module, _ConvNd) else super().get_pruner_of_module(module)

    def _build_dependency(self, module2node: Mapping[Any, Any]) -> None:
        for node in module2node.values():
            if node.type in (OPTYPE.SPLIT, OPTYPE.UNBIND) or (
                node.type == OPTYPE.RESHAPE and not _flattens(node.grad_fn)
            ):
                node.type = OPTYPE.ELEMENTWISE
        super()._build_dependency(module2node)


def _flattens(operation: Any) -> bool:
    """[N, C, h, w] to [N, C · h · w]."""
    before = getattr(operation, "_saved_self_sym_sizes", ())
    after = operation._input_metadata[0].shape
    return len(before) == 4 and len(after) == 2 and after[1] == math.prod(before[1:])
