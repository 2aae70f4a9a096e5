"""Writes int8 TFLite files with ai-edge-quantizer and our own ranges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import LayerRecord
from edgecnn.converters.base import Converted
from edgecnn.converters.int8.base import Progress, with_learned
from edgecnn.converters.int8.search.equalisation import Equalisation
from edgecnn.converters.int8.search.plan import Plan, RangeMethod
from edgecnn.converters.int8.tflite.forms import EqualisedForm, FloatForm, choose_equalisations
from edgecnn.converters.int8.tflite.graph import WITH_WEIGHTS, Graph
from edgecnn.converters.int8.tflite.placement import int8_operators
from edgecnn.converters.int8.tflite.quantizer import OperatorQuantizer, Table
from edgecnn.converters.int8.tflite.statistics import RANGE_METHODS, Statistics, open_interpreter, run, tensor_values
from edgecnn.converters.int8.tflite.units import SCALES, Unit, find_units
from edgecnn.converters.int8.tflite.weights import Levels, correct_layer, round_weights, weight_range
from edgecnn.errors import ConversionError
from edgecnn.results import UInt8Array
from edgecnn.runners.litert.file import MalformedFile, Operator

# Depthwise convolutions stay float: XNNPACK has none with dynamic ranges, and the builtin kernel used instead
# is twice as slow as float and less exact (YOLOX-nano: AP .235 with them, .336 without, .336 in float). Transposed
# convolutions stay float because they were four times as slow.
_DYNAMIC = ("CONV_2D", "FULLY_CONNECTED")
_FORMS_KEPT = 3  # each holds a copy of the file


class TfliteInt8Writer:
    """Writes int8 TFLite files from one float32 file.

    Attributes:
        layers: see `edgecnn.converters.int8.base.Int8Writer`.
        range_methods: the usual one first.
        corrects_weights: True.
        whole_precisions: see `write_dynamic` and `write_16bit_activations`.
    """

    corrects_weights: bool = True
    whole_precisions: Sequence[str] = ("int8-dynamic", "int8-a16")

    def __init__(self, float_file: Path, layers: Sequence[LayerRecord], *, threads: int) -> None:
        """Read the file and find the layers in it.

        Raises:
            ConversionError: the file cannot be read, or contains none of the layers.
        """
        self._threads = threads
        self._float_file = float_file
        self._file, self._graph = _read(float_file)
        self._found = self._graph.find_layers(layers)
        if not self._found:
            raise ConversionError(
                f"none of the network's {len(layers)} layers is in {float_file.name}: the file and the layer records "
                "must come from one conversion; convert again"
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
        self._levels: dict[tuple[int, bytes, bytes], Levels] = {}
        once = {name: operators[0] for name, operators in self._found.items() if len(operators) == 1}
        units = {unit.layer.index: unit for unit in find_units(self._file, self._graph, once.values())}
        self._units = {name: units[operator.index] for name, operator in once.items() if operator.index in units}
        self._statistics = Statistics(
            self._graph,
            self._in_int8(self._operators()),
            learned=self._learned,
            sampled=[unit.layer for unit in self._units.values()],
        )
        self._form = FloatForm(self._file, self._graph, self._statistics)
        self._equalised: dict[frozenset[str], EqualisedForm] = {}

    def calibrate(self, frames: Sequence[UInt8Array], progress: Progress | None = None) -> None:
        """Run the float file on each frame, and collect statistics of its activations.

        Layers whose input or output is always zero are removed from `layers`: they have no scale, and their output
        does not matter.

        Raises:
            ConversionError: no frames, frames of another shape, or activations that are not finite.
        """
        self._levels.clear()
        self._equalised.clear()
        self.__dict__.pop("_equalisations", None)  # of earlier frames
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
        form = self._form
        if chosen:
            form = self._form_of(plan)
            operators = self._in_int8(chosen, form)
            written = form.quantizer.static(operators, self._table(plan.ranges, operators, bits=8, form=form))
            if plan.correct_weights:
                self._correct(written, chosen, form)
        return _stored(folder, written, form.graph, plan.recipe)

    def write_whole(self, precision: str, folder: Path) -> Converted:
        """Write the whole network with activations quantized at run time, or in 16 bits.

        Raises:
            ConversionError: see `write_dynamic` and `write_16bit_activations`.
        """
        if precision == "int8-dynamic":
            return write_dynamic(self._float_file, folder)
        return write_16bit_activations(self, folder)

    def int8_layers(self, file: Path) -> frozenset[str]:
        """Layers whose operators read int8 weights in the interpreter that opened this file.

        Such an operator computes in integers: its input is int8 or int16, or the kernel quantizes it (dynamic ranges).
        Weights that are only stored in int8 are read through a dequantizing operator instead.
        """
        interpreter = open_interpreter(file.read_bytes(), keep_all=False)
        details = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
        in_int8 = {
            details[operator["outputs"][0]]["name"]
            # Operators of the delegate are still listed here, as they run in it.
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
        """Each layer's output for one frame, float32 [1, height, width, channels]; of a repeated layer, the first."""
        interpreter = open_interpreter(file.read_bytes(), threads=self._threads)
        run(interpreter, frame)
        details = {detail["name"]: detail for detail in interpreter.get_tensor_details()}
        names = {layer: self._graph.name_of(operators[0]) for layer, operators in self._found.items()}
        values = {layer: tensor_values(interpreter, details[name]) for layer, name in names.items() if name in details}
        for layer, name in names.items():
            if name + SCALES in details and layer in values:  # equalised: the channels were divided by these
                scales = tensor_values(interpreter, details[name + SCALES])
                values[layer] = values[layer] * scales[:, :, :1]
        return values

    @property
    def equalisable(self) -> Sequence[str]:
        """Layers that can be equalised, after `calibrate`."""
        return [name for name in self.layers if name in self._units and self._units[name] in self._equalisations]

    @cached_property
    def _equalisations(self) -> Mapping[Unit, Equalisation]:
        alive = [unit for name, unit in self._units.items() if name in set(self.layers)]
        return choose_equalisations(self._graph, self._statistics, alive)

    def _form_of(self, plan: Plan) -> FloatForm:
        """The float file that a plan's int8 file is made from."""
        names = frozenset(plan.equalised & plan.int8_layers)
        unknown = sorted(names.difference(self.equalisable)) if names else []
        if unknown:
            raise ConversionError(f"the plan equalises layers that cannot be equalised here: {', '.join(unknown)}")
        if not names:
            return self._form
        if names not in self._equalised:
            while len(self._equalised) >= _FORMS_KEPT:
                self._equalised.pop(next(iter(self._equalised)))
            chosen = {self._units[name]: self._equalisations[self._units[name]] for name in names}
            self._equalised[names] = EqualisedForm(self._form, self._statistics, chosen)
        return self._equalised[names]

    def _operators(self, layers: Iterable[str] | None = None) -> Sequence[Operator]:
        return [o for name in (self.layers if layers is None else layers) for o in self._found[name]]

    def _in_int8(self, chosen: Sequence[Operator], form: FloatForm | None = None) -> set[int]:
        if form is None:
            return int8_operators(self._graph, chosen, barred=self._zero)
        barred = {form.operator(self._graph.operators[index]).index for index in self._zero}
        return int8_operators(form.graph, [form.operator(operator) for operator in chosen], barred=barred)

    def _known(self, layers: Iterable[str]) -> Sequence[str]:
        unknown = sorted(set(layers) - set(self.layers))
        if unknown:
            raise ConversionError(
                f"the plan names layers that are not in this TFLite file: {', '.join(unknown)}; "
                f"it has {len(self.layers)} layers: {', '.join(self.layers)}"
            )
        return sorted(layers)

    def _table(
        self, method: RangeMethod, operators: Iterable[int], *, bits: int, form: FloatForm | None = None
    ) -> Table:
        """Ranges of activations and of weights, in the form of the tool's own calibration."""
        if not self._statistics.collected:
            raise ConversionError("there are no activation ranges yet: call calibrate(frames) before write(plan)")
        form = form or self._form
        ranges = form.ranges(method, operators)
        tensors = form.graph.tensors
        table: Table = {}
        for tensor, ends in ranges.items():
            lowest, highest = (np.full([1] * len(tensors[tensor].shape), end) for end in ends)
            table[tensors[tensor].name] = {"min": lowest, "max": highest}
        for operator in (form.graph.operators[index] for index in operators):
            if operator.kind in WITH_WEIGHTS:
                places = WITH_WEIGHTS[operator.kind]
                low, high = ranges[operator.inputs[places.input]]
                largest = weight_range(form.graph, operator, (high - low) / (2**bits - 1))
                table[tensors[operator.inputs[places.weights]].name] = {"min": -largest, "max": largest}
        return table

    def _correct(self, written: bytes | bytearray, chosen: Sequence[Operator], form: FloatForm) -> None:
        graph = Graph.read(written)
        twins = {graph.name_of(operator): operator for operator in graph.with_weights()}
        for original in chosen:
            operator, moments = form.operator(original), form.moments(original)
            twin = twins[form.graph.name_of(operator)]
            scales = graph.tensors[twin.inputs[WITH_WEIGHTS[twin.kind].weights]].scales
            key = original.index, scales.tobytes(), form.key(original)
            if key not in self._levels:
                self._levels[key] = round_weights(form.graph, operator, scales, moments)
            correct_layer(form.graph, graph, operator, twin, self._levels[key], moments)


