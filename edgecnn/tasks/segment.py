"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, Literal

import cv2
import msgspec
import numpy as np

from edgecnn import rle
from edgecnn.errors import SpecError
from edgecnn.frame import Placement
from edgecnn.results import SegmentationMap, UInt8Array
from edgecnn.tasks import drawing
from edgecnn.tasks.answer_form import BATCH, CLASSES, Arrays, TensorForm
from edgecnn.tasks.base import Gauge, Limits, Match, Metric, MetricNames, Sensor, Task
from edgecnn.tasks.truth import CLASS_MAP

_MOST_CLASSES = 256  # a pixel's class is stored in a byte
_MOST_WORDS = 5
_LEAST_SHARE = 0.005  # smallest share of the pixels that is listed
_BACKGROUND = {"background", "__background__"}


class Segment(Task, msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="segment"):
    """The class of each pixel of a picture.

    Outputs of every artifact: `classes` uint8 [1, h, w], or `logits` float32 [1, C, h, w] where `decided_in` is
    "finish".

    Attributes:
        labels: C class names, by class id; at most 256.
        decided_in: where the best class of a pixel is chosen, in the graph or after it.
    """

    labels: tuple[str, ...]
    decided_in: Literal["graph", "finish"] = "graph"

    name: ClassVar[str] = "segment"
    metric: ClassVar[str] = "miou"
    result: ClassVar[type] = SegmentationMap
    truth: ClassVar[str] = CLASS_MAP
    leaves_out_a_class: ClassVar[bool] = True
    gauge: ClassVar[Gauge] = Gauge("edgecnn_area_ratio", "Share of the newest picture's area.")
    sensor: ClassVar[Sensor] = Sensor("label", "Label", "shares", icon="mdi:label", number=False)

    def __post_init__(self) -> None:
        if len(self.labels) > _MOST_CLASSES:
            raise SpecError(f"labels must be at most {_MOST_CLASSES} to segment, got {len(self.labels)}")

    @property
    def answer(self) -> tuple[TensorForm, ...]:
        """Logits."""
        return (TensorForm("logits", (BATCH, CLASSES, "h", "w")),)

    @property
    def output_forms(self) -> tuple[TensorForm, ...]:
        """Classes, or logits."""
        return (TensorForm("classes", (BATCH, "h", "w"), dtype="uint8"),) if self.decides_in_graph else self.answer

    @property
    def decides_in_graph(self) -> bool:
        """Whether the best class of a pixel is chosen in the graph."""
        return self.decided_in == "graph"

    def finish(self, outputs: Arrays, place: Placement) -> SegmentationMap:
        """The class map, mapped to source pixels (nearest neighbour)."""
        if self.decides_in_graph:
            classes = outputs["classes"][0]
        else:
            classes = np.argmax(outputs["logits"][0], axis=0).astype(np.uint8)
        return SegmentationMap(place.map_to_source(classes), self.labels)

    def draw(self, image: UInt8Array, result: SegmentationMap) -> UInt8Array:
        """A copy of the picture (uint8 [height, width, 3] BGR), tinted by class, with a legend."""
        canvas = image.copy()
        drawing.tint(canvas, result)
        return canvas

    @classmethod
    def words(cls, result: SegmentationMap, *, most: int | None = None) -> list[str]:
        """For example ["road 41 %", "sky 22 %"]; by default at most five."""
        return [f"{label} {100 * share:.0f} %" for label, share in result.shares().items()][: most or _MOST_WORDS]

    @classmethod
    def findings(cls, result: SegmentationMap, *, most: int) -> list[str]:
        """As `words`, without the background and very small shares."""
        return [
            f"{label} {100 * share:.0f} %"
            for label, share in result.shares().items()
            if label.lower() not in _BACKGROUND and share >= _LEAST_SHARE
        ][:most]

    @classmethod
    def record(cls, result: SegmentationMap) -> dict[str, Any]:
        """`segments`, largest first: label, class id, COCO's compressed `rle`, and share of the picture to 1e-6."""
        masks = rle.encode_classes(result.classes)
        areas_px = {class_id: rle.area_px(mask) for class_id, mask in masks.items() if result.means(class_id)}
        return {
            "segments": [
                {
                    "label": result.labels[class_id],
                    "class_id": class_id,
                    "rle": masks[class_id],
                    "share": round(areas_px[class_id] / result.classes.size, 6),
                }
                for class_id in sorted(areas_px, key=lambda i: -areas_px[i])
            ]
        }

    @classmethod
    def figures(cls, result: SegmentationMap) -> dict[str, float]:
        """Share of the picture's pixels of each class that occurs, largest first."""
        return result.shares()

    @classmethod
    def scaled(cls, result: SegmentationMap, factor_x: float, factor_y: float) -> SegmentationMap:
        """The result with a map for the other size (nearest neighbour)."""
        height_px, width_px = result.classes.shape
        size_px = (max(1, round(width_px * factor_x)), max(1, round(height_px * factor_y)))
        classes = cv2.resize(result.classes, size_px, interpolation=cv2.INTER_NEAREST)
        return replace(result, classes=np.asarray(classes, np.uint8))

    def match(self, found: SegmentationMap, expected: SegmentationMap, limits: Limits) -> Match:
        """Compare pixel by pixel."""
        equal = float(np.mean(found.classes == expected.classes))
        return Match(equal >= limits.pixels, equal)

    @classmethod
    def metric_names(cls) -> MetricNames:
        """Intersection over union."""
        return MetricNames("mean IoU", "mean IoU", "IoU", agreement="pixels of the same class")

    @classmethod
    def agreement(cls, a: SegmentationMap, b: SegmentationMap) -> float | None:
        """Share of equal pixels."""
        return float(np.mean(a.classes == b.classes))

    def new_metric(self, classes: Sequence[int], ignored: int | None) -> Metric:
        """Mean intersection over union."""
        from edgecnn.tasks.metrics.mean_iou import MeanIou

        return MeanIou(self.labels, classes, ignored)
