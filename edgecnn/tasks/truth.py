"""Labels of a picture, in the network's class ids and the picture's pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edgecnn.results import BoolArray, IntArray

# Kinds of labels: a task names the one it needs, and a form of data set those it has.
LABEL: Final = "label"
BOXES: Final = "boxes"
OUTLINES: Final = "outlines"
CLASS_MAP: Final = "class map"

# Coordinates are float64: float32 would move the boxes, and AP counts at sharp thresholds.
BoxArray: TypeAlias = NDArray[np.float64]
Outline: TypeAlias = list[Any] | dict[str, Any]  # COCO's: polygons [[x1, y1, ...], ...] in px, or an RLE

UNLABELLED = -1  # in a MapTruth, and for a class that the network doesn't have


@dataclass(frozen=True)
class LabelTruth:
    """The class of a picture, as the network's class id."""

    class_id: int


@dataclass(frozen=True)
class BoxTruth:
    """The objects in a picture.

    Attributes:
        boxes_xyxy_px: float64 [n, 4], left, top, right, bottom in pixels of the picture.
        class_ids: int64 [n], the network's.
        ignored: bool [n]: neither a match nor a miss counts (COCO's crowds, VOC's difficult objects).
        areas_px2: float64 [n], of the object where the data set gives it, otherwise of the box.
        outlines: COCO segmentations [n], empty where the data set has only boxes.
    """

    boxes_xyxy_px: BoxArray
    class_ids: IntArray
    ignored: BoolArray
    areas_px2: BoxArray
    outlines: tuple[Outline, ...] = ()


@dataclass(frozen=True)
class MapTruth:
    """The class of every pixel, int64 [height, width]: the network's class id, or UNLABELLED."""

    classes: IntArray


Truth: TypeAlias = LabelTruth | BoxTruth | MapTruth
