"""NanoDet-Plus: raw maps to boxes and scores, as part of the exported graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_SIDES = 4


def decode_nanodet(
    levels: Sequence[tuple[Tensor, Tensor]], *, strides: Sequence[int] = (8, 16, 32, 64)
) -> tuple[Tensor, Tensor]:
    """Turn the raw maps of a NanoDet-Plus head into boxes and scores.

    A distance is the mean of its distribution over 0, 1, …, in strides; it is counted from a cell's top left corner.

    Args:
        levels: per stride, class logits [N, C, h, w]; logits of the distributions of the distances to the box's left,
            top, right and bottom, [N, 4 x bins, h, w].
        strides: pixels per cell of each level.

    Returns:
        boxes [N, A, 4] float32, x1 y1 x2 y2 in pixels of the network's frame, not clipped to it; scores [N, A, C]
        float32 in 0..1. A runs level by level, row by row.

    Source: Li et al. 2020, Generalized Focal Loss, arXiv:2006.04388, section 3.2 and equation 5 (the integral); the
    points at corners, not centres, of cells are NanoDet-Plus' own.
    """
    boxes = [_boxes_xyxy(distances, stride) for (_, distances), stride in zip(levels, strides, strict=True)]
    scores = [_rows(classes.sigmoid()) for classes, _ in levels]
    return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)


def _boxes_xyxy(distances: Tensor, stride: int) -> Tensor:
    height, width = int(distances.shape[2]), int(distances.shape[3])
    points_px = torch.tensor(
        [(x * stride, y * stride) for y in range(height) for x in range(width)],
        dtype=torch.float32,
        device=distances.device,
    )
    likely = torch.unflatten(_rows(distances), 2, (_SIDES, -1)).softmax(dim=-1)
    bins_px = torch.arange(likely.shape[-1], dtype=torch.float32, device=distances.device) * stride
    far_px = (likely * bins_px).sum(dim=-1)
    return torch.cat((points_px - far_px[..., :2], points_px + far_px[..., 2:]), dim=-1)


def _rows(x: Tensor) -> Tensor:
    """[N, C, h, w] to [N, h * w, C]; one transpose, which channels-last back ends drop."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)
