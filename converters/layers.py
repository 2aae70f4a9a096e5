"""Records the torch network's layers with names, multiply-adds and fingerprints to find them in every format."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from edgecnn.bundle import LayerRanges, LayerRecord
from edgecnn.sources.operators import is_convolution, is_matrix_product, weights_of


def weights_fingerprint(weights: NDArray[np.float32]) -> str:
    """A fingerprint that is equal for the same float32 weights in any layout: formats differ only in axis order."""
    ordered = np.sort(np.ascontiguousarray(weights, np.float32), axis=None)
    ordered += 0.0  # -0 and 0 are equal but have two bit patterns
    return hashlib.sha256(ordered.tobytes()).hexdigest()[:16]


def record_layers(
    deployable: nn.Module, example: Tensor, learned: Mapping[str, LayerRanges] | None = None
) -> tuple[LayerRecord, ...]:
    """Every convolution and matrix product with weights, in the order of execution; each once, even if it runs twice.

    They are found by running the network, so functional calls and exported programs work too.

    Args:
        deployable: the wrapped network; its parameters name the layers.
        example: one frame, uint8 [1, height, width, 3].
        learned: ranges of layers, if the network was trained for int8.
    """
    with torch.no_grad(), _Recorder(deployable) as recorder:
        outputs = deployable(example)
    heads = {name for output in outputs for name in recorder.last_layers(output)}
    ranges = learned or {}
    return tuple(
        msgspec.structs.replace(layer, head=layer.name in heads, learned=ranges.get(layer.name))
        for layer in recorder.layers.values()
    )


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Watches every operation of a run: its layer, and the layers that a tensor comes from."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        tensors = [*network.named_parameters(), *network.named_buffers()]
        self._names = {tensor.data_ptr(): name for name, tensor in tensors if tensor.numel()}
        self._last: dict[int, frozenset[str]] = {}
        self._alive: list[Tensor] = []  # keeps tensors alive, so that no id() is used twice
        self.layers: dict[str, LayerRecord] = {}

    def last_layers(self, tensor: Tensor) -> frozenset[str]:
        """The layers that a tensor comes from, with no other layer in between."""
        return self._last.get(id(tensor), frozenset())

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = function(*args, **(kwargs or {}))
        layer = self._layer(str(function), args, output)
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        last = frozenset({layer}) if layer else frozenset[str]().union(*map(self.last_layers, inputs))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._last[id(tensor)] = last
                self._alive.append(tensor)
        return output

    def _layer(self, function: str, args: Any, output: Any) -> str | None:
        """Name of the layer that this operation belongs to, which is recorded; None where there is none."""
        if is_convolution(function):
            return self._record(args[1], _kind(args), _convolution_macs(args, output))
        if is_matrix_product(function):
            weights = weights_of(function, args)
            if weights.data_ptr() in self._names:  # otherwise both factors are activations
                return self._record(weights, "linear", output.numel() * args[1].shape[-1])
        return None

    def _record(self, weights: Tensor, kind: str, macs: int) -> str:
        known = self._names.get(weights.data_ptr())
        name = known.removeprefix("network.").removesuffix(".weight") if known else f"{kind} {len(self.layers)}"
        mark = weights_fingerprint(weights.detach().numpy())
        earlier = self.layers[name].macs if name in self.layers else 0
        self.layers[name] = LayerRecord(name=name, kind=kind, macs=earlier + macs, weights=mark)
        return name


def _kind(args: Any) -> str:
    weights, transposed, groups = args[1], bool(args[6]) if len(args) > 6 else False, args[8] if len(args) > 8 else 1
    if transposed:
        return "transposed"
    return "depthwise" if groups > 1 and weights.shape[1] == 1 else "convolution"


def _convolution_macs(args: Any, output: Tensor) -> int:
    each = math.prod(args[1].shape[1:])
    return int((args[0] if _kind(args) == "transposed" else output).numel() * each)
