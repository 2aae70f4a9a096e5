"""Mosaic augmentation: four pictures in one frame."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.frame import FrameSpec
from edgecnn.training.augment import Varied

_SCALE = (0.5, 1.2)  # factor per picture; 1 fits it into twice the width and height of a quarter
_KEPT = 0.3  # share of a box's area that must remain


def mosaic(parts: Sequence[Varied], frame: FrameSpec, rng: np.random.Generator) -> Varied:
    """Put four pictures around a random point of the frame; each fills its quarter as far as it extends.

    Source: Bochkovskiy et al. 2020, YOLOv4, section 3.3.

    Args:
        parts: top left, top right, bottom left, bottom right; more than four are ignored.
        frame: the size of the result, and the grey of uncovered parts.
        rng: chooses the point and each picture's scale.

    Returns:
        A frame, uint8 [frame height, frame width, 3], and the boxes of which enough remains, clipped to it.
    """
    height, width = frame.height_px, frame.width_px
    canvas = np.full((height, width, 3), frame.pad_value, np.uint8)
    centre_x, centre_y = (int(rng.uniform(0.3, 0.7) * side) for side in (width, height))
    boxes, ids = [np.empty((0, 4))], [np.empty(0, np.int64)]
    for number, part in enumerate(parts[:4]):
        right, below = number % 2 == 1, number >= 2
        scale = rng.uniform(*_SCALE) * min(height / part.image.shape[0], width / part.image.shape[1])
        size = tuple(max(round(side * scale), 1) for side in part.image.shape[:2])
        resized = cv2.resize(part.image, size[::-1], interpolation=cv2.INTER_LINEAR)
        # The corner at the middle point is fixed; parts beyond the quarter are cut off.
        left, top = (centre_x if right else centre_x - size[1]), (centre_y if below else centre_y - size[0])
        rows = slice(max(top, centre_y if below else 0), min(top + size[0], height if below else centre_y))
        columns = slice(max(left, centre_x if right else 0), min(left + size[1], width if right else centre_x))
        canvas[rows, columns] = resized[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        ratio = np.array([size[1] / part.image.shape[1], size[0] / part.image.shape[0]] * 2)
        moved = part.boxes_xyxy_px * ratio + (left, top, left, top)
        clipped = np.clip(moved, (columns.start, rows.start) * 2, (columns.stop, rows.stop) * 2)
        kept = _areas(clipped) > _KEPT * _areas(moved)
        boxes.append(clipped[kept])
        ids.append(part.class_ids[kept])
    return Varied(canvas, np.concatenate(boxes), np.concatenate(ids))


def _areas(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    areas: NDArray[np.float64] = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return areas
