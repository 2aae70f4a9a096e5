"""The MultiBox loss of SSD: matches anchors to boxes, and computes their errors.

Source: Liu et al. 2016, SSD: Single Shot MultiBox Detector, arXiv:1512.02325, section 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert, box_iou

from edgecnn.errors import SpecError
from edgecnn.training.frame_truth import FrameBoxTruth

MATCHING_IOU = 0.5
NEGATIVES_PER_POSITIVE = 3
BACKGROUND, NOBODY = 0, -1
# Factors on the codes for x, y, width and height: the inverse of `decode_ssd`'s.
_CODE_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


class SsdLoss:
    """Loss of an SSD head's raw answer.

    Args:
        classes: number of the network's classes, without the background.
    """

    def __init__(self, *, classes: int) -> None:
        self.classes = classes

    def __call__(self, answer: tuple[Tensor, Tensor, Tensor], truths: Sequence[FrameBoxTruth]) -> dict[str, Tensor]:
        """The two parts of equation 1, each a scalar for the batch, divided by the number of matched anchors.

        Negatives are the anchors with the largest class loss, three for each matched anchor of their frame. The paper
        learns nothing from a frame without objects; here such a frame contributes as many as the batch's average frame,
        so that false detections are learned from it.

        Args:
            answer: codes [N, A, 4], class logits [N, A, 1 + C] with the background first, and anchors [A, 4] xyxy in
                frame px.
            truths: one for each frame.

        Returns:
            "box": smooth L1 of the codes; "class": cross entropy. Both float32, and both have a gradient in a batch
            without any box.

        Raises:
            SpecError: the answer has another number of frames or classes.
        """
        codes, logits, anchors = answer
        if len(truths) != len(codes) or logits.shape[-1] != 1 + self.classes:
            raise SpecError(
                f"expected {len(truths)} frames and {1 + self.classes} class logits per anchor (including the "
                f"background), got {len(codes)} frames and {logits.shape[-1]} logits"
            )
        wanted_codes, wanted_classes = (
            torch.stack(parts) for parts in zip(*(_wanted(truth, anchors) for truth in truths), strict=True)
        )
        positive = wanted_classes != BACKGROUND
        matched = positive.sum().clamp(min=1)
        box = functional.smooth_l1_loss(codes.float()[positive], wanted_codes[positive], reduction="sum")
        cross_entropy = functional.cross_entropy(
            logits.float().flatten(0, 1), wanted_classes.flatten(), reduction="none"
        ).view_as(positive)
        counted = positive | _hardest_negatives(cross_entropy.detach(), positive)
        return {"box": box / matched, "class": cross_entropy[counted].sum() / matched}


def encode_boxes(boxes_xyxy: Tensor, anchors_xyxy: Tensor) -> Tensor:
    """Codes (dx, dy, dw, dh) of boxes relative to anchors, float [n, 4] each; the inverse of `decode_ssd`.

    Source: section 2.2, the equations of ĝ, times the weights (the inverse of the variances) of torchvision's BoxCoder.
    """
    boxes, anchors = box_convert(boxes_xyxy, "xyxy", "cxcywh"), box_convert(anchors_xyxy, "xyxy", "cxcywh")
    shifts = (boxes[:, :2] - anchors[:, :2]) / anchors[:, 2:]
    codes: Tensor = torch.cat([shifts, (boxes[:, 2:] / anchors[:, 2:]).log()], dim=1)
    return codes * codes.new_tensor(_CODE_WEIGHTS)


def match_anchors(boxes_xyxy: Tensor, anchors_xyxy: Tensor) -> Tensor:
    """For each anchor the index of its box, int64 [A]; NOBODY (-1) for the background.

    An anchor is matched with the box that it overlaps most, if their IoU is at least 0.5; in addition, each box is
    matched with the anchor that overlaps it most, whatever the IoU (of two boxes with the same best anchor, the one
    with the larger IoU gets it and the other its next, if another one overlaps it).

    Args:
        boxes_xyxy: float [n, 4]; n may be 0.
        anchors_xyxy: float [A, 4].
    """
    answers = torch.full((len(anchors_xyxy),), NOBODY, device=anchors_xyxy.device)
    if len(boxes_xyxy) == 0:
        return answers
    overlaps: Tensor = box_iou(boxes_xyxy, anchors_xyxy)
    most, nearest = overlaps.max(dim=0)
    answers[most >= MATCHING_IOU] = nearest[most >= MATCHING_IOU]
    boxes, anchors = _best_anchors(overlaps)
    answers[anchors] = boxes
    return answers


def _best_anchors(overlaps: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes and the best anchor of each, by decreasing IoU [n, A]; boxes without an overlapping anchor are left out."""
    boxes = torch.arange(len(overlaps), device=overlaps.device)
    best, anchors = overlaps.max(dim=1)
    if len(set(anchors.tolist())) < len(anchors):  # several boxes have the same best anchor: one after the other
        overlaps = overlaps.clone()
        best, anchors = torch.zeros_like(best), torch.zeros_like(anchors)
        for _ in range(min(overlaps.shape)):
            box, anchor = divmod(int(overlaps.argmax()), overlaps.shape[1])
            best[box], anchors[box] = overlaps[box, anchor], anchor
            overlaps[box], overlaps[:, anchor] = -1, -1
    return boxes[best > 0], anchors[best > 0]


def _wanted(truth: FrameBoxTruth, anchors: Tensor) -> tuple[Tensor, Tensor]:
    """Codes [A, 4] (zero for the background) and classes [A] (0 for the background) of one frame."""
    boxes = truth.boxes_xyxy_px.to(anchors)
    answers = match_anchors(boxes, anchors)
    matched = answers != NOBODY
    codes, classes = torch.zeros_like(anchors), torch.full_like(answers, BACKGROUND)
    codes[matched] = encode_boxes(boxes[answers[matched]], anchors[matched])
    classes[matched] = 1 + truth.class_ids.to(answers.device)[answers[matched]]
    return codes, classes


def _hardest_negatives(cross_entropy: Tensor, positive: Tensor) -> Tensor:
    """Which anchors count as background, bool [N, A]: those with the largest loss, as many as their frame may have."""
    positives = positive.sum(dim=1)
    average = (positives.float().mean().round().long()).clamp(min=1)
    allowed = NEGATIVES_PER_POSITIVE * torch.where(positives > 0, positives, average)
    order = cross_entropy.masked_fill(positive, -1).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    return (rank < allowed[:, None]) & ~positive
