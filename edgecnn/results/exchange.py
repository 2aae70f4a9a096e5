"""Results in other people's forms: COCO, supervision, pandas. Their packages are imported only here, when asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

import numpy as np

from edgecnn.arrays import BoolArray, FloatArray, IntArray
from edgecnn.errors import MissingDependencyError, SpecError


class _Things(Protocol):
    """What is asked of a result that is a list of things; see `edgecnn.results.items.Items`."""

    @property
    def class_ids(self) -> IntArray: ...

    @property
    def labels(self) -> Sequence[str]: ...

    @property
    def names(self) -> list[str]: ...


class _Boxes(_Things, Protocol):
    """What is asked of detections besides."""

    @property
    def boxes_xyxy_px(self) -> FloatArray: ...

    @property
    def scores(self) -> FloatArray: ...

    @property
    def track_ids(self) -> IntArray | None: ...


def coco_records(found: _Boxes, *, image_id: int, category_ids: Mapping[int, int] | None) -> list[dict[str, Any]]:
    """See `Result.to_coco`; boxes to 0.01 px, scores to 1e-6."""
    boxes = found.boxes_xyxy_px.astype(np.float64)
    sizes = np.round(np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1), 2).tolist()
    return [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": round(score, 6)}
        for category, box, score in zip(categories(found, category_ids), sizes, found.scores.tolist(), strict=True)
    ]


def categories(found: _Things, category_ids: Mapping[int, int] | None) -> list[int]:
    """The data set's id of each thing's class.

    Raises:
        SpecError: a class has none.
    """
    ids: list[int] = found.class_ids.tolist()
    if category_ids is None:
        return ids
    unknown = sorted(set(ids) - set(category_ids))
    if unknown:
        named = ", ".join(f"{class_id} ({found.labels[class_id]})" for class_id in unknown[:5])
        raise SpecError(f"category_ids must have an id for each class that was found, none for class {named}")
    return [category_ids[class_id] for class_id in ids]


def supervision() -> Any:
    """The package `supervision`.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return _package("supervision")


def supervision_detections(found: _Boxes, masks: BoolArray | None = None) -> Any:
    """See `Result.to_supervision`."""
    return supervision().Detections(
        xyxy=found.boxes_xyxy_px,
        confidence=found.scores,
        class_id=found.class_ids,
        tracker_id=found.track_ids,
        mask=masks,
        data={"class_name": np.array(found.names, np.str_)},
    )


def supervision_segments(found: _Things, boxes_xyxy_px: FloatArray, masks: BoolArray) -> Any:
    """See `SegmentationMap.to_supervision`."""
    return supervision().Detections(
        xyxy=boxes_xyxy_px,
        class_id=found.class_ids,
        mask=masks,
        data={"class_name": np.array(found.names, np.str_)},
    )


def from_supervision(found: Any, labels: Sequence[str] | None) -> tuple[dict[str, Any], IntArray]:
    """What `Detections` is made of, best first, and the order in which that takes them."""
    count = len(found.xyxy)
    if found.class_id is None and count:
        raise SpecError("supervision's detections must have class_id, found None: say what each box is")
    class_ids = np.zeros(0, np.int64) if found.class_id is None else np.asarray(found.class_id, np.int64)
    names = _names(class_ids, found.data.get("class_name")) if labels is None else tuple(labels)
    if count and not 0 <= class_ids.min() <= class_ids.max() < len(names):
        raise SpecError(f"{len(names)} labels are for class ids 0..{len(names) - 1}, found one of {class_ids.max()}")
    scores = np.ones(count, np.float32) if found.confidence is None else np.asarray(found.confidence, np.float32)
    order = np.argsort(-scores, kind="stable")
    tracks = found.tracker_id
    parts = {
        "boxes_xyxy_px": np.asarray(found.xyxy, np.float32).reshape(count, 4)[order],
        "scores": scores[order],
        "class_ids": class_ids[order],
        "labels": names,
        "track_ids": None if tracks is None else np.asarray(tracks, np.int64)[order],
    }
    return parts, order


def masks_of_supervision(found: Any) -> BoolArray:
    """Masks, bool [n, height, width].

    Raises:
        SpecError: there are none.
    """
    if found.mask is None:
        raise SpecError("supervision's detections must have masks to become Instances: Detections takes the boxes")
    return np.asarray(found.mask, np.bool_)


def data_frame(columns: Mapping[str, Any]) -> Any:
    """A table of pandas.

    Raises:
        MissingDependencyError: it is not installed.
    """
    return _package("pandas").DataFrame(dict(columns))


def _names(class_ids: IntArray, class_names: Any) -> tuple[str, ...]:
    if class_names is None:
        raise SpecError('labels must be given: supervision\'s detections have no data["class_name"]')
    known = dict(zip(class_ids.tolist(), map(str, class_names), strict=True))
    return tuple(known.get(class_id, str(class_id)) for class_id in range(max(known, default=-1) + 1))


def _package(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] != name:
            raise  # it is there, and lacks something
        raise MissingDependencyError(f"to_{name}", name, install=f"pip install {name}") from missing
