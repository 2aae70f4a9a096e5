"""Object detection: boxes with class names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import ClassVar

from edgecnn.frame import Placement
from edgecnn.results import Detections, UInt8Array
from edgecnn.tasks import drawing
from edgecnn.tasks._objects import BOX_FORM, SCORE_FORM, FindsObjects, match_boxes, scaled_boxes
from edgecnn.tasks.answer_form import Arrays, TensorForm
from edgecnn.tasks.base import Limits, Match, Metric
from edgecnn.tasks.truth import BOXES


class Detect(FindsObjects, frozen=True, kw_only=True, tag_field="kind", tag="detect"):
    """The objects in a picture and their boxes.

    Outputs of every artifact: `boxes` float32 [1, N, 4] xyxy in frame pixels; `scores` float32 [1, N, C] in [0, 1].

    Attributes: see `FindsObjects`.
    """

    name: ClassVar[str] = "detect"
    result: ClassVar[type] = Detections
    truth: ClassVar[str] = BOXES

    @property
    def answer(self) -> tuple[TensorForm, ...]:
        """Boxes and scores."""
        return BOX_FORM, SCORE_FORM

    def finish(self, outputs: Arrays, place: Placement) -> Detections:
        """Threshold, non-maximum suppression per class, boxes mapped to source pixels."""
        _, class_ids, scores, boxes = self.selected(outputs)
        boxes = place.boxes_to_source(boxes)
        visible = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        if not visible.all():  # boxes in a letterbox's border are not in the picture
            boxes, scores, class_ids = boxes[visible], scores[visible], class_ids[visible]
        return Detections(boxes, scores, class_ids, self.labels)

    def draw(self, image: UInt8Array, result: Detections) -> UInt8Array:
        """A copy of the picture (uint8 [height, width, 3] BGR) with boxes and names."""
        canvas = image.copy()
        drawing.boxes(canvas, result)
        return canvas

    @classmethod
    def objects(cls, result: Detections) -> Detections:
        """The result itself."""
        return result

    @classmethod
    def with_objects(cls, result: Detections, objects: Detections) -> Detections:
        """The objects."""
        return objects

    @classmethod
    def scaled(cls, result: Detections, factor_x: float, factor_y: float) -> Detections:
        """The result with boxes for the other size; counts of lines and zones are unchanged."""
        boxes = scaled_boxes(result.boxes_xyxy_px, factor_x, factor_y)
        return dataclasses.replace(result, boxes_xyxy_px=boxes)

    def match(self, found: Detections, expected: Detections, limits: Limits) -> Match:
        """Match boxes one to one, best first."""
        return match_boxes(found, expected, limits, self.score_threshold)

    def new_metric(self, classes: Sequence[int], ignored: int | None) -> Metric:
        """COCO's AP@[.50:.95] of boxes."""
        from edgecnn.tasks.metrics.average_precision import AveragePrecision

        return AveragePrecision(self.labels, classes, masks=False)
