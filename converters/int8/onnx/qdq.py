"""Writes an ONNX graph with QuantizeLinear / DequantizeLinear pairs, which ONNX Runtime turns into int8 operators.

We don't use onnxruntime.quantization's QDQQuantizer, for two reasons. It puts one pair on a tensor for all its readers,
so a float layer that reads the same tensor as an int8 layer gets the 8-bit copy. And it takes 5.8 s for the 113
convolutions of YOLOX-nano (linear searches, a Python loop over the channels) where this code takes 0.05 s; the search
for layers to keep float writes some hundred files. The pattern is the library's, because the runtime looks for it: a
pair on each input and output of an int8 operator, 8-bit weights and a 32-bit bias behind a DequantizeLinear each.
Activations are uint8: with int8 ones, ONNX Runtime leaves convolutions float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgecnn.converters.int8.onnx import rules
from edgecnn.converters.int8.onnx.correction import Corrections
from edgecnn.converters.int8.onnx.graph import Graph
from edgecnn.converters.int8.search.rounding import round_nearest
from edgecnn.errors import ConversionError

_LEVELS = 255  # steps between 256 levels of an activation
_WEIGHT_LEVELS = 127  # on each side of zero
_ELEMENTWISE = frozenset({"Add", "Div", "Mul", "Sub"})
_FEW_CHANNELS = 8
_MADE_INT8_BY_THE_RUNTIME = frozenset({"Conv", "ConvTranspose", "Gemm"})
_LARGEST_BIAS = 2.0**30  # half of the 32-bit range; the sum that it is added to needs the other half


@dataclass(frozen=True)
class Scale:
    """Value = scale × (level − zero), level in 0…255."""

    scale: np.float32
    zero: np.uint8

    @classmethod
    def of(cls, tensor: str, low: float, high: float) -> Scale:
        """The scale for a tensor's range, low ≤ 0 ≤ high.

        Raises:
            ConversionError: the range is not finite, or so narrow that its scale is not a float32.
        """
        scale = np.float32((high - low) / _LEVELS) if np.isfinite([low, high]).all() else np.float32(np.nan)
        if not np.finfo(np.float32).tiny <= scale < np.inf:
            raise ConversionError(
                f"tensor {tensor!r} has the range {low:g} to {high:g}: expected a finite range wider than zero, to "
                "compute a scale; calibrate with pictures like those that the network will get, or keep its layer "
                "float"
            )
        return cls(scale, np.uint8(np.clip(np.round(-low / float(scale)), 0, _LEVELS)))


def quantized(
    graph: Graph,
    layers: frozenset[int],
    operators: frozenset[int],
    *,
    scale_of: Callable[[str], Scale],
    corrections: Corrections | None = None,
) -> Any:
    """The model with some nodes in int8.

    A tensor that an int8 node computes keeps its name for the dequantized values, which all readers use; the exact
    values no longer exist. A tensor that a float node computes stays exact, and int8 readers get a dequantized copy.
    For a tensor or layer output T, T.scale and T.zero are the constants, and T.weight.scale is the scale of the layer's
    weights.

    Args:
        graph: the float graph; unchanged.
        layers, operators: nodes with and without weights.
        scale_of: returns a tensor's scale; called only for tensors that are quantized.
        corrections: corrects rounded weights and biases; without it, each weight is rounded to the nearest level. A
            MatMul has no bias to correct.

    Raises:
        ConversionError: weights that are not finite, or any error from `scale_of`.
    """
    writer = _Writer(graph, scale_of, corrections)
    int8 = layers | operators
    absorbed = {rules.last_node_of(graph, index) for index in int8} - int8
    for index, node in enumerate(graph.nodes):
        if index in int8:
            writer.add_int8(index)
        elif index not in absorbed:
            writer.add(node)
    return writer.model()


class _Writer:
    """Nodes and constants of the new model, in the order of execution."""

    def __init__(self, graph: Graph, scale_of: Callable[[str], Scale], corrections: Corrections | None) -> None:
        self._graph, self._scale_of, self._corrections = graph, scale_of, corrections
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}
        self._scales: dict[str, Scale] = {}  # of dequantized tensors
        self._copies: dict[str, str] = {}  # exact tensor → dequantized copy
        self._by_channel: set[str] = set()

    def add(self, node: Any) -> None:
        """Copy a float node; only its short constants over the frame's channels are changed.

        Before an int8 convolution, ONNX Runtime normalises the frame with the channels last, and applies a constant
        [1, 1, 1, 3] three values at a time. Repeated along a row, it takes 0.07 ms instead of 0.7 (224 × 224 px).
        """
        wide = onnx.NodeProto()
        wide.CopyFrom(node)
        shape = self._graph.shape(node.output[0]) or ()
        if node.op_type in _ELEMENTWISE and len(shape) == 4 and shape[1] < _FEW_CHANNELS:
            for place, name in enumerate(node.input):
                if self._graph.is_constant(name) and self._graph.array(name).shape == (1, shape[1], 1, 1):
                    row = self._graph.array(name).repeat(shape[3], axis=3)
                    wide.input[place] = self._constant(f"{name}.row", row)
        if node.op_type in _MADE_INT8_BY_THE_RUNTIME and node.input[0] in self._scales:
            wide.input[0] = self._dequantized_by_channel(node.input[0])
        self._nodes.append(wide)

    def add_int8(self, index: int) -> None:
        """A node between a DequantizeLinear on each input and a QuantizeLinear on its output."""
        node = onnx.NodeProto()
        node.CopyFrom(self._graph.nodes[index])
        for place, name in enumerate(node.input):
            if name and not self._graph.is_constant(name):
                node.input[place] = self._dequantized(name)
            elif name.endswith(rules.SCALES):
                node.input[place] = self._dequantized_scales(name)
        if rules.is_layer(node):
            self._add_weights(index, node)
        if node.op_type == "HardSigmoid":
            self._add_gate(node.input[0], node.output[0])
            return
        if node.op_type == "HardSwish":
            gate = f"{node.output[0]}.gate"
            self._add_gate(node.input[0], gate)
            node.op_type = "Mul"
            node.input.append(gate)
        self._nodes.append(node)
        if not rules.quantizes_output(node):
            return
        for place, name in enumerate(self._graph.nodes[rules.last_node_of(self._graph, index)].output):
            if not name:
                continue
            node.output[place] = f"{name}.exact"
            scale = self._scales[node.input[0]] if rules.keeps_range(node) else self._scale_of(name)
            self._add_pair(node.output[place], name, scale, name)

    def model(self) -> Any:
        """The model, with those of the float model's constants and shapes that are still needed."""
        source = self._graph.model
        model = onnx.ModelProto(
            ir_version=source.ir_version,
            opset_import=source.opset_import,
            producer_name=source.producer_name,
            producer_version=source.producer_version,
        )
        graph = model.graph
        graph.name = source.graph.name
        graph.input.extend(source.graph.input)
        graph.output.extend(source.graph.output)
        read = {name for node in self._nodes for name in node.input} | {output.name for output in graph.output}
        # Values read only by layers that stay float and that are quantized by channel.
        self._nodes = [node for node in self._nodes if read.intersection(node.output)]
        graph.node.extend(self._nodes)
        graph.initializer.extend(tensor for tensor in source.graph.initializer if tensor.name in read)
        graph.initializer.extend(self._constants.values())
        made = {name for node in self._nodes for name in node.output}
        graph.value_info.extend(value for value in source.graph.value_info if value.name in made)
        return model

    def _dequantized(self, tensor: str) -> str:
        if tensor in self._scales:
            return tensor
        if tensor not in self._copies:
            self._copies[tensor] = f"{tensor}.dequantized"
            self._add_pair(tensor, self._copies[tensor], self._scale_of(tensor), tensor)
        return self._copies[tensor]

    def _dequantized_by_channel(self, tensor: str) -> str:
        """An int8 tensor's values for a layer that stays float, through one equal scale per channel.

        Between a DequantizeLinear with one scale and a QuantizeLinear, ONNX Runtime makes a layer's float weights int8
        itself, with one scale for all channels (its WeightBiasQuantization), as if they had been forgotten: one
        depthwise layer that was kept float cost EfficientNet-Lite0 13 dB that way.
        """
        shape = self._graph.shape(tensor)
        if shape is None:
            return tensor
        name = f"{tensor}.by_channel"
        if name not in self._by_channel:
            self._by_channel.add(name)
            scale = self._scales[tensor]
            constants = [
                self._constant(f"{name}.scale", np.full(shape[1], scale.scale)),
                self._constant(f"{name}.zero", np.full(shape[1], scale.zero)),
            ]
            inputs = [f"{tensor}.int8", *constants]
            self._nodes.append(onnx.helper.make_node("DequantizeLinear", inputs, [name], f"{name}.dequantize", axis=1))
        return name

    def _dequantized_scales(self, name: str) -> str:
        """Name of an equalised layer's scales, which are multiples of a 255th of the largest."""
        scales = self._graph.array(name)
        step = np.float32(scales.max() / _LEVELS)
        levels = self._constant(f"{name}.int8", np.round(scales / step).astype(np.uint8))
        inputs = [levels, self._constant(f"{name}.scale", step), self._constant(f"{name}.zero", np.uint8(0))]
        output = f"{name}.dequantized"
        self._nodes.append(onnx.helper.make_node("DequantizeLinear", inputs, [output], f"{name}.dequantize"))
        return output

    def _add_pair(self, exact: str, dequantized: str, scale: Scale, name: str) -> None:
        constants = [self._constant(f"{name}.scale", scale.scale), self._constant(f"{name}.zero", scale.zero)]
        levels = f"{name}.int8"
        make = onnx.helper.make_node
        self._nodes.append(make("QuantizeLinear", [exact, *constants], [levels], f"{name}.quantize"))
        self._nodes.append(make("DequantizeLinear", [levels, *constants], [dequantized], f"{name}.dequantize"))
        self._scales[dequantized] = scale

    def _add_gate(self, dequantized: str, gate: str) -> None:
        """Write HardSigmoid, which ONNX Runtime does not have in int8, as the sum of the input and 3.

        In 256 levels from 0 to 6 the sum saturates where HardSigmoid does; the same levels read as 0 to 1 are a sixth
        of it.
        """
        zero = self._constant(f"{gate}.zero", np.uint8(0))
        scales = {
            name: self._constant(f"{gate}.{name}", Scale.of(gate, 0.0, high).scale)
            for name, high in (("three_scale", 3.0), ("sum_scale", 6.0), ("scale", 1.0))
        }
        three = self._constant(f"{gate}.three_int8", np.uint8(_LEVELS))
        for kind, inputs, output in (
            ("DequantizeLinear", [three, scales["three_scale"], zero], f"{gate}.three"),
            ("Add", [dequantized, f"{gate}.three"], f"{gate}.sum"),
            ("QuantizeLinear", [f"{gate}.sum", scales["sum_scale"], zero], f"{gate}.int8"),
            ("DequantizeLinear", [f"{gate}.int8", scales["scale"], zero], gate),
        ):
            self._nodes.append(onnx.helper.make_node(kind, inputs, [output], f"{output}.node"))
        self._scales[gate] = Scale.of(gate, 0.0, 1.0)

    def _add_weights(self, index: int, node: Any) -> None:
        """Replace a layer's weights and bias by dequantized int8 and int32 ones."""
        name = self._graph.nodes[index].output[0]
        weights, axis = self._graph.array(node.input[1]), rules.channel_axis(node)
        has_bias = len(node.input) > 2 and bool(node.input[2])
        bias = self._graph.array(node.input[2]).reshape(-1).astype(np.float64) if has_bias else None
        input_scale = float(self._scales[node.input[0]].scale)
        scale = _weight_scale(name, weights, axis, bias, input_scale)
        spread = scale.reshape([-1 if a == axis else 1 for a in range(weights.ndim)])
        if self._corrections is None:
            levels = round_nearest(weights / spread, _WEIGHT_LEVELS)
        else:
            levels = self._corrections.levels(index, spread, most=_WEIGHT_LEVELS)
            if node.op_type != "MatMul":
                shift = self._corrections.bias_shift(index, levels * spread - weights)
                bias = (0.0 if bias is None else bias) - shift
        node.input[1] = self._stored(f"{name}.weight", self._shared(f"{node.input[1]}.int8", name, levels), scale, axis)
        if bias is None:
            return
        steps = np.round(bias / (scale.astype(np.float64) * input_scale)).clip(-_LARGEST_BIAS, _LARGEST_BIAS)
        stored = self._constant(f"{name}.bias.int32", steps.astype(np.int32))
        del node.input[2:]
        node.input.append(self._stored(f"{name}.bias", stored, scale * np.float32(input_scale), 0))

    def _shared(self, name: str, layer: str, levels: NDArray[np.int8]) -> str:
        """Name of a layer's int8 weights, which are stored once however often the layer runs."""
        stored = self._constants.get(name)
        if stored is not None and stored.raw_data != levels.tobytes():  # a bias that needed a larger scale
            name = f"{layer}.weight.int8"
        return self._constant(name, levels)

    def _stored(self, name: str, levels: str, scale: NDArray[np.float32], axis: int) -> str:
        """Name of the dequantized constant."""
        zero_type = np.int8 if self._constants[levels].data_type == onnx.TensorProto.INT8 else np.int32
        inputs = [
            levels,
            self._constant(f"{name}.scale", scale),
            self._constant(f"{name}.zero", np.zeros(scale.shape, zero_type)),
        ]
        dequantize = onnx.helper.make_node(
            "DequantizeLinear", inputs, [f"{name}.dequantized"], f"{name}.dequantize", axis=axis
        )
        self._nodes.append(dequantize)
        return str(dequantize.output[0])

    def _constant(self, name: str, values: Any) -> str:
        self._constants[name] = onnx.numpy_helper.from_array(np.asarray(values), name)
        return name


def _weight_scale(
    name: str, weights: NDArray[np.float32], axis: int, bias: NDArray[np.float64] | None, input_scale: float
) -> NDArray[np.float32]:
    """One scale for each output channel.

    The bias is stored in units of (weights' scale × input's scale); where the weights are tiny or zero, the scale is
    made large enough for the bias to fit into 32 bits.
    """
    largest = np.abs(weights).max(axis=tuple(a for a in range(weights.ndim) if a != axis)).astype(np.float64)
    scale = largest / _WEIGHT_LEVELS
    if bias is not None:
        scale = np.maximum(scale, np.abs(bias) / (input_scale * _LARGEST_BIAS))
    if not np.isfinite(scale).all():
        raise ConversionError(
            f"the weights of the layer that computes {name!r} hold NaN or infinity: expected finite, trained "
            "weights; train again, or load others"
        )
    usable = scale * min(input_scale, 1.0) > np.finfo(np.float32).tiny
    return np.where(usable, scale, 1.0).astype(np.float32)
