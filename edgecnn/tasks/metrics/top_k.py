"""Top-1 and top-5 accuracy of a classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.results import Classification, UInt8Array
from edgecnn.tasks.truth import LabelTruth


class TopK:
    """Share of the pictures whose class is the best (top 1), or among the five best (top 5)."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self._labels = labels
        self._ranks: list[int] = []  # of the true class, 0 for the best; -1 where it isn't in the result
        self._classes: list[int] = []
        self._depth = len(labels)

    def add(self, result: Classification, truth: LabelTruth, image: UInt8Array) -> None:
        """Add one picture's result and label."""
        found = np.flatnonzero(result.class_ids == truth.class_id)
        self._ranks.append(int(found[0]) if len(found) else -1)
        self._classes.append(truth.class_id)
        self._depth = min(self._depth, len(result))

    def value(self) -> float:
        """Top-1 accuracy."""
        return float(self._hits(1).mean())

    def resampled(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """Top-1 accuracy for each row of weights [resamples, pictures]."""
        shares: NDArray[np.float64] = (weights @ self._hits(1)) / weights.sum(axis=1)
        return shares

    def details(self) -> dict[str, Any]:
        """Top 5 (None where results hold fewer classes), accuracy of each class, and their mean."""
        hits, classes = self._hits(1), np.array(self._classes)
        per_class = {self._labels[i]: float(hits[classes == i].mean()) for i in np.unique(classes).tolist()}
        whole = self._depth >= min(5, len(self._labels))
        return {
            "top5": float(self._hits(5).mean()) if whole else None,
            "mean_class_accuracy": float(np.mean(list(per_class.values()))),
            "per_class": per_class,
        }

    def _hits(self, k: int) -> NDArray[np.bool_]:
        ranks = np.array(self._ranks)
        hits: NDArray[np.bool_] = (ranks >= 0) & (ranks < k)
        return hits
