"""Writes an ONNX graph in which every operator lies between DequantizeLinear and QuantizeLinear, as NPUs require it.

`onnx_qdq`, in contrast, quantizes chosen layers for ONNX Runtime on a CPU, where float is always possible and often
better; on an NPU, an operator that is not quantized runs elsewhere. Weights are int8 with one scale per output channel,
biases int32, activations 8 or 16 bits. Operators after the last layer with weights (box decoding, softmax) are never in
8 bits: one of 256 levels is 1.6 pixels of a frame of 416.

A frame needs no rounding: its bytes are levels with scale 1, and a DequantizeLinear replaces the cast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgecnn.converters.int8.onnx import rules
from edgecnn.converters.int8.onnx.correction import Corrections
from edgecnn.converters.int8.onnx.graph import Graph, attributes
from edgecnn.converters.int8.search.rounding import round_nearest
from edgecnn.errors import ConversionError

RangeOf = Callable[[str, int], tuple[float, float]]

_WEIGHT_LEVELS = 127
_LARGEST_BIAS = 2.0**30  # half of the 32-bit range; the sum that it is added to needs the other half
_LEVEL_TYPES: Mapping[int, type[np.uint8 | np.uint16]] = {8: np.uint8, 16: np.uint16}
# 16-bit pairs are ONNX Runtime's own operators up to opset 20.
_WIDE_DOMAIN = "com.microsoft"
_LAYERS: Mapping[str, int | None] = {
    "Conv": 0,
    "ConvTranspose": 1,
    "Gemm": None,
    "MatMul": None,
}  # axis of the weights' scales; None: one scale
# Constant inputs of these are ordinary values; those of other operators (bounds, sizes, axes) are parameters.
_VALUE_OPERATORS = frozenset({"Add", "Concat", "Div", "MatMul", "Max", "Min", "Mul", "PRelu", "Sub", "Where"})
_MOVES = frozenset(
    {
        *("DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "MaxPool", "Reshape", "Resize", "Slice"),
        *("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
# Fixed ranges, as HTP requires them: all levels, from 0 to just below 1.
_PROBABILITIES = frozenset({"HardSigmoid", "Sigmoid", "Softmax"})


@dataclass(frozen=True)
class _Scale:
    """Value = scale × (level − zero)."""

    scale: np.float32
    zero: np.uint8 | np.uint16

    @property
    def bits(self) -> int:
        return 8 * self.zero.dtype.itemsize

    @classmethod
    def of(cls, low: float, high: float, bits: int) -> _Scale:
        """The scale for a range; a range of zero width at zero gets the scale of 0 to 1."""
        levels = 2**bits - 1
        low, high = min(low, 0.0), max(high, 0.0)
        scale = np.float32((high - low) / levels) if high > low else np.float32(0)
        if not scale >= np.finfo(np.float32).tiny:
            low, scale = 0.0, np.float32(1 / levels)
        zero = np.clip(np.round(-low / float(scale)), 0, levels)
        return cls(scale, _LEVEL_TYPES[bits](zero))


def tensors_with_ranges(graph: Graph) -> list[str]:
    """The tensors to observe before `quantized_whole`: the outputs of operators that compute."""
    return [name for name in _made(graph) if _source(graph, name) == name and not _is_known(graph, name)]


def layers_with_weights(graph: Graph) -> list[int]:
    """The nodes for which `Corrections` can be observed."""
    return [
        index
        for index, node in enumerate(graph.nodes)
        if _is_layer(graph, node) and node.op_type != "ConvTranspose" and _is_plain(graph, node)
    ]


def quantized_whole(
    graph: Graph, *, activation_bits: int, range_of: RangeOf, corrections: Corrections | None = None
) -> Any:
    """The model with every operator on float32 values quantized.

    Args:
        graph: the float graph with a uint8 frame as input; unchanged.
        activation_bits: 8 or 16, up to the last layer with weights.
        range_of: (tensor, bits) → low and high, called for `tensors_with_ranges`.
        corrections: corrects the rounded weights and biases of `layers_with_weights`.

    Raises:
        ConversionError: weights that are not finite, or any error from `range_of`.
    """
    return _Writer(graph, activation_bits, range_of, corrections).model()


def _made(graph: Graph) -> list[str]:
    """Every float32 tensor that a node computes and that exists in the quantized graph."""
    absorbed = _absorbed(graph)
    return [
        name
        for index in range(len(graph.nodes))
        if index not in absorbed
        for name in rules.outputs(graph, index)
        if graph.is_float(name)
    ]


def _absorbed(graph: Graph) -> frozenset[int]:
    """Relu and Clip nodes that the saturation of the node before them replaces (`rules.last_node_of`)."""
    ends = ((index, rules.last_node_of(graph, index)) for index in range(len(graph.nodes)))
    return frozenset(end for index, end in ends if end != index)


def _source(graph: Graph, tensor: str) -> str:
    """The tensor whose range this one has: itself, or the tensor that was moved to make it."""
    maker = graph.maker(tensor)
    while maker is not None and graph.nodes[maker].op_type in _MOVES and not _leaves_range(graph.nodes[maker]):
        tensor = graph.nodes[maker].input[0]
        maker = graph.maker(tensor)
    return tensor


def _leaves_range(node: Any) -> bool:
    return node.op_type == "Resize" and attributes(node).get("mode") == b"cubic"


def _is_known(graph: Graph, tensor: str) -> bool:
    maker = graph.maker(tensor)
    return maker is None or graph.nodes[maker].op_type in _PROBABILITIES or _is_frame(graph, maker)


def _is_frame(graph: Graph, index: int) -> bool:
    """Whether a node converts the frame's bytes to float32."""
    node = graph.nodes[index]
    return node.op_type == "Cast" and graph.is_float(node.output[0]) and not graph.is_float(node.input[0])


