"""Looks at every picture and label before the hours of work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgecnn.datasets import BoxTruth, Dataset, MapTruth
from edgecnn.datasets.images import picture_hash
from edgecnn.errors import DataError

_OVER_THE_EDGE_PX = 2.0  # rounding, and labels that count pixels from 1


def check_pictures(dataset: Dataset, progress: Callable[[int, int, str], None] | None = None) -> tuple[str, ...]:
    """Read every picture and its truth.

    Args:
        dataset: to train or to measure on.
        progress: called with (done, total, what is being done).

    Returns:
        A content hash of each picture.

    Raises:
        DataError: one cannot be read, boxes lie outside their picture, or nothing in the data can be learned.
    """
    hashes, labelled = [], 0
    for done, sample in enumerate(dataset):
        if progress is not None:
            progress(done, len(dataset), "checking pictures and labels")
        image = sample.image()
        truth = sample.truth(image)
        if isinstance(truth, BoxTruth):
            _check_boxes(truth, sample.path.name, width_px=image.shape[1], height_px=image.shape[0])
            labelled += len(truth.boxes_xyxy_px)
        elif isinstance(truth, MapTruth):
            labelled += int((truth.classes >= 0).any())
        else:
            labelled += 1
        hashes.append(picture_hash(image))
    if not labelled:
        raise DataError(
            f"{dataset.path} has {len(dataset)} pictures, and not one object or pixel of a class to learn in them"
        )
    return tuple(hashes)


def check_apart(train: Sequence[str], validation: Sequence[str], *, where: str) -> None:
    """That no picture to measure on is trained on.

    Raises:
        DataError: some are.
    """
    shared = len(set(train) & set(validation))
    if shared:
        raise DataError(
            f"{shared} of the {len(validation)} pictures to measure on ({where}) are also trained on: the metric would "
            "flatter. Take them out of one of the two"
        )


def _check_boxes(truth: BoxTruth, name: str, *, width_px: int, height_px: int) -> None:
    boxes = truth.boxes_xyxy_px
    if not np.isfinite(boxes).all():
        raise DataError(f"a box of {name} has a coordinate that is no number")
    limit = np.array([width_px, height_px] * 2) + _OVER_THE_EDGE_PX
    outside = ((boxes < -_OVER_THE_EDGE_PX) | (boxes > limit)).any(axis=1)
    if outside.any():
        box = ", ".join(f"{edge:g}" for edge in boxes[outside][0])
        raise DataError(
            f"{int(outside.sum())} of the {len(boxes)} boxes of {name} lie outside the picture, which has "
            f"{width_px}x{height_px} px; the first is ({box}). Are the labels of another picture, or of this one "
            "before a resize?"
        )
