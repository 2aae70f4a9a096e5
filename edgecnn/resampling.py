"""Antialiased resize: Pillow's filters, which torchvision's transforms use and OpenCV does not have.

Networks trained with torchvision got pictures shrunk with a filter as wide as the scale factor; OpenCV's bilinear
resize uses only four pixels, and its cubic filter has another constant.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.arrays import FloatArray, UInt8Array

Filter = Literal["triangle", "cubic"]
_SUPPORT_PX: dict[Filter, float] = {"triangle": 1.0, "cubic": 2.0}
_STEPS: dict[Filter, int] = {"triangle": 1 << 16, "cubic": 1 << 15}  # of a weight; cubic sums leave 0..255
# (first output line, input start, input stop, float32 [lines, stop - start] weights) of each block
Bands = tuple[tuple[int, int, int, FloatArray], ...]
_BLOCK_ROWS = 16  # output rows per matrix product: few, so that the band of input rows stays narrow


class Resampler:
    """Resizes pictures of one size, in reused buffers; must not be used by two threads at once.

    Allocating the buffers for each picture would cost three times as much as the computation: new memory is
    mapped page by page.

    Args:
        source: height and width of the pictures.
        size: height and width of the whole resized picture.
        cut_px: rows above and columns left of the needed part; only that part is computed.
        shown: rows and columns of that part.
        kernel: "triangle" is Pillow's BILINEAR, "cubic" its BICUBIC (a = -0.5).

    Source: Pillow, `src/libImaging/Resample.c` (precompute_coeffs, triangle and bicubic filters).
    """

    def __init__(
        self,
        source: tuple[int, int],
        size: tuple[int, int],
        *,
        cut_px: tuple[int, int],
        shown: tuple[int, int],
        kernel: Filter,
    ) -> None:
        rows, columns = shown
        self._down = bands(source[0], size[0], cut_px[0], rows, kernel)
        self._across = bands(source[1], size[1], cut_px[1], columns, kernel)
        self._overshoots = kernel == "cubic"
        top, bottom = _reach(self._down)
        left, right = _reach(self._across)
        self._part = (slice(top, bottom), slice(left, right))
        self._origin = (top, left)
        height, width = bottom - top, right - left
        self._turned = np.empty((width, height, 3), np.uint8)
        self._turned_levels = np.empty((width, height * 3), np.float32)
        self._narrow_levels = np.empty((columns, height * 3), np.float32)
        self._narrow = np.empty((columns, height, 3), np.uint8)
        self._lines = np.empty((height, columns, 3), np.uint8)
        self._line_levels = np.empty((height, columns * 3), np.float32)
        self._levels = np.empty((rows, columns * 3), np.float32)

    def __call__(self, image: UInt8Array, out: UInt8Array) -> None:
        """Write the part into `out`.

        Agrees with `PIL.Image.resize` to one grey level (Pillow's weights are fixed-point numbers), to two where a
        value lies halfway between levels in both passes; to a few levels where a newer Pillow shrinks the height
        first (very flat or small results).

        Args:
            image: uint8 [*source, 3].
            out: uint8 [*shown, 3], written.
        """
        # [height, width, 3] -> [width, height * 3]: both passes are then matrix products
        cv2.transpose(image[self._part], self._turned)
        np.copyto(self._turned_levels, self._turned.reshape(self._turned_levels.shape))
        self._apply(self._across, self._turned_levels, self._origin[1], self._narrow_levels, self._narrow)
        cv2.transpose(self._narrow, self._lines)  # like Pillow, bytes between the passes
        np.copyto(self._line_levels, self._lines.reshape(self._line_levels.shape))
        self._apply(self._down, self._line_levels, self._origin[0], self._levels, out)

    def _apply(self, bands: Bands, lines: FloatArray, origin: int, levels: FloatArray, out: UInt8Array) -> None:
        for row, start, stop, weights in bands:
            np.matmul(weights, lines[start - origin : stop - origin], out=levels[row : row + len(weights)])
        np.add(levels, 0.5, out=levels)  # then truncated: rounds half up
        if self._overshoots:
            np.clip(levels, 0, 255, out=levels)
        np.copyto(out, levels.reshape(out.shape), casting="unsafe")


def _reach(bands: Bands) -> tuple[int, int]:
    """First input line, and the one after the last."""
    return min(start for _, start, _, _ in bands), max(stop for _, _, stop, _ in bands)


@lru_cache(maxsize=32)
def bands(length: int, resized: int, first: int, count: int, kernel: Filter) -> Bands:
    """The weights of each block of output lines, from `first` on; see `Bands`."""
    shrink = length / resized
    stretch = max(shrink, 1.0)
    support = _SUPPORT_PX[kernel] * stretch
    blocks = []
    for block in range(0, count, _BLOCK_ROWS):
        lines = np.arange(first + block, first + min(block + _BLOCK_ROWS, count))
        centres = (lines + 0.5) * shrink
        starts = np.maximum((centres - support + 0.5).astype(int), 0)
        stops = np.minimum((centres + support + 0.5).astype(int), length)
        start, stop = int(starts.min()), int(stops.max())
        inputs = np.arange(start, stop)
        weights = _kernel((inputs[None] - centres[:, None] + 0.5) / stretch, kernel)
        weights[(inputs[None] < starts[:, None]) | (inputs[None] >= stops[:, None])] = 0
        blocks.append((block, start, stop, _whole_steps(weights, kernel)))
    return tuple(blocks)


def _whole_steps(weights: NDArray[np.float64], kernel: Filter) -> FloatArray:
    """The weights, each row as whole steps that add up to exactly 1.

    A pixel has 8 bits and float32 24: every product and sum is exact, so that all machines, whatever the order in which
    they add, give the same bits.
    """
    sums = np.cumsum(weights, axis=1)
    steps = np.rint(sums / sums[:, -1:] * _STEPS[kernel])  # sums are rounded, not weights: their ends stay 0 and 1
    return (np.diff(steps, axis=1, prepend=0) / _STEPS[kernel]).astype(np.float32)


def _kernel(x: NDArray[np.float64], kernel: Filter) -> NDArray[np.float64]:
    x = np.abs(x)
    if kernel == "triangle":
        triangle: NDArray[np.float64] = np.maximum(1 - x, 0)
        return triangle
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
