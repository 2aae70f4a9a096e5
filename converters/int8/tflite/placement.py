"""Decides which operators of a TFLite graph compute in int8, and from which tensor each tensor takes its range."""

from __future__ import annotations

from collections.abc import Container, Iterable

import numpy as np

from edgecnn.converters.int8.search.ranges import ACTIVATIONS, Function
from edgecnn.converters.int8.tflite.graph import Graph
from edgecnn.runners.litert.file import Operator

# Operators without weights that XNNPACK computes in int8, and some whose builtin kernel is as fast in int8 as in
# float (PADV2, RESIZE_NEAREST_NEIGHBOR, STRIDED_SLICE). XNNPACK has no int8 RELU (outside a layer), HARD_SWISH, GELU,
# AVERAGE_POOL_2D or MAXIMUM: in int8 those leave the delegate, and ESPNetv2 ran at half its speed.
_WEIGHTLESS = frozenset(
    {
        "ADD",
        "CONCATENATION",
        "LOGISTIC",
        "MAX_POOL_2D",
        "MEAN",
        "MUL",
        "PAD",
        "PADV2",
        "RESHAPE",
        "RESIZE_BILINEAR",
        "RESIZE_NEAREST_NEIGHBOR",
        "SLICE",
        "SPACE_TO_DEPTH",
        "SPLIT",
        "STRIDED_SLICE",
        "SUB",
        "SUM",
        "TANH",
        "TRANSPOSE",
    }
)
# Their output holds only values of their input, or zeros: one range serves both.
_SAME_VALUES = frozenset({"MAX_POOL_2D", "PAD", "PADV2", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "TRANSPOSE"})


def int8_operators(graph: Graph, layers: Iterable[Operator], barred: Container[int] = ()) -> set[int]:
    """Indices of the operators that compute in int8, if these layers do.

    An operator without weights is included if all its inputs come from int8 operators (so that no float layer's output
    is rounded to 8 bits), and if an int8 operator reads its output (so that no value is rounded without need).
    Decoding, softmax and argmax after the last layers therefore stay float.

    Args:
        graph: the float file's graph.
        layers: the layers' operators.
        barred: indices of operators that are never included.
    """
    chosen = {operator.index for operator in layers}
    in_int8 = set(chosen)
    for operator in graph.operators:  # in the order of execution: producers are decided before
        if operator.kind not in _WEIGHTLESS or operator.index in barred or _pads_with_a_value(graph, operator):
            continue
        producers = [graph.producer.get(tensor) for tensor in graph.activations(operator)]
        if producers and all(producer is not None and producer.index in in_int8 for producer in producers):
            in_int8.add(operator.index)
    for operator in reversed(graph.operators):  # readers are decided before
        readers = {reader.index for tensor in operator.outputs for reader in graph.readers.get(tensor, ())}
        if operator.index not in chosen and not readers & in_int8:
            in_int8.discard(operator.index)
    return in_int8


def range_source(graph: Graph, tensor: int) -> int:
    """The tensor whose range this one shares: itself, or the tensor that was padded, reshaped or pooled to make it."""
    producer = graph.producer.get(tensor)
    while producer is not None and producer.kind in _SAME_VALUES and graph.is_activation(producer.inputs[0]):
        if _pads_with_a_value(graph, producer):
            break
        tensor = producer.inputs[0]
        producer = graph.producer.get(tensor)
    return tensor


def activation_after(graph: Graph, tensor: int) -> Function | None:
    """The activation function that is a tensor's only reader; None for anything else."""
    readers = graph.readers.get(tensor, ())
    kinds = sorted(reader.kind for reader in readers)
    if kinds == ["LOGISTIC", "MUL"]:
        logistic, product = sorted(readers, key=lambda reader: reader.kind)
        return ACTIVATIONS["silu"] if set(product.inputs) == {tensor, logistic.outputs[0]} else None
    names = {"LOGISTIC": "sigmoid", "HARD_SWISH": "hard_swish", "RELU": "relu", "RELU6": "relu6"}
    return ACTIVATIONS[names[kinds[0]]] if len(kinds) == 1 and kinds[0] in names else None


def _pads_with_a_value(graph: Graph, operator: Operator) -> bool:
    """Whether it pads with a value outside its input's range; the lowest float (before a maximum) does not count."""
    if operator.kind != "PADV2":
        return False
    value = graph.tensors[operator.inputs[2]].data
    return value is None or bool(np.any(value > np.finfo(np.float16).min) and np.any(value != 0))
