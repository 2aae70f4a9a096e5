"""The module that guides the assignment of a NanoDet-Plus network while it is trained; it is no part of the network.

Small networks answer too badly at first to say which points suit a box. A heavier head beside them learns faster; its
answers decide for both.

Source: the published description and configuration of NanoDet-Plus (RangiLyu/nanodet: assign guidance module, after
Nguyen et al. 2021, Label-Assignment Distillation, arXiv:2108.10520).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgecnn.sources.zoo.nanodet import BINS, SIDES, STRIDES_PX, Level
from edgecnn.training.nanodet_loss import GuidedAnswer

_UNITS = 4
_LARGEST_GROUPS = 32
_SLOPE = 0.1
_JOINED_SHARE = 10 / 300  # of the epochs; after that, what guides no longer moves what it guides


class AssignGuidance(nn.Module):
    """A path aggregation of its own, and a head of dense convolutions on that and the network's own one.

    It is trained along with the network, and reads what that makes on the way: run the network inside `watching`, then
    call this with its answer.

    Args:
        network: a NanoDetPlus, also a pruned one; its path aggregation is copied.
        frame: float32 [1, 3, height, width]: shows how wide the network's maps are.
    """

    def __init__(self, network: nn.Module, frame: Tensor) -> None:
        super().__init__()
        self.aux_fpn = copy.deepcopy(network.get_submodule("fpn"))
        self._seen: dict[str, tuple[Tensor, ...]] = {}
        self.joined = True
        with torch.no_grad(), self.watching(network):
            answer = network(frame)
        self.aux_head = GuidingHead(2 * self._seen["fpn"][0].shape[1], classes=answer[0][0].shape[1])
        self._seen = {}

    @contextmanager
    def watching(self, network: nn.Module) -> Iterator[None]:
        """Inside, the network's features are kept for the call that follows."""

        def keep(name: str) -> Any:
            return lambda _, __, maps: self._seen.__setitem__(name, maps)

        hooks = [network.get_submodule(name).register_forward_hook(keep(name)) for name in ("backbone", "fpn")]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def begin_epoch(self, epoch: int, of: int) -> None:
        """Epochs count from 0; in the first ones the network also learns from what the guide gets wrong."""
        self.joined = epoch < max(of * _JOINED_SHARE, 1)

    def forward(self, answer: tuple[Level, ...]) -> GuidedAnswer:
        """The network's answer with the guide's beside it."""
        seen, self._seen = self._seen, {}  # not to be held until the next step
        backbone, own = (
            tuple(maps if self.joined else maps.detach() for maps in seen[name]) for name in ("backbone", "fpn")
        )
        maps = tuple(torch.cat(pair, dim=1) for pair in zip(own, self.aux_fpn(backbone), strict=True))
        return GuidedAnswer(answer, self.aux_head(maps))


class GuidingHead(nn.Module):
    """Four dense 3x3 units for classes and four for distances, the same for all levels."""

    def __init__(self, width: int, *, classes: int) -> None:
        super().__init__()
        groups = next(groups for groups in range(min(_LARGEST_GROUPS, width), 0, -1) if width % groups == 0)

        def units() -> nn.Sequential:
            return nn.Sequential(*(layer for _ in range(_UNITS) for layer in _unit(width, groups)))

        self.cls_convs, self.reg_convs = units(), units()
        self.gfl_cls = nn.Conv2d(width, classes, 3, padding=1)
        self.gfl_reg = nn.Conv2d(width, SIDES * BINS, 3, padding=1)
        self.scales = nn.Parameter(torch.ones(len(STRIDES_PX)))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
        assert self.gfl_cls.bias is not None
        nn.init.constant_(self.gfl_cls.bias, -4.6)  # scores begin at a hundredth

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Level, ...]:
        """Levels of raw maps, as the network's, of [N, width, h, w] maps."""
        return tuple(
            (self.gfl_cls(self.cls_convs(x)), self.gfl_reg(self.reg_convs(x)) * scale)
            for x, scale in zip(maps, self.scales, strict=True)
        )


def _unit(width: int, groups: int) -> list[nn.Module]:
    return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.GroupNorm(groups, width), nn.LeakyReLU(_SLOPE)]
