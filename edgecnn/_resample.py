"""Antialiased resize: Pillow's filters, which torchvision's transforms use and OpenCV lacks.

Networks trained with torchvision saw pictures shrunk with a filter as wide as the shrinking; OpenCV's bilinear
resize looks at four pixels only, and its cubic has another constant.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecnn.results import FloatArray, UInt8Array

Filter = Literal["triangle", "cubic"]
_SUPPORT_PX: dict[Filter, float] = {"triangle": 1.0, "cubic": 2.0}
_BLOCK_ROWS = 16  # output rows per matrix product: few enough that the band of input rows stays narrow


def resample(
    image: UInt8Array,
    size: tuple[int, int],
    *,
    window: tuple[int, int],
    kernel: Filter,
    out: UInt8Array,
) -> None:
    """Resize `image` to `size` (height, width) and write the part from `window` (top, left) into `out`.

    Only what `out` shows is computed. Agrees with `PIL.Image.resize` to one grey level (Pillow's weights are
    fixed-point numbers); a few levels where a newer Pillow shrinks the height first (very flat or small results).

    Args:
        image: uint8 [height, width, channels].
        size: height and width of the whole resized picture.
        window: top and left of the part that `out` shows.
        kernel: "triangle" is Pillow's BILINEAR, "cubic" its BICUBIC (a = -0.5).
        out: uint8 [rows, columns, channels], written.

    Source: Pillow, `src/libImaging/Resample.c` (precompute_coeffs, triangle and bicubic filters).
    """
    rows, columns, channels = out.shape
    height, width = image.shape[:2]
    down = _bands(height, size[0], window[0], rows, kernel)
    across = _bands(width, size[1], window[1], columns, kernel)
    top, bottom = down[0][1], max(stop for _, _, stop, _ in down)
    left, right = across[0][1], max(stop for _, _, stop, _ in across)
    # [height, width, channels] -> [width, height * channels]: both passes are then one matrix product
    turned = cv2.transpose(np.ascontiguousarray(image[top:bottom, left:right])).astype(np.float32)
    narrow = _apply(across, turned.reshape(right - left, -1), columns, origin=left)
    _round_half_up(narrow)  # Pillow stores bytes between its passes
    lines: FloatArray = np.asarray(cv2.transpose(narrow.reshape(columns, bottom - top, channels)), np.float32)
    result = _apply(down, lines.reshape(bottom - top, -1), rows, origin=top)
    _round_half_up(result)
    np.copyto(out, result.reshape(out.shape), casting="unsafe")


def _round_half_up(levels: FloatArray) -> None:
    levels += 0.5
    np.floor(levels, out=levels)
    np.clip(levels, 0, 255, out=levels)


def _apply(
    bands: tuple[tuple[int, int, int, FloatArray], ...], lines: FloatArray, count: int, *, origin: int = 0
) -> FloatArray:
    result = np.empty((count, lines.shape[1]), np.float32)
    for row, start, stop, weights in bands:
        np.matmul(weights, lines[start - origin : stop - origin], out=result[row : row + len(weights)])
    return result


@lru_cache(maxsize=32)
def _bands(
    source: int, target: int, first: int, count: int, kernel: Filter
) -> tuple[tuple[int, int, int, FloatArray], ...]:
    """(first output line, input start, input stop, float32 [lines, stop - start] weights) for each block."""
    shrink = source / target
    stretch = max(shrink, 1.0)
    support = _SUPPORT_PX[kernel] * stretch
    bands = []
    for block in range(0, count, _BLOCK_ROWS):
        lines = np.arange(first + block, first + min(block + _BLOCK_ROWS, count))
        centres = (lines + 0.5) * shrink
        starts = np.maximum((centres - support + 0.5).astype(int), 0)
        stops = np.minimum((centres + support + 0.5).astype(int), source)
        start, stop = int(starts.min()), int(stops.max())
        inputs = np.arange(start, stop)
        weights = _kernel((inputs[None] - centres[:, None] + 0.5) / stretch, kernel)
        weights[(inputs[None] < starts[:, None]) | (inputs[None] >= stops[:, None])] = 0
        weights /= weights.sum(1, keepdims=True)
        bands.append((block, start, stop, weights.astype(np.float32)))
    return tuple(bands)


def _kernel(x: NDArray[np.float64], kernel: Filter) -> NDArray[np.float64]:
    x = np.abs(x)
    if kernel == "triangle":
        triangle: NDArray[np.float64] = np.maximum(1 - x, 0)
        return triangle
    a = -0.5
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
