"""Common parts of tasks with objects: thresholds, the selection of boxes, and descriptions of detections."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
import numpy as np

from edgecnn.results import Detections, FloatArray, IntArray
from edgecnn.tasks.answer_form import BATCH, CLASSES, Array, Arrays, TensorForm
from edgecnn.tasks.base import Compared, Gauge, Limits, Match, MetricNames, Sensor, Task, check_count, check_share
from edgecnn.tasks.box_selection import select

if TYPE_CHECKING:
    from typing import Self

# COCO's convention: nearly all boxes count, because AP ranks them by score. `run` has stricter thresholds.
_EVALUATION_SCORE = 0.01
_EVALUATION_NMS_IOU = 0.65
_EVALUATION_DETECTIONS = 300
_EVALUATION_CANDIDATES = 10_000
# Anchors below eval's score threshold are noise for every use: runtimes approximate sigmoids to about 1e-8
# absolute, and the boxes there are arbitrary. They are used only for the range that errors are relative to.
_SCORE_THAT_MATTERS = _EVALUATION_SCORE
_ALWAYS_COUNTING = 10  # anchors compared in a frame without any above the threshold
_SMALLEST_SCORE = 1e-12  # lower limit before the logarithm: close to the limit of float32 softmax and sigmoid
_SAME_OBJECT_IOU = 0.5
_HAIR_PX = np.array([-0.05, -0.05, 0.05, 0.05])  # small compared with any object, large compared with rounding

BOX_FORM = TensorForm("boxes", (BATCH, "N", 4), meaning="xyxy in frame pixels")
SCORE_FORM = TensorForm("scores", (BATCH, "N", CLASSES), low=0, high=1)


class FindsObjects(Task, msgspec.Struct, frozen=True, kw_only=True):
    """A task whose results have objects.

    Attributes:
        labels: C class names, by class id.
        score_threshold: boxes must score above this, 0..1.
        nms_iou: of two boxes of one class that overlap by more than this, the lower-scored one is dropped, 0..1.
        max_detections: largest number of boxes in a result.
        max_candidates: number of the best boxes above the threshold that are compared with each other; more would only
            cost time, for example with a threshold of 0.
        multi_label: one anchor may give a box for each of its classes (as in SSD), not only for its best.
    """

    labels: tuple[str, ...]
    score_threshold: float = 0.3
    nms_iou: float = 0.5
    max_detections: int = 300
    max_candidates: int = 1000
    multi_label: bool = False

    metric: ClassVar[str] = "map"
    metric_packages: ClassVar[tuple[str, ...]] = ("faster-coco-eval",)
    threshold_fields: ClassVar[dict[str, str]] = {"score": "score_threshold", "nms_iou": "nms_iou"}
    gauge: ClassVar[Gauge] = Gauge("edgecnn_objects", "Objects in the newest result.")
    sensor: ClassVar[Sensor] = Sensor("objects", "Objects", "by_class", icon="mdi:shape", number=True)

    def __post_init__(self) -> None:
        check_share("score_threshold", self.score_threshold)
        check_share("nms_iou", self.nms_iou)
        check_count("max_detections", self.max_detections)
        check_count("max_candidates", self.max_candidates)

    def for_evaluation(self) -> Self:
        """The task with COCO's thresholds: a score above 0.01, NMS 0.65, 300 boxes."""
        return msgspec.structs.replace(
            self,
            score_threshold=_EVALUATION_SCORE,
            nms_iou=_EVALUATION_NMS_IOU,
            max_detections=max(_EVALUATION_DETECTIONS, self.max_detections),
            max_candidates=max(_EVALUATION_CANDIDATES, self.max_candidates),
        )

    def selected(self, outputs: Arrays) -> tuple[IntArray, IntArray, FloatArray, FloatArray]:
        """Anchors, class ids, scores and boxes in frame pixels of the kept boxes; see `selection.select`."""
        return select(
            outputs["boxes"][0],
            outputs["scores"][0],
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
            max_candidates=self.max_candidates,
            multi_label=self.multi_label,
        )

    def compared(self, answer: Arrays, expected: Arrays) -> dict[str, Compared]:
        """Scores as logarithms; of tensors with an anchor axis, only anchors that may become detections."""
        scores = np.maximum(expected["scores"], answer["scores"])
        anchors = scores.max(axis=2)
        # If no score is high enough, the best anchors are compared anyway: every answer is compared.
        count = min(_ALWAYS_COUNTING, anchors.shape[1])
        best = np.partition(anchors, -count, axis=1)[:, -count]
        enough = np.where(anchors.max(axis=1) < _SCORE_THAT_MATTERS, best, _SCORE_THAT_MATTERS)[:, None]
        compared = {}
        for form in self.output_forms:
            found, right = answer[form.name], expected[form.name]
            if form.name == SCORE_FORM.name:
                compared[form.name] = Compared(log_scores(found), log_scores(right), scores >= enough[..., None])
            else:
                compared[form.name] = Compared(found, right, anchors >= enough if "N" in form.axes else ...)
        return compared

    @classmethod
    def metric_names(cls) -> MetricNames:
        """COCO's average precision."""
        return MetricNames("AP@[.50:.95]", "AP", "AP")

    @classmethod
    def words(cls, result: Any, *, most: int | None = None) -> list[str]:
        """For example ["3 person", "1 car"]."""
        return [f"{count} {label}" for label, count in _counted(_objects_of(cls, result)).most_common(most)]

    @classmethod
    def findings(cls, result: Any, *, most: int) -> list[str]:
        """For example ["person 0.93", "tie 0.41"]."""
        objects = _objects_of(cls, result)
        named = zip(objects.class_ids.tolist(), objects.scores.tolist(), strict=True)
        return [f"{objects.labels[class_id]} {score:.2f}" for class_id, score in list(named)[:most]]

    @classmethod
    def figures(cls, result: Any) -> dict[str, float]:
        """Number of objects of each class, most first."""
        return dict(_counted(_objects_of(cls, result)).most_common())

    @classmethod
    def headline(cls, result: Any) -> float | str | None:
        """Number of objects."""
        return len(_objects_of(cls, result))

    @classmethod
    def record(cls, result: Any) -> dict[str, Any]:
        """`detections`, best first.

        Each has its label and class id, score to 1e-6, box xyxy in source pixels to 0.01 px, and track id or null.
        """
        return {"detections": detection_records(_objects_of(cls, result))}


