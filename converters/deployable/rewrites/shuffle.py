"""Shuffled channels are read as contiguous slices, which is the same function with the weights in another order.

ShuffleNetV2 interleaves the channels of two branches after each unit and convolves one half of them in the next: in
most runtimes a transpose and several copies. Which channels a unit reads is known, and the order in which a convolution
makes or reads them is a matter of its weights: each makes those that the same unit reads side by side, and the unit
reads a slice of each of those that made some. What that is worth in each runtime, `benchmarks/shuffle.py` measures.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import groupby
from typing import Any, TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from edgecnn.converters.deployable.rewrites.agreement import answers_agree, shifted_frames
from edgecnn.frame import FrameSpec

# What moves values and makes none.
_MOVING_METHODS = frozenset(
    {"view", "reshape", "unflatten", "flatten", "transpose", "permute", "contiguous", "chunk", "split", "size"}
    | {"narrow", "movedim"}
)
_MOVING_FUNCTIONS = frozenset(
    {torch.cat, torch.transpose, torch.permute, torch.reshape, torch.flatten, torch.unflatten, torch.chunk, torch.split}
    | {torch.movedim, torch.narrow, operator.getitem, operator.floordiv, operator.mul, getattr}
)
# What answers channel by channel, whatever their order.
_CHANNELWISE = (
    nn.Identity,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.SiLU,
    nn.Hardswish,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.Dropout,
)
_CHANNELWISE_FUNCTIONS = frozenset(
    {functional.relu, functional.relu6, functional.leaky_relu, functional.silu, functional.interpolate, torch.relu}
)
_MOST_AT_ONCE = 4  # tensors of a concatenation; XNNPACK takes five at most

Channel: TypeAlias = int
"""A channel that some operation of the network makes, numbered through all of them."""


def read_shuffles_in_slices(network: nn.Module, spec: FrameSpec) -> nn.Module:
    """The network without such shuffles, where it has them; the original is not changed.

    Precondition: its operations can be traced, and channels that were moved are read by convolutions and by what works
    channel by channel. Postcondition: it answers a photograph as the original does, else the original is returned.
    """
    try:
        traced = fx.symbolic_trace(copy.deepcopy(network))
        flow = _Flow(traced)
        flow.run(torch.zeros(1, 3, spec.height_px, spec.width_px))
        if not flow.shuffled():
            return network
        with torch.no_grad():
            _Rewriting(traced, flow).apply()
        factor = (spec.scale / torch.tensor(spec.std)).reshape(1, 3, 1, 1)
        frames = [levels * factor for levels in shifted_frames(spec)]
        if answers_agree(network, frames, traced, frames):
            return traced
    except Exception:
        pass
    return network


class _Flow(fx.Interpreter):
    """Which channels each tensor holds: run once, with each made channel's number in place of its values.

    Attributes:
        channels: tensors of four axes → the number of each of their channels; not of those that mix or part them.
        made: those that are made, not moved.
        moving: operations that move.
    """

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced, garbage_collect_values=False)
        self.channels: dict[fx.Node, list[Channel]] = {}
        self.made: set[fx.Node] = set()
        self.moving: set[fx.Node] = set()
        self._count = 0

    def run_node(self, n: fx.Node) -> Any:
        """The node's answer, numbered anew where it is made."""
        with torch.no_grad():
            answer = super().run_node(n)
        moves = (n.op == "call_method" and n.target in _MOVING_METHODS) or n.target in _MOVING_FUNCTIONS
        if moves:
            self.moving.add(n)
        if not isinstance(answer, Tensor) or answer.ndim != 4:
            return answer
        if not moves:
            numbers = torch.arange(self._count, self._count + answer.shape[1], dtype=torch.float64)
            self._count += answer.shape[1]
            answer = numbers.reshape(1, -1, 1, 1).expand(answer.shape).float().contiguous()
            self.made.add(n)
        first = answer[:1, :, :1, :1]
        if bool((answer == first).all()):
            self.channels[n] = [int(number) for number in first.flatten()]
        return answer

    def shuffled(self) -> list[fx.Node]:
        """Moved tensors whose channels lie otherwise than they were made."""
        return [n for n, channels in self.channels.items() if n not in self.made and _is_shuffled(channels)]


def _is_shuffled(channels: Sequence[Channel]) -> bool:
    return len(_runs(channels)) > len(_runs(sorted(channels)))


def _runs(numbers: Sequence[int]) -> list[list[int]]:
    """Maximal parts in which each number is one more than the one before."""
    return [[n for _, n in part] for _, part in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0])]


