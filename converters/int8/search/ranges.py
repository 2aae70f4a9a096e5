"""Computes the range that a tensor's 256 levels cover from the values that the tensor had."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.converters.int8.search.plan import RangeMethod
from edgecnn.errors import ConversionError

Array = NDArray[np.float64]
Function = Callable[[Array], Array]

_BINS = 2048
_LEVELS = 255  # steps between 256 levels
_RAREST = 1e-4  # share cut off at each end by "percentile"
_CANDIDATES = 48  # end points tried by "least-error" on each side
_ROUNDS = 3


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def silu(x: Array) -> Array:
    """x * sigmoid(x), also called swish."""
    return x * sigmoid(x)


def hard_swish(x: Array) -> Array:
    """x * relu6(x + 3) / 6. Source: Howard et al. 2019, Searching for MobileNetV3, section 5.2."""
    return np.asarray(x * np.clip(x + 3, 0, 6) / 6, np.float64)


def relu(x: Array) -> Array:
    """max(x, 0)."""
    return np.maximum(x, 0)


def relu6(x: Array) -> Array:
    """min(max(x, 0), 6)."""
    return np.clip(x, 0, 6)


# Activations that may follow a layer, under the names used by the writers; errors that they hide are not counted.
ACTIVATIONS: dict[str, Function] = {
    "sigmoid": sigmoid,
    "silu": silu,
    "hard_swish": hard_swish,
    "relu": relu,
    "relu6": relu6,
}


class TensorHistogram:
    """Histogram of a tensor's values over any number of frames; its range grows as needed.

    Attributes:
        low, high: smallest and largest value, extended to include zero.
        counts: int64 [bins], bins of equal width over the histogram's range.
    """

    def __init__(self) -> None:
        self.low = self.high = 0.0
        self.counts = np.zeros(_BINS, np.int64)
        self._start = self._end = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count one frame's values, any shape.

        Raises:
            ConversionError: a value is not finite.
        """
        least, most = float(values.min()), float(values.max())
        if not (np.isfinite(least) and np.isfinite(most)):
            raise ConversionError(
                "a calibration frame gives activations with NaN or infinity: check that it is a picture, and "
                "that the weights and the pre-processing (--mean, --std, --scale) are right"
            )
        self.low, self.high = min(self.low, least), max(self.high, most)
        self._grow()
        if self._end > self._start:
            ends = [
                float(np.nextafter(np.float32(end), np.float32(towards)))  # both ends are in
                for end, towards in ((self._start, -np.inf), (self._end, np.inf))
            ]
            flat = np.ascontiguousarray(values, np.float32).reshape(-1, 1)
            # OpenCV's histogram is three times faster than numpy's, and this takes most of the calibration time.
            self.counts += cv2.calcHist([flat], [0], None, [_BINS], ends).ravel().astype(np.int64)

    @property
    def centres(self) -> Array:
        """The middle of each bin, float64 [bins]."""
        width = (self._end - self._start) / _BINS
        return np.linspace(self._start + width / 2, self._end - width / 2, _BINS)

    def _grow(self) -> None:
        if self._start <= self.low and self.high <= self._end:
            return
        old_centres, old_counts = self.centres, self.counts
        had_some = self._end > self._start
        # Grow by more than needed, so that not every frame makes it grow.
        span = 1.25 * (self.high - self.low)
        self._start = self._start if had_some and self._start <= self.low else max(self.high - span, self.low * 1.25)
        self._end = self._end if had_some and self.high <= self._end else min(self.low + span, self.high * 1.25)
        self._start, self._end = min(self._start, self.low), max(self._end, self.high)
        self.counts = np.zeros(_BINS, np.int64)
        if had_some:
            moved, _ = np.histogram(old_centres, _BINS, (self._start, self._end), weights=old_counts)
            self.counts += moved.astype(np.int64)


def choose_range(
    histogram: TensorHistogram, method: RangeMethod, *, activation: Function | None = None
) -> tuple[float, float]:
    """The ends of the range that 256 equal levels should cover; it includes zero.

    Args:
        histogram: the tensor's histogram.
        method: see `edgecnn.converters.int8.search.plan.Plan`.
        activation: the function applied to the tensor next; "least-error" counts the error after it.

    Returns:
        Low and high, low < high.

    Raises:
        ConversionError: the tensor was always zero.
    """
    if histogram.high <= histogram.low:
        raise ConversionError("a tensor was zero in every calibration frame: it has no range, its scale would be zero")
    if method == "percentile":
        return _percentile(histogram)
    if method == "least-error":
        return _least_error(histogram, activation)
    return histogram.low, histogram.high


def _percentile(histogram: TensorHistogram) -> tuple[float, float]:
    share = np.cumsum(histogram.counts) / histogram.counts.sum()
    centres = histogram.centres
    low = float(centres[int(np.searchsorted(share, _RAREST))])
    high = float(centres[min(int(np.searchsorted(share, 1 - _RAREST)), _BINS - 1)])
    low, high = min(low, 0.0), max(high, 0.0)
    return (low, high) if high > low else (histogram.low, histogram.high)


def _least_error(histogram: TensorHistogram, activation: Function | None) -> tuple[float, float]:
    """Coordinate descent over both ends on a grid that is finer towards zero."""
    centres, counts = histogram.centres, histogram.counts.astype(np.float64)
    seen = counts > 0
    centres, counts = centres[seen], counts[seen]
    after = activation or (lambda x: x)
    wanted = after(centres)

    def error(low: float, high: float) -> float:
        scale = (high - low) / _LEVELS
        zero = np.round(-low / scale)
        levels = np.clip(np.round(centres / scale) + zero, 0, _LEVELS)
        return float((counts * (after((levels - zero) * scale) - wanted) ** 2).sum())

    low, high = histogram.low, histogram.high
    steps = np.linspace(0.02, 1, _CANDIDATES) ** 1.5
    for _ in range(_ROUNDS):
        before = low, high
        if histogram.high > 0:
            high = min((histogram.high * step for step in steps), key=lambda end: error(low, end))
        if histogram.low < 0:
            ends = [histogram.low * step for step in steps] + ([0.0] if high > 0 else [])
            low = min(ends, key=lambda end: error(end, high))
        if (low, high) == before:
            break
    return float(low), float(high)
