"""Int8 TFLite files, through ai-edge-quantizer, with ranges of our own."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import LayerRecord
from edgecnn.compression.plan import Plan, RangeMethod
from edgecnn.converters.base import Converted
from edgecnn.converters.int8.base import Progress, with_learned
from edgecnn.converters.int8.tflite_graph import WITH_WEIGHTS, Graph, Operator
from edgecnn.converters.int8.tflite_placement import int8_operators
from edgecnn.converters.int8.tflite_quantizer import OperatorQuantizer, Table
from edgecnn.converters.int8.tflite_statistics import RANGE_METHODS, Statistics, open_interpreter, run, tensor_values
from edgecnn.converters.int8.tflite_weights import Levels, correct_layer, round_weights, weight_range
from edgecnn.errors import ConversionError
from edgecnn.results import UInt8Array

# Depthwise convolutions stay float: XNNPACK has none with dynamic ranges, and the builtin kernel that takes over
# is twice as slow as float and less exact (YOLOX-nano: AP .235 with them, .336 without, .336 in float). Transposed
# ones stay float because they were four times as slow.
_DYNAMIC = ("CONV_2D", "FULLY_CONNECTED")


class TfliteInt8Writer:
    """Writes int8 TFLite files from one float32 file.

    Attributes:
        layers: see `edgecnn.converters.int8.base.Int8Writer`.
        range_methods: the usual one first.
        corrects_weights: it can.
        whole_precisions: see `write_dynamic` and `write_16bit_activations`.
    """

    corrects_weights: bool = True
    whole_precisions: Sequence[str] = ("int8-dynamic", "int8-a16")

    def __init__(self, float_file: Path, layers: Sequence[LayerRecord], *, threads: int) -> None:
        """Read the file and find the layers in it.

        Raises:
            ConversionError: the file cannot be read, or none of the layers is in it.
        """
        self._threads = threads
        self._float_file = float_file
        self._file, self._graph = _read(float_file)
        self._found = self._graph.find_layers(layers)
        if not self._found:
            raise ConversionError(
                f"none of the network's {len(layers)} layers is in {float_file.name}: are both of one conversion? "
                "Convert again"
            )
        self.layers: Sequence[str] = tuple(self._found)
        self.range_methods = with_learned(RANGE_METHODS, layers)
        self._learned = {
            operator.index: layer.learned
            for layer in layers
            if layer.learned is not None
            for operator in self._found.get(layer.name, ())
        }
        self._zero: set[int] = set()
        self._levels: dict[tuple[int, bytes], Levels] = {}
        self._statistics = Statistics(self._graph, self._in_int8(self._operators()), learned=self._learned)

    def calibrate(self, frames: Sequence[UInt8Array], progress: Progress | None = None) -> None:
        """Run the float file on each frame, and count what its activations hold.

        Layers that read or write nothing but zeros leave `layers`: no scale can be read off them, and nothing they
        do matters.

        Raises:
            ConversionError: no frames, frames of another shape, or activations that are no numbers.
        """
        self._levels.clear()
        self._statistics.collect(self._file, frames, threads=self._threads, progress=progress)
        for index in self._in_int8(self._operators()):
            operator = self._graph.operators[index]
            tensors = (*self._graph.activations(operator), *operator.outputs)
            if any(self._statistics.is_zero(tensor) for tensor in tensors):
                self._zero.add(index)
        self.layers = [name for name in self.layers if not self._zero.intersection(o.index for o in self._found[name])]

    def write(self, plan: Plan, folder: Path) -> Converted:
        """Write `model.tflite` into `folder`.

        Raises:
            ConversionError: not calibrated, unknown layers, or the tool failed.
        """
        chosen = self._operators(self._known(plan.int8_layers))
        written: bytes | bytearray = self._file
        if chosen:
            operators = self._in_int8(chosen)
            written = self._quantizer.static(operators, self._table(plan.ranges, operators, bits=8))
            if plan.correct_weights:
                self._correct(written, chosen)
        return _stored(folder, written, self._graph, plan.recipe)

    def write_whole(self, precision: str, folder: Path) -> Converted:
        """Write the whole network with activations quantized as they come, or in 16 bits.

        Raises:
            ConversionError: see `write_dynamic` and `write_16bit_activations`.
        """
        if precision == "int8-dynamic":
            return write_dynamic(self._float_file, folder)
        return write_16bit_activations(self, folder)

    def int8_layers(self, file: Path) -> frozenset[str]:
        """Layers whose operators read int8 weights in the interpreter that opened this file.

        Such an operator computes in integers: with an input that is int8 (or of 16 bits), or that the kernel
        quantizes itself (dynamic ranges). Weights that are only stored in int8 come through a dequantizing operator.
        """
        interpreter = open_interpreter(file.read_bytes(), keep_all=False)
        details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
        in_int8 = {
            details[operator["outputs"][0]]["name"]
            # The operators that the delegate took over are still listed here, as they run in it.
            for operator in interpreter._get_ops_details()
            if operator["op_name"] in WITH_WEIGHTS
            and details[operator["inputs"][WITH_WEIGHTS[operator["op_name"]].weights]]["dtype"] == np.int8
        }
        return frozenset(
            name
            for name, operators in self._found.items()
            if all(self._graph.name_of(operator) in in_int8 for operator in operators)
        )

    def layer_outputs(self, file: Path, frame: UInt8Array) -> Mapping[str, NDArray[Any]]:
        """Each layer's output for one frame, float32 [1, height, width, channels]; where it runs twice, the first."""
        interpreter = open_interpreter(file.read_bytes(), threads=self._threads)
        run(interpreter, frame)
        details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
        names = {layer: self._graph.name_of(operators[0]) for layer, operators in self._found.items()}
        return {layer: tensor_values(interpreter, details[name]) for layer, name in names.items() if name in details}

    @cached_property
    def _quantizer(self) -> OperatorQuantizer:
        return OperatorQuantizer(self._file, self._graph)

    def _operators(self, layers: Iterable[str] | None = None) -> Sequence[Operator]:
        return [o for name in (self.layers if layers is None else layers) for o in self._found[name]]

    def _in_int8(self, chosen: Sequence[Operator]) -> set[int]:
        return int8_operators(self._graph, chosen, barred=self._zero)

    def _known(self, layers: Iterable[str]) -> Sequence[str]:
        unknown = sorted(set(layers) - set(self.layers))
        if unknown:
            raise ConversionError(
                f"the plan names layers that are not in this TFLite file: {', '.join(unknown)}; "
                f"it holds {len(self.layers)}: {', '.join(self.layers)}"
            )
        return sorted(layers)

    def _table(self, method: RangeMethod, operators: Iterable[int], *, bits: int) -> Table:
        """What the tool's own calibration would have found: ranges of activations and of weights."""
        if not self._statistics.collected:
            raise ConversionError("ranges of activations are unknown: call calibrate(frames) before write(plan)")
        ranges = self._statistics.ranges(method, operators)
        tensors = self._graph.tensors
        table: Table = {}
        for tensor, ends in ranges.items():
            lowest, highest = (np.full([1] * len(tensors[tensor].shape), end) for end in ends)
            table[tensors[tensor].name] = {"min": lowest, "max": highest}
        for operator in (self._graph.operators[index] for index in operators):
            if operator.kind in WITH_WEIGHTS:
                places = WITH_WEIGHTS[operator.kind]
                low, high = ranges[operator.inputs[places.input]]
                largest = weight_range(self._graph, operator, (high - low) / (2**bits - 1))
                table[tensors[operator.inputs[places.weights]].name] = {"min": -largest, "max": largest}
        return table

    def _correct(self, written: bytes | bytearray, chosen: Sequence[Operator]) -> None:
        graph = Graph.read(written)
        twins = {graph.name_of(operator): operator for operator in graph.with_weights()}
        for operator in chosen:
            twin, moments = twins[self._graph.name_of(operator)], self._statistics.moments(operator)
            scales = graph.tensors[twin.inputs[WITH_WEIGHTS[twin.kind].weights]].scales
            key = operator.index, scales.tobytes()
            if key not in self._levels:
                self._levels[key] = round_weights(self._graph, operator, scales, moments)
            correct_layer(self._graph, graph, operator, twin, self._levels[key], moments)