class _Rewriting:
    """Changes a traced network in place.

    Raises:
        ValueError: shuffled channels are read by something that their order matters to.
    """

    def __init__(self, traced: fx.GraphModule, flow: _Flow) -> None:
        self._traced, self._flow = traced, flow
        self._calls = Counter(node.target for node in traced.graph.nodes if node.op == "call_module")
        self._wanted = self._wanted_orders()
        self._where: dict[Channel, tuple[fx.Node, int]] = {}
        self._slices: dict[tuple[fx.Node, int, int], fx.Node] = {}
        self._read: dict[tuple[Channel, ...], fx.Node] = {}

    def apply(self) -> None:
        """Every read of channels that lie elsewhere now becomes one of slices; what nothing reads any more goes."""
        for node in list(self._traced.graph.nodes):
            if node in self._flow.moving:
                continue
            orders = {given: order for given in node.all_input_nodes if (order := self._reorder(node, given))}
            order = self._settle(node, orders)
            if node in self._flow.made:
                channels = self._flow.channels[node]
                self._where |= {channels[old]: (node, new) for new, old in enumerate(order or range(len(channels)))}
        self._traced.graph.eliminate_dead_code()
        self._traced.recompile()

    def _wanted_orders(self) -> dict[fx.Node, list[int]]:
        """Dense convolutions whose channels are read shuffled → the order in which they are to make them."""
        readers: dict[Channel, list[int]] = defaultdict(list)
        seen: dict[frozenset[Channel], int] = {}
        for node in self._traced.graph.nodes:
            for given in () if node in self._flow.moving else node.all_input_nodes:
                channels = self._flow.channels.get(given, [])
                if given not in self._flow.made and _is_shuffled(channels):
                    number = seen.setdefault(frozenset(channels), len(seen))
                    for channel in channels:
                        readers[channel].append(number)
        orders = {}
        for made in self._flow.made:
            channels = self._flow.channels[made]
            root = self._root(made)
            if root is not None and any(channel in readers for channel in channels):
                orders[root] = sorted(range(len(channels)), key=lambda place: readers.get(channels[place], []))
        return orders

    def _root(self, node: fx.Node) -> fx.Node | None:
        """The dense convolution that decides how the channels of a tensor lie; None where nothing does."""
        while True:
            if isinstance(module := self._module(node), nn.Conv2d) and module.groups == 1:
                return node
            (given, *others) = node.all_input_nodes or [node]
            if others or not self._keeps_channels(node) or given not in self._flow.made:
                return None
            node = given

    def _module(self, node: fx.Node) -> nn.Module | None:
        return self._traced.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _keeps_channels(self, node: fx.Node) -> bool:
        module = self._module(node)
        if isinstance(module, nn.Conv2d):
            return module.groups == module.in_channels == module.out_channels
        return isinstance(module, _CHANNELWISE) or node.target in _CHANNELWISE_FUNCTIONS

    def _reorder(self, node: fx.Node, given: fx.Node) -> list[int] | None:
        """Let a node read what it is given from where it lies now; how that is ordered, None for as before."""
        channels = self._flow.channels.get(given)
        if channels is None:  # mixed with others, or no channels: its sources must lie as they did
            self._check_unmoved(given)
            return None
        places = [self._where[channel] for channel in channels]
        moved = any(self._flow.channels[maker][place] != c for c, (maker, place) in zip(channels, places, strict=True))
        if not moved and (given in self._flow.made or not _is_shuffled(channels)):
            return None
        makers = list(dict.fromkeys(maker for maker, _ in places))
        order = sorted(range(len(channels)), key=lambda i: (makers.index(places[i][0]), places[i][1]))
        node.replace_input_with(given, self._gathered(node, tuple(channels[i] for i in order)))
        return order

    def _check_unmoved(self, given: fx.Node) -> None:
        pending, seen = [given], set()
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            if node not in self._flow.made:
                pending.extend(node.all_input_nodes)
            elif any(self._where[c] != (node, place) for place, c in enumerate(self._flow.channels[node])):
                raise ValueError("what mixes channels reads some that lie otherwise now")

    def _gathered(self, reader: fx.Node, channels: tuple[Channel, ...]) -> fx.Node:
        """These channels as one tensor, made before `reader` of slices of what they lie in."""
        if channels not in self._read:
            with self._traced.graph.inserting_before(reader):
                pieces = []
                for maker, part in groupby((self._where[channel] for channel in channels), key=lambda place: place[0]):
                    for run in _runs([place for _, place in part]):
                        pieces.append(self._slice(maker, run[0], run[-1] + 1))
                while len(pieces) > 1:
                    groups = [pieces[i : i + _MOST_AT_ONCE] for i in range(0, len(pieces), _MOST_AT_ONCE)]
                    pieces = [
                        group[0] if len(group) == 1 else self._traced.graph.call_function(torch.cat, (group, 1))
                        for group in groups
                    ]
                self._read[channels] = pieces[0]
        return self._read[channels]

    def _slice(self, maker: fx.Node, first: int, end: int) -> fx.Node:
        if (first, end) == (0, len(self._flow.channels[maker])):
            return maker
        return self._traced.graph.call_function(operator.getitem, (maker, (slice(None), slice(first, end))))

    def _settle(self, node: fx.Node, orders: dict[fx.Node, list[int]]) -> list[int] | None:
        """Put weights in order; how the node's channels lie now, None for as before."""
        module = self._module(node)
        if isinstance(module, nn.Conv2d) and module.groups == 1:
            made = self._wanted.get(node)
            if self._calls[node.target] > 1 and (orders or made):
                raise ValueError("a convolution that runs several times has one order of weights")
            for order in orders.values():
                module.weight.copy_(module.weight[:, order])
            if made is not None:
                _reorder_outputs(module, made)
            return made
        if not orders:
            return None
        if len(node.all_input_nodes) > 1 or not self._keeps_channels(node) or node.op == "output":
            raise ValueError("shuffled channels are read by something that their order matters to")
        (order,) = orders.values()
        if isinstance(module, nn.Conv2d):
            if self._calls[node.target] > 1:
                raise ValueError("a convolution that runs several times has one order of weights")
            _reorder_outputs(module, order)
        return order


def _reorder_outputs(conv: nn.Conv2d, order: list[int]) -> None:
    conv.weight.copy_(conv.weight[order])
    if conv.bias is not None:
        conv.bias.copy_(conv.bias[order])
