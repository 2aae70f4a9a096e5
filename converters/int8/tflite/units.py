"""Finds the layers of a TFLite graph whose channels can be scaled before and after SiLU, and how that changes the file.

See `edgecnn.converters.int8.search.equalisation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.converters.int8.tflite.graph import WITH_WEIGHTS, Graph
from edgecnn.errors import ConversionError
from edgecnn.runners.litert.file import Operator
from edgecnn.tool_output import quiet

ARGUMENT = ".equalised_argument"  # suffixes of the names of tensors that are added
SCALES = ".equalising_scales"
_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
# Every channel of their output holds values of the same channel of their input.
_KEEP_CHANNELS = ("MAX_POOL_2D", "PAD", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
_WIDEST = 1024  # a constant for fewer channels is repeated along a row: XNNPACK multiplies longer rows faster


@dataclass(frozen=True)
class Reader:
    """A layer that reads a unit's output.

    Attributes:
        layer: the convolution.
        start: its first input channel that holds the unit's.
    """

    layer: Operator
    start: int


@dataclass(frozen=True)
class Unit:
    """A convolution with SiLU, whose output only convolutions read, maybe through pools, resizes and concatenations.

    Attributes:
        layer, logistic, product: its operators.
        readers: the convolutions.
        joined: the concatenations' outputs on the way.
    """

    layer: Operator
    logistic: Operator
    product: Operator
    readers: tuple[Reader, ...]
    joined: tuple[int, ...]


def find_units(file: bytes, graph: Graph, layers: Iterable[Operator]) -> list[Unit]:
    """The units among these layers.

    Left out are those whose output is added to another tensor (both would need the same scales), multiplied
    (squeeze-and-excitation), sliced, or an output of the network, and layers that share their weights.
    """
    outputs = frozenset(_model(file).subgraphs[0].outputs.tolist())
    return [unit for layer in layers if (unit := _unit(graph, layer, outputs)) is not None]


def equalised_file(file: bytes, graph: Graph, scales: Mapping[Unit, NDArray[np.float32]]) -> bytes:
    """The float file with these units' channels divided by their scales; it answers as before.

    Args:
        file, graph: the float file.
        scales: float32 [channels] of each unit.

    Raises:
        ConversionError: it cannot be written.
    """
    model = _model(file)
    subgraph = model.subgraphs[0]
    added: dict[int, Any] = {}
    for unit, s in scales.items():
        places = WITH_WEIGHTS[unit.layer.kind]
        weights = subgraph.tensors[unit.layer.inputs[places.weights]]
        _store(model, weights, _values(model, weights) / _along_outputs(s, unit.layer))
        if graph.bias(unit.layer) is not None:
            bias = subgraph.tensors[unit.layer.inputs[places.bias]]
            _store(model, bias, _values(model, bias) / s)
        for reader in unit.readers:
            read = subgraph.tensors[reader.layer.inputs[WITH_WEIGHTS[reader.layer.kind].weights]]
            values = _values(model, read).copy()
            values[..., reader.start : reader.start + len(s)] *= s
            _store(model, read, values)
        added[unit.logistic.index] = _add_argument(model, graph, unit, s)
    operators = []
    for index, operator in enumerate(subgraph.operators):
        operators += [added[index]] if index in added else []
        operators.append(operator)
    subgraph.operators = operators
    return _packed(model)


def input_scales(units: Mapping[Unit, NDArray[np.float32]], layer: Operator, channels: int) -> NDArray[np.float32]:
    """By how much each input channel of a layer was divided, float32 [channels]; 1 where it was not."""
    found = np.ones(channels, np.float32)
    for unit, s in units.items():
        for reader in unit.readers:
            if reader.layer.index == layer.index:
                found[reader.start : reader.start + len(s)] = s
    return found


def _unit(graph: Graph, layer: Operator, outputs: frozenset[int]) -> Unit | None:
    y = layer.outputs[0]
    readers = {reader.kind: reader for reader in graph.readers.get(y, ())}
    if layer.kind not in _CONVOLUTIONS or len(graph.readers.get(y, ())) != 2 or set(readers) != {"LOGISTIC", "MUL"}:
        return None
    logistic, product = readers["LOGISTIC"], readers["MUL"]
    gate = logistic.outputs[0]
    if set(product.inputs) != {y, gate} or len(graph.readers[gate]) != 1 or outputs & {y, gate, product.outputs[0]}:
        return None
    if not _has_own_weights(graph, layer):
        return None
    unit = Unit(layer, logistic, product, (), ())
    return _followed(graph, unit, product.outputs[0], 0, outputs)


def _followed(graph: Graph, unit: Unit, tensor: int, start: int, outputs: frozenset[int]) -> Unit | None:
    """The unit with the layers that read this tensor; None where something else does."""
    channels = graph.tensors[tensor].shape[-1]
    readers = graph.readers.get(tensor, ())
    if not readers or tensor in outputs:
        return None
    for reader in readers:
        made = reader.outputs[0]
        if reader.kind in _CONVOLUTIONS:
            weights = graph.tensors[reader.inputs[1]]
            if reader.inputs[0] != tensor or not _has_own_weights(graph, reader) or weights.shape[-1] != channels:
                return None
            unit = replace(unit, readers=(*unit.readers, Reader(reader, start)))
            continue
        offset = 0
        if reader.kind == "CONCATENATION":
            sizes = [graph.tensors[each].shape for each in reader.inputs]
            whole = graph.tensors[made].shape
            if reader.inputs.count(tensor) != 1 or sum(size[-1] for size in sizes) != whole[-1]:
                return None
            offset = sum(size[-1] for size in sizes[: reader.inputs.index(tensor)])
            unit = replace(unit, joined=(*unit.joined, made))
        elif reader.kind not in _KEEP_CHANNELS or graph.tensors[made].shape[-1] != channels:
            return None
        followed = _followed(graph, unit, made, start + offset, outputs)
        if followed is None:
            return None
        unit = followed
    return unit


def _has_own_weights(graph: Graph, layer: Operator) -> bool:
    """Whether it has constant weights, and a bias if any, that no other operator reads."""
    places = WITH_WEIGHTS[layer.kind]
    constants = [layer.inputs[places.weights]]
    if places.bias < len(layer.inputs) and layer.inputs[places.bias] >= 0:
        constants.append(layer.inputs[places.bias])
    return all(graph.tensors[each].data is not None and len(graph.readers[each]) == 1 for each in constants)


def _along_outputs(s: NDArray[np.float32], layer: Operator) -> NDArray[np.float32]:
    return s if layer.kind == "DEPTHWISE_CONV_2D" else s.reshape(-1, 1, 1, 1)


def _add_argument(model: Any, graph: Graph, unit: Unit, s: NDArray[np.float32]) -> Any:
    """A multiplication of the layer's output by its scales, for the sigmoid; the operator to insert."""
    schema = _schema()
    subgraph = model.subgraphs[0]
    y = unit.layer.outputs[0]
    shape, name = graph.tensors[y].shape, graph.tensors[y].name
    width = shape[2] if len(s) < _WIDEST else 1
    constant = schema.TensorT(
        shape=[1, 1, width, len(s)], type=schema.TensorType.FLOAT32, name=(name + SCALES).encode()
    )
    constant.quantization = schema.QuantizationParametersT()
    argument = schema.TensorT(shape=list(shape), type=schema.TensorType.FLOAT32, name=(name + ARGUMENT).encode())
    argument.quantization = schema.QuantizationParametersT()
    _store(model, constant, np.tile(s, width))
    subgraph.tensors += [constant, argument]
    last = len(subgraph.tensors) - 1
    subgraph.operators[unit.logistic.index].inputs = [last]
    product = subgraph.operators[unit.product.index]
    return schema.OperatorT(
        opcodeIndex=product.opcodeIndex,
        inputs=[y, last - 1],
        outputs=[last],
        builtinOptionsType=schema.BuiltinOptions.MulOptions,
        builtinOptions=schema.MulOptionsT(),
    )


def _schema() -> Any:
    with quiet("ai-edge-litert"):
        from ai_edge_litert import schema_py_generated

        return schema_py_generated


def _model(file: bytes) -> Any:
    schema = _schema()
    return schema.ModelT.InitFromObj(schema.Model.GetRootAs(file, 0))


def _values(model: Any, tensor: Any) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.asarray(model.buffers[tensor.buffer].data, np.uint8).view(np.float32)
    return values.reshape(tuple(tensor.shape))


def _store(model: Any, tensor: Any, values: NDArray[Any]) -> None:
    """Give a tensor values of its own; equal constants of a file may share a buffer."""
    if not tensor.buffer or sum(each.buffer == tensor.buffer for each in model.subgraphs[0].tensors) > 1:
        model.buffers.append(_schema().BufferT())
        tensor.buffer = len(model.buffers) - 1
    model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(values, np.float32).tobytes(), np.uint8)


def _packed(model: Any) -> bytes:
    import flatbuffers  # ai-edge-litert depends on it

    try:
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), b"TFL3")
        return bytes(builder.Output())
    except Exception as failed:
        raise ConversionError(f"the equalised TFLite file cannot be written: {failed}") from failed
