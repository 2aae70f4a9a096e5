"""The training loss of YOLOX networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from edgecnn.errors import SpecError
from edgecnn.sources.zoo.yolox import Level
from edgecnn.training.frame_truth import FrameBoxTruth, check_boxes
from edgecnn.training.matching import Anchors, pair_iou
from edgecnn.training.yolox_assignment import assign

_BOX_WEIGHT = 5.0
# Larger than any frame. Early in training, unused anchors may predict anything, and float32's exp overflows at 88.
_LARGEST_LOG_CELLS = 10.0


class YoloxLoss:
    """Loss of a YOLOX head's raw maps.

    Source: Ge et al. 2021, YOLOX, arXiv:2107.08430, section 2.1; terms and weights as in the reference implementation
    (Megvii-BaseDetection/YOLOX, `yolox/models/yolo_head.py` and `losses.py`).

    Args:
        classes: length of the class axis, C.
        strides_px: pixels per cell of each level.
        with_l1: whether there is a part "l1", as the reference has in its last epochs, without mosaic. May be set
            between steps.
    """

    def __init__(self, *, classes: int, strides_px: Sequence[int] = (8, 16, 32), with_l1: bool = False) -> None:
        self.classes, self.strides_px, self.with_l1 = classes, tuple(strides_px), with_l1

    def __call__(self, answer: Sequence[Level], truths: Sequence[FrameBoxTruth]) -> dict[str, Tensor]:
        """Compute the parts of the loss.

        Args:
            answer: per stride, regression [N, 4, h, w] (dx, dy in cells from the cell's top left corner, log width,
                log height in cells), objectness logits [N, 1, h, w], class logits [N, C, h, w]; any float type.
            truths: one per frame, all on one device, the answer's or not; some or all may be without boxes.

        Returns:
            Scalars, float32, whose sum is the loss. Each is a sum over the batch divided by its number of positive
            anchors (at least 1): "box" (5 (1 - IoU²)), "objectness" (binary cross entropy of all anchors), "class"
            (binary cross entropy with IoU at the box's class and 0 elsewhere), and "l1" (of the regression) if asked
            for. Where the answer is not finite anywhere, the sum is not finite either.

        Raises:
            SpecError: the answer has other levels or classes, or there are not as many truths as frames.
            DataError: a class id that the network does not have.
        """
        self._check(answer, truths)
        regression, objectness, classes = (
            torch.cat([_rows(level[part]) for level in answer], dim=1) for part in range(3)
        )
        anchors = self._anchors(answer)
        boxes = _decode(regression, anchors)
        found = assign(boxes, objectness[..., 0], classes, truths, anchors)

        cell = found.anchors % len(anchors.strides_px)
        wanted_xyxy = torch.cat([truth.boxes_xyxy_px for truth in truths]).to(boxes)[found.boxes]
        wanted_ids = torch.cat([truth.class_ids for truth in truths]).to(boxes.device, torch.int64)[found.boxes]
        wanted_objectness = torch.zeros_like(objectness).flatten().index_fill_(0, found.anchors, 1.0)
        wanted_classes = functional.one_hot(wanted_ids, self.classes) * found.ious[:, None]

        iou = pair_iou(boxes.flatten(0, 1)[found.anchors], wanted_xyxy)
        # 0 × the rest: adds nothing, but makes a non-finite value visible here, before it reaches the weights.
        sums = {
            "box": _BOX_WEIGHT * (1 - iou.square()).sum() + 0 * boxes.sum(),
            "objectness": _cross_entropy(objectness.flatten(), wanted_objectness),
            "class": _cross_entropy(classes.flatten(0, 1)[found.anchors], wanted_classes) + 0 * classes.sum(),
        }
        if self.with_l1:
            wanted_regression = _encode(wanted_xyxy, anchors.corners_px[cell], anchors.strides_px[cell])
            sums["l1"] = (regression.flatten(0, 1)[found.anchors] - wanted_regression).abs().sum()
        positives = max(len(found.anchors), 1)
        return {name: value / positives for name, value in sums.items()}

    def _anchors(self, answer: Sequence[Level]) -> Anchors:
        return Anchors.of_levels([level[0].shape[2:] for level in answer], self.strides_px, answer[0][0].device)

    def _check(self, answer: Sequence[Level], truths: Sequence[FrameBoxTruth]) -> None:
        if len(answer) != len(self.strides_px):
            raise SpecError(
                f"expected an answer of {len(self.strides_px)} levels, one per stride {self.strides_px}, found "
                f"{len(answer)}; name the network's strides"
            )
        for regression, objectness, classes in answer:
            channels = [part.shape[1] for part in (regression, objectness, classes)]
            if channels != [4, 1, self.classes]:
                raise SpecError(
                    f"expected levels of 4, 1 and {self.classes} channels (box, objectness, classes), found "
                    f"{channels}; give the loss the network's number of classes"
                )
        check_boxes(truths, frames=len(answer[0][0]), classes=self.classes)


def _rows(x: Tensor) -> Tensor:
    """[N, C, h, w] to float32 [N, h × w, C]."""
    return x.float().permute(0, 2, 3, 1).flatten(1, 2)


def _decode(regression: Tensor, anchors: Anchors) -> Tensor:
    """Regression [N, A, 4] to boxes, x1 y1 x2 y2 in pixels; as `decode_yolox`, which is for export."""
    strides_px = anchors.strides_px[:, None]
    centre = regression[..., :2] * strides_px + anchors.corners_px
    half_size = regression[..., 2:].clamp(max=_LARGEST_LOG_CELLS).exp() * (strides_px / 2)
    return torch.cat((centre - half_size, centre + half_size), dim=-1)


def _encode(boxes_xyxy_px: Tensor, corners_px: Tensor, strides_px: Tensor) -> Tensor:
    """Regression [m, 4] with which cells [m] would give boxes [m, 4]."""
    low, high = boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:]
    centre = ((low + high) / 2 - corners_px) / strides_px[:, None]
    return torch.cat((centre, ((high - low) / strides_px[:, None] + 1e-8).log()), dim=1)


def _cross_entropy(logits: Tensor, wanted: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
