"""Statistics of a layer's inputs, used to round its weights and correct its bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.converters.int8.layer_inputs import SAMPLES, Geometry, sample_patches, sample_vectors
from edgecnn.converters.int8.onnx import rules
from edgecnn.converters.int8.onnx.graph import Graph, attributes
from edgecnn.converters.int8.search.rounding import InputMoments


class Corrections:
    """Rounds weights so that a layer's output changes least, and corrects the bias by the remaining mean error.

    Layers that share weights are treated as one.

    Args:
        graph: the float graph.
        layers: nodes with weights.
        frames: number of runs that will be observed.
    """

    def __init__(self, graph: Graph, layers: Sequence[int], *, frames: int) -> None:
        self._graph = graph
        self._readers: dict[str, list[int]] = {}  # input tensor → layers
        self._moments: dict[str, InputMoments] = {}  # by the weights' name
        self._levels: dict[tuple[str, bytes], NDArray[np.int8]] = {}
        self._samples = max(SAMPLES // max(frames, 1), 1)
        self._rng = np.random.default_rng(0)
        for index in layers:
            node = graph.nodes[index]
            self._readers.setdefault(node.input[0], []).append(index)
            groups, _, inputs = _by_group(node, graph.array(node.input[1])).shape
            self._moments.setdefault(node.input[1], InputMoments(groups, inputs))

    def observe(self, tensor: str, values: NDArray[Any]) -> None:
        """Sample the inputs that layers read from a tensor."""
        for index in self._readers.get(tensor, ()):
            node = self._graph.nodes[index]
            if node.op_type == "Conv":
                geometry = _geometry(node, self._graph.array(node.input[1]).shape)
                columns = sample_patches(values, geometry, self._samples, self._rng)
            else:
                columns = sample_vectors(values, values.shape[-1], self._samples, self._rng)
            self._moments[node.input[1]].add(columns)

    def for_graph(self, graph: Graph, factors: Mapping[str, NDArray[np.float64]]) -> Corrections:
        """The same for a graph in which some layers read inputs that are multiplied by factors.

        Args:
            graph: with the same constants' names.
            factors: weights' name → float64 [channels] of the layer's input.
        """
        other = Corrections(graph, (), frames=1)
        other._moments = dict(self._moments)
        for name, of_channels in factors.items():
            moments = self._moments[name]
            # [groups, inputs]: a depthwise layer has a group for each channel, another one its taps channel by channel.
            taps = moments.mean.size // len(of_channels)
            other._moments[name] = moments.scaled(of_channels.repeat(taps).reshape(moments.mean.shape))
        return other

    def levels(self, index: int, scale: NDArray[np.float32], *, most: int) -> NDArray[np.int8]:
        """A layer's rounded weights; `scale` has the weights' shape with 1 on every axis but the outputs'."""
        node = self._graph.nodes[index]
        name = node.input[1]
        if (name, scale.tobytes()) not in self._levels:
            steps = self._graph.array(name) / scale
            has_bias = node.op_type != "MatMul"  # all other layers have a bias or can get one
            grouped = self._moments[name].round(_by_group(node, steps), has_bias=has_bias, most=most)
            levels = grouped.reshape(steps.shape) if rules.channel_axis(node) == 0 else grouped[0].T
            self._levels[name, scale.tobytes()] = np.ascontiguousarray(levels)
        return self._levels[name, scale.tobytes()]

    def bias_shift(self, index: int, error: NDArray[np.float32]) -> NDArray[np.float64]:
        """The mean error that rounded weights add to each output channel."""
        node = self._graph.nodes[index]
        return self._moments[node.input[1]].mean_output(_by_group(node, error))


def _by_group(node: Any, weights: NDArray[Any]) -> NDArray[Any]:
    """[groups, outputs, inputs]."""
    if rules.channel_axis(node) == 1:
        return weights.T[None]
    groups = attributes(node).get("group", 1)
    return weights.reshape(groups, weights.shape[0] // groups, -1)


def _geometry(node: Any, shape: Sequence[int]) -> Geometry:
    values = attributes(node)
    return Geometry(
        kernel=(shape[2], shape[3]),
        strides=tuple(values.get("strides", (1, 1))),
        dilations=tuple(values.get("dilations", (1, 1))),
        pads=tuple(values.get("pads", (0, 0, 0, 0))),
        groups=values.get("group", 1),
    )
