"""Dynamic soft label assignment: which points of a NanoDet-Plus answer are trained towards which box.

Source: the published description of NanoDet-Plus (RangiLyu/nanodet: DSLA; the cost, 3 times the IoU's, the thirteen
best), after Ge et al. 2021, OTA, arXiv:2103.14259, section 3.3 (dynamic k), with the soft label of Li et al. 2020,
Generalized Focal Loss, arXiv:2006.04388, equation 2, in the cost of the class.

A batch is assigned at once, as a list of pairs of a box and a point in it. Three things differ from the published: a
box looks at its own points only, not at those of all boxes in its frame; a box that lies between all points takes the
nearest one; and a box that loses all its points to others takes the cheapest that is left. Small objects are trained
so, that otherwise would not be.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgecnn.training.frame_truth import FrameBoxTruth
from edgecnn.training.matching import Anchors, Assignment, match, pair_iou, rank

_MOST_POINTS = 13  # of a box
_IOU_WEIGHT = 3.0
_FOCUS = 2.0  # the exponent β of the quality focal loss


@torch.no_grad()
def assign(boxes_xyxy_px: Tensor, classes: Tensor, truths: Sequence[FrameBoxTruth], anchors: Anchors) -> Assignment:
    """Give every box the points that answer it best, as many as overlap it well; at least one if any is free.

    Candidates of a box are the points inside, its edges not; where there are none, the nearest to its centre. It gets k
    of them, the sum of its thirteen largest IoUs rounded down, at least 1: those that cost least. A point that several
    boxes want goes to the one of them to which it is cheapest.

    Args:
        boxes_xyxy_px: what the points answer, float32 [N, A, 4].
        classes: logits, float32 [N, A, C].
        truths: one per frame; class ids below C.
        anchors: of a frame; the corners of the cells are the points.
    """
    frames, count = classes.shape[:2]
    device = classes.device
    wanted_boxes = torch.cat([truth.boxes_xyxy_px.to(device, torch.float32) for truth in truths])
    wanted_classes = torch.cat([truth.class_ids.to(device, torch.int64) for truth in truths])
    boxes_in_frame = torch.tensor([len(truth.boxes_xyxy_px) for truth in truths], device=device)
    frame_of_box = torch.arange(frames, device=device).repeat_interleave(boxes_in_frame)

    box, cell = _candidates(wanted_boxes, anchors).nonzero(as_tuple=True)
    anchor = frame_of_box[box] * count + cell
    iou = pair_iou(boxes_xyxy_px.flatten(0, 1)[anchor], wanted_boxes[box])
    class_cost = _class_cost(classes.flatten(0, 1), anchor, wanted_classes[box], iou)
    cost = class_cost - _IOU_WEIGHT * (iou + 1e-7).log()
    iou = iou.nan_to_num(0.0)

    best = iou * (rank(box, -iou) < _MOST_POINTS)
    shares = torch.zeros(len(wanted_boxes), device=device).index_add_(0, box, best).int().clamp(min=1)
    pairs = match(box, anchor, cost, shares, anchors=frames * count)
    return Assignment(anchor[pairs], box[pairs], iou[pairs])


def focal_cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy of sigmoids with soft labels, times the square of how far off they are; of each element.

    Source: Li et al. 2020, Generalized Focal Loss, arXiv:2006.04388, equation 2 (quality focal loss, β = 2).

    Args:
        logits: float32.
        wanted: 0 to 1, of the same shape.
    """
    entropy = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    return entropy * (wanted - logits.sigmoid()).abs().pow(_FOCUS)


def _candidates(boxes_xyxy_px: Tensor, anchors: Anchors) -> Tensor:
    """Bool [boxes, A]."""
    x, y = anchors.corners_px.unbind(dim=1)
    left, top, right, bottom = boxes_xyxy_px[:, :, None].unbind(dim=1)
    inside = (x > left) & (x < right) & (y > top) & (y < bottom)
    apart = ((left + right) / 2 - x).square() + ((top + bottom) / 2 - y).square()
    nearest = functional.one_hot(apart.argmin(dim=1), inside.shape[1]).bool()
    return torch.where(inside.any(dim=1, keepdim=True), inside, nearest)


def _class_cost(classes: Tensor, anchor: Tensor, class_id: Tensor, iou: Tensor) -> Tensor:
    """`focal_cross_entropy` with the IoU as the label of the one class of each pair, summed over classes; [pairs].

    All but one term are the same whichever box asks, so they are summed once per point.
    """
    used, row = torch.unique(anchor, return_inverse=True)
    of_none = focal_cross_entropy(classes[used], torch.zeros_like(classes[used]))
    logit = classes[anchor, class_id]
    return of_none.sum(dim=1)[row] - of_none[row, class_id] + focal_cross_entropy(logit, iou)