class _Writer:
    """Nodes and constants of the new model, in the order of execution."""

    def __init__(self, graph: Graph, activation_bits: int, range_of: RangeOf, corrections: Corrections | None) -> None:
        self._graph, self._bits, self._range_of, self._corrections = graph, activation_bits, range_of, corrections
        self._correctable = frozenset(layers_with_weights(graph)) if corrections is not None else frozenset()
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._scales: dict[str, _Scale] = {}  # scales of dequantized tensors
        self._copies: set[str] = set()
        self._decoding = _after_the_last_layer(graph)

    def model(self) -> Any:
        """The model."""
        absorbed = _absorbed(self._graph)
        for index in range(len(self._graph.nodes)):
            if index not in absorbed:
                self._add(index)
        made = onnx.ModelProto()
        made.CopyFrom(self._graph.model)
        del made.graph.node[:], made.graph.value_info[:]
        made.graph.node.extend(self._nodes)
        read = {name for node in self._nodes for name in node.input}
        kept = [tensor for tensor in made.graph.initializer if tensor.name in read]
        del made.graph.initializer[:]
        made.graph.initializer.extend([*kept, *(c for name, c in self._constants.items() if name in read)])
        if any(scale.bits == 16 for scale in self._scales.values()):
            made.opset_import.append(onnx.helper.make_opsetid(_WIDE_DOMAIN, 1))
        return made

    def _add(self, index: int) -> None:
        graph, node = self._graph, onnx.NodeProto()
        node.CopyFrom(graph.nodes[index])
        node.name = node.output[0]  # the name by which it is found again
        if _is_frame(graph, index):
            self._add_frame(node)
            return
        if _takes_all_in_order(graph, node):
            shape = np.asarray(graph.array(node.input[1]).shape, np.int64)
            node = onnx.helper.make_node(
                "Reshape", [node.input[0], self._constant(f"{node.output[0]}.shape", shape)], node.output, node.name
            )
        outputs = rules.outputs(graph, index)
        bits = 16 if index in self._decoding else self._bits
        for place, name in enumerate(node.input):
            if not name or (node.op_type in _LAYERS and place > 0 and graph.is_constant(name)):
                continue
            if graph.is_constant(name):
                if node.op_type in _VALUE_OPERATORS and graph.is_float(name):
                    # HTP multiplies 16-bit matrices only by 8-bit ones.
                    node.input[place] = self._dequantized_constant(name, 8 if node.op_type == "MatMul" else bits)
            elif graph.is_float(name):
                node.input[place] = self._in_bits(name, bits)
        if _is_layer(graph, node):
            self._add_weights(index, node, outputs[0])
        for place, name in enumerate(outputs):
            if graph.is_float(name):
                node.output[place] = f"{name}.exact"
        self._nodes.append(node)
        for name in outputs:
            if graph.is_float(name):
                self._add_pair(f"{name}.exact", name, self._scale_of(name, bits))

    def _add_frame(self, cast: Any) -> None:
        """Replace the cast by a DequantizeLinear with scale 1."""
        scale = _Scale(np.float32(1), np.uint8(0))
        name = cast.output[0]
        constants = [self._constant(f"{name}.scale", scale.scale), self._constant(f"{name}.zero", scale.zero)]
        self._nodes.append(
            onnx.helper.make_node("DequantizeLinear", [cast.input[0], *constants], [name], f"{name}.dequantize")
        )
        self._scales[name] = scale

    def _scale_of(self, tensor: str, bits: int) -> _Scale:
        source = _source(self._graph, tensor)
        if source in self._scales and self._scales[source].bits == bits:
            return self._scales[source]
        maker = self._graph.maker(source)
        if maker is not None and self._graph.nodes[maker].op_type in _PROBABILITIES:
            return _Scale(np.float32(2.0**-bits), _LEVEL_TYPES[bits](0))
        if source in self._scales:  # with another number of bits
            known = self._scales[source]
            low = -float(known.scale) * float(known.zero)
            return _Scale.of(low, low + float(known.scale) * (2**known.bits - 1), bits)
        return _Scale.of(*self._range_of(source, bits), bits)

    def _in_bits(self, tensor: str, bits: int) -> str:
        """A dequantized tensor with `bits` bits; a copy where the tensor has another number."""
        scale = self._scales.get(tensor)
        if scale is None:
            raise ConversionError(f"tensor {tensor!r} has no range: no observed operator computes it; convert again")
        if scale.bits == bits:
            return tensor
        copy = f"{tensor}.{bits}_bits"
        if copy not in self._copies:
            self._copies.add(copy)
            self._add_pair(tensor, copy, self._scale_of(tensor, bits))
        return copy

    def _add_pair(self, exact: str, dequantized: str, scale: _Scale) -> None:
        constants = [
            self._constant(f"{dequantized}.scale", scale.scale),
            self._constant(f"{dequantized}.zero", scale.zero),
        ]
        levels, domain = f"{dequantized}.levels", _WIDE_DOMAIN if scale.bits == 16 else ""
        for kind, source, made in (
            ("QuantizeLinear", exact, levels),
            ("DequantizeLinear", levels, dequantized),
        ):
            name = f"{dequantized}.{kind.removesuffix('Linear').lower()}"
            self._nodes.append(onnx.helper.make_node(kind, [source, *constants], [made], name, domain=domain))
        self._scales[dequantized] = scale

    def _dequantized_constant(self, name: str, bits: int) -> str:
        dequantized = f"{name}.{bits}_bits"
        if dequantized in self._copies:
            return dequantized
        self._copies.add(dequantized)
        values = self._graph.array(name)
        scale = _Scale.of(float(values.min()), float(values.max()), bits)
        levels = np.clip(np.round(values / scale.scale) + float(scale.zero), 0, 2**bits - 1)
        inputs = [
            self._constant(f"{dequantized}.levels", levels.astype(_LEVEL_TYPES[bits])),
            self._constant(f"{dequantized}.scale", scale.scale),
            self._constant(f"{dequantized}.zero", scale.zero),
        ]
        domain = _WIDE_DOMAIN if bits == 16 else ""
        node = onnx.helper.make_node(
            "DequantizeLinear", inputs, [dequantized], f"{dequantized}.dequantize", domain=domain
        )
        self._nodes.append(node)
        self._scales[dequantized] = scale
        return dequantized

    def _add_weights(self, index: int, node: Any, layer: str) -> None:
        """Replace a layer's weights and bias by dequantized int8 and int32 ones."""
        weights = self._graph.array(node.input[1]).astype(np.float32)
        grouped = node.op_type == "ConvTranspose" and attributes(node).get("group", 1) != 1
        axis = None if grouped else _LAYERS[node.op_type]
        input_scale = float(self._scales[node.input[0]].scale)
        has_bias = len(node.input) > 2 and bool(node.input[2]) and node.op_type != "MatMul"
        bias = self._graph.array(node.input[2]).astype(np.float64).reshape(-1) if has_bias else None
        scale = _weight_scale(layer, weights, axis, bias, input_scale)
        spread = scale if axis is None else scale.reshape([-1 if a == axis else 1 for a in range(weights.ndim)])
        if self._corrections is not None and index in self._correctable:
            levels = self._corrections.levels(index, spread, most=_WEIGHT_LEVELS)
            if bias is not None:
                bias = bias - self._corrections.bias_shift(index, levels * spread - weights)
        else:
            levels = round_nearest(weights / spread, _WEIGHT_LEVELS)
        node.input[1] = self._stored(f"{layer}.weight", levels, scale, axis)
        if bias is None:
            return
        bias_scale = scale * np.float32(input_scale)
        steps = np.round(bias / bias_scale.astype(np.float64)).clip(-_LARGEST_BIAS, _LARGEST_BIAS).astype(np.int32)
        node.input[2] = self._stored(f"{layer}.bias", steps, bias_scale, None if axis is None else 0)

    def _stored(self, name: str, levels: NDArray[Any], scale: NDArray[np.float32], axis: int | None) -> str:
        inputs = [
            self._constant(f"{name}.levels", levels),
            self._constant(f"{name}.scale", scale),
            self._constant(f"{name}.zero", np.zeros(scale.shape, levels.dtype)),
        ]
        dequantized = f"{name}.dequantized"
        node = onnx.helper.make_node("DequantizeLinear", inputs, [dequantized], f"{name}.dequantize")
        if axis is not None:
            node.attribute.append(onnx.helper.make_attribute("axis", axis))
        self._nodes.append(node)
        return dequantized

    def _constant(self, name: str, values: Any) -> str:
        self._constants[name] = onnx.numpy_helper.from_array(np.asarray(values), name)
        return name


