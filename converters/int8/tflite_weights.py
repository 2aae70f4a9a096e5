"""Weights and biases of int8 TFLite layers: ranges of the ones, corrections of the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecnn.converters.int8.tflite_graph import WITH_WEIGHTS, Graph, Operator
from edgecnn.errors import ConversionError

_LEVELS = 127  # of int8 weights, to each side
_LARGEST_BIAS = 2**30  # of int32: leaves as much again for the sum
_SMALLEST = 1e-9  # the least range that ai-edge-quantizer makes a scale of


def weight_range(graph: Graph, operator: Operator, input_scale: float) -> NDArray[np.float64]:
    """The largest magnitude that each output channel's int8 weights must reach.

    A layer's bias is stored in units of input scale × weight scale; a channel with (nearly) no weights and a bias
    would overflow int32 there, and the tool clips it without a word. Such a channel gets a coarser scale: it has
    nothing that it could lose.

    Returns:
        float64, one dimension per axis of the weights, all 1 but the channels'.

    Raises:
        ConversionError: weights that are no numbers.
    """
    weights, axis = graph.weights(operator), WITH_WEIGHTS[operator.kind].output_axis
    others = tuple(i for i in range(weights.ndim) if i != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True).astype(np.float64)
    if not np.isfinite(largest).all():
        raise ConversionError(
            f"the weights of {graph.name_of(operator)!r} hold NaN or infinity: the training has diverged"
        )
    bias = graph.bias(operator)
    if bias is not None:
        needed = np.abs(bias.astype(np.float64)) / (_LARGEST_BIAS * input_scale) * _LEVELS
        largest = np.maximum(largest, needed.reshape([-1 if i == axis else 1 for i in range(weights.ndim)]))
    return np.asarray(np.maximum(largest, _SMALLEST), np.float64)


def correct_bias(
    floating: Graph, written: Graph, operator: Operator, twin: Operator, mean_input: NDArray[np.float64]
) -> None:
    """Take away from a written layer's bias what its rounded weights add to its mean output, in place.

    Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, section 4.2
    (with means seen in calibration instead of those that batch normalisation foretells).

    Args:
        floating, written: graphs of the float file, and of the int8 file's bytearray.
        operator, twin: the layer in the one and in the other.
        mean_input: of the layer, float64 [input channels].
    """
    places = WITH_WEIGHTS[operator.kind]
    bias = written.bias(twin)
    if bias is None:
        return
    bias_at = twin.inputs[places.bias]
    stored = written.tensors[bias_at]
    if sum(tensor.buffer == stored.buffer for tensor in written.tensors) > 1 or len(written.readers[bias_at]) > 1:
        return  # another layer's too, in the same units
    levels = written.weights(twin).astype(np.float64)
    scales = written.tensors[twin.inputs[places.weights]].scales.astype(np.float64)
    channels = [-1 if i == places.output_axis else 1 for i in range(levels.ndim)]
    error = levels * scales.reshape(channels) - floating.weights(operator)
    shift = -_mean_output(error, mean_input, operator)
    limits = np.iinfo(np.int32)
    units = shift / stored.scales.astype(np.float64)
    bias[...] = np.clip(np.rint(bias + units), limits.min, limits.max).astype(np.int32)


def _mean_output(
    weights: NDArray[np.float64], mean_input: NDArray[np.float64], operator: Operator
) -> NDArray[np.float64]:
    """What these weights give for an input that holds its mean everywhere (borders left out), float64 [channels]."""
    if operator.kind == "DEPTHWISE_CONV_2D":  # [1, height, width, channels × multiplier]
        taps = weights.sum(axis=(0, 1, 2))
        return np.asarray(taps * np.repeat(mean_input, taps.size // mean_input.size))
    taps = weights.reshape(weights.shape[0], -1, weights.shape[-1]).sum(axis=1)  # [outputs, inputs of the group]
    if operator.kind == "TRANSPOSE_CONV":  # an output pixel sees one tap of each stride × stride
        taps = taps / (operator.strides[0] * operator.strides[1])
    groups = mean_input.size // taps.shape[1]
    inputs = mean_input.reshape(groups, -1).repeat(taps.shape[0] // groups, axis=0)
    return np.asarray((taps * inputs).sum(axis=1))
