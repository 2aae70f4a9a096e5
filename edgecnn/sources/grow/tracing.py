"""Traces a network's forward: its operations, the shapes of its maps, and the maps that everything passes through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torchvision import ops

Shape = tuple[int, ...]
_BY_MODE = (ops.StochasticDepth, ops.DropBlock2d, ops.DropBlock3d)  # torchvision's layers that differ in training


def trace(module: nn.Module, frame: Tensor) -> fx.GraphModule:
    """The operations of a network, with the network's own layers.

    Args:
        module: in evaluation mode; training-mode code in its own forward (outside torch's layers) is lost.
        frame: float32 [1, 3, height, width]; branches that depend on the input's size are fixed for this one.

    Raises:
        Exception: any exception of the forward during tracing; a TraceError where it branches on values.
    """
    return fx.GraphModule(module, _Tracer(frame).trace(module))


def map_shapes(traced: fx.GraphModule, frame: Tensor) -> tuple[dict[fx.Node, Shape], Exception | None]:
    """The shapes, and the error that ended the run early: a last layer for another size may fail and is not needed."""
    reader = _ShapeReader(traced)
    try:
        with torch.no_grad():
            reader.run(frame)
    except Exception as failed:
        return reader.shapes, failed
    return reader.shapes, None


def cuts(nodes: Sequence[fx.Node], shapes: dict[fx.Node, Shape]) -> Iterator[fx.Node]:
    """Maps after which no earlier map is read any more."""
    place = {node: index for index, node in enumerate(nodes)}
    last_read = 0
    for index, node in enumerate(nodes):
        if node not in shapes:
            continue
        if index >= last_read:
            yield node
        last_read = max([last_read, *(place[user] for user in node.users)])


class _Tracer(fx.Tracer):
    """Fixes branches on sizes for the given frame; torchvision's training-only layers stay single layers."""

    def __init__(self, frame: Tensor) -> None:
        super().__init__()
        self._frame, self._deciding = frame, False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _BY_MODE) or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._deciding or not self._has_name(m):
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def _has_name(self, module: nn.Module) -> bool:
        """A slice of a Sequential is created during the run and has no name; its layers do."""
        try:
            self.path_of_module(module)
        except NameError:
            return False
        return True

    def to_bool(self, obj: fx.Proxy) -> bool:
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        graph.graph_copy(self.graph, copies)
        graph.output(copies[obj.node])
        self._deciding = True
        try:
            with torch.no_grad():
                decided = fx.Interpreter(self.root, graph=graph).run(self._frame)
        finally:
            self._deciding = False
        if isinstance(decided, Tensor):
            return super().to_bool(obj)  # may differ for another frame: refused
        return bool(decided)


class _ShapeReader(fx.Interpreter):
    """Runs a network and records the shape of every map [batch, channels, height, width]."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.shapes: dict[fx.Node, Shape] = {}

    def run_node(self, n: fx.Node) -> Any:
        answer = super().run_node(n)
        if isinstance(answer, Tensor) and answer.dim() == 4:
            self.shapes[n] = tuple(answer.shape)
        return answer
