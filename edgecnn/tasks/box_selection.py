"""Selects a detector's boxes: the best candidates, without those that better ones overlap."""

from __future__ import annotations

import cv2
import numpy as np

from edgecnn.results import FloatArray, IntArray

_GROWTH = 4  # factor on the number of candidates per round, where the best ones don't fill a result


def select(
    boxes_xyxy: FloatArray,
    scores: FloatArray,
    *,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    max_candidates: int,
    multi_label: bool,
) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
    """The selected boxes, best first.

    Args:
        boxes_xyxy: float32 [N, 4].
        scores: float32 [N, C] in [0, 1].
        score_threshold: only boxes with a higher score.
        nms_iou: as for `non_maximum_suppression`.
        max_detections: largest number of boxes.
        max_candidates: only this number of the best boxes is compared, which limits the time whatever the scores.
        multi_label: one anchor may give a box for each class, not only for its best.

    Returns:
        Anchor indices int64 [n], class ids int64 [n], scores float32 [n], boxes float32 [n, 4].
    """
    # Each numpy call costs about 10 us after an inference has emptied the caches, so there are few.
    flat = scores.ravel()
    above = flat > score_threshold
    if not multi_label and np.count_nonzero(above) > len(scores):
        hits = _best_of_all_anchors(scores, score_threshold)
    else:
        (hits,) = above.nonzero()  # a few of hundreds of thousands: reduce them first
        if not multi_label and len(hits) > 1:
            hits = _best_of_each_anchor(scores, hits)
    if len(hits) > max_candidates:
        hits = hits[_best(flat[hits], max_candidates)]
    anchors, class_ids = np.divmod(hits, scores.shape[1])
    hit_scores, hit_boxes = flat[hits], boxes_xyxy[anchors]
    kept = non_maximum_suppression(hit_boxes, hit_scores, class_ids, iou=nms_iou, most=max_detections)
    return anchors[kept], class_ids[kept], hit_scores[kept], hit_boxes[kept]


def non_maximum_suppression(
    boxes_xyxy: FloatArray, scores: FloatArray, class_ids: IntArray, *, iou: float, most: int | None = None
) -> IntArray:
    """Indices of the boxes that no better box of their class overlaps by more than `iou`, best first.

    Of boxes with equal scores the earlier one is better.

    Args:
        boxes_xyxy: float32 [n, 4].
        scores: float32 [n].
        class_ids: int64 [n].
        iou: intersection over union, 0..1.
        most: stop at this number; a box is compared only with kept boxes, so this limits the time too.
    """
    count = len(scores)
    if count < 2:  # nothing to compare; saves 0.1 ms
        return np.arange(count, dtype=np.int64)[:most]
    most = count if most is None else most
    looked_at = most
    while looked_at < count:  # the kept boxes among the best are the first of all kept boxes
        best = _best(scores, looked_at)
        kept = _suppressed(boxes_xyxy[best], scores[best], class_ids[best], iou)
        if len(kept) >= most:
            return best[kept[:most]]
        looked_at *= _GROWTH
    return _suppressed(boxes_xyxy, scores, class_ids, iou)[:most]


def _suppressed(boxes_xyxy: FloatArray, scores: FloatArray, class_ids: IntArray, iou: float) -> IntArray:
    corners = boxes_xyxy.astype(np.float64)
    corners[:, 2:] -= corners[:, :2]  # OpenCV needs x, y, width, height
    # OpenCV sorts by score, stably, and returns the kept boxes in that order.
    kept = cv2.dnn.NMSBoxesBatched(corners, scores, class_ids.astype(np.int32), -1.0, iou)  # type: ignore[arg-type]
    return np.asarray(kept, np.int64).reshape(-1)


def _best_of_each_anchor(scores: FloatArray, hits: IntArray) -> IntArray:
    """From sorted indices into the flat scores, the best of each anchor that has some."""
    classes = scores.shape[1]
    of_anchor = hits // classes
    first = np.empty(len(hits), np.bool_)  # of its anchor; hits come anchor by anchor
    first[0] = True
    np.not_equal(of_anchor[1:], of_anchor[:-1], out=first[1:])
    if first.all():
        return hits
    of_anchor = of_anchor[first]
    places: IntArray = of_anchor * classes + scores[of_anchor].argmax(1)
    return places


def _best_of_all_anchors(scores: FloatArray, score_threshold: float) -> IntArray:
    """The same where most anchors have some: the whole table is faster than selecting rows."""
    places: IntArray = np.arange(len(scores)) * scores.shape[1] + scores.argmax(1)
    return places[scores.ravel()[places] > score_threshold]


def _best(scores: FloatArray, count: int) -> IntArray:
    """Indices of the `count` largest, in increasing order; of equal values the first."""
    least = np.partition(scores, len(scores) - count)[len(scores) - count]
    chosen = scores > least
    (equal,) = (scores == least).nonzero()
    chosen[equal[: count - int(chosen.sum())]] = True
    indices: IntArray = chosen.nonzero()[0]
    return indices
