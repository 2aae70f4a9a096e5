"""Instance segmentation: objects with masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import cv2
import numpy as np

from edgecnn import rle
from edgecnn.frame import Placement
from edgecnn.results import BoolArray, Detections, FloatArray, Instances, UInt8Array, changed
from edgecnn.tasks import drawing
from edgecnn.tasks._objects import BOX_FORM, SCORE_FORM, FindsObjects, detection_records, match_boxes, scaled_boxes
from edgecnn.tasks.answer_form import BATCH, Arrays, TensorForm
from edgecnn.tasks.base import Limits, Match, Metric
from edgecnn.tasks.truth import OUTLINES


class InstanceSegment(FindsObjects, frozen=True, kw_only=True, tag_field="kind", tag="instances"):
    """The objects in a picture and their pixels.

    Outputs of every artifact: `boxes` and `scores` as of a detector; `coefficients` float32 [1, N, K] and
    `prototypes` float32 [1, K, h, w] over the whole frame. An object's mask is where the sum of prototypes,
    weighted by its coefficients, is positive, inside its box (YOLACT, Bolya et al. 2019, section 3.2).

    Attributes: see `FindsObjects`.
    """

    max_detections: int = 100

    name: ClassVar[str] = "instances"
    result: ClassVar[type] = Instances
    truth: ClassVar[str] = OUTLINES

    @property
    def answer(self) -> tuple[TensorForm, ...]:
        """Boxes and scores, and the parts of masks."""
        coefficients = TensorForm("coefficients", (BATCH, "N", "K"))
        return BOX_FORM, SCORE_FORM, coefficients, TensorForm("prototypes", (BATCH, "K", "h", "w"))

    def finish(self, outputs: Arrays, place: Placement) -> Instances:
        """As for a detector; masks are upsampled bilinearly to source pixels, then cut at zero and at the box."""
        anchors, class_ids, scores, boxes = self.selected(outputs)
        detections = Detections(place.boxes_to_source(boxes), scores, class_ids, self.labels)
        prototypes = outputs["prototypes"][0]
        fields = np.tensordot(outputs["coefficients"][0][anchors], prototypes, axes=1)
        masks = np.zeros((len(anchors), place.source_height_px, place.source_width_px), np.bool_)
        for mask, field, box in zip(masks, fields, detections.boxes_xyxy_px, strict=True):
            _paint(mask, field, box, place)
        return Instances(detections, masks)

    def draw(self, image: UInt8Array, result: Instances) -> UInt8Array:
        """A copy of the picture (uint8 [height, width, 3] BGR) with masks, boxes and names."""
        canvas = image.copy()
        drawing.masks(canvas, result)
        drawing.boxes(canvas, result.detections)
        return canvas

    @classmethod
    def objects(cls, result: Instances) -> Detections:
        """Boxes, scores and classes."""
        return result.detections

    @classmethod
    def with_objects(cls, result: Instances, objects: Detections) -> Instances:
        """The same masks with these objects."""
        return changed(result, detections=objects)

    @classmethod
    def record(cls, result: Instances) -> dict[str, Any]:
        """As for a detector, each with its mask as COCO's compressed `rle`."""
        found = detection_records(result.detections)
        for detection, mask in zip(found, result.masks, strict=True):
            detection["rle"] = rle.encode(mask)
        return {"detections": found}

    @classmethod
    def scaled(cls, result: Instances, factor_x: float, factor_y: float) -> Instances:
        """The result with boxes and masks for the other size."""
        found, (count, height_px, width_px) = result.detections, result.masks.shape
        size_px = (max(1, round(width_px * factor_x)), max(1, round(height_px * factor_y)))
        masks = np.zeros((count, size_px[1], size_px[0]), np.bool_)
        for small, mask in zip(masks, result.masks, strict=True):
            small[:] = cv2.resize(mask.view(np.uint8), size_px, interpolation=cv2.INTER_NEAREST)
        boxes = scaled_boxes(found.boxes_xyxy_px, factor_x, factor_y)
        return Instances(replace(found, boxes_xyxy_px=boxes), masks)

    def match(self, found: Instances, expected: Instances, limits: Limits) -> Match:
        """Boxes one to one; for the masks, pixels covered by any object."""
        boxes = match_boxes(found.detections, expected.detections, limits, self.score_threshold)
        covered, meant = found.masks.any(axis=0), expected.masks.any(axis=0)
        return replace(boxes, ok=boxes.ok and bool(np.mean(covered == meant) >= limits.pixels))

    def new_metric(self, classes: Sequence[int], ignored: int | None) -> Metric:
        """COCO's AP@[.50:.95] of masks."""
        from edgecnn.tasks.metrics.average_precision import AveragePrecision

        return AveragePrecision(self.labels, classes, masks=True)


def _paint(mask: BoolArray, field: FloatArray, box_xyxy_px: FloatArray, place: Placement) -> None:
    """Set the pixels of one object in `mask` (bool [source height, source width])."""
    left, top = np.floor(box_xyxy_px[:2]).astype(int)
    right, bottom = np.ceil(box_xyxy_px[2:]).astype(int)
    if right <= left or bottom <= top:
        return
    rows, columns = field.shape
    per_x, per_y = columns / place.frame_width_px, rows / place.frame_height_px
    # from the pixel (x, y) of the box to the prototype's grid; pixel centres are at half in both
    part_to_field = np.array(
        [
            [place.scale_x * per_x, 0, ((left + 0.5) * place.scale_x + place.offset_x_px) * per_x - 0.5],
            [0, place.scale_y * per_y, ((top + 0.5) * place.scale_y + place.offset_y_px) * per_y - 0.5],
        ]
    )
    size = (int(right - left), int(bottom - top))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    values = cv2.warpAffine(field, part_to_field, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    mask[top:bottom, left:right] = values > 0
