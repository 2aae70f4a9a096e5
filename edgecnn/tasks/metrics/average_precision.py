"""COCO mean average precision of boxes and masks, with faster-coco-eval, and its spread under resampling.

Source of the metric: cocodataset/cocoapi, `PythonAPI/pycocotools/cocoeval.py` (evaluateImg, accumulate).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgecnn.errors import MissingDependencyError
from edgecnn.results import Detections, Instances, UInt8Array
from edgecnn.tasks.truth import BoxTruth

_MAX_DETECTIONS = 100  # per class and picture, as in COCO
_IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)
_NUMBERS_AT_ONCE = 2_000_000  # per array while resampling: 16 MB


@dataclass(frozen=True)
class ClassMatches:
    """Matches of one class over all pictures, detections best first.

    Attributes:
        pictures: int64 [n], picture index of each detection.
        right: bool [10, n], whether it matches an object, at each IoU threshold.
        counted: bool [10, n], whether it counts as right or wrong; not if it matches an ignored object.
        objects: int64 [pictures], number of objects that count.
    """

    pictures: NDArray[np.int64]
    right: NDArray[np.bool_]
    counted: NDArray[np.bool_]
    objects: NDArray[np.int64]


class AveragePrecision:
    """AP@[.50:.95] over all areas with at most 100 detections; of masks for instances, otherwise of boxes."""

    def __init__(self, labels: tuple[str, ...], classes: Sequence[int], *, masks: bool) -> None:
        """Create an empty metric.

        Args:
            labels: the network's labels.
            classes: ids of those that the data set has, in increasing order.
            masks: whether results and labels have outlines, which are then measured.

        Raises:
            MissingDependencyError: faster-coco-eval is not installed.
        """
        self._library = _library()
        self._labels = labels
        self._categories = list(classes)
        self._masks = masks
        self._images: list[dict[str, Any]] = []
        self._truths: list[dict[str, Any]] = []
        self._detections: list[dict[str, Any]] = []
        self._evaluated: dict[str, Any] = {}

    def add(self, result: Detections | Instances, truth: BoxTruth, image: UInt8Array) -> None:
        """Add one picture's result and label."""
        outlined = result if isinstance(result, Instances) else None
        detections = outlined.detections if outlined is not None else cast(Detections, result)
        image_id = len(self._images) + 1
        height, width = image.shape[:2]
        self._images.append({"id": image_id, "height": height, "width": width})
        for index, (box, class_id) in enumerate(zip(truth.boxes_xyxy_px, truth.class_ids.tolist(), strict=True)):
            annotation = {
                "id": len(self._truths) + 1,
                "image_id": image_id,
                "category_id": class_id,
                "bbox": _xywh(box),
                "area": float(truth.areas_px2[index]),
                "iscrowd": int(truth.ignored[index]),
            }
            if self._masks:
                annotation["segmentation"] = truth.outlines[index]
            self._truths.append(annotation)
        for index, (box, score, class_id) in enumerate(
            zip(
                detections.boxes_xyxy_px,
                detections.scores.tolist(),
                detections.class_ids.tolist(),
                strict=True,
            )
        ):
            found = {"image_id": image_id, "category_id": class_id, "bbox": _xywh(box), "score": score}
            if outlined is not None:
                found["segmentation"] = self._library.encode_mask(np.asfortranarray(outlined.masks[index], np.uint8))
            self._detections.append(found)

    def value(self) -> float:
        """AP@[.50:.95]; NaN where there are no objects."""
        return _figure(self._evaluation().stats[0])

    def details(self) -> dict[str, Any]:
        """AP at single thresholds, by area, of each class, and the share of objects that was found."""
        stats = [_none_for_nan(_figure(value)) for value in self._evaluation().stats]
        precision = self._evaluation().eval["precision"][:, :, :, 0, -1]  # [thresholds, recalls, classes]
        per_class = {
            self._labels[category]: float(precision[:, :, index].mean())
            for index, category in enumerate(self._categories)
            if precision[0, 0, index] >= 0
        }
        names = ("map50", "map75", "map_small", "map_medium", "map_large")
        figures: dict[str, Any] = dict(zip(names, stats[1:6], strict=True))
        figures["recall100"] = stats[8]
        if self._masks:
            figures["map_boxes"] = _none_for_nan(_figure(self._evaluation("bbox").stats[0]))
        return {**figures, "per_class": per_class}

    def resampled(self, weights: NDArray[np.int64]) -> NDArray[np.float64]:
        """AP for each row of weights [resamples, pictures], from the matches of one evaluation."""
        aps = np.array([average_precisions(matches, weights) for matches in self.matches()])
        present = ~np.isnan(aps)  # [classes, resamples]
        total, count = np.where(present, aps, 0).sum(axis=0), present.sum(axis=0)
        means: NDArray[np.float64] = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
        return means

    def matches(self) -> list[ClassMatches]:
        """The matches of each class that both have."""
        evaluation = self._evaluation()
        scores: dict[tuple[int, int], list[float]] = defaultdict(list)
        ignored: dict[tuple[int, int], list[bool]] = defaultdict(list)
        for found in self._detections:
            scores[found["image_id"], found["category_id"]].append(found["score"])
        for truth in self._truths:
            ignored[truth["image_id"], truth["category_id"]].append(bool(truth["iscrowd"]))
        return [self._class_matches(category, evaluation.ious, scores, ignored) for category in self._categories]

    def _class_matches(
        self,
        category: int,
        ious: dict[tuple[int, int], Any],
        scores: dict[tuple[int, int], list[float]],
        ignored: dict[tuple[int, int], list[bool]],
    ) -> ClassMatches:
        objects = np.zeros(len(self._images), np.int64)
        ranked, pictures, right, counted = [], [], [], []
        for picture in range(len(self._images)):
            key = (picture + 1, category)
            skip = np.array(ignored.get(key, []), np.bool_)
            objects[picture] = np.count_nonzero(~skip)
            best_first = np.sort(-np.array(scores.get(key, [])), kind="stable")[:_MAX_DETECTIONS]
            if len(best_first) == 0:
                continue
            hits, counts = match(np.asarray(ious[key], np.float64).reshape(len(best_first), len(skip)), skip)
            ranked.append(best_first)
            pictures.append(np.full(len(best_first), picture))
            right.append(hits)
            counted.append(counts)
        if not ranked:
            empty = np.zeros((len(_IOU_THRESHOLDS), 0), np.bool_)
            return ClassMatches(np.empty(0, np.int64), empty, empty, objects)
        order = np.argsort(np.concatenate(ranked), kind="stable")
        return ClassMatches(
            pictures=np.concatenate(pictures)[order],
            right=np.concatenate(right, axis=1)[:, order],
            counted=np.concatenate(counted, axis=1)[:, order],
            objects=objects,
        )

    def _evaluation(self, kind: str | None = None) -> Any:
        kind = kind or ("segm" if self._masks else "bbox")
        if kind not in self._evaluated:
            categories = [{"id": i, "name": self._labels[i]} for i in self._categories]
            known = set(self._categories)
            truth = self._library.truth({"images": self._images, "annotations": self._truths, "categories": categories})
            # the library accepts a result with "segmentation" only for a mask, and computes its box from the mask
            wanted = [
                {key: value for key, value in found.items() if kind == "segm" or key != "segmentation"}
                for found in self._detections
                if found["category_id"] in known
            ]
            if kind == "segm":
                wanted = [{key: value for key, value in found.items() if key != "bbox"} for found in wanted]
            evaluation = self._library.evaluation(truth, truth.loadRes(wanted), kind)
            evaluation.run()
            self._evaluated[kind] = evaluation
        return self._evaluated[kind]