def _is_layer(graph: Graph, node: Any) -> bool:
    return node.op_type in _LAYERS and len(node.input) > 1 and graph.is_constant(node.input[1])


def _is_plain(graph: Graph, node: Any) -> bool:
    """Whether its weights are a matrix or a convolution kernel, and it has one input."""
    given = attributes(node)
    usual = all(given.get(name, value) == value for name, value in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)))
    return usual and (node.op_type == "Conv" or graph.array(node.input[1]).ndim == 2)


def _takes_all_in_order(graph: Graph, node: Any) -> bool:
    """Whether a Gather takes every value of a vector in order, as torch exports the shape of a global average.

    A Reshape does the same; QNN's compiler crashes on such a Gather before a convolution.
    """
    if node.op_type != "Gather" or not graph.is_constant(node.input[1]):
        return False
    shape, taken = graph.shape(node.input[0]), graph.array(node.input[1])
    return shape is not None and len(shape) == 1 and np.array_equal(taken.ravel(), np.arange(shape[0]))


def _weight_scale(
    layer: str, weights: NDArray[np.float32], axis: int | None, bias: NDArray[np.float64] | None, input_scale: float
) -> NDArray[np.float32]:
    """One scale for each output channel, or one for all where there is no channel axis: float32 [channels] or [].

    The bias is stored in units of (weights' scale × input's scale) and must fit into 32 bits.
    """
    others = tuple(a for a in range(weights.ndim) if a != axis)
    largest = np.asarray(np.abs(weights).max(axis=None if axis is None else others), np.float64)
    if not np.isfinite(largest).all():
        raise ConversionError(
            f"the weights of layer {layer!r} hold NaN or infinity: expected finite, trained "
            "weights; train again, or load others"
        )
    scale = largest / _WEIGHT_LEVELS
    if bias is not None:
        needed = np.abs(bias) / (input_scale * _LARGEST_BIAS)
        scale = np.maximum(scale, needed.max() if axis is None else needed)
    usable = scale * min(input_scale, 1.0) > np.finfo(np.float32).tiny
    return np.asarray(np.where(usable, scale, 1.0), np.float32)


def _after_the_last_layer(graph: Graph) -> frozenset[int]:
    """The nodes without weights that no layer with weights follows."""
    before: set[int] = set()
    for index in range(len(graph.nodes) - 1, -1, -1):
        node = graph.nodes[index]
        if _is_layer(graph, node) or any(reader in before for name in node.output for reader in graph.readers(name)):
            before.add(index)
    return frozenset(range(len(graph.nodes))) - before