def detection_records(found: Detections) -> list[dict[str, Any]]:
    """Objects in JSON form."""
    boxes = np.round(found.boxes_xyxy_px.astype(np.float64), 2).tolist()
    ids = [-1] * len(found) if found.track_ids is None else found.track_ids.tolist()
    tracks = [None if track_id < 0 else track_id for track_id in ids]
    return [
        {
            "label": found.labels[class_id],
            "class_id": class_id,
            "score": round(score, 6),
            "box": box,
            "track_id": track,
        }
        for class_id, score, box, track in zip(
            found.class_ids.tolist(), found.scores.tolist(), boxes, tracks, strict=True
        )
    ]


def scaled_boxes(boxes_xyxy_px: FloatArray, factor_x: float, factor_y: float) -> FloatArray:
    """Boxes for the same picture at another size."""
    return boxes_xyxy_px * np.array([factor_x, factor_y] * 2, np.float32)


def match_boxes(found: Detections, expected: Detections, limits: Limits, threshold: float) -> Match:
    """Match one to one, best first. A box found on only one side is accepted if its score is at the threshold."""
    free = list(range(len(found)))
    ious, differences, matched, forgiven = [], [], 0, 0
    for i in range(len(expected)):
        same_class = [j for j in free if found.class_ids[j] == expected.class_ids[i]]
        overlaps = [_iou(found.boxes_xyxy_px[j], expected.boxes_xyxy_px[i]) for j in same_class]
        if not overlaps or max(overlaps) < _SAME_OBJECT_IOU:
            forgiven += float(expected.scores[i]) - threshold <= limits.score
            continue
        best = same_class[int(np.argmax(overlaps))]
        free.remove(best)
        matched += 1
        ious.append(max(overlaps))
        differences.append(abs(float(found.scores[best]) - float(expected.scores[i])))
    forgiven += sum(float(found.scores[j]) - threshold <= limits.score for j in free)
    total = len(expected) + len(free)
    ok = matched + forgiven >= total
    ok = ok and min(ious, default=1.0) >= limits.box_iou and max(differences, default=0.0) <= limits.score
    return Match(ok, matched / total if total else 1.0, min(ious, default=None), max(differences, default=None))


def log_scores(scores: Array) -> Array:
    """Logarithms, float64, which a softmax or sigmoid in float32 carries with full relative precision."""
    return np.log(np.maximum(scores.astype(np.float64), _SMALLEST_SCORE))


def _objects_of(task: type[Task], result: Any) -> Detections:
    objects = task.objects(result)
    assert objects is not None  # a task of this kind has objects
    return objects


def _counted(found: Detections) -> Counter[str]:
    return Counter(found.labels[class_id] for class_id in found.class_ids.tolist())


def _iou(a: FloatArray, b: FloatArray) -> float:
    """Intersection over union of two boxes, each enlarged slightly.

    A box in a letterbox's border is clipped to a line or a sliver of the picture, which would not overlap itself.
    """
    left, top, right, bottom = a + _HAIR_PX
    other_left, other_top, other_right, other_bottom = b + _HAIR_PX
    width = min(right, other_right) - max(left, other_left)
    height = min(bottom, other_bottom) - max(top, other_top)
    if not (width > 0 and height > 0):
        return 0.0
    both = float(width * height)
    areas = (right - left) * (bottom - top) + (other_right - other_left) * (other_bottom - other_top)
    return both / float(areas - both)
