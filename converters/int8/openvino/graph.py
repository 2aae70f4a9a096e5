"""Finds layers with weights in an OpenVINO graph, and reads and changes their inputs, weights and outputs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import opset13

from edgecnn.bundle import LayerRecord
from edgecnn.converters.layers import weights_fingerprint
from edgecnn.errors import ConversionError

# openvino has no type hints; these are a Model, a Node and an Output of a node.
Model = Any
Node = Any
Output = Any

LAYER_TYPES = frozenset(
    {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"}
)
_AS_THEY_ARE = {"Reshape", "Convert"}


def find_layers(model: Model, records: Sequence[LayerRecord]) -> dict[str, tuple[str, ...]]:
    """Layer name → names of its operators, in the order of execution.

    Operators that read the same constant are one layer that runs several times. Layers with equal weights are matched
    in order.
    """
    operators: dict[str, list[str]] = {}
    prints: dict[str, str] = {}
    for node in model.get_ordered_ops():
        constant = weights_constant(node)
        if constant is not None:
            source = constant.get_friendly_name()
            operators.setdefault(source, []).append(node.get_friendly_name())
            if source not in prints:
                prints[source] = weights_fingerprint(constant.data.astype(np.float32))
    names: dict[str, list[str]] = {}
    for record in records:
        names.setdefault(record.weights, []).append(record.name)
    found: dict[str, tuple[str, ...]] = {}
    for source, fingerprint in prints.items():
        waiting = names.get(fingerprint)
        if waiting:
            # The last one keeps the name for copies of its weights that the converter made.
            name = waiting.pop(0) if len(waiting) > 1 else waiting[0]
            found[name] = found.get(name, ()) + tuple(operators[source])
    return found


def weights_constant(node: Node) -> Node | None:
    """The constant that holds a layer's float weights; None where the node is not a layer."""
    if node.get_type_name() not in LAYER_TYPES:
        return None
    source = node.input_value(1).get_node()
    while source.get_type_name() in _AS_THEY_ARE:
        source = source.input_value(0).get_node()
    return source if source.get_type_name() == "Constant" else None


def quantized_weights(node: Node) -> NDArray[np.float32] | None:
    """A layer's dequantized weights, in the shape that it reads; None where they are float.

    Raises:
        ConversionError: a scale is zero or not finite.
    """
    source = node.input_value(1).get_node()
    while source.get_type_name() in _AS_THEY_ARE:
        source = source.input_value(0).get_node()
    if source.get_type_name() != "Multiply":
        return None
    codes, scales = source.input_value(0).get_node(), source.input_value(1).get_node()
    if codes.get_type_name() == "Convert":
        codes = codes.input_value(0).get_node()
    if codes.get_type_name() != "Constant" or codes.get_element_type().get_type_name() != "i8":
        return None
    scale = scales.data.astype(np.float32)
    if not (np.isfinite(scale).all() and (scale > 0).all()):
        raise ConversionError(
            f"the weights of {node.get_friendly_name()} have a scale of zero, NaN or infinity: "
            "expected finite weights; load the right ones, or keep this layer float"
        )
    weights: NDArray[np.float32] = codes.data.astype(np.float32) * scale
    return weights.reshape(node.input_value(1).get_shape())


def float_weights(node: Node) -> NDArray[np.float32]:
    """A layer's weights in the shape that it reads."""
    constant = weights_constant(node)
    if constant is None:
        raise TypeError(f"{node.get_friendly_name()} is not a layer with float weights")
    return np.asarray(constant.data, np.float32).reshape(node.input_value(1).get_shape())


def quantizer_of(node: Node) -> Node | None:
    """The FakeQuantize that a layer reads; None where it reads a float tensor."""
    source = node.input_value(0).get_node()
    return source if source.get_type_name() == "FakeQuantize" else None


def set_range(quantizer: Node, low: NDArray[np.float32], high: NDArray[np.float32]) -> None:
    """Set the values of a quantizer's lowest and highest level: one pair for all, or one for each index of its axis."""
    shape = quantizer.get_input_shape(1)
    for port, ends in zip((1, 2, 3, 4), (low, high, low, high), strict=True):
        quantizer.input(port).replace_source_output(opset13.constant(ends.reshape(shape)).output(0))


def make_float(node: Node, weights: NDArray[np.float32]) -> None:
    """Make a quantized layer float again: float weights, and an input without its quantizer."""
    quantizer = quantizer_of(node)
    if quantizer is not None:
        node.input(0).replace_source_output(quantizer.input_value(0))
    node.input(1).replace_source_output(opset13.constant(weights).output(0))


def add_to_bias(node: Node, shift: NDArray[np.float64]) -> None:
    """Add to a layer's bias, float64 [channels]; a layer without a bias gets one."""
    add = bias_add(node)
    if add is None:
        shape = [1] * len(node.get_output_shape(0))
        shape[channel_axis(node)] = len(shift)
        readers = node.output(0).get_target_inputs()
        added = opset13.add(node, opset13.constant(shift.reshape(shape).astype(np.float32)))
        for reader in readers:
            reader.replace_source_output(added.output(0))
        return
    for port in add.inputs():
        constant = port.get_source_output().get_node()
        if constant.get_type_name() == "Constant":
            bias = constant.data + shift.reshape(constant.get_output_shape(0))
            port.replace_source_output(opset13.constant(bias.astype(np.float32)).output(0))


