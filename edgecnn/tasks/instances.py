"""Instance segmentation: objects with their outlines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.frame import Placement
from edgecnn.results import BoolArray, Detections, FloatArray, Instances, UInt8Array
from edgecnn.tasks import _drawing
from edgecnn.tasks.detect import select


class InstanceSegment(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="instances"):
    """Which objects a picture shows, and which pixels are theirs.

    Outputs of every artifact: `boxes` and `scores` as of a detector; `coefficients` float32 [1, N, K] and
    `prototypes` float32 [1, K, h, w] over the whole frame. An object's mask is where the sum of prototypes,
    weighted by its coefficients, is positive, inside its box (YOLACT, Bolya et al. 2019, section 3.2).

    Attributes: as of `Detect`.
    """

    labels: tuple[str, ...]
    score_threshold: float = 0.3
    nms_iou: float = 0.5
    max_detections: int = 100
    multi_label: bool = False

    name: ClassVar[str] = "instances"
    metric: ClassVar[str] = "map"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in the graph's order."""
        return ("boxes", "scores", "coefficients", "prototypes")

    def finish(self, outputs: Mapping[str, NDArray[Any]], place: Placement) -> Instances:
        """As a detector's; masks are upsampled bilinearly to source pixels, then cut at zero and at the box."""
        anchors, class_ids, scores, boxes = select(
            outputs["boxes"][0],
            outputs["scores"][0],
            score_threshold=self.score_threshold,
            nms_iou=self.nms_iou,
            max_detections=self.max_detections,
            multi_label=self.multi_label,
        )
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
        _drawing.masks(canvas, result)
        _drawing.boxes(canvas, result.detections)
        return canvas


def _paint(mask: BoolArray, field: FloatArray, box_xyxy_px: FloatArray, place: Placement) -> None:
    """Set the pixels of one object in `mask` (bool [source height, source width])."""
    left, top = np.floor(box_xyxy_px[:2]).astype(int)
    right, bottom = np.ceil(box_xyxy_px[2:]).astype(int)
    if right <= left or bottom <= top:
        return
    rows, columns = field.shape
    per_x, per_y = columns / place.frame_width_px, rows / place.frame_height_px
    # from the pixel (x, y) of the box's window to the prototype's grid; centres are at half pixels in both
    window_to_field = np.array(
        [
            [place.scale_x * per_x, 0, ((left + 0.5) * place.scale_x + place.offset_x_px) * per_x - 0.5],
            [0, place.scale_y * per_y, ((top + 0.5) * place.scale_y + place.offset_y_px) * per_y - 0.5],
        ]
    )
    size = (int(right - left), int(bottom - top))
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    values = cv2.warpAffine(field, window_to_field, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    mask[top:bottom, left:right] = values > 0