def write_dynamic(float_file: Path, folder: Path) -> Converted:
    """Write `model.tflite` with int8 weights, and activations that are quantized as they come; needs no calibration.

    Each layer's input gets a scale of its own for every frame, its output stays float, so that little is lost.
    tflite-runtime 2.14 computes such files wrongly: they are for LiteRT.

    Raises:
        ConversionError: the file cannot be read, holds nothing to quantize, or the tool failed.
    """
    file, graph = _read(float_file)
    operators = [operator.index for operator in graph.with_weights() if operator.kind in _DYNAMIC]
    if not operators:
        raise ConversionError(f"{float_file.name} has no convolution or matrix product with weights to quantize")
    return _stored(folder, OperatorQuantizer(file, graph).dynamic(operators), graph, "dynamic_wi8_afp32")


def write_16bit_activations(writer: TfliteInt8Writer, folder: Path) -> Converted:
    """Write `model.tflite` with int8 weights and 16-bit activations in every layer, over the ranges that were seen.

    XNNPACK has no 16-bit kernels: on a CPU such a file is 20 to 70 times slower than float; it is for DSPs.

    Args:
        writer: calibrated.
        folder: to write into.

    Raises:
        ConversionError: not calibrated, or the tool failed.
    """
    operators = writer._in_int8(writer._operators())
    table = writer._table("min-max", operators, bits=16)
    written = writer._quantizer.static(operators, table, activation_bits=16)
    return _stored(folder, written, writer._graph, "static_wi8_ai16")


def _read(float_file: Path) -> tuple[bytes, Graph]:
    try:
        file = float_file.read_bytes()
        return file, Graph.read(file)
    except (OSError, ValueError, TypeError, IndexError, AttributeError, struct.error) as failed:
        raise ConversionError(f"{float_file.name} cannot be read as a TFLite file: {failed}; convert again") from failed


def _stored(folder: Path, written: bytes | bytearray, graph: Graph, recipe: str) -> Converted:
    path = folder / "model.tflite"
    path.write_bytes(written)
    tool = f"ai-edge-quantizer {version('ai-edge-quantizer')}, {recipe}"
    return Converted([path], tool, sum(operator.kind == "TRANSPOSE" for operator in graph.operators))
