"""Rounds values to 8 bits in float, with gradients (fake quantization)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgecnn.converters.int8.search.ranges import TensorHistogram, choose_range

LEVELS = 255  # steps between 256 levels
_WEIGHT_LEVELS = 127  # on each side of zero


class LearnedRange(nn.Module):
    """The range that a tensor's 256 levels cover; its ends are trained.

    At first it collects statistics (`observe`), then it rounds.

    Args:
        bounds: bounds of the activation that follows; values beyond them need no levels.
    """

    start: Tensor

    def __init__(self, bounds: tuple[float, float] = (-torch.inf, torch.inf)) -> None:
        super().__init__()
        self.bounds = bounds
        self.histogram: TensorHistogram | None = TensorHistogram()
        self.register_buffer("start", torch.tensor([0.0, 1.0]))
        # Relative to their initial values, so that one learning rate fits all ranges.
        self.factor = nn.Parameter(torch.ones(2))

    def observe(self) -> None:
        """End the statistics: set the range with the least error for the values seen.

        Raises:
            ConversionError: only zeros were seen.
        """
        if self.histogram is not None:
            self.start.copy_(torch.tensor(choose_range(self.histogram, "least-error")))
            self.histogram = None

    def ends(self) -> Tensor:
        """Low and high, float32 [2]; the range includes zero."""
        ends = self.start * self.factor
        return torch.stack([ends[0].clamp(max=0), ends[1].clamp(min=0)])

    @torch.no_grad()
    def levels(self) -> tuple[float, float]:
        """Low and high adjusted so that zero is one of the 256 levels."""
        low, high = (float(end) for end in self.ends())
        scale = (high - low) / LEVELS
        zero = round(-low / scale)
        return -zero * scale, (LEVELS - zero) * scale

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in and out; unchanged while it collects statistics."""
        if self.histogram is not None:
            self.histogram.add(x.detach().clamp(*self.bounds).cpu().numpy())
            return x
        low, high = self.ends()
        rounded: Tensor = _Rounded.apply(x, low, high)
        return rounded


class _Rounded(torch.autograd.Function):
    """Rounds values to the nearest of 256 levels between two ends, with gradients for the ends.

    Source: Esser et al. 2020, Learned Step Size Quantization, equations 1 to 5, with a rounded zero level as in
    Bhalgat et al. 2020, LSQ+; formulated for the two ends of the range instead of step and offset.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        scale = (high - low) / LEVELS
        zero = torch.round(-low / scale)
        rounded = torch.fake_quantize_per_tensor_affine(x, float(scale), int(zero), 0, LEVELS)
        # The error is saved, not the rounded values: an activation may change those in place.
        ctx.save_for_backward(x, rounded - x, -zero * scale, (LEVELS - zero) * scale)
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, error, low, high = ctx.saved_tensors
        gradient = gradients[0]
        below, above = x < low, x > high
        inside = ~(below | above)
        passed = gradient * inside
        by_scale = (passed * error).sum() / (high - low)
        fair = (x.numel() * LEVELS) ** -0.5  # section 2.2: steps relative to size as large as for weights
        for_low = (gradient * below).sum() - by_scale
        for_high = (gradient * above).sum() + by_scale
        return passed, for_low * fair, for_high * fair


def rounded_weights(weights: Tensor) -> Tensor:
    """Weights rounded to 8 bits, symmetric, one scale per output channel, as in all our int8 writers; with gradients.

    Args:
        weights: float32 [outputs, ...].
    """
    largest = weights.detach().abs().flatten(1).amax(dim=1)
    scale = torch.where(largest > 0, largest / _WEIGHT_LEVELS, 1.0)
    zero = torch.zeros(len(scale), dtype=torch.int32, device=weights.device)
    return torch.fake_quantize_per_channel_affine(weights, scale, zero, 0, -_WEIGHT_LEVELS, _WEIGHT_LEVELS)