def channel_axis(node: Node) -> int:
    """Axis of the channels in a layer's input and output."""
    return -1 if node.get_type_name() == "MatMul" else 1


def bias_add(node: Node) -> Node | None:
    """The Add of a constant with one value per channel that is the only reader of a layer's output."""
    readers = list(node.output(0).get_target_inputs())
    if len(readers) != 1 or readers[0].get_node().get_type_name() != "Add":
        return None
    add = readers[0].get_node()
    other = add.input_value(1 - readers[0].get_index()).get_node()
    if other.get_type_name() == "Convert":  # weights stored in 16 bit
        other = other.input_value(0).get_node()
    channels = node.get_output_shape(0)[channel_axis(node)]
    if other.get_type_name() != "Constant" or math.prod(other.get_output_shape(0)) != channels:
        return None
    return add


def layer_output(node: Node) -> Output:
    """A layer's output, including its bias."""
    add = bias_add(node)
    return (node if add is None else add).output(0)


def output_shift(node: Node, errors: NDArray[np.float32], means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean shift of each output channel caused by errors in the weights, float64 [channels].

    Source: Nagel et al. 2019, Data-Free Quantization through Weight Equalization and Bias Correction, section 4.2:
    E[error * x] = error * E[x], the same at every position but the border.

    Args:
        node: the layer.
        errors: quantized minus float weights, in the layer's shape.
        means: means of the input's channels.
    """
    kind, wrong = node.get_type_name(), errors.astype(np.float64)
    if kind == "MatMul":
        return np.asarray(wrong @ means if node.get_attributes()["transpose_b"] else means @ wrong)
    grouped = kind.startswith("Group")
    if not grouped:
        wrong = wrong[None]
    wrong = wrong.sum(
        axis=tuple(range(3, wrong.ndim))
    )  # over the kernel: [group, out, in], transposed [group, in, out]
    each = means.reshape(len(wrong), -1)
    if kind.endswith("BackpropData"):  # each output position uses only some of the kernel's weights
        return np.asarray(np.einsum("gio,gi->go", wrong, each).ravel() / math.prod(node.get_attributes()["strides"]))
    return np.asarray(np.einsum("goi,gi->go", wrong, each).ravel())


def by_name(model: Model) -> dict[str, Node]:
    """Friendly name → node."""
    return {node.get_friendly_name(): node for node in model.get_ops()}


def layers_before(node: Node) -> Iterator[str]:
    """Names of the nearest layers before a node; the input's name if the network's input feeds the node."""
    return _nearest(node, lambda at: [at.input_value(i).get_node() for i in range(at.get_input_size())])


def layers_after(node: Node) -> Iterator[str]:
    """Names of the nearest layers after a node; the output's name if the node feeds a network output."""
    return _nearest(
        node, lambda at: [reader.get_node() for port in at.outputs() for reader in port.get_target_inputs()]
    )


def _nearest(node: Node, step: Callable[[Node], list[Node]]) -> Iterator[str]:
    seen: set[str] = set()
    waiting = list(step(node))
    while waiting:
        at = waiting.pop()
        name, kind = at.get_friendly_name(), at.get_type_name()
        if name in seen or kind == "Constant":
            continue
        seen.add(name)
        if kind in LAYER_TYPES or kind in ("Parameter", "Result"):
            yield name
        else:
            waiting += step(at)


def share_inputs_with_skips(model: Model, int8_operators: frozenset[str]) -> None:
    """Let an Add after a ReLU read the quantized tensor that int8 layers also read.

    In residual networks that tensor is the skip connection: ResNet-18 runs 10 % faster, since the tensor isn't also
    written in float, with the same signal-to-noise ratio. This is done only between int8 layers: a layer kept float
    reads and writes float. Linear bottlenecks (EfficientNet-Lite) gained nothing, networks with SiLU lose accuracy.
    """
    for quantizer in model.get_ordered_ops():
        if quantizer.get_type_name() != "FakeQuantize" or math.prod(quantizer.get_input_shape(1)) != 1:
            continue
        source = quantizer.input_value(0)
        at = source.get_node()
        while at.get_type_name() == "MaxPool":
            at = at.input_value(0).get_node()
        if at.get_type_name() != "Relu":
            continue
        for reader in source.get_target_inputs():
            add = reader.get_node()
            if add.get_type_name() == "Add" and _is_between(add, int8_operators):
                reader.replace_source_output(quantizer.output(0))


def _is_between(node: Node, operators: frozenset[str]) -> bool:
    around = [*layers_before(node), *layers_after(node)]
    return bool(around) and all(name in operators for name in around)


def quantize_before_pooling(model: Model) -> None:
    """Move quantizers from after a MaxPool to before it: same numbers, and the pool and its input run in 8 bits."""
    for quantizer in model.get_ordered_ops():
        if quantizer.get_type_name() != "FakeQuantize":
            continue
        pooled = quantizer.input_value(0)
        pool = pooled.get_node()
        if pool.get_type_name() != "MaxPool" or len(pooled.get_target_inputs()) != 1:
            continue
        for reader in quantizer.output(0).get_target_inputs():
            reader.replace_source_output(pooled)
        quantizer.input(0).replace_source_output(pool.input_value(0))
        pool.input(0).replace_source_output(quantizer.output(0))
