"""Ranges and corrections of the weights and biases of int8 TFLite layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.converters.int8.layer_inputs import Geometry, sample_patches, sample_vectors
from edgecnn.converters.int8.search.rounding import InputMoments
from edgecnn.converters.int8.tflite.graph import WITH_WEIGHTS, Graph
from edgecnn.errors import ConversionError
from edgecnn.runners.litert.file import Operator

Levels: TypeAlias = NDArray[np.int8] | None

_LEVELS = 127  # of int8 weights, to each side
_LARGEST_BIAS = 2**30  # half of the int32 range; the sum needs the other half
_SMALLEST = 1e-9  # the smallest range for which ai-edge-quantizer makes a scale


def weight_range(graph: Graph, operator: Operator, input_scale: float) -> NDArray[np.float64]:
    """The largest magnitude that each output channel's int8 weights must cover.

    A layer's bias is stored in units of input scale × weight scale; a channel with (almost) zero weights and a bias
    would overflow int32 there, and the tool clips it silently. Such a channel gets a coarser scale, at no loss.

    Returns:
        float64, one dimension per axis of the weights, all of size 1 except the channels' axis.

    Raises:
        ConversionError: weights that are not finite.
    """
    weights, axis = graph.weights(operator), WITH_WEIGHTS[operator.kind].output_axis
    others = tuple(i for i in range(weights.ndim) if i != axis)
    largest = np.abs(weights).max(axis=others, keepdims=True).astype(np.float64)
    if not np.isfinite(largest).all():
        raise ConversionError(
            f"the weights of {graph.name_of(operator)!r} hold NaN or infinity: expected finite, trained weights; train "
            f"again"
        )
    bias = graph.bias(operator)
    if bias is not None:
        needed = np.abs(bias.astype(np.float64)) / (_LARGEST_BIAS * input_scale) * _LEVELS
        largest = np.maximum(largest, needed.reshape([-1 if i == axis else 1 for i in range(weights.ndim)]))
    return np.asarray(np.maximum(largest, _SMALLEST), np.float64)


def sample_inputs(
    graph: Graph, operator: Operator, values: NDArray[np.float32], count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The inputs of a layer's weights at some positions, [groups, inputs, positions].

    For a transposed convolution only the channels, [1, channels, positions].

    Args:
        graph: the float file's graph.
        operator: the layer.
        values: the layer's input, channels last.
        count: how many positions.
        rng: chooses the positions.
    """
    weights = graph.weights(operator)
    if operator.kind == "FULLY_CONNECTED":  # it may flatten its input
        return sample_vectors(values, weights.shape[-1], count, rng)
    if operator.kind == "TRANSPOSE_CONV":
        return sample_vectors(values, values.shape[-1], count, rng)
    kernel = (weights.shape[1], weights.shape[2])
    channels = values.shape[-1]
    groups = channels if operator.kind == "DEPTHWISE_CONV_2D" else channels // weights.shape[-1]
    pads = [
        _padding(size, taps, stride, dilation) if operator.same_padding else (0, 0)
        for size, taps, stride, dilation in zip(
            values.shape[1:3], kernel, operator.strides, operator.dilations, strict=True
        )
    ]
    geometry = Geometry(
        kernel=kernel,
        strides=operator.strides,
        dilations=operator.dilations,
        pads=(pads[0][0], pads[1][0], pads[0][1], pads[1][1]),
        groups=groups,
    )
    return sample_patches(values.transpose(0, 3, 1, 2), geometry, count, rng)


