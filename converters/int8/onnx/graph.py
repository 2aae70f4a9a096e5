"""An ONNX graph with look-ups that the format lacks: the producer of a tensor, its readers, a constant's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray


class Graph:
    """A read-only ONNX graph; a node is identified by its position in the order of execution.

    Attributes:
        model: the onnx.ModelProto.
        nodes: its onnx.NodeProtos.
        outputs: names of its outputs.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.nodes: Sequence[Any] = list(model.graph.node)
        self.outputs = frozenset(output.name for output in model.graph.output)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._arrays: dict[str, NDArray[Any]] = {}
        self._values = {value.name: value for value in model.graph.value_info}
        self._ends = {value.name: value for value in (*model.graph.input, *model.graph.output)}
        self._makers = {name: index for index, node in enumerate(self.nodes) for name in node.output if name}
        self._readers: dict[str, list[int]] = {}
        for index, node in enumerate(self.nodes):
            for name in dict.fromkeys(node.input):
                self._readers.setdefault(name, []).append(index)

    def is_constant(self, tensor: str) -> bool:
        """Whether the tensor is stored in the file."""
        return tensor in self._constants

    def array(self, tensor: str) -> NDArray[Any]:
        """The values of a constant."""
        if tensor not in self._arrays:
            self._arrays[tensor] = onnx.numpy_helper.to_array(self._constants[tensor])
        return self._arrays[tensor]

    def shape(self, tensor: str) -> tuple[int, ...] | None:
        """Shape of an inner tensor as recorded in the file; None where it is missing or not numeric."""
        if tensor not in self._values:
            return None
        sizes = tuple(dimension.dim_value for dimension in self._values[tensor].type.tensor_type.shape.dim)
        return sizes if all(sizes) else None

    def is_float(self, tensor: str) -> bool:
        """Whether the file declares the tensor as float32."""
        if tensor in self._constants:
            return bool(self._constants[tensor].data_type == onnx.TensorProto.FLOAT)
        value = self._values.get(tensor) or self._ends.get(tensor)
        return value is not None and bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)

    def maker(self, tensor: str) -> int | None:
        """The node that computes a tensor; None for inputs and constants."""
        return self._makers.get(tensor)

    def readers(self, tensor: str) -> Sequence[int]:
        """The nodes that read a tensor."""
        return self._readers.get(tensor, ())

    def activations(self, index: int) -> list[str]:
        """The non-constant tensors that a node reads; a tensor that it reads twice is listed twice."""
        return [name for name in self.nodes[index].input if name and not self.is_constant(name)]

    def clip_bounds(self, index: int) -> tuple[float, float] | None:
        """The bounds of a Relu or of a Clip with constant bounds; None for other nodes."""
        node = self.nodes[index]
        if node.op_type == "Relu":
            return 0.0, np.inf
        if node.op_type != "Clip" or len(self.activations(index)) > 1:
            return None
        bounds = [-np.inf, np.inf]
        for place, name in enumerate(node.input[1:3]):
            if name:
                bounds[place] = float(self.array(name))
        return bounds[0], bounds[1]


def attributes(node: Any) -> dict[str, Any]:
    """A node's attributes by name; strings are bytes, as in the file."""
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
