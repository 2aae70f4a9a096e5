"""Finds the feature maps of any classifier by tracing it, and cuts it there."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn
from torch.nn import functional

from edgecnn.errors import SourceError
from edgecnn.frame import Fit
from edgecnn.sources.grow.tracing import Shape, cuts, map_shapes, trace
from edgecnn.sources.model import Decode, TrainedModel
from edgecnn.sources.weights import fit_weights
from edgecnn.sources.zoo import ZOO
from edgecnn.tasks import Task


@dataclass(frozen=True)
class Grown:
    """A network with an added head.

    Attributes:
        module: takes a float32 [batch, 3, height, width] frame.
        task: its task.
        decode: the decoding of its answer, as in `TrainedModel`.
        fit: how pictures are fitted into its frame.
    """

    module: nn.Module
    task: Task
    decode: Decode | str
    fit: Fit


@dataclass(frozen=True)
class Backbone:
    """A classifier up to its last feature map.

    Attributes:
        name: the classifier's name.
        size_px: height and width of the frame.
        shapes: stride → channels, height and width of the last map of that stride, from shallow to deep.
    """

    name: str
    size_px: tuple[int, int]
    shapes: dict[int, Shape]
    _traced: fx.GraphModule
    _nodes: dict[int, fx.Node]

    def features(self, strides: Sequence[int]) -> fx.GraphModule:
        """A network that returns the maps of these strides, in this order, without layers after the last one.

        It takes a float32 [batch, 3, height, width] frame, returns a tuple of [batch, channels, h, w], and shares its
        weights with every other one from this backbone.
        """
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        waiting = {self._nodes[stride] for stride in strides}
        for node in self._traced.graph.nodes:
            if not waiting:
                break
            copies[node] = graph.node_copy(node, copies.__getitem__)
            waiting.discard(node)
        graph.output(tuple(copies[self._nodes[stride]] for stride in strides))
        return fx.GraphModule(self._traced, graph, "Features")  # keeps only the layers that the graph uses


def find_backbone(classifier: TrainedModel, *, size_px: tuple[int, int]) -> Backbone:
    """The feature maps of a classifier, for frames of this size (height, width).

    A map is suitable if everything deeper is computed from it alone. Maps inside a residual block or a branch are not,
    nor anything from the pooling of the whole frame on; in a network that ends in convolutions, the last one is not.
    So the map of stride 16 of a MobileNet is the expansion before the depthwise convolution of stride 2, as in
    Sandler et al., arXiv:1801.04381, section 6.2.

    Args:
        classifier: not changed.
        size_px: fixes everything that depends on the input's size, such as padding.

    Raises:
        SourceError: it cannot be traced, or there is no map of stride 16 or more.
    """
    frame = torch.zeros(1, 3, *size_px)
    module = _for_frame(classifier, size_px)
    try:
        traced = trace(module.eval(), frame)
    except Exception as failed:
        raise SourceError(
            f"no head can be added to {classifier.name}: torch.fx cannot trace its forward "
            f"({type(failed).__name__}: {_first_line(failed)}). Remove branches and loops that depend on tensors from "
            "it, or make the whole network yourself: docs/how-to/bring-your-own-network.md"
        ) from failed
    shapes, ended_by = map_shapes(traced, frame)
    nodes: dict[int, fx.Node] = {}
    smallest = size_px
    for node in _feature_nodes(traced, shapes):
        height, width = shapes[node][2:]
        stride = _stride((height, width), size_px)
        if stride is None or height > smallest[0] or width > smallest[1]:
            continue  # the channel axis is another one; or the map was padded for the next layer
        nodes[stride], smallest = node, (height, width)
    if max(nodes, default=0) < 16:
        found = ", ".join(str(stride) for stride in sorted(nodes)) or "none"
        reason = f"; its run ended early: {_first_line(ended_by)}" if ended_by else ""
        raise SourceError(
            f"no head can be added to {classifier.name}: it has no feature map [batch, channels, height, width] of "
            f"stride 16 or 32 from which everything deeper is computed (strides found: {found}){reason}. Use a "
            "convolutional classifier"
        )
    deepening = sorted(nodes)
    return Backbone(
        name=classifier.name,
        size_px=size_px,
        shapes={stride: shapes[nodes[stride]][1:] for stride in deepening},
        _traced=traced,
        _nodes={stride: nodes[stride] for stride in deepening},
    )


def _for_frame(classifier: TrainedModel, size_px: tuple[int, int]) -> nn.Module:
    """A copy of the network, with padding for this frame where its padding depends on the frame."""
    entry = ZOO.get(classifier.source.model)
    if entry is None or not entry.padded_for_frame:
        return copy.deepcopy(classifier.module)
    from edgecnn.sources.zoo.load import build

    module = build(entry, classes=len(classifier.task.labels), frame_px=size_px)
    fit_weights(module, classifier.module.state_dict(), origin=f"the weights of {classifier.name}")
    return module


def _feature_nodes(traced: fx.GraphModule, shapes: dict[fx.Node, Shape]) -> list[fx.Node]:
    """The maps from which everything deeper is computed, without those of the classifier's own layers."""
    nodes = list(traced.graph.nodes)
    maps = list(cuts(nodes, shapes))
    pooling = next((node for node in maps if _pools_the_frame(node, traced, shapes)), None)
    end = len(nodes) if pooling is None else nodes.index(pooling)
    weighted = [index for index, node in enumerate(nodes) if _has_weights(node, traced)]
    if weighted and weighted[-1] < end:  # the last layer with weights is the classifier, before the pooling
        end = weighted[-1]
    before = set(nodes[:end])
    return [node for node in maps if node in before and not _is_dropout(node, traced)]


def _pools_the_frame(node: fx.Node, traced: fx.GraphModule, shapes: dict[fx.Node, Shape]) -> bool:
    if shapes[node][2:] == (1, 1):
        return True
    if node.op == "call_module":
        return isinstance(traced.get_submodule(str(node.target)), nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d)
    return node.target in (functional.adaptive_avg_pool2d, functional.adaptive_max_pool2d)


def _has_weights(node: fx.Node, traced: fx.GraphModule) -> bool:
    if node.op == "call_module":
        return next(traced.get_submodule(str(node.target)).parameters(), None) is not None
    return node.op == "get_attr"


def _is_dropout(node: fx.Node, traced: fx.GraphModule) -> bool:
    if node.op != "call_module":
        return False
    return isinstance(traced.get_submodule(str(node.target)), nn.Dropout | nn.Dropout2d)


def _stride(map_size: tuple[int, int], size_px: tuple[int, int]) -> int | None:
    """The power of 2 nearest to the ratio of frame and map; None where the axes disagree."""
    strides = {
        min((2**power for power in range(8)), key=lambda s: abs(math.log(cells / math.ceil(pixels / s))))
        for cells, pixels in zip(map_size, size_px, strict=True)
    }
    return strides.pop() if len(strides) == 1 else None


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "no message")
