"""Which nodes of an ONNX graph ONNX Runtime's CPU provider computes in int8, and which of them should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgecnn.bundle import LayerRecord
from edgecnn.converters.int8.onnx.graph import Graph, attributes
from edgecnn.converters.layers import weights_fingerprint

# ConvTranspose is not among them: the provider has it in float only.
_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
# Grouped convolutions with fewer input channels per group stay float, except depthwise ones: each group is a separate
# matrix product, too small to gain. Measured: 1.6 to 12 times slower in int8 with 2 to 16 channels per group, 0.8 with
# 32. (Depthwise ones alone are slower too, but keeping them float would add slow conversions.)
_SMALLEST_GROUP = 32

# Operators without weights that the provider has in int8. These move or select values: the output has the input's
# range, and nothing is lost.
_MOVES = frozenset({"Flatten", "MaxPool", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})
# These compute: the output has a range of its own. AveragePool is missing: in int8 it takes twice as long as in float
# including the conversions.
_COMPUTES = frozenset({"Add", "Concat", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul", "Sigmoid"})
# Done by an int8 node's own saturation at no cost: a Relu or Clip that is the only reader of its output.
_ABSORBING = frozenset({"Add", "Concat", "Conv"})

ARGUMENT = ".equalised_argument"  # suffixes of the names of an equalised layer's tensors
SCALES = ".equalising_scales"

# Fixed ranges, independent of the data.
FIXED_RANGES = {"HardSigmoid": (0.0, 1.0), "Sigmoid": (0.0, 1.0)}


def find_layers(graph: Graph, records: Sequence[LayerRecord]) -> dict[str, list[int]]:
    """The nodes of each layer that can be int8, in the order of execution, found by the fingerprint of their weights.

    Layers with equal weights (copies, zeros) are matched in order, as far as there are nodes.
    """
    names: dict[str, list[str]] = {}
    for record in records:
        names.setdefault(record.weights, []).append(record.name)
    found: dict[str, list[int]] = {}
    seen: dict[str, int] = {}
    for index in range(len(graph.nodes)):
        if not _can_be_int8(graph, index):
            continue
        mark = weights_fingerprint(graph.array(graph.nodes[index].input[1]))
        if mark in names:
            name = names[mark][min(seen.get(mark, 0), len(names[mark]) - 1)]
            seen[mark] = seen.get(mark, 0) + 1
            found.setdefault(name, []).append(index)
    return found


def _can_be_int8(graph: Graph, index: int) -> bool:
    """Whether the node is a layer with one input, has constant weights and bias, and gains from int8."""
    node = graph.nodes[index]
    if node.op_type not in _LAYERS or graph.activations(index) != [node.input[0]]:
        return False
    weights = graph.array(node.input[1])
    if weights.dtype != np.float32 or (node.op_type == "MatMul" and weights.ndim != 2):
        return False
    given = attributes(node)
    if any(given.get(name, usual) != usual for name, usual in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))):
        return False
    groups = given.get("group", 1)
    if groups > 1 and 1 < weights.shape[1] < _SMALLEST_GROUP:
        return False
    bias = node.input[2] if len(node.input) > 2 else ""
    return not bias or graph.array(bias).size == weights.shape[channel_axis(node)]


def channel_axis(node: Any) -> int:
    """The axis of a layer's weights that holds its output channels."""
    return 0 if node.op_type == "Conv" or attributes(node).get("transB") else 1


def input_axis(node: Any) -> int:
    """The axis of a layer's input that holds its channels."""
    return 1 if node.op_type == "Conv" else -1


def is_layer(node: Any) -> bool:
    """Whether the node has weights."""
    return node.op_type in _LAYERS


def keeps_range(node: Any) -> bool:
    """Whether the output has the range of the input."""
    return node.op_type in _MOVES


