"""Finds the layers of an ONNX graph whose channels can be scaled before and after SiLU, and how that changes the graph.

See `edgecnn.converters.int8.search.equalisation`; for TFLite, `edgecnn.converters.int8.tflite.units`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edgecnn.converters.int8.onnx import rules
from edgecnn.converters.int8.onnx.graph import Graph, attributes
from edgecnn.converters.int8.onnx.rules import ARGUMENT, SCALES

_KEEP_CHANNELS = ("MaxPool", "Resize")  # every channel of their output holds values of the same channel of their input
_WIDEST = 1024  # a constant for fewer channels is repeated along a row: longer rows are multiplied faster


@dataclass(frozen=True)
class Reader:
    """A layer that reads a unit's output.

    Attributes:
        layer: index of the convolution.
        start: its first input channel that holds the unit's.
    """

    layer: int
    start: int


@dataclass(frozen=True)
class Unit:
    """A convolution with SiLU, whose output only convolutions read, maybe through pools, resizes and concatenations.

    Attributes:
        layer, sigmoid, product: indices of its nodes.
        readers: the convolutions.
        joined: the concatenations' outputs on the way.
    """

    layer: int
    sigmoid: int
    product: int
    readers: tuple[Reader, ...]
    joined: tuple[str, ...]


def find_units(graph: Graph, layers: Iterable[int]) -> list[Unit]:
    """The units among these layers; left out are the same as in TFLite."""
    return [unit for layer in layers if (unit := _unit(graph, layer)) is not None]


def equalised_graph(graph: Graph, scales: Mapping[Unit, NDArray[np.float32]]) -> Graph:
    """The graph with these units' channels divided by their scales, float32 [channels]; it answers as before."""
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def change(name: str, values: NDArray[Any]) -> None:
        constants[name].CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values, np.float32), name))

    def value(name: str) -> NDArray[np.float32]:
        return np.array(onnx.numpy_helper.to_array(constants[name]), np.float32)

    arguments: dict[int, Any] = {}
    for unit, s in scales.items():
        layer = graph.nodes[unit.layer]
        change(layer.input[1], value(layer.input[1]) / s.reshape(-1, 1, 1, 1))
        if len(layer.input) > 2 and layer.input[2]:
            change(layer.input[2], value(layer.input[2]) / s)
        for reader in unit.readers:
            name = graph.nodes[reader.layer].input[1]
            weights, part = value(name), slice(reader.start, reader.start + len(s))
            if is_depthwise(graph, reader.layer):
                weights[part] *= s.reshape(-1, 1, 1, 1)
            else:
                weights[:, part] *= s.reshape(1, -1, 1, 1)
            change(name, weights)
        y = layer.output[0]
        width = (graph.shape(y) or (1, 1, 1, 1))[3] if len(s) < _WIDEST else 1
        constant = np.repeat(s.reshape(1, -1, 1, 1), width, axis=3)
        model.graph.initializer.append(onnx.numpy_helper.from_array(constant, y + SCALES))
        model.graph.node[unit.sigmoid].input[0] = y + ARGUMENT
        arguments[unit.sigmoid] = onnx.helper.make_node("Mul", [y, y + SCALES], [y + ARGUMENT], y + ARGUMENT)
    nodes = []
    for index, node in enumerate(model.graph.node):
        nodes += [arguments[index]] if index in arguments else []
        nodes.append(node)
    written = onnx.ModelProto()
    written.CopyFrom(model)
    del written.graph.node[:]
    written.graph.node.extend(nodes)
    return Graph(written)


def is_depthwise(graph: Graph, layer: int) -> bool:
    """Whether each of a convolution's output channels reads the input channel of the same number."""
    node = graph.nodes[layer]
    shape = graph.array(node.input[1]).shape
    return bool(attributes(node).get("group", 1) == shape[0] > 1 and shape[1] == 1)


def _unit(graph: Graph, layer: int) -> Unit | None:
    node = graph.nodes[layer]
    y = node.output[0]
    readers = {graph.nodes[index].op_type: index for index in graph.readers(y)}
    if node.op_type != "Conv" or len(graph.readers(y)) != 2 or set(readers) != {"Sigmoid", "Mul"}:
        return None
    sigmoid, product = readers["Sigmoid"], readers["Mul"]
    gate, made = graph.nodes[sigmoid].output[0], graph.nodes[product].output[0]
    if set(graph.nodes[product].input) != {y, gate} or len(graph.readers(gate)) != 1:
        return None
    channels = graph.array(node.input[1]).shape[0]
    if graph.outputs & {y, gate} or not _has_own_weights(graph, layer) or graph.array(node.input[1]).ndim != 4:
        return None
    return _followed(graph, Unit(layer, sigmoid, product, (), ()), made, 0, channels)


def _followed(graph: Graph, unit: Unit, tensor: str, start: int, channels: int) -> Unit | None:
    """The unit with the layers that read this tensor of so many channels; None where something else does."""
    readers = graph.readers(tensor)
    if not readers or tensor in graph.outputs:
        return None
    for index in readers:
        node = graph.nodes[index]
        if node.op_type == "Conv":
            if node.input[0] != tensor or not _has_own_weights(graph, index) or not _reads(graph, index, channels):
                return None
            unit = replace(unit, readers=(*unit.readers, Reader(index, start)))
            continue
        offset, whole = 0, channels
        if node.op_type == "Concat" and attributes(node).get("axis") == 1:
            shapes = [graph.shape(name) for name in node.input]
            if None in shapes or list(node.input).count(tensor) != 1:
                return None
            sizes = [shape[1] for shape in shapes if shape is not None]
            offset, whole = sum(sizes[: list(node.input).index(tensor)]), sum(sizes)
            unit = replace(unit, joined=(*unit.joined, *rules.outputs(graph, index)))
        elif node.op_type not in _KEEP_CHANNELS or attributes(node).get("mode") == b"cubic" or len(node.output) != 1:
            return None
        followed = _followed(graph, unit, node.output[0], start + offset, whole)
        if followed is None:
            return None
        unit = followed
    return unit


def _reads(graph: Graph, layer: int, channels: int) -> bool:
    shape = graph.array(graph.nodes[layer].input[1]).shape
    if is_depthwise(graph, layer):
        return bool(shape[0] == channels)
    return bool(attributes(graph.nodes[layer]).get("group", 1) == 1 and shape[1] == channels)


def _has_own_weights(graph: Graph, layer: int) -> bool:
    """Whether it has constant weights, and a bias if any, that no other node reads."""
    constants = [name for name in graph.nodes[layer].input[1:] if name]
    return all(graph.is_constant(name) and len(graph.readers(name)) == 1 for name in constants)
