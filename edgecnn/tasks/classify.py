"""Image classification: one name for a whole picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.frame import Placement
from edgecnn.results import Classification, UInt8Array
from edgecnn.tasks import _drawing


class Classify(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="classify"):
    """Which class a picture shows.

    Outputs of every artifact: `scores` float32 [1, C], probabilities.

    Attributes:
        labels: C class names, by class id.
        top: how many classes a result holds.
    """

    labels: tuple[str, ...]
    top: int = 5

    name: ClassVar[str] = "classify"
    metric: ClassVar[str] = "top1"

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs, in the graph's order."""
        return ("scores",)

    def finish(self, outputs: Mapping[str, NDArray[Any]], place: Placement) -> Classification:
        """The `top` best classes; `place` is not used."""
        scores = outputs["scores"][0]
        order = np.argsort(-scores, kind="stable")[: self.top]
        return Classification(order, scores[order].astype(np.float32), self.labels)

    def draw(self, image: UInt8Array, result: Classification) -> UInt8Array:
        """A copy of the picture (uint8 [height, width, 3] BGR) with the best names in its corner."""
        canvas = image.copy()
        _drawing.corner_lines(canvas, [f"{label}  {score:.2f}" for label, score in result])
        return canvas
