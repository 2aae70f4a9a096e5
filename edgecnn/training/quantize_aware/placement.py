"""Finds where an int8 artifact of a network will round, by running the network."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgecnn.sources.operators import is_convolution, is_matrix_product, read_by, weights_of

_RECTIFIERS = {"relu": (0.0, math.inf), "relu_": (0.0, math.inf)}
_CLIPS = ("hardtanh", "hardtanh_", "clamp", "clamp_")


@dataclass
class LayerPlace:
    """Input and output of a layer.

    Attributes:
        reads: number of its input tensor; layers that read the same tensor have the same number.
        from_layer: the layer whose rounded output that is; "" where an operation lies in between.
        from_frame: whether no layer lies between it and the frame.
        norm: name of the batch normalisation of its output; "" for none.
        bounds: bounds of the ReLU or ReLU6 that is its output's only reader.
    """

    reads: int
    from_layer: str
    from_frame: bool
    norm: str = ""
    bounds: tuple[float, float] = (-math.inf, math.inf)


@dataclass
class _Call:
    """One output of an operation."""

    first: bool
    inputs: Sequence[int]
    output: int
    layer: str = ""
    norm: str = ""
    bounds: tuple[float, float] | None = None


@dataclass
class _Tensors:
    """Numbers for tensors; keeps them alive, so that no id() is used twice."""

    numbers: dict[int, int] = field(default_factory=dict)
    alive: list[Tensor] = field(default_factory=list)

    def of(self, tensor: Tensor, *, new: bool = False) -> int:
        if new or id(tensor) not in self.numbers:
            self.numbers[id(tensor)] = len(self.alive)
            self.alive.append(tensor)
        return self.numbers[id(tensor)]


def find_places(network: nn.Module, x: Tensor) -> dict[str, LayerPlace]:
    """Every convolution and matrix product that runs once, by its module's name, in the order of execution.

    Args:
        network: in evaluation mode.
        x: float32 [batch, 3, height, width], normalised.
    """
    with torch.no_grad(), _Watcher(network) as watcher:
        network(x)
    return _places(watcher.calls)


class _Watcher(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operation of a run."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        named = [*network.named_parameters(), *network.named_buffers()]
        self._names = {tensor.data_ptr(): name for name, tensor in named if tensor.numel()}
        self._tensors = _Tensors()
        self.calls: list[_Call] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = [self._tensors.of(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        output = function(*args, **(kwargs or {}))
        leaves = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        name = str(function)
        for place, leaf in enumerate(leaves):
            call = _Call(not place, inputs, self._tensors.of(leaf, new=True))
            if call.first:
                self._describe(call, name, args)
            self.calls.append(call)
        return output

    def _describe(self, call: _Call, name: str, args: Any) -> None:
        kind = name.split(".")[1]
        if is_convolution(name) or is_matrix_product(name):
            call.layer = self._names.get(weights_of(name, args).data_ptr(), "").removesuffix(".weight")
            call.inputs = [self._tensors.of(read_by(name, args))]
        elif "batch_norm" in kind and len(args) > 3 and isinstance(args[3], Tensor):
            call.norm = self._names.get(args[3].data_ptr(), "").removesuffix(".running_mean")
            call.inputs = [self._tensors.of(args[0])]
        elif kind in _RECTIFIERS:
            call.bounds = _RECTIFIERS[kind]
        elif kind in _CLIPS and all(isinstance(end, int | float) for end in args[1:3]):
            low, high = (float(end) for end in (args[1:3] if len(args) > 2 else (-1, 1)))
            call.bounds = (low, high) if low == 0 else None


def _places(calls: Sequence[_Call]) -> dict[str, LayerPlace]:
    readers = Counter(number for call in calls if call.first for number in call.inputs)
    runs = Counter(call.layer for call in calls if call.layer)
    places: dict[str, LayerPlace] = {}
    made_by: dict[int, str] = {}  # tensor → the layer whose (normalised, clipped) output it is
    after_layer: set[int] = set()
    for call in calls:
        source = made_by.get(call.inputs[0], "") if call.inputs else ""
        if call.layer or not after_layer.isdisjoint(call.inputs):
            after_layer.add(call.output)
        if call.layer and runs[call.layer] == 1:
            reads = call.inputs[0]
            places[call.layer] = LayerPlace(reads, source, reads not in after_layer)
            made_by[call.output] = call.layer
        elif source and readers[call.inputs[0]] == 1 and call.norm and not places[source].norm:
            places[source].norm = call.norm
            made_by[call.output] = source
        elif source and readers[call.inputs[0]] == 1 and call.bounds is not None:
            places[source].bounds = call.bounds
            made_by[call.output] = source
    return places
