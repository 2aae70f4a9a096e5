"""What a network says of one picture: plain numpy, in pixels of the picture that was given."""

from __future__ import annotations

from edgecnn.arrays import BoolArray, FloatArray, IntArray, UInt8Array
from edgecnn.results.classification import Classification
from edgecnn.results.counts import Count, LineCount, Point, ZoneCount
from edgecnn.results.detections import Detections
from edgecnn.results.instances import Instances
from edgecnn.results.items import Items
from edgecnn.results.result import Result, changed, found_in
from edgecnn.results.segmentation import SegmentationMap

__all__ = [
    "BoolArray",
    "Classification",
    "Count",
    "Detections",
    "FloatArray",
    "Instances",
    "IntArray",
    "Items",
    "LineCount",
    "Point",
    "Result",
    "SegmentationMap",
    "UInt8Array",
    "ZoneCount",
    "changed",
    "found_in",
]
