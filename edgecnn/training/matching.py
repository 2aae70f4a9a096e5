"""Matching boxes with the anchors that answer them: what all assignments of a detector's loss share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Anchors:
    """The cells of one frame's answer, level by level, row by row; there are A.

    Attributes:
        corners_px: float32 [A, 2], x y of a cell's top left corner.
        strides_px: float32 [A], a cell's width and height.
    """

    corners_px: Tensor
    strides_px: Tensor

    @classmethod
    def of_levels(
        cls, sizes: Sequence[Sequence[int]], strides_px: Sequence[int], device: torch.device | str = "cpu"
    ) -> Anchors:
        """Those of an answer.

        Args:
            sizes: height and width of each level, in cells.
            strides_px: of each level.
            device: where they are put.
        """
        corners, strides = [], []
        for (height, width), stride in zip(sizes, strides_px, strict=True):
            y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
            corners.append(torch.stack((x, y), dim=-1).flatten(0, 1) * float(stride))
            strides.append(torch.full((height * width,), float(stride)))
        return cls(torch.cat(corners).to(device), torch.cat(strides).to(device))

    @property
    def centres_px(self) -> Tensor:
        """Float32 [A, 2]."""
        return self.corners_px + self.strides_px[:, None] / 2


@dataclass(frozen=True)
class Assignment:
    """Which anchors a batch has positive; m of them, each with one box.

    Attributes:
        anchors: int64 [m], frame × A + anchor; none twice.
        boxes: int64 [m], the box of each, counted through the frames of the batch.
        ious: float32 [m], of what the anchor answers now and its box, 0 to 1; 0 where that is no number.
    """

    anchors: Tensor
    boxes: Tensor
    ious: Tensor


def pair_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """IoU of boxes [m, 4] with the boxes [m, 4] beside them, [m]; 0 where neither has an area."""
    overlap = (torch.minimum(a_xyxy[:, 2:], b_xyxy[:, 2:]) - torch.maximum(a_xyxy[:, :2], b_xyxy[:, :2])).clamp(min=0)
    intersection = overlap[:, 0] * overlap[:, 1]
    return intersection / (_area(a_xyxy) + _area(b_xyxy) - intersection + 1e-16)


def _area(xyxy: Tensor) -> Tensor:
    return (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])


def match(box: Tensor, anchor: Tensor, cost: Tensor, shares: Tensor, *, anchors: int) -> Tensor:
    """Which pairs are matched, int64 [m]: each box's cheapest, as many as its share; no anchor twice."""
    taken = torch.zeros(anchors, dtype=torch.bool, device=box.device)
    served = torch.zeros(len(shares), dtype=torch.bool, device=box.device)
    matched: list[Tensor] = []
    left = torch.arange(len(box), device=box.device)
    while True:  # a round leaves only boxes that lost all they chose; each round serves one of them at least
        chosen = left[rank(box[left], cost[left]) < shares[box[left]]]
        won = chosen[rank(anchor[chosen], cost[chosen]) == 0]
        matched.append(won)
        taken[anchor[won]] = True
        served[box[won]] = True
        left = left[~served[box[left]] & ~taken[anchor[left]]]
        if not len(left):
            return torch.cat(matched)
        shares = torch.ones_like(shares)


def rank(group: Tensor, key: Tensor) -> Tensor:
    """Place of every item in its group, int64, 0 for the smallest key; equal keys in their order, NaN last."""
    order = key.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    ordered = group[order]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - torch.searchsorted(ordered, ordered)
    return place
