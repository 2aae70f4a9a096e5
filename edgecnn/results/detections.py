"""What a detector says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.arrays import FloatArray, IntArray
from edgecnn.results import exchange
from edgecnn.results.counts import Count
from edgecnn.results.items import Index, Items
from edgecnn.results.result import changed


@dataclass(frozen=True, eq=False, repr=False)
class Detections(Items):
    """The objects found in one picture, best first.

    Attributes:
        boxes_xyxy_px: float32 [n, 4], left, top, right, bottom in source pixels, clipped to the picture.
        scores: float32 [n] in [0, 1], falling.
        class_ids: int64 [n].
        labels: names of all classes, by class id.
        track_ids: int64 [n], the same object keeps its id over frames; -1 of a box that is no followed object
            (yet); None where nothing tracks.
        counts: what the lines and zones that are watched have counted, this picture included. A part of a result
            has those of the whole.
    """

    boxes_xyxy_px: FloatArray
    scores: FloatArray
    class_ids: IntArray
    labels: tuple[str, ...]
    track_ids: IntArray | None = None
    counts: tuple[Count, ...] = ()

    def __iter__(self) -> Iterator[tuple[FloatArray, float, str]]:
        """(box xyxy in px, score, label), best first."""
        for box, score, class_id in zip(self.boxes_xyxy_px, self.scores.tolist(), self.class_ids.tolist(), strict=True):
            yield box, score, self.labels[class_id]

    @property
    def areas_px2(self) -> NDArray[np.float64]:
        """Areas of the boxes, float64 [n], in source pixels."""
        boxes = self.boxes_xyxy_px.astype(np.float64)
        return (boxes[:, 2] - boxes[:, 0]).clip(0) * (boxes[:, 3] - boxes[:, 1]).clip(0)  # type: ignore[no-any-return]

    def part(self, index: Index) -> Detections:
        """Those at a slice, a mask or positions."""
        return changed(
            self,
            boxes_xyxy_px=self.boxes_xyxy_px[index],
            scores=self.scores[index],
            class_ids=self.class_ids[index],
            track_ids=None if self.track_ids is None else self.track_ids[index],
        )

    @classmethod
    def from_supervision(cls, found: Any, *, labels: Sequence[str] | None = None) -> Detections:
        """Of `supervision.Detections`: boxes, scores, classes and track ids, sorted best first; masks are left out.

        Args:
            found: with class ids; without scores, each is 1.
            labels: names of all classes, by class id; without them, those of `found.data["class_name"]`.

        Raises:
            SpecError: no class ids, no labels, or fewer than the class ids want.
        """
        return cls(**exchange.from_supervision(found, labels)[0])

    def _columns(self) -> dict[str, Any]:
        sides = {f"{side}_px": self.boxes_xyxy_px[:, i] for i, side in enumerate(("left", "top", "right", "bottom"))}
        tracks = {} if self.track_ids is None else {"track_id": self.track_ids}
        return {**super()._columns(), **sides, **tracks}
