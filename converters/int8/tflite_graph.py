"""What a TFLite file holds, as far as quantizing asks: operators, tensors, constants, and the layers among them."""

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

_DTYPES = {0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8"}


@dataclass(frozen=True)
class Places:
    """Where an operator with weights has its input, weights and bias, and on which axis of the weights the outputs."""

    input: int
    weights: int
    bias: int
    output_axis: int


# Source: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec.
WITH_WEIGHTS = {
    "CONV_2D": Places(0, 1, 2, 0),
    "DEPTHWISE_CONV_2D": Places(0, 1, 2, 3),
    "TRANSPOSE_CONV": Places(2, 1, 3, 0),
    "FULLY_CONNECTED": Places(0, 1, 2, 0),
}


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
        data: a constant's values, a view of the file; None for what is computed.
        scales: of its quantization, float32 [channels] or [1]; empty where there is none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    buffer: int
    data: NDArray[Any] | None
    scales: NDArray[np.float32]


@dataclass(frozen=True)
class Operator:
    """One operator; absent optional inputs are -1.

    Attributes:
        strides, dilations: rows and columns; 1 for what is no convolution.
        same_padding: of a convolution: as much as keeps the size, but for the strides.
    """

    index: int
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    same_padding: bool = False


@dataclass(frozen=True)
class Graph:
    """The first (for our files, only) subgraph."""

    operators: Sequence[Operator]
    tensors: Sequence[Tensor]

    @classmethod
    def read(cls, file: bytes | bytearray) -> Graph:
        """Parse a file's content; constants of a bytearray can be changed in place."""
        from ai_edge_litert.schema_py_generated import BuiltinOperator, Model

        names = {code: name for name, code in vars(BuiltinOperator).items() if isinstance(code, int)}
        model = Model.GetRootAs(file, 0)
        graph = model.Subgraphs(0)
        tensors = [_tensor(model, graph.Tensors(i), file) for i in range(graph.TensorsLength())]
        operators = []
        for i in range(graph.OperatorsLength()):
            found = graph.Operators(i)
            code = model.OperatorCodes(found.OpcodeIndex())
            kind = names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())]
            inputs = tuple(found.Inputs(j) for j in range(found.InputsLength()))
            outputs = tuple(found.Outputs(j) for j in range(found.OutputsLength()))
            operators.append(Operator(i, kind, inputs, outputs, **_convolution(kind, found)))
        return cls(operators, tensors)

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
        """The operator's float inputs that are computed."""
        return tuple(t for t in operator.inputs if t >= 0 and self.is_activation(t))

    def is_activation(self, tensor: int) -> bool:
        """Whether a tensor is computed, in float32."""
        return self.tensors[tensor].data is None and self.tensors[tensor].dtype == "float32"

    def name_of(self, operator: Operator) -> str:
        """The operator's first output's name, which no other operator has."""
        return self.tensors[operator.outputs[0]].name

    def weights(self, operator: Operator) -> NDArray[Any]:
        """An operator's weights; only for one of WITH_WEIGHTS whose weights are constant."""
        data = self.tensors[operator.inputs[WITH_WEIGHTS[operator.kind].weights]].data
        assert data is not None
        return data

    def bias(self, operator: Operator) -> NDArray[Any] | None:
        """Its bias; None where it has none, or a computed one."""
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

        Layers with the very same weights are told apart by their order; where that does not come out even, one
        layer runs several times, and the last gets what is left.
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


def _tensor(model: Any, tensor: Any, file: bytes | bytearray) -> Tensor:
    dtype = _DTYPES.get(tensor.Type(), f"type {tensor.Type()}")
    shape = tuple(tensor.Shape(i) for i in range(tensor.ShapeLength()))
    quantization = tensor.Quantization()
    scaled = quantization is not None and quantization.ScaleLength() > 0
    scales = quantization.ScaleAsNumpy() if scaled else np.empty(0, np.float32)
    raw = _content(model.Buffers(tensor.Buffer()), file)
    data = None if raw is None or dtype not in _DTYPES.values() else raw.view(dtype).reshape(shape)
    return Tensor(tensor.Name().decode(), shape, dtype, tensor.Buffer(), data, scales)


def _content(buffer: Any, file: bytes | bytearray) -> NDArray[np.uint8] | None:
    """A buffer's bytes, which lie in the table or, in larger files, behind it."""
    if buffer.Offset() > 1:
        return np.frombuffer(file, np.uint8, buffer.Size(), buffer.Offset())
    return np.asarray(buffer.DataAsNumpy()) if buffer.DataLength() else None


def _convolution(kind: str, operator: Any) -> dict[str, Any]:
    """Strides, dilations and padding of a convolution; nothing for other operators."""
    from ai_edge_litert import schema_py_generated as schema

    options: Any = {
        "CONV_2D": schema.Conv2DOptions,
        "DEPTHWISE_CONV_2D": schema.DepthwiseConv2DOptions,
        "TRANSPOSE_CONV": schema.TransposeConvOptions,
    }.get(kind)
    table = operator.BuiltinOptions()
    if options is None or table is None:
        return {}
    options = options()
    options.Init(table.Bytes, table.Pos)
    found = {
        "strides": (options.StrideH(), options.StrideW()),
        "same_padding": options.Padding() == schema.Padding.SAME,
    }
    if kind != "TRANSPOSE_CONV":
        found["dilations"] = (options.DilationHFactor(), options.DilationWFactor())
    return found
