"""Mean intersection over union of class maps, pixel by pixel at the picture's own size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.results import SegmentationMap, UInt8Array
from edgecnn.tasks.truth import UNLABELLED, MapTruth


class MeanIou:
    """IoU of each class that occurs in the labels, over all pixels of all pictures, and their mean.

    Pixels without a label, of a class that the network lacks, or of the ignored class are not counted.
    Classes without a labelled pixel aren't averaged; predicting one is still an error for the class that was there.
    If they counted as 0, a single pixel would decide: the mean of 19 classes falls by a twentieth when a 20th is
    predicted where there is none. See docs/decisions/0008.
    """

    def __init__(self, labels: tuple[str, ...], classes: Sequence[int], ignored: int | None) -> None:
        """Create an empty metric.

        Args:
            labels: the network's labels.
            classes: ids of those that the data set has, in increasing order.
            ignored: the class whose pixels are ignored.
        """
        self._labels = labels
        self._ignored = ignored
        self._averaged = [i for i in classes if i != ignored]
        # Of each picture's confusion matrix, IoU needs only the diagonal and the margins, a fiftieth of the
        # memory with 150 classes. int64 [3, classes]: right, true, predicted pixels.
        self._counts: list[NDArray[np.int64]] = []
        self._pixels = 0

    def add(self, result: SegmentationMap, truth: MapTruth, image: UInt8Array) -> None:
        """Add one picture's result and label."""
        counted = truth.classes != UNLABELLED
        if self._ignored is not None:
            counted &= truth.classes != self._ignored
        true, predicted = truth.classes[counted], result.classes[counted].astype(np.int64)
        right = true[true == predicted]
        size = max(len(self._labels), int(predicted.max(initial=0)) + 1)
        counts = [np.bincount(ids, minlength=size)[: len(self._labels)] for ids in (right, true, predicted)]
        self._counts.append(np.stack(counts))
        self._pixels += counted.size

    def value(self) -> float:
        """Mean IoU over all pictures."""
        return float(_mean_present(self._ious(self._stacked().sum(axis=0))))

    def resampled(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean IoU for each row of weights [resamples, pictures]."""
        sums = np.tensordot(weights, self._stacked(), axes=1)  # [resamples, 3, classes]
        return _mean_present(self._ious(np.moveaxis(sums, 1, 0)))

    def details(self) -> dict[str, Any]:
        """IoU of each class, pixel accuracy, and the share of all pixels that were counted."""
        sums = self._stacked().sum(axis=0)
        ious = self._ious(sums).tolist()
        names = [self._labels[i] for i in self._averaged]
        right, true, _ = sums.sum(axis=1).tolist()
        return {
            "pixel_accuracy": right / true,
            "counted_pixel_share": true / self._pixels,
            "per_class": {n: iou for n, iou in zip(names, ious, strict=True) if not np.isnan(iou)},
        }

    def _stacked(self) -> NDArray[np.int64]:
        return np.stack(self._counts)

    def _ious(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """IoU of the classes to average [..., classes], NaN where a class has no labelled pixel; from [3, ...]."""
        right, true, predicted = counts[..., self._averaged].astype(np.float64)
        union = true + predicted - right
        ious: NDArray[np.float64] = np.divide(right, union, out=np.full_like(right, np.nan), where=true > 0)
        return ious


def _mean_present(ious: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over the last axis without NaN; NaN where there is no value."""
    present = ~np.isnan(ious)
    total, count = np.where(present, ious, 0).sum(axis=-1), present.sum(axis=-1)
    means: NDArray[np.float64] = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return means