def _padding(size: int, taps: int, stride: int, dilation: int) -> tuple[int, int]:
    """Padding before and after. Source: TFLite's ComputePaddingHeightWidth."""
    total = max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def round_weights(graph: Graph, operator: Operator, scales: NDArray[np.float32], moments: InputMoments) -> Levels:
    """A layer's weights, rounded so that its output changes least; None where the tool's rounding is as good.

    Args:
        graph: the float file's graph.
        operator: the layer.
        scales: scales of its output channels.
        moments: moments of its inputs.
    """
    if operator.kind == "TRANSPOSE_CONV":
        return None
    steps = graph.weights(operator) / along_outputs(scales, operator, 4)
    grouped = by_group(steps, operator, moments.groups)
    rounded = moments.round(grouped, has_bias=graph.bias(operator) is not None, most=_LEVELS)
    return as_stored(rounded, operator, steps.shape)


def correct_layer(
    floating: Graph, written: Graph, operator: Operator, twin: Operator, levels: Levels, moments: InputMoments
) -> None:
    """Store these levels in a written layer, and subtract the mean error of its weights from its bias.

    Weights and biases that other layers read too are not changed.

    Args:
        floating, written: graphs of the float file, and of the int8 file's bytearray.
        operator, twin: the layer in the float file and in the int8 file.
        levels: levels of its weights; None leaves them unchanged.
        moments: moments of its inputs.
    """
    places = WITH_WEIGHTS[operator.kind]
    stored = written.weights(twin)
    if levels is not None and _is_own(written, twin.inputs[places.weights]):
        stored[...] = levels
    bias = written.bias(twin)
    if bias is None or not _is_own(written, twin.inputs[places.bias]):
        return
    scales = written.tensors[twin.inputs[places.weights]].scales.astype(np.float64)
    error = stored * along_outputs(scales, operator, stored.ndim) - floating.weights(operator)
    units = -_mean_output(error, moments, operator) / written.tensors[twin.inputs[places.bias]].scales.astype(
        np.float64
    )
    limits = np.iinfo(np.int32)
    bias[...] = np.clip(np.rint(bias + units), limits.min, limits.max).astype(np.int32)


def _is_own(graph: Graph, tensor: int) -> bool:
    """Whether only one operator reads a constant."""
    buffer = graph.tensors[tensor].buffer
    return sum(other.buffer == buffer for other in graph.tensors) == 1 and len(graph.readers[tensor]) == 1


def along_outputs(values: NDArray[Any], operator: Operator, ndim: int) -> NDArray[Any]:
    """One value per channel (or one for all), in a shape that broadcasts with the weights."""
    axis = WITH_WEIGHTS[operator.kind].output_axis
    if operator.kind == "FULLY_CONNECTED":
        ndim = 2
    return values.reshape([-1 if i == axis else 1 for i in range(ndim)])


def by_group(weights: NDArray[Any], operator: Operator, groups: int) -> NDArray[Any]:
    """[groups, outputs, inputs × rows × columns]."""
    if operator.kind == "FULLY_CONNECTED":
        return weights[None]
    depthwise = operator.kind == "DEPTHWISE_CONV_2D"  # [1, rows, columns, outputs]
    outputs_first = weights.transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2))
    return outputs_first.reshape(groups, len(outputs_first) // groups, -1)


def as_stored(levels: NDArray[np.int8], operator: Operator, shape: Sequence[int]) -> NDArray[np.int8]:
    """Inverse of `by_group`."""
    if operator.kind == "FULLY_CONNECTED":
        return np.asarray(levels[0])
    if operator.kind == "DEPTHWISE_CONV_2D":
        return np.asarray(levels.reshape(shape[3], 1, shape[1], shape[2]).transpose(1, 2, 3, 0))
    return np.asarray(levels.reshape(shape[0], shape[3], shape[1], shape[2]).transpose(0, 2, 3, 1))


def _mean_output(weights: NDArray[np.float64], moments: InputMoments, operator: Operator) -> NDArray[np.float64]:
    """Mean output of these weights, float64 [channels]."""
    if operator.kind == "TRANSPOSE_CONV":  # an output pixel uses one of each stride × stride weights
        taps = weights.sum(axis=(1, 2)) / (operator.strides[0] * operator.strides[1])
        return moments.mean_output(taps[None])
    return moments.mean_output(by_group(weights, operator, moments.groups))
