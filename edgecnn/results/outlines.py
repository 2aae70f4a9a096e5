"""Masks in other words: polygons and runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn import rle
from edgecnn.arrays import BoolArray, FloatArray

if TYPE_CHECKING:
    from edgecnn.rle import Rle

Polygon: TypeAlias = NDArray[np.int32]


class HasMasks:
    """What results with masks can do."""

    def each_mask(self) -> Iterator[BoolArray]:
        """The mask of each thing, bool [height, width], in the result's order."""
        raise NotImplementedError

    def polygons(self) -> list[list[Polygon]]:
        """The outer outlines of each thing's mask: one polygon for each of its parts, without their holes.

        Returns:
            For each thing int32 [k, 2], (x, y) of the outermost pixels: what `cv2.fillPoly` and `cv2.polylines` take.
        """
        return [polygons_of(mask) for mask in self.each_mask()]

    def rles(self) -> list[Rle]:
        """Each thing's mask as COCO's compressed run-length encoding: {"size": [height, width], "counts": …}."""
        return [rle.encode(mask) for mask in self.each_mask()]


def polygons_of(mask: BoolArray) -> list[Polygon]:
    """The outer outlines of a mask, bool [height, width], largest first."""
    outlines, _ = cv2.findContours(
        np.ascontiguousarray(mask).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )
    polygons = [np.asarray(outline, np.int32).reshape(-1, 2) for outline in outlines]
    return sorted(polygons, key=lambda polygon: -float(cv2.contourArea(polygon)))


def box_of(mask: BoolArray) -> FloatArray:
    """The box around a mask's pixels, float32 [4] xyxy; zeros without any."""
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask).view(np.uint8))
    return np.array([left, top, left + width, top + height], np.float32)
