"""Semantic segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.frame import Placement
from edgecnn.results import SegmentationMap, UInt8Array
from edgecnn.tasks import _drawing


class Segment(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="segment"):
    """Which class each pixel of a picture belongs to.

    Outputs of every artifact: `classes` uint8 [1, h, w], or `logits` float32 [1, C, h, w] where `decided_in` is
    "finish".

    Attributes:
        labels: C class names, by class id; at most 256.
        decided_in: where the best class of a pixel is picked, in the graph or after it.
    """

    labels: tuple[str, ...]
    decided_in: Literal["graph", "finish"] = "graph"

    name: ClassVar[str] = "segment"
    metric: ClassVar[str] = "miou"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in the graph's order."""
        return ("classes",) if self.decided_in == "graph" else ("logits",)

    def finish(self, outputs: Mapping[str, NDArray[Any]], place: Placement) -> SegmentationMap:
        """The class map, mapped to source pixels (nearest neighbour)."""
        if self.decided_in == "graph":
            classes = outputs["classes"][0]
        else:
            classes = np.argmax(outputs["logits"][0], axis=0).astype(np.uint8)
        return SegmentationMap(place.map_to_source(classes), self.labels)

    def draw(self, image: UInt8Array, result: SegmentationMap) -> UInt8Array:
        """A copy of the picture (uint8 [height, width, 3] BGR), tinted by class, with a legend."""
        canvas = image.copy()
        _drawing.tint(canvas, result)
        return canvas
