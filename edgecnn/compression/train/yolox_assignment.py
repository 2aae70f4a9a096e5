"""SimOTA: which cells of a YOLOX answer are trained towards which box.

Source: Ge et al. 2021, YOLOX, arXiv:2107.08430, section 2.1 (SimOTA), after Ge et al. 2021, OTA, arXiv:2103.14259,
section 3.3 (dynamic k). What the paper leaves open (2.5 strides, 3 times the IoU cost, the ten best, 100000) is as in
the reference implementation (Megvii-BaseDetection/YOLOX, `yolox/models/yolo_head.py`, release 0.1).

A batch is assigned at once, as a list of pairs of a box and an anchor near it. Two things differ from the reference:
a box looks at its own candidates only, not at those of all boxes in its frame; and a box that loses all its anchors
to others takes the cheapest that is left, where the reference would not train it in this step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgecnn.compression.train.targets import BoxTarget

_REACH_STRIDES = 2.5
_MOST_ANCHORS = 10  # of a box
_IOU_WEIGHT = 3.0
_OFF_CENTRE_COST = 100_000.0
_LEAST_LOG = -100.0  # as in torch's binary cross entropy


@dataclass(frozen=True)
class Anchors:
    """The cells of one frame's answer, level by level, row by row; there are A.

    Attributes:
        corners_px: float32 [A, 2], x y of a cell's top left corner.
        strides_px: float32 [A], a cell's width and height.
    """

    corners_px: Tensor
    strides_px: Tensor

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


@torch.no_grad()
def assign(
    boxes_xyxy_px: Tensor, objectness: Tensor, classes: Tensor, targets: Sequence[BoxTarget], anchors: Anchors
) -> Assignment:
    """Give every box the anchors that answer it best, as many as overlap it well; at least one if any is free.

    Candidates of a box have their centre in it, or within 2.5 strides of its centre. It gets k of them, the sum of
    its ten largest IoUs rounded down, at least 1: those that cost least, first of all such that are both in it and
    near its centre. An anchor that several boxes want goes to the one of them to which it is cheapest.

    Args:
        boxes_xyxy_px: what the anchors answer, float32 [N, A, 4].
        objectness: logits, float32 [N, A].
        classes: logits, float32 [N, A, C].
        targets: one per frame; class ids below C.
        anchors: of a frame.
    """
    frames, count = objectness.shape
    device = objectness.device
    wanted_boxes = torch.cat([target.boxes_xyxy_px.to(device, torch.float32) for target in targets])
    wanted_classes = torch.cat([target.class_ids.to(device, torch.int64) for target in targets])
    boxes_in_frame = torch.tensor([len(target.boxes_xyxy_px) for target in targets], device=device)
    frame_of_box = torch.arange(frames, device=device).repeat_interleave(boxes_in_frame)

    inside, near = _inside_and_near(wanted_boxes, anchors)
    box, cell = (inside | near).nonzero(as_tuple=True)
    central = (inside & near)[box, cell]
    anchor = frame_of_box[box] * count + cell

    iou = pair_iou(boxes_xyxy_px.flatten(0, 1)[anchor], wanted_boxes[box])
    class_cost = _class_cost(objectness.flatten(), classes.flatten(0, 1), anchor, wanted_classes[box])
    cost = class_cost - _IOU_WEIGHT * (iou + 1e-8).log() + _OFF_CENTRE_COST * ~central
    iou = iou.nan_to_num(0.0)

    best = iou * (_rank(box, -iou) < _MOST_ANCHORS)
    shares = torch.zeros(len(wanted_boxes), device=device).index_add_(0, box, best).int().clamp(min=1)
    pairs = _match(box, anchor, cost, shares, anchors=frames * count)
    return Assignment(anchor[pairs], box[pairs], iou[pairs])


def pair_iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """IoU of boxes [m, 4] with the boxes [m, 4] beside them, [m]; 0 where neither has an area."""
    overlap = (torch.minimum(a_xyxy[:, 2:], b_xyxy[:, 2:]) - torch.maximum(a_xyxy[:, :2], b_xyxy[:, :2])).clamp(min=0)
    intersection = overlap[:, 0] * overlap[:, 1]
    return intersection / (_area(a_xyxy) + _area(b_xyxy) - intersection + 1e-16)


def _area(xyxy: Tensor) -> Tensor:
    return (xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1])


def _inside_and_near(boxes_xyxy_px: Tensor, anchors: Anchors) -> tuple[Tensor, Tensor]:
    """Whether an anchor's centre is in a box, and whether it is near its centre; bool [boxes, A] each."""
    x, y = anchors.centres_px.unbind(dim=1)
    left, top, right, bottom = boxes_xyxy_px[:, :, None].unbind(dim=1)
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    reach = _REACH_STRIDES * anchors.strides_px
    mid_x, mid_y = (left + right) / 2, (top + bottom) / 2
    near = (mid_x > x - reach) & (mid_x < x + reach) & (mid_y > y - reach) & (mid_y < y + reach)
    return inside, near


def _class_cost(objectness: Tensor, classes: Tensor, anchor: Tensor, class_id: Tensor) -> Tensor:
    """Binary cross entropy of √(objectness × class) with the one class of each pair, summed over classes; [pairs].

    All but one term are the same whichever box asks, so they are summed once per anchor.
    """
    used, row = torch.unique(anchor, return_inverse=True)
    probability = (classes[used].sigmoid() * objectness[used, None].sigmoid()).sqrt()
    log_no = (-probability).log1p().clamp(min=_LEAST_LOG)
    log_yes = probability[row, class_id].log().clamp(min=_LEAST_LOG)
    return log_no[row, class_id] - log_no.sum(dim=1)[row] - log_yes


def _match(box: Tensor, anchor: Tensor, cost: Tensor, shares: Tensor, *, anchors: int) -> Tensor:
    """Which pairs are matched, int64 [m]: each box's cheapest, as many as its share; no anchor twice."""
    taken = torch.zeros(anchors, dtype=torch.bool, device=box.device)
    served = torch.zeros(len(shares), dtype=torch.bool, device=box.device)
    matched: list[Tensor] = []
    left = torch.arange(len(box), device=box.device)
    while True:  # a round leaves only boxes that lost all they chose; each round serves one of them at least
        chosen = left[_rank(box[left], cost[left]) < shares[box[left]]]
        won = chosen[_rank(anchor[chosen], cost[chosen]) == 0]
        matched.append(won)
        taken[anchor[won]] = True
        served[box[won]] = True
        left = left[~served[box[left]] & ~taken[anchor[left]]]
        if not len(left):
            return torch.cat(matched)
        shares = torch.ones_like(shares)


def _rank(group: Tensor, key: Tensor) -> Tensor:
    """Place of every item in its group, int64, 0 for the smallest key; equal keys in their order, NaN last."""
    order = key.argsort(stable=True)
    order = order[group[order].argsort(stable=True)]
    ordered = group[order]
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device) - torch.searchsorted(ordered, ordered)
    return place
