"""What instance segmentation says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.arrays import BoolArray, FloatArray, IntArray
from edgecnn.results import exchange
from edgecnn.results.detections import Detections
from edgecnn.results.items import Index, Items
from edgecnn.results.outlines import HasMasks
from edgecnn.results.result import changed


@dataclass(frozen=True, eq=False, repr=False)
class Instances(HasMasks, Items):
    """Objects with their outlines, best first.

    Attributes:
        detections: boxes, scores and classes, as of a detector.
        masks: bool [n, height, width] of the source picture.
    """

    detections: Detections
    masks: BoolArray

    @property
    def labels(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of all classes, by class id."""
        return self.detections.labels

    @property
    def boxes_xyxy_px(self) -> FloatArray:
        """Float32 [n, 4]: those of `detections`, as are the following."""
        return self.detections.boxes_xyxy_px

    @property
    def scores(self) -> FloatArray:  # type: ignore[override]
        """Float32 [n] in [0, 1], falling."""
        return self.detections.scores

    @property
    def class_ids(self) -> IntArray:  # type: ignore[override]
        """int64 [n]."""
        return self.detections.class_ids

    @property
    def track_ids(self) -> IntArray | None:
        """int64 [n]; None where nothing tracks."""
        return self.detections.track_ids

    @property
    def areas_px2(self) -> NDArray[np.float64]:
        """Areas of the masks, float64 [n], in source pixels."""
        return np.array([np.count_nonzero(mask) for mask in self.masks], np.float64)

    def __iter__(self) -> Iterator[tuple[FloatArray, float, str, BoolArray]]:
        """(box xyxy in px, score, label, mask bool [height, width]), best first."""
        for (box, score, label), mask in zip(self.detections, self.masks, strict=True):
            yield box, score, label, mask

    def each_mask(self) -> Iterator[BoolArray]:
        """The mask of each object: views."""
        return iter(self.masks)

    def part(self, index: Index) -> Instances:
        """Those at a slice, a mask or positions."""
        return changed(self, detections=self.detections.part(index), masks=self.masks[index])

    def to_coco(self, *, image_id: int = 0, category_ids: dict[int, int] | None = None) -> list[dict[str, Any]]:
        """As of a detector, each with its mask as `segmentation`, COCO's compressed RLE.

        Args:
            image_id, category_ids: as for `Result.to_coco`.

        Raises:
            SpecError: a class has no id.
        """
        records = exchange.coco_records(self.detections, image_id=image_id, category_ids=category_ids)
        return [{**record, "segmentation": runs} for record, runs in zip(records, self.rles(), strict=True)]

    def to_supervision(self) -> Any:
        """As `supervision.Detections` with masks, which shares the arrays.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        return exchange.supervision_detections(self.detections, self.masks)

    @classmethod
    def from_supervision(cls, found: Any, *, labels: Sequence[str] | None = None) -> Instances:
        """Of `supervision.Detections` with masks; see `Detections.from_supervision`.

        Raises:
            SpecError: as there, or there are no masks.
        """
        objects, order = exchange.from_supervision(found, labels)
        return cls(Detections(**objects), exchange.masks_of_supervision(found)[order])

    def _size_px(self) -> tuple[int, int] | None:
        return self.masks.shape[2], self.masks.shape[1]

    def _boxes(self) -> FloatArray:
        return self.boxes_xyxy_px

    def _columns(self) -> dict[str, Any]:
        return {**self.detections._columns(), "area_px2": self.areas_px2}
