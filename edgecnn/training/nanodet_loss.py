"""The loss that NanoDet-Plus networks are trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss

from edgecnn.errors import SpecError
from edgecnn.sources.zoo.nanodet import BINS, SIDES, STRIDES_PX, Level
from edgecnn.training.frame_truth import FrameBoxTruth, check_boxes
from edgecnn.training.matching import Anchors, Assignment
from edgecnn.training.nanodet_assignment import assign, focal_cross_entropy

_BOX_WEIGHT, _DISTRIBUTION_WEIGHT = 2.0, 0.25
_FARTHEST = BINS - 1 - 0.1  # strides; as in the reference, so that there is a bin on either side


@dataclass(frozen=True)
class GuidedAnswer:
    """What a network answers in training, and what the module that guides its assignment does; of the same form."""

    levels: Sequence[Level]
    guide: Sequence[Level]


@dataclass(frozen=True)
class _Rows:
    """An answer, point by point.

    Attributes:
        classes: logits, float32 [N × A, C].
        distances: logits, float32 [N × A, 4, bins].
        boxes_xyxy_px: float32 [N × A, 4].
    """

    classes: Tensor
    distances: Tensor
    boxes_xyxy_px: Tensor


class NanoDetLoss:
    """Loss of a NanoDet-Plus head's raw maps.

    Source: Li et al. 2020, Generalized Focal Loss, arXiv:2006.04388, equations 2 (quality), 6 (distribution) and
    8 (boxes and distributions weigh as much as their point is sure); Rezatofighi et al. 2019, arXiv:1902.09630 (GIoU);
    weights and the guide's part as in the published configuration of NanoDet-Plus (RangiLyu/nanodet).

    Args:
        classes: length of the class axis, C.
        strides_px: pixels per cell of each level.
    """

    def __init__(self, *, classes: int, strides_px: Sequence[int] = STRIDES_PX) -> None:
        self.classes, self.strides_px = classes, tuple(strides_px)

    def __call__(self, answer: Sequence[Level] | GuidedAnswer, truths: Sequence[FrameBoxTruth]) -> dict[str, Tensor]:
        """Compute the parts of the loss.

        Args:
            answer: per stride, class logits [N, C, h, w] and logits of distances [N, 4 x 8, h, w], any float type; or
                such answers of a network and its guide. Where there is a guide, its answers decide which points are
                trained towards which box.
            truths: one per frame, all on one device, the answer's or not; some or all may be without boxes.

        Returns:
            Scalars, float32, whose sum is the loss: "class" (`focal_cross_entropy` of all points and classes, with IoU
            at the box's class and 0 elsewhere, over the number of positive points), "box" (2 (1 - GIoU)) and
            "distribution" (a quarter of the cross entropy with the two bins beside the distance, on average over the
            sides), both averages over the positive points, weighted by their highest class score. A guide adds the same
            again, named "guide_…". Where the answer is not finite anywhere, the sum is not finite either.

        Raises:
            SpecError: the answer has other levels or classes, or there are not as many truths as frames.
            DataError: a class id that the network has not.
        """
        levels, guide = (answer.levels, answer.guide) if isinstance(answer, GuidedAnswer) else (answer, None)
        for each in (levels, *([] if guide is None else [guide])):
            self._check(each)
        check_boxes(truths, frames=len(levels[0][0]), classes=self.classes)
        anchors = self._anchors(levels)
        rows = self._rows(levels, anchors)
        deciding = rows if guide is None else self._rows(guide, anchors)
        frames = (len(truths), -1)
        boxes, classes = (torch.unflatten(part, 0, frames) for part in (deciding.boxes_xyxy_px, deciding.classes))
        found = assign(boxes, classes, truths, anchors)
        parts = self._parts(rows, found, truths, anchors)
        if guide is None:
            return parts
        guided = self._parts(deciding, found, truths, anchors)
        return parts | {f"guide_{name}": value for name, value in guided.items()}

    def _parts(
        self, rows: _Rows, found: Assignment, truths: Sequence[FrameBoxTruth], anchors: Anchors
    ) -> dict[str, Tensor]:
        device = rows.classes.device
        wanted_xyxy = torch.cat([truth.boxes_xyxy_px for truth in truths]).to(device, torch.float32)[found.boxes]
        wanted_ids = torch.cat([truth.class_ids for truth in truths]).to(device, torch.int64)[found.boxes]
        wanted = torch.zeros_like(rows.classes)
        wanted[found.anchors, wanted_ids] = found.ious
        sure = rows.classes.detach()[found.anchors].sigmoid().amax(dim=1)
        weight = sure / sure.sum().clamp(min=1)

        apart = generalized_box_iou_loss(rows.boxes_xyxy_px[found.anchors], wanted_xyxy)
        unlike = distribution_loss(rows.distances[found.anchors], _distances(wanted_xyxy, found.anchors, anchors))
        # 0 × the rest: nothing, unless that is not finite, which is better seen here than in the weights.
        rest = 0 * rows.distances.sum()
        return {
            "class": focal_cross_entropy(rows.classes, wanted).sum() / max(len(found.anchors), 1),
            "box": _BOX_WEIGHT * (weight * apart).sum() + rest,
            "distribution": _DISTRIBUTION_WEIGHT * (weight * unlike.mean(dim=1)).sum(),
        }

    def _rows(self, answer: Sequence[Level], anchors: Anchors) -> _Rows:
        classes, distances = (torch.cat([_rows(level[part]) for level in answer], dim=1) for part in range(2))
        distances = torch.unflatten(distances, 2, (SIDES, BINS))
        far_px = integral(distances) * anchors.strides_px[:, None]
        boxes = torch.cat((anchors.corners_px - far_px[..., :2], anchors.corners_px + far_px[..., 2:]), dim=-1)
        return _Rows(classes.flatten(0, 1), distances.flatten(0, 1), boxes.flatten(0, 1))

    def _anchors(self, answer: Sequence[Level]) -> Anchors:
        return Anchors.of_levels([classes.shape[2:] for classes, _ in answer], self.strides_px, answer[0][0].device)

    def _check(self, answer: Sequence[Level]) -> None:
        if len(answer) != len(self.strides_px):
            raise SpecError(
                f"expected an answer of {len(self.strides_px)} levels, one per stride {self.strides_px}, found "
                f"{len(answer)}; name the network's strides"
            )
        for level in answer:
            channels = [part.shape[1] for part in level]
            if channels != [self.classes, SIDES * BINS]:
                raise SpecError(
                    f"expected levels of {self.classes} and {SIDES * BINS} channels (classes, distances), found "
                    f"{channels}; give the loss the network's number of classes"
                )


def integral(distances: Tensor) -> Tensor:
    """The mean of each distribution, in bins.

    Source: Li et al. 2020, Generalized Focal Loss, arXiv:2006.04388, equation 5.

    Args:
        distances: logits [..., bins].
    """
    bins = torch.arange(distances.shape[-1], dtype=distances.dtype, device=distances.device)
    return (distances.softmax(dim=-1) * bins).sum(dim=-1)


def distribution_loss(distances: Tensor, wanted: Tensor) -> Tensor:
    """Cross entropy with the two bins beside the wanted distance, each as much as the other one is away from it.

    Source: Li et al. 2020, Generalized Focal Loss, arXiv:2006.04388, equation 6 (distribution focal loss).

    Args:
        distances: logits, float32 [m, 4, bins].
        wanted: in bins, float32 [m, 4]; 0 to less than the last bin.

    Returns:
        Float32 [m, 4].
    """
    below = wanted.long()
    share = wanted - below
    log = distances.log_softmax(dim=-1)
    left, right = (log.gather(-1, bins[..., None])[..., 0] for bins in (below, below + 1))
    return -(left * (1 - share) + right * share)


def _distances(boxes_xyxy_px: Tensor, found: Tensor, anchors: Anchors) -> Tensor:
    """How far the sides of boxes [m, 4] are from the points that answer them, in strides, as far as bins go; [m, 4]."""
    cell = found % len(anchors.strides_px)
    points = anchors.corners_px[cell]
    far_px = torch.cat((points - boxes_xyxy_px[:, :2], boxes_xyxy_px[:, 2:] - points), dim=1)
    return (far_px / anchors.strides_px[cell, None]).clamp(min=0, max=_FARTHEST)


def _rows(x: Tensor) -> Tensor:
    """[N, C, h, w] to float32 [N, h × w, C]."""
    return x.float().permute(0, 2, 3, 1).flatten(1, 2)
