"""Reads from a TFLite file what quantization needs: operators, tensors, constants and the layers among them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import LayerRecord
from edgecnn.converters.layers import weights_fingerprint
from edgecnn.runners.litert.file import Operator, Tensor, read


@dataclass(frozen=True)
class OperandIndices:
    """Operand indices of an operator with weights (input, weights, bias), and the weights' axis of the outputs."""

    input: int
    weights: int
    bias: int
    output_axis: int


# Source: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec.
WITH_WEIGHTS = {
    "CONV_2D": OperandIndices(0, 1, 2, 0),
    "DEPTHWISE_CONV_2D": OperandIndices(0, 1, 2, 3),
    "TRANSPOSE_CONV": OperandIndices(2, 1, 3, 0),
    "FULLY_CONNECTED": OperandIndices(0, 1, 2, 0),
}


@dataclass(frozen=True)
class Graph:
    """The first (in our files, the only) subgraph."""

    operators: Sequence[Operator]
    tensors: Sequence[Tensor]

    @classmethod
    def read(cls, file: bytes | bytearray) -> Graph:
        """Parse a file's content; constants of a bytearray can be changed in place.

        Raises:
            MalformedFile: it cannot be parsed.
        """
        return cls(*read(file))

    @cached_property
    def producer(self) -> Mapping[int, Operator]:
        """Tensor → the operator that computes it."""
        return {tensor: operator for operator in self.operators for tensor in operator.outputs}

    @cached_property
    def readers(self) -> Mapping[int, Sequence[Operator]]:
        """Tensor → the operators that read it."""
        readers = defaultdict(list)
        for operator in self.operators:
            for tensor in dict.fromkeys(operator.inputs):
                readers[tensor].append(operator)
        return readers

    def activations(self, operator: Operator) -> tuple[int, ...]:
        """The operator's computed float inputs."""
        return tuple(t for t in operator.inputs if t >= 0 and self.is_activation(t))

    def is_activation(self, tensor: int) -> bool:
        """Whether a tensor is computed, in float32."""
        return self.tensors[tensor].data is None and self.tensors[tensor].dtype == "float32"

    def name_of(self, operator: Operator) -> str:
        """The name of the operator's first output, which is unique."""
        return self.tensors[operator.outputs[0]].name

    def weights(self, operator: Operator) -> NDArray[Any]:
        """An operator's weights; only for operators of WITH_WEIGHTS with constant weights."""
        data = self.tensors[operator.inputs[WITH_WEIGHTS[operator.kind].weights]].data
        assert data is not None
        return data

    def bias(self, operator: Operator) -> NDArray[Any] | None:
        """An operator's bias; None where it has none, or a computed one."""
        place = WITH_WEIGHTS[operator.kind].bias
        if place >= len(operator.inputs) or operator.inputs[place] < 0:
            return None
        return self.tensors[operator.inputs[place]].data

    def with_weights(self) -> Iterator[Operator]:
        """Operators with constant weights, in the order of execution."""
        for operator in self.operators:
            places = WITH_WEIGHTS.get(operator.kind)
            if places and self.tensors[operator.inputs[places.weights]].data is not None:
                yield operator

    def find_layers(self, layers: Sequence[LayerRecord]) -> dict[str, tuple[Operator, ...]]:
        """The operators of each torch layer, found by the weights' fingerprints, in the order of execution.

        Layers with equal weights are matched in order; where the counts differ, a layer runs several times, and the
        last layer gets the remaining operators.
        """
        wanted = defaultdict(list)
        for layer in layers:
            wanted[layer.weights].append(layer.name)
        seen: dict[str, int] = defaultdict(int)
        found: dict[str, list[Operator]] = defaultdict(list)
        for operator in self.with_weights():
            if self.weights(operator).dtype != np.float32:
                continue
            mark = weights_fingerprint(self.weights(operator))
            if mark in wanted:
                found[wanted[mark][min(seen[mark], len(wanted[mark]) - 1)]].append(operator)
                seen[mark] += 1
        return {name: tuple(operators) for name, operators in found.items()}
