"""What an int8 artifact is made of: which layers, which ranges, which corrections. The same words for every format."""

from __future__ import annotations

from typing import Literal

import msgspec

RangeMethod = Literal["min-max", "percentile", "least-error", "learned"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One way to quantize a network.

    Attributes:
        int8_layers: names of the layers that compute in int8; the others, and what lies between two of those, stay
            float.
        ranges: how activation ranges are read off the calibration frames. "min-max": all that was seen.
            "percentile": all but the rarest 0.01 % at each end. "least-error": what makes the smallest squared error
            after the activation function that follows, as seen. "learned": what training for int8 learned, where it
            did; elsewhere the format's usual one.
        correct_weights: round each int8 layer's weights with a look at what it reads (in ONNX and TFLite), and take the
            mean error that is left from its bias.
    """

    int8_layers: frozenset[str]
    ranges: RangeMethod = "min-max"
    correct_weights: bool = False

    @property
    def recipe(self) -> str:
        """A short name that decodes: what is the same for all layers."""
        return f"static_wi8_ai8, {self.ranges} ranges" + (", weights corrected" if self.correct_weights else "")
