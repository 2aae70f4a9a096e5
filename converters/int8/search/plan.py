"""Describes an int8 artifact in the same words for every format: its int8 layers, ranges and corrections."""

from __future__ import annotations

from typing import Literal

import msgspec

RangeMethod = Literal["min-max", "percentile", "least-error", "learned"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One way to quantize a network.

    Attributes:
        int8_layers: names of the layers that compute in int8; the others, and the operators between two of those, stay
            float.
        ranges: how activation ranges follow from the calibration frames. "min-max": all values. "percentile": all but
            the rarest 0.01 % at each end. "least-error": the range with the smallest squared error after the activation
            function that follows. "learned": the ranges from training for int8; where a layer has none, the format's
            usual method.
        correct_weights: round each int8 layer's weights for its inputs (in ONNX and TFLite), and subtract the remaining
            mean error from its bias.
        equalised: layers among these whose channels are scaled before and after SiLU (`Int8Writer.equalisable`).
    """

    int8_layers: frozenset[str]
    ranges: RangeMethod = "min-max"
    correct_weights: bool = False
    equalised: frozenset[str] = frozenset()

    @property
    def recipe(self) -> str:
        """A short name that lists the settings common to all layers."""
        text = f"static_wi8_ai8, {self.ranges} ranges" + (", weights corrected" if self.correct_weights else "")
        count = len(self.equalised & self.int8_layers)
        return text + (f", {count} layer{'' if count == 1 else 's'} equalised" if count else "")
