"""The float graph that int8 files are written from: as it was converted, or with some layers equalised."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.converters.int8.onnx.correction import Corrections
from edgecnn.converters.int8.onnx.graph import Graph
from edgecnn.converters.int8.onnx.rules import ARGUMENT
from edgecnn.converters.int8.onnx.units import Unit, equalised_graph, is_depthwise
from edgecnn.converters.int8.search.equalisation import (
    ARGUMENT_RANGE,
    ChannelSamples,
    Equalisation,
    choose_equalisation,
)

Range = tuple[float, float]


class EqualisedForm:
    """The graph with some layers equalised; ranges and moments follow from those of the converted graph.

    Args:
        base: the graph as it was converted.
        corrections: statistics of its layers' inputs.
        chosen: how each unit is equalised.

    Attributes:
        graph: the equalised graph.
        corrections: the statistics for it.
    """

    def __init__(self, base: Graph, corrections: Corrections, chosen: Mapping[Unit, Equalisation]) -> None:
        scales = {unit: equalisation.scales for unit, equalisation in chosen.items()}
        self.graph = equalised_graph(base, scales)
        factors: dict[str, NDArray[np.float64]] = {}
        self._ends: dict[str, Range] = {}
        self._widened: dict[str, list[Range]] = {}
        for unit, equalisation in chosen.items():
            self._ends[base.nodes[unit.layer].output[0]] = equalisation.before
            self._ends[base.nodes[unit.product].output[0]] = equalisation.after
            self._ends[base.nodes[unit.layer].output[0] + ARGUMENT] = ARGUMENT_RANGE
            for tensor in unit.joined:
                self._widened.setdefault(tensor, []).append(equalisation.after)
            for reader in unit.readers:
                weights = base.array(base.nodes[reader.layer].input[1])
                depthwise = is_depthwise(base, reader.layer)
                channels = weights.shape[0] if depthwise else weights.shape[1]
                name = base.nodes[reader.layer].input[1]
                of_channels = factors.setdefault(name, np.ones(channels))
                of_channels[reader.start : reader.start + len(equalisation.scales)] /= equalisation.scales
        self.corrections = corrections.for_graph(self.graph, factors)

    def index(self, base: Graph, node: int) -> int:
        """The index here of a node of the converted graph."""
        found = self.graph.maker(base.nodes[node].output[0])
        assert found is not None
        return found

    def range_of(self, tensor: str, usual: Range) -> Range:
        """A tensor's range, given what it is in the converted graph."""
        if tensor in self._ends:
            return self._ends[tensor]
        found = [usual, *self._widened.get(tensor, ())]
        return min(low for low, _ in found), max(high for _, high in found)

    def is_added(self, tensor: str) -> bool:
        """Whether the converted graph has no such tensor."""
        return tensor.endswith(ARGUMENT)


def choose_equalisations(
    graph: Graph, samples: Mapping[str, ChannelSamples], units: Iterable[Unit], largest: Mapping[Unit, float]
) -> dict[Unit, Equalisation]:
    """How each unit is equalised; a unit whose activation was never positive is left out.

    Args:
        graph: the converted graph.
        samples: of the layers' outputs, by tensor.
        units: the units.
        largest: end of each unit's range after the activation.
    """
    by_layer = {unit.layer: unit for unit in units}
    found = {}
    for unit in by_layer.values():
        if largest[unit] > 0:
            importance = _importance(graph, samples, by_layer, unit)
            found[unit] = choose_equalisation(samples[graph.nodes[unit.layer].output[0]], importance, largest[unit])
    return found


def _importance(
    graph: Graph, samples: Mapping[str, ChannelSamples], units: Mapping[int, Unit], unit: Unit, depth: int = 0
) -> NDArray[np.float64]:
    """How much an error in each channel matters to the layers that read it, float64 [channels].

    The share of its power in the outputs of a convolution; a depthwise layer passes on what matters after it.
    """
    node: Any = graph.nodes[unit.layer]
    channels = graph.array(node.input[1]).shape[0]
    power = samples[node.output[0]].mean_square_after()
    total = np.zeros(channels)
    for reader in unit.readers:
        weights = graph.array(graph.nodes[reader.layer].input[1]).astype(np.float64)
        part = slice(reader.start, reader.start + channels)
        if is_depthwise(graph, reader.layer):
            gain = (weights[part] ** 2).sum(axis=(1, 2, 3))
            after = units.get(reader.layer)
            if after is not None and depth < 4 and weights.shape[0] == channels:
                total += gain * _importance(graph, samples, units, after, depth + 1)
            else:
                total += gain / max(float((gain * power).mean()), 1e-30)
        else:
            squares = (weights[:, part] ** 2).sum(axis=(2, 3))  # [outputs, channels]
            total += squares.sum(axis=0) / max(float((squares @ power).mean()), 1e-30)
    return total
