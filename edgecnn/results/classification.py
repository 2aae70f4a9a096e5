"""What a classifier says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgecnn.arrays import FloatArray, IntArray
from edgecnn.results import exchange
from edgecnn.results.items import Index, Items
from edgecnn.results.result import changed


@dataclass(frozen=True, eq=False, repr=False)
class Classification(Items):
    """The classes of one picture, best first.

    Attributes:
        class_ids: int64 [k], best first.
        scores: float32 [k], probabilities in [0, 1], falling.
        labels: names of all classes, by class id.
    """

    class_ids: IntArray
    scores: FloatArray
    labels: tuple[str, ...]

    def __iter__(self) -> Iterator[tuple[str, float]]:
        """(label, score), best first."""
        for class_id, score in zip(self.class_ids.tolist(), self.scores.tolist(), strict=True):
            yield self.labels[class_id], score

    def part(self, index: Index) -> Classification:
        """Those at a slice, a mask or positions."""
        return changed(self, class_ids=self.class_ids[index], scores=self.scores[index])

    def to_supervision(self) -> Any:
        """As `supervision.Classifications`, which shares the arrays.

        Raises:
            MissingDependencyError: supervision is not installed.
        """
        return exchange.supervision().Classifications(class_id=self.class_ids, confidence=self.scores)
