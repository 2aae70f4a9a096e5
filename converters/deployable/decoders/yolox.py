"""Decodes YOLOX's raw maps into boxes and scores, inside the exported graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def decode_yolox(
    levels: Sequence[tuple[Tensor, Tensor, Tensor]], *, strides: Sequence[int] = (8, 16, 32)
) -> tuple[Tensor, Tensor]:
    """Turn the raw maps of a YOLOX head into boxes and scores.

    Boxes and scores never share a tensor: with one int8 scale for pixels and probabilities the scores would be lost.

    Args:
        levels: per stride, regression [N, 4, h, w] (dx, dy in cells from the cell's top left corner, log
            width, log height in cells), objectness logits [N, 1, h, w], class logits [N, C, h, w].
        strides: pixels per cell of each level.

    Returns:
        boxes [N, A, 4] float32, x1 y1 x2 y2 in pixels of the network's frame, not clipped to it; scores
        [N, A, C] float32 in 0..1, objectness times class probability. A runs level by level, row by row.

    Source: arXiv:2107.08430, section 2.1 (the parametrisation of YOLOv3 with one anchor point per cell).
    """
    boxes: list[Tensor] = []
    scores: list[Tensor] = []
    for (regression, objectness, classes), stride in zip(levels, strides, strict=True):
        boxes.append(_boxes_xyxy(regression, stride))
        scores.append(_rows(objectness.sigmoid() * classes.sigmoid()))
    return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)


def _boxes_xyxy(regression: Tensor, stride: int) -> Tensor:
    height, width = int(regression.shape[2]), int(regression.shape[3])
    corners_px = torch.tensor(
        [(x * stride, y * stride) for y in range(height) for x in range(width)],
        dtype=torch.float32,
        device=regression.device,
    )
    rows = _rows(regression)
    centre = rows[..., :2] * stride + corners_px
    half_size = rows[..., 2:].exp() * (0.5 * stride)
    return torch.cat((centre - half_size, centre + half_size), dim=-1)


def _rows(x: Tensor) -> Tensor:
    """[N, C, h, w] to [N, h * w, C]; one transpose, which channels-last runtimes remove."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
