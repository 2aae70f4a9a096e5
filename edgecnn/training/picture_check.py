"""Checks every picture and label before training starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from edgecnn.datasets import BoxTruth, Dataset, MapTruth, logger
from edgecnn.datasets.summary import Look
from edgecnn.errors import DataError
from edgecnn.pictures import picture_hash

_OVER_THE_EDGE_PX = 2.0  # tolerance for rounding, and for labels that count pixels from 1


def check_pictures(dataset: Dataset, progress: Callable[[int, int, str], None] | None = None) -> tuple[str, ...]:
    """Read every picture and its labels.

    Args:
        dataset: the data set to train or to validate on.
        progress: called with (done, total, name of the step).

    Returns:
        A content hash of each picture.

    Raises:
        DataError: one cannot be read, boxes lie outside their picture, or the data has nothing to learn.
    """
    hashes, labelled, look = [], 0, Look(dataset.classes)
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
        look.add(sample.path.name, image, truth)
        hashes.append(picture_hash(image))
    if not labelled:
        raise DataError(f"{dataset.path} has {len(dataset)} pictures, but no object or pixel of a class to learn")
    if look.findings:
        logger.warning("%s: %s", dataset.split or dataset.path.name, "; ".join(map(str, look.findings)))
    return tuple(hashes)


def check_apart(train: Sequence[str], validation: Sequence[str], *, where: str) -> None:
    """Check that no validation picture is also a training picture.

    Raises:
        DataError: some are.
    """
    shared = len(set(train) & set(validation))
    if shared:
        raise DataError(
            f"{shared} of the {len(validation)} pictures to measure on ({where}) are also trained on: the metric would "
            "be too high. Remove them from one of the two"
        )


def _check_boxes(truth: BoxTruth, name: str, *, width_px: int, height_px: int) -> None:
    boxes = truth.boxes_xyxy_px
    if not np.isfinite(boxes).all():
        raise DataError(f"a box of {name} has a coordinate that is NaN or infinite: correct the label")
    limit = np.array([width_px, height_px] * 2) + _OVER_THE_EDGE_PX
    outside = ((boxes < -_OVER_THE_EDGE_PX) | (boxes > limit)).any(axis=1)
    if outside.any():
        box = ", ".join(f"{edge:g}" for edge in boxes[outside][0])
        raise DataError(
            f"{int(outside.sum())} of the {len(boxes)} boxes of {name} lie outside the picture, which has "
            f"{width_px}x{height_px} px; the first is ({box}). Check that the labels belong to this picture, and not "
            "to one of another size"
        )