def match(ious: NDArray[np.float64], ignored: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Matches of one class's detections in one picture, as in COCO's evaluateImg.

    Best first, each takes the object that it overlaps most (the last of equals) among the free ones;
    an ignored object only if no other fits, and any number of detections may take it.

    Args:
        ious: float64 [detections, objects], detections best first.
        ignored: bool [objects], crowds.

    Returns:
        right and counted, bool [10, detections]: see `ClassMatches`.
    """
    detections, objects = ious.shape
    thresholds = np.minimum(_IOU_THRESHOLDS, 1 - 1e-10)[:, None]
    rows = np.arange(len(thresholds))
    right = np.zeros((len(thresholds), detections), np.bool_)
    counted = np.ones_like(right)
    if objects == 0:
        return right, counted
    free = np.ones((len(thresholds), objects), np.bool_)
    for index, overlaps in enumerate(ious):
        if overlaps.max() < _IOU_THRESHOLDS[0]:
            continue
        fits = (overlaps >= thresholds) & free
        for wanted in (~ignored, ignored):
            candidates = np.where(fits & wanted, overlaps, -1.0)
            last_best = objects - 1 - np.argmax(candidates[:, ::-1], axis=1)
            found = (candidates[rows, last_best] >= 0) & counted[:, index] & ~right[:, index]
            if wanted is ignored:
                counted[found, index] = False
            else:
                right[found, index] = True
                free[rows[found], last_best[found]] = False
    return right, counted


def average_precisions(matches: ClassMatches, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    """AP@[.50:.95] of one class for each row of weights [resamples, pictures]; NaN where no object is left.

    A picture that was drawn k times counts its detections and objects k times. The k copies of a detection
    are neighbours in the ranking, so the precision that AP uses (the highest at a recall or beyond) is that
    of the last copy, and one cumulative sum with weights gives the same as a ranking of copies.
    """
    at_once = max(_NUMBERS_AT_ONCE // max(len(matches.pictures), 1), 1)
    parts = [weights[start : start + at_once] for start in range(0, len(weights), at_once)]
    return np.concatenate([_average_precisions(matches, part) for part in parts])


def _average_precisions(matches: ClassMatches, weights: NDArray[np.int64]) -> NDArray[np.float64]:
    objects = weights @ matches.objects
    drawn = weights[:, matches.pictures]  # [resamples, detections]
    totals = np.zeros(len(weights))
    for right, counted in zip(matches.right, matches.counted, strict=True):
        # recall is constant and precision falls between two hits, so only hits are used
        found = np.cumsum(drawn * right, axis=1)[:, right]
        answered = np.cumsum(drawn * counted, axis=1)[:, right]
        precision = found / np.maximum(answered, 1)
        precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = found / np.maximum(objects, 1)[:, None]
        for row, (levels, reached) in enumerate(zip(precision, recall, strict=True)):
            at = np.searchsorted(reached, _RECALLS, side="left")
            totals[row] += float(levels[at[at < len(levels)]].sum())
    return np.where(objects > 0, totals / (len(_IOU_THRESHOLDS) * len(_RECALLS)), np.nan)


@dataclass(frozen=True)
class _Library:
    """The parts of faster-coco-eval that are used."""

    truth: Any
    evaluation: Any
    encode_mask: Any


def _library() -> _Library:
    try:
        from faster_coco_eval import COCO, COCOeval_faster  # type: ignore[import-untyped, unused-ignore]
        from faster_coco_eval.core import mask  # type: ignore[import-untyped, unused-ignore]
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("mean average precision", "faster-coco-eval", extra="eval") from missing
    return _Library(COCO, COCOeval_faster, mask.encode)


def _xywh(box_xyxy: NDArray[Any]) -> list[float]:
    left, top, right, bottom = (float(edge) for edge in box_xyxy)
    return [left, top, right - left, bottom - top]


def _figure(value: float) -> float:
    """The library returns -1 where there was nothing to count."""
    return math.nan if value < 0 else float(value)


def _none_for_nan(value: float) -> float | None:
    return None if math.isnan(value) else value
