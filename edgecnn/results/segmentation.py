"""What semantic segmentation says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgecnn import rle
from edgecnn.arrays import BoolArray, FloatArray, IntArray, UInt8Array
from edgecnn.results import exchange
from edgecnn.results.items import Index, Items
from edgecnn.results.outlines import HasMasks, box_of
from edgecnn.results.result import changed

if TYPE_CHECKING:
    from edgecnn.rle import Rle


@dataclass(frozen=True, eq=False, repr=False)
class SegmentationMap(HasMasks, Items):
    """A class for every pixel of one picture; its things are the classes that occur, largest first.

    A part of it (`result[:2]`, `filter(labels="road")`) shares the map and says which classes are `meant`.

    Attributes:
        classes: uint8 [height, width] of the source picture, class ids.
        labels: names of all classes, by class id.
        meant: class ids that count; None for all.
    """

    classes: UInt8Array
    labels: tuple[str, ...]
    meant: tuple[int, ...] | None = None

    def means(self, class_id: int) -> bool:
        """Whether a class counts."""
        return self.meant is None or class_id in self.meant

    def shares(self) -> dict[str, float]:
        """Share of the picture's pixels of each class that occurs, largest first."""
        ids, areas_px = self._areas()
        return {
            self.labels[class_id]: area_px / self.classes.size
            for class_id, area_px in zip(ids.tolist(), areas_px.tolist(), strict=True)
        }

    @property
    def class_ids(self) -> IntArray:  # type: ignore[override]
        """int64 [n] of the classes that occur, largest first."""
        return self._areas()[0]

    @property
    def areas_px2(self) -> NDArray[np.float64]:
        """Pixels of each class that occurs, float64 [n]."""
        return self._areas()[1].astype(np.float64)

    @property
    def masks(self) -> BoolArray:
        """Bool [n, height, width], made anew: where each class that occurs is."""
        return np.array(list(self.each_mask()), np.bool_).reshape(-1, *self.classes.shape)

    def each_mask(self) -> Iterator[BoolArray]:
        """Where each class that occurs is."""
        return (self.classes == class_id for class_id in self.class_ids.tolist())

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """(label, share of the picture's pixels), largest first."""
        for class_id, area_px in zip(*(array.tolist() for array in self._areas()), strict=True):
            yield self.labels[class_id], area_px / self.classes.size

    def part(self, index: Index) -> SegmentationMap:
        """Those at a slice, a mask or positions; the map is shared."""
        return changed(self, meant=tuple(self.class_ids[index].tolist()))

    def rles(self) -> list[Rle]:
        """Where each class that occurs is, as COCO's compressed run-length encoding."""
        masks = rle.encode_classes(self.classes)
        return [masks[class_id] for class_id in self.class_ids.tolist()]

    def to_coco(self, *, image_id: int = 0, category_ids: dict[int, int] | None = None) -> list[dict[str, Any]]:
        """COCO's form of stuff results: image_id, category_id and segmentation, for each class that occurs.

        Args:
            image_id, category_ids: as for `Result.to_coco`.

        Raises:
            SpecError: a class has no id.
        """
        return [
            {"image_id": image_id, "category_id": category, "segmentation": runs}
            for category, runs in zip(exchange.categories(self, category_ids), self.rles(), strict=True)
        ]

    def to_supervision(self) -> Any:
        """As `supervision.Detections`: a mask and the box around it for each class that occurs.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        return exchange.supervision_segments(self, self._boxes(), self.masks)

    def _areas(self) -> tuple[IntArray, IntArray]:
        """Ids of the classes that occur and are meant, largest first, and how many pixels they have."""
        counts = np.bincount(self.classes.ravel(), minlength=1)
        if self.meant is not None:
            counts = np.where(np.isin(np.arange(len(counts)), self.meant), counts, 0)
        order = np.argsort(-counts, kind="stable")
        ids = order[counts[order] > 0]
        return ids, counts[ids]

    def _size_px(self) -> tuple[int, int] | None:
        return self.classes.shape[1], self.classes.shape[0]

    def _boxes(self) -> FloatArray:
        return np.array([box_of(mask) for mask in self.each_mask()], np.float32).reshape(-1, 4)
