"""Statistics of the tensors that layers read, and the ranges computed from them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgecnn.converters.int8.search.plan import RangeMethod
from edgecnn.converters.int8.search.ranges import TensorHistogram, choose_range
from edgecnn.errors import ConversionError

Float64Array = NDArray[np.float64]
Float32Array = NDArray[np.float32]
Ranges = tuple[Float32Array, Float32Array]

_LEVELS = 255  # steps between 256 levels
# Values that a range's histogram counts in one frame: two million for 128 frames.
_COUNTED = 1 << 14


class TensorStatistics:
    """Statistics of one quantized tensor over all frames.

    Attributes:
        range_axis: the axis with a separate range for each index; None for one range.
        mean_axes: the axes whose means a layer's bias correction needs.
        means: axis → mean at each index, float64 [length].
    """

    def __init__(self, range_axis: int | None) -> None:
        self.range_axis = range_axis
        self.mean_axes: set[int] = set()
        self.means: dict[int, Float64Array] = {}
        self._known: tuple[float, float] | None = None
        self._frames = 0
        self._low = self._high = np.zeros(1)
        self._histogram = TensorHistogram()
        self._random = np.random.default_rng(0)

    def set_bounds(self, values: Float32Array) -> None:
        """Set the range from zero to these values, which bound all values of the tensor; no statistics are needed."""
        low, high = self._known or (0.0, 0.0)
        self._known = min(low, float(values.min())), max(high, float(values.max()))

    def add(self, values: Float32Array) -> None:
        """Add one frame's values.

        Raises:
            ConversionError: a value is not finite.
        """
        rows = _rows(values, self.range_axis)
        low, high = np.minimum(rows.min(axis=1), 0), np.maximum(rows.max(axis=1), 0)
        share = 1 / (self._frames + 1)
        if self.range_axis is None or not (np.isfinite(low).all() and np.isfinite(high).all()):
            self._count(values)  # raises ConversionError for a value that is not finite
            self._low, self._high = self._low * (1 - share) + low * share, self._high * (1 - share) + high * share
        else:
            self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        for axis in self.mean_axes:
            seen = _rows(values, axis).mean(axis=1, dtype=np.float64)
            self.means[axis] = self.means.get(axis, np.zeros(1)) * (1 - share) + seen * share
        self._frames += 1

    def ranges(self, method: RangeMethod) -> Ranges:
        """The lowest and the highest of the 256 levels, one of which is zero. float32 [1], or [length of range_axis].

        For a tensor with one range, "min-max" averages each frame's minimum and maximum over the frames, as NNCF does.
        YOLOX-nano, all layers int8 with NNCF's own statistics, then has AP .332 (float .336), and .298 with the minimum
        and maximum of all frames. With a range for each channel, all methods use the values of all frames.

        Raises:
            ConversionError: the tensor was always zero.
        """
        if self._known is not None:
            ends = np.array([self._known])
        elif method == "min-max" or self.range_axis is not None:
            ends = np.stack([self._low, self._high], axis=1)
        else:
            ends = np.array([choose_range(self._histogram, method)])
        widest = float((ends[:, 1] - ends[:, 0]).max())
        if not 0 < widest < np.inf:
            raise ConversionError("it was zero in every calibration frame: it has no range, its scale would be zero")
        # Channels that were always zero get no range of their own.
        ends[ends[:, 0] >= ends[:, 1]] = 0, widest
        return whole_levels(ends)

    def _count(self, values: Float32Array) -> None:
        flat = values.reshape(-1)
        if flat.size > _COUNTED and np.isfinite(flat).all():
            flat = flat[self._random.integers(0, flat.size, _COUNTED)]
        self._histogram.add(flat)


def whole_levels(ends: Float64Array) -> Ranges:
    """Ranges [n, 2] moved so that zero is one of their 256 levels; float32 [n] each."""
    scale = (ends[:, 1] - ends[:, 0]) / _LEVELS
    zero = np.clip(np.round(-ends[:, 0] / scale), 0, _LEVELS)
    return (0 - zero * scale).astype(np.float32), ((_LEVELS - zero) * scale).astype(np.float32)


def _rows(values: Float32Array, axis: int | None) -> Float32Array:
    if axis is None:
        return values.reshape(1, -1)
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