def write_dynamic(float_file: Path, folder: Path) -> Converted:
    """Write `model.tflite` with int8 weights and activations quantized at run time; needs no calibration.

    Each layer's input gets its own scale for every frame, and its output stays float, so little accuracy is lost.
    tflite-runtime 2.14 computes such files wrongly: use LiteRT for them.

    Raises:
        ConversionError: the file cannot be read, has nothing to quantize, or the tool failed.
    """
    file, graph = _read(float_file)
    operators = [operator.index for operator in graph.with_weights() if operator.kind in _DYNAMIC]
    if not operators:
        raise ConversionError(f"{float_file.name} has no convolution or matrix product with weights to quantize")
    return _stored(folder, OperatorQuantizer(file, graph).dynamic(operators), graph, "dynamic_wi8_afp32")


def write_16bit_activations(writer: TfliteInt8Writer, folder: Path) -> Converted:
    """Write `model.tflite` with int8 weights and 16-bit activations in every layer, with the calibrated ranges.

    XNNPACK has no 16-bit kernels: on a CPU such a file is 20 to 70 times slower than float; it is meant for DSPs.

    Args:
        writer: a calibrated writer.
        folder: the folder to write into.

    Raises:
        ConversionError: not calibrated, or the tool failed.
    """
    operators = writer._in_int8(writer._operators())
    table = writer._table("min-max", operators, bits=16)
    written = writer._form.quantizer.static(operators, table, activation_bits=16)
    return _stored(folder, written, writer._graph, "static_wi8_ai16")


def _read(float_file: Path) -> tuple[bytes, Graph]:
    try:
        file = float_file.read_bytes()
        return file, Graph.read(file)
    except (OSError, MalformedFile) as failed:
        raise ConversionError(f"{float_file.name} cannot be read as a TFLite file: {failed}; convert again") from failed


def _stored(folder: Path, written: bytes | bytearray, graph: Graph, recipe: str) -> Converted:
    path = folder / "model.tflite"
    path.write_bytes(written)
    tool = f"ai-edge-quantizer {version('ai-edge-quantizer')}, {recipe}"
    return Converted([path], tool, sum(operator.kind == "TRANSPOSE" for operator in graph.operators))
