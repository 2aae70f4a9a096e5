"""The float file that int8 files are written from: as it was converted, or with some layers equalised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgecnn.converters.int8.search.equalisation import ARGUMENT_RANGE, Equalisation, choose_equalisation
from edgecnn.converters.int8.search.plan import RangeMethod
from edgecnn.converters.int8.search.rounding import InputMoments
from edgecnn.converters.int8.tflite.graph import Graph
from edgecnn.converters.int8.tflite.quantizer import OperatorQuantizer
from edgecnn.converters.int8.tflite.statistics import Statistics
from edgecnn.converters.int8.tflite.units import ARGUMENT, Unit, equalised_file, input_scales
from edgecnn.runners.litert.file import Operator

Range = tuple[float, float]


class FloatForm:
    """The file as it was converted.

    Attributes:
        file, graph: its content.
    """

    def __init__(self, file: bytes, graph: Graph, statistics: Statistics) -> None:
        self.file, self.graph, self._statistics = file, graph, statistics

    @cached_property
    def quantizer(self) -> OperatorQuantizer:
        """The tool, which reads the file once."""
        return OperatorQuantizer(self.file, self.graph)

    def operator(self, original: Operator) -> Operator:
        """What an operator of the converted file is here."""
        return original

    def ranges(self, method: RangeMethod, operators: Iterable[int]) -> Mapping[int, Range]:
        """Low and high of every tensor that these operators read or write."""
        return self._statistics.ranges(method, operators)

    def moments(self, original: Operator) -> InputMoments:
        """Moments of the inputs of a layer's weights."""
        return self._statistics.moments(original)

    def key(self, original: Operator) -> bytes:
        """What a layer's rounded weights depend on, besides their scales."""
        return b""


class EqualisedForm(FloatForm):
    """The file with some layers equalised; ranges and moments follow from those of the converted file.

    Args:
        base: the file as it was converted.
        statistics: of its activations.
        chosen: how each unit is equalised.
    """

    def __init__(self, base: FloatForm, statistics: Statistics, chosen: Mapping[Unit, Equalisation]) -> None:
        self._base = base
        self._scales = {unit: equalisation.scales for unit, equalisation in chosen.items()}
        file = equalised_file(base.file, base.graph, self._scales)
        super().__init__(file, Graph.read(file), statistics)
        self._by_name = {self.graph.name_of(operator): operator for operator in self.graph.operators}
        # Of the converted file's tensors; joined ones hold values of several tensors.
        self._ends: dict[int, Range] = {}
        self._widened: dict[int, list[Range]] = {}
        self._output_scales = {unit.layer.index: equalisation.scales for unit, equalisation in chosen.items()}
        for unit, equalisation in chosen.items():
            self._ends[unit.layer.outputs[0]] = equalisation.before
            self._ends[unit.product.outputs[0]] = equalisation.after
            for tensor in unit.joined:
                self._widened.setdefault(tensor, []).append(equalisation.after)

    def operator(self, original: Operator) -> Operator:
        """What an operator of the converted file is here."""
        return self._by_name[self._base.graph.name_of(original)]

    def ranges(self, method: RangeMethod, operators: Iterable[int]) -> Mapping[int, Range]:
        """Low and high of every tensor that these operators read or write."""
        graph = self.graph
        chosen: Iterable[Operator] = (graph.operators[index] for index in operators)
        tensors = {t for operator in chosen for t in (*graph.activations(operator), *operator.outputs)}
        return {tensor: self._range(tensor, method) for tensor in tensors}

    def moments(self, original: Operator) -> InputMoments:
        """Moments of the inputs of a layer's weights."""
        found = self._statistics.moments(original)
        factors = self._input_factors(original)
        return found if factors is None else found.scaled(factors)

    def key(self, original: Operator) -> bytes:
        """What a layer's rounded weights depend on, besides their scales."""
        factors = self._input_factors(original)
        output = self._output_scales.get(original.index)
        return b"|".join(b"" if each is None else each.tobytes() for each in (factors, output))

    def _input_factors(self, original: Operator) -> NDArray[np.float64] | None:
        """By how much the inputs of a layer's weights are multiplied, [groups, inputs]; None where they are not."""
        if original.kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            return None
        channels = self._base.graph.tensors[original.inputs[0]].shape[-1]
        scales = input_scales(self._scales, original, channels)
        if (scales == 1).all():
            return None
        shape = self._base.graph.weights(original).shape
        taps = shape[1] * shape[2]
        factors = 1 / scales.astype(np.float64)
        return (
            np.repeat(factors[:, None], taps, 1)
            if original.kind == "DEPTHWISE_CONV_2D"
            else np.repeat(factors, taps)[None]
        )

    def _range(self, tensor: int, method: RangeMethod) -> Range:
        name = self.graph.tensors[tensor].name
        if name.endswith(ARGUMENT):
            return ARGUMENT_RANGE
        original = self._base_tensors[name]
        source = self._statistics.source_of(original)
        if source in self._ends:
            return self._ends[source]
        found = [self._statistics.range_of(original, method), *self._widened.get(source, ())]
        return min(low for low, _ in found), max(high for _, high in found)

    @cached_property
    def _base_tensors(self) -> Mapping[str, int]:
        return {tensor.name: index for index, tensor in enumerate(self._base.graph.tensors)}


def choose_equalisations(graph: Graph, statistics: Statistics, units: Iterable[Unit]) -> dict[Unit, Equalisation]:
    """How each unit is equalised; a unit whose activation was never positive is left out."""
    by_layer = {unit.layer.index: unit for unit in units}
    found = {}
    for unit in by_layer.values():
        largest = statistics.range_of(unit.product.outputs[0], "least-error")[1]
        if largest > 0:
            importance = _importance(graph, statistics, by_layer, unit)
            found[unit] = choose_equalisation(statistics.samples(unit.layer), importance, largest)
    return found


def _importance(
    graph: Graph, statistics: Statistics, units: Mapping[int, Unit], unit: Unit, depth: int = 0
) -> NDArray[np.float64]:
    """How much an error in each channel matters to the layers that read it, float64 [channels].

    The share of its power in the outputs of a convolution; a depthwise layer passes on what matters after it.
    """
    channels = graph.tensors[unit.product.outputs[0]].shape[-1]
    power = statistics.samples(unit.layer).mean_square_after()
    total = np.zeros(channels)
    for reader in unit.readers:
        weights = graph.weights(reader.layer)[..., reader.start : reader.start + channels].astype(np.float64)
        if reader.layer.kind == "DEPTHWISE_CONV_2D":
            gain = (weights**2).sum(axis=(0, 1, 2))
            after = units.get(reader.layer.index)
            if after is not None and depth < 4 and len(gain) == graph.tensors[after.product.outputs[0]].shape[-1]:
                total += gain * _importance(graph, statistics, units, after, depth + 1)
            else:
                total += gain / max(float((gain * power).mean()), 1e-30)
        else:
            squares = (weights**2).sum(axis=(1, 2))  # [outputs, channels]
            total += squares.sum(axis=0) / max(float((squares @ power).mean()), 1e-30)
    return total
