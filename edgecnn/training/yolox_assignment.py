"""SimOTA: decides which cells of a YOLOX answer are trained for which box.

Source: Ge et al. 2021, YOLOX, arXiv:2107.08430, section 2.1 (SimOTA), after Ge et al. 2021, OTA, arXiv:2103.14259,
section 3.3 (dynamic k). Details not in the paper (2.5 strides, 3 times the IoU cost, the ten best, 100000) are as in
the reference implementation (Megvii-BaseDetection/YOLOX, `yolox/models/yolo_head.py`, release 0.1).

A batch is assigned at once, as a list of pairs of a box and an anchor near it. Two things differ from the reference:
a box uses only its own candidates, not those of all boxes in its frame; and a box that loses all its anchors
to others gets the cheapest remaining one, where the reference would not train it in this step.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgecnn.training.frame_truth import FrameBoxTruth
from edgecnn.training.matching import Anchors, Assignment, match, pair_iou, rank

_REACH_STRIDES = 2.5
_MOST_ANCHORS = 10  # per box
_IOU_WEIGHT = 3.0
_OFF_CENTRE_COST = 100_000.0
_LEAST_LOG = -100.0  # as in torch's binary cross entropy


@torch.no_grad()
def assign(
    boxes_xyxy_px: Tensor, objectness: Tensor, classes: Tensor, truths: Sequence[FrameBoxTruth], anchors: Anchors
) -> Assignment:
    """Give every box the anchors that answer it best, as many as overlap it well; at least one if any is free.

    Candidates of a box have their centre in it, or within 2.5 strides of its centre. The box gets k of them, the sum of
    its ten largest IoUs rounded down, at least 1: those with the lowest cost, where candidates both in the box and
    near its centre come first. An anchor chosen by several boxes goes to the box with the lowest cost.

    Args:
        boxes_xyxy_px: the anchors' predicted boxes, float32 [N, A, 4].
        objectness: logits, float32 [N, A].
        classes: logits, float32 [N, A, C].
        truths: one per frame; class ids below C.
        anchors: the anchors of a frame.
    """
    frames, count = objectness.shape
    device = objectness.device
    wanted_boxes = torch.cat([truth.boxes_xyxy_px.to(device, torch.float32) for truth in truths])
    wanted_classes = torch.cat([truth.class_ids.to(device, torch.int64) for truth in truths])
    boxes_in_frame = torch.tensor([len(truth.boxes_xyxy_px) for truth in truths], device=device)
    frame_of_box = torch.arange(frames, device=device).repeat_interleave(boxes_in_frame)

    inside, near = _inside_and_near(wanted_boxes, anchors)
    box, cell = (inside | near).nonzero(as_tuple=True)
    central = (inside & near)[box, cell]
    anchor = frame_of_box[box] * count + cell

    iou = pair_iou(boxes_xyxy_px.flatten(0, 1)[anchor], wanted_boxes[box])
    class_cost = _class_cost(objectness.flatten(), classes.flatten(0, 1), anchor, wanted_classes[box])
    cost = class_cost - _IOU_WEIGHT * (iou + 1e-8).log() + _OFF_CENTRE_COST * ~central
    iou = iou.nan_to_num(0.0)

    best = iou * (rank(box, -iou) < _MOST_ANCHORS)
    shares = torch.zeros(len(wanted_boxes), device=device).index_add_(0, box, best).int().clamp(min=1)
    pairs = match(box, anchor, cost, shares, anchors=frames * count)
    return Assignment(anchor[pairs], box[pairs], iou[pairs])


def _inside_and_near(boxes_xyxy_px: Tensor, anchors: Anchors) -> tuple[Tensor, Tensor]:
    """Whether an anchor's centre is in a box, and whether it is near the box's centre; bool [boxes, A] each."""
    x, y = anchors.centres_px.unbind(dim=1)
    left, top, right, bottom = boxes_xyxy_px[:, :, None].unbind(dim=1)
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    reach = _REACH_STRIDES * anchors.strides_px
    mid_x, mid_y = (left + right) / 2, (top + bottom) / 2
    near = (mid_x > x - reach) & (mid_x < x + reach) & (mid_y > y - reach) & (mid_y < y + reach)
    return inside, near


def _class_cost(objectness: Tensor, classes: Tensor, anchor: Tensor, class_id: Tensor) -> Tensor:
    """Binary cross entropy of √(objectness × class) with the one class of each pair, summed over classes; [pairs].

    All but one term are the same for every box, so they are summed once per anchor.
    """
    used, row = torch.unique(anchor, return_inverse=True)
    probability = (classes[used].sigmoid() * objectness[used, None].sigmoid()).sqrt()
    log_no = (-probability).log1p().clamp(min=_LEAST_LOG)
    log_yes = probability[row, class_id].log().clamp(min=_LEAST_LOG)
    return log_no[row, class_id] - log_no.sum(dim=1)[row] - log_yes
