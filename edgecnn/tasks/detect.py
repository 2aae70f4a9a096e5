"""Object detection: boxes with names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.frame import Placement
from edgecnn.results import Detections, FloatArray, IntArray, UInt8Array
from edgecnn.tasks import _drawing


class Detect(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="detect"):
    """Which objects a picture shows, and where.

    Outputs of every artifact: `boxes` float32 [1, N, 4] xyxy in frame pixels; `scores` float32 [1, N, C] in [0, 1].

    Attributes:
        labels: C class names, by class id.
        score_threshold: boxes must score above this.
        nms_iou: of two boxes of one class that overlap by more than this, the weaker one goes.
        max_detections: how many boxes a result holds at most.
        multi_label: one anchor may give a box for each of its classes (SSD's way), not only for its best.
    """

    labels: tuple[str, ...]
    score_threshold: float = 0.3
    nms_iou: float = 0.5
    max_detections: int = 300
    multi_label: bool = False

    name: ClassVar[str] = "detect"
    metric: ClassVar[str] = "map"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in the graph's order."""
        return ("boxes", "scores")

    def finish(self, outputs: Mapping[str, NDArray[Any]], place: Placement) -> Detections:
        """Threshold, non-maximum suppression per class, boxes mapped to source pixels."""
        _, class_ids, scores, boxes = select(
            outputs["boxes"][0],
            outputs["scores"][0],
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
            multi_label=self.multi_label,
        )
        boxes = place.boxes_to_source(boxes)
        visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        if not visible.all():  # what lies in a letterbox's border is not in the picture
            boxes, scores, class_ids = boxes[visible], scores[visible], class_ids[visible]
        return Detections(boxes, scores, class_ids, self.labels)

    def draw(self, image: UInt8Array, result: Detections) -> UInt8Array:
        """A copy of the picture (uint8 [height, width, 3] BGR) with boxes and names."""
        canvas = image.copy()
        _drawing.boxes(canvas, result)
        return canvas


def select(
    boxes_xyxy: FloatArray,
    scores: FloatArray,
    *,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    multi_label: bool,
) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """The boxes worth keeping, best first.

    Args:
        boxes_xyxy: float32 [N, 4].
        scores: float32 [N, C] in [0, 1].

    Returns:
        Anchor indices int64 [n], class ids int64 [n], scores float32 [n], boxes float32 [n, 4].
    """
    # Each numpy call costs about 10 us after an inference has emptied the caches, so there are few.
    flat = scores.ravel()
    (hits,) = (flat > score_threshold).nonzero()  # a few of hundreds of thousands: first cut, then think
    anchors, class_ids = np.divmod(hits, scores.shape[1])
    if not multi_label and len(hits) > 1:
        first = np.empty(len(hits), np.bool_)  # of its anchor; hits come anchor by anchor
        first[0] = True
        np.not_equal(anchors[1:], anchors[:-1], out=first[1:])
        if not first.all():
            anchors = anchors[first]
            class_ids = scores[anchors].argmax(1)
            hits = anchors * scores.shape[1] + class_ids
    hit_scores, hit_boxes = flat[hits], boxes_xyxy[anchors]
    kept = non_maximum_suppression(hit_boxes, hit_scores, class_ids, iou=nms_iou)[:max_detections]
    return anchors[kept], class_ids[kept], hit_scores[kept], hit_boxes[kept]


def non_maximum_suppression(boxes_xyxy: FloatArray, scores: FloatArray, class_ids: IntArray, *, iou: float) -> IntArray:
    """Indices of the boxes that no better box of their class covers by more than `iou`, best first.

    Args:
        boxes_xyxy: float32 [n, 4].
        scores: float32 [n].
        class_ids: int64 [n].
    """
    if len(scores) < 2:  # nothing to compare, and 0.1 ms saved
        return np.arange(len(scores), dtype=np.int64)
    corners = boxes_xyxy.astype(np.float64)
    corners[:, 2:] -= corners[:, :2]  # OpenCV wants x, y, width, height
    # OpenCV sorts by score, stably, and returns what it keeps in that order.
    kept = cv2.dnn.NMSBoxesBatched(corners, scores, class_ids.astype(np.int32), -1.0, iou)  # type: ignore[arg-type]
    return np.asarray(kept, np.int64).reshape(-1)