def last_node_of(graph: Graph, index: int) -> int:
    """The last node of an int8 node's computation: itself, or a Relu or Clip that is the only reader of its output.

    A range that ends where the Clip does lets int8 saturation do the clipping.
    """
    node = graph.nodes[index]
    readers = graph.readers(node.output[0])
    if node.op_type in _ABSORBING and len(readers) == 1 and node.output[0] not in graph.outputs:
        bounds = graph.clip_bounds(readers[0])
        if bounds is not None and bounds[0] <= 0 <= bounds[1]:  # every range must include zero
            return readers[0]
    return index


def outputs(graph: Graph, index: int) -> list[str]:
    """The output tensors of a node when it is int8 (`last_node_of`)."""
    return [name for name in graph.nodes[last_node_of(graph, index)].output if name]


def quantizes_output(node: Any) -> bool:
    """Whether an int8 node writes int8: matrix products can write float at no cost, and do."""
    return node.op_type not in ("Gemm", "MatMul")


def int8_operators(graph: Graph, layers: frozenset[int]) -> frozenset[int]:
    """The operators without weights to compute in int8, if the given nodes with weights are int8.

    Their inputs all come from int8 nodes, so that no float layer's output is rounded again; and an int8 node reads
    their output, so that no value is rounded before a float computation. So each lies between int8 layers.

    Sigmoid and Mul are included. Measured with YOLOX-nano, all layers int8: AP .224, and .226 with SiLU in float,
    because the convolution's rounded output costs the same in both; but the time is 0.63 of that, because ONNX Runtime
    gives Sigmoid and Mul a DequantizeLinear each and then no longer recognises a SiLU. HardSwish and HardSigmoid are
    included too: MobileNetV3-small takes 9.8 ms with them in float, 3.5 ms in int8 (whole network in float: 3.7).
    """
    int8, made = set(layers), set[str]()
    for index in sorted(layers):
        made.update(outputs(graph, index) if quantizes_output(graph.nodes[index]) else ())
    candidates = []
    for index in range(len(graph.nodes)):
        reads = graph.activations(index)
        if reads and made.issuperset(reads) and _has_int8(graph, index):
            candidates.append(index)
            made.update(outputs(graph, index))
    for index in reversed(candidates):
        if any(reader in int8 for name in outputs(graph, index) for reader in graph.readers(name)):
            int8.add(index)
    return frozenset(int8 - layers)


def _has_int8(graph: Graph, index: int) -> bool:
    node = graph.nodes[index]
    if node.op_type == "HardSigmoid" and not is_usual_hard_sigmoid(node):
        return False
    if node.op_type == "Mul" and node.input[1].endswith(SCALES):
        return True
    if node.op_type in _COMPUTES:  # a constant input would need a range too
        return len(graph.activations(index)) == len(node.input)
    if node.op_type == "Resize" and attributes(node).get("mode") == b"cubic":  # exceeds the input's range
        return False
    return node.op_type in _MOVES and (len(node.output) == 1 or node.op_type == "Split")


def is_usual_hard_sigmoid(node: Any) -> bool:
    """Whether it is min(max(x + 3, 0), 6) / 6; ONNX's default HardSigmoid is a different function."""
    given = attributes(node)
    return bool(np.allclose([given.get("alpha", 0.2), given.get("beta", 0.5)], [1 / 6, 0.5]))


def activation_after(graph: Graph, tensor: str) -> str | None:
    """The activation function that is a tensor's only reader, as named in `ranges.ACTIVATIONS`; None for others.

    Relu and Clip are part of the layer (`last_node_of`), so they are not returned here.
    """
    readers = [graph.nodes[index] for index in graph.readers(tensor)]
    kinds = sorted(node.op_type for node in readers)
    if tensor in graph.outputs:
        return None
    if kinds in (["Mul", "Sigmoid"], ["HardSigmoid", "Mul"]):
        gate, product = readers if readers[1].op_type == "Mul" else reversed(readers)
        if set(product.input) != {tensor, gate.output[0]}:
            return None
        if gate.op_type == "Sigmoid":
            return "silu"
        return "hard_swish" if is_usual_hard_sigmoid(gate) else None
    return {"Sigmoid": "sigmoid", "HardSwish": "hard_swish"}.get(kinds[0]) if len(kinds) == 1 else None
