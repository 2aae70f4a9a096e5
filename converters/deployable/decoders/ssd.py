"""SSD's box codes and class logits → boxes and scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Variances (0.1, 0.1, 0.2, 0.2) of Liu et al., arXiv:1512.02325, as torchvision's BoxCoder weights.
CENTRE_WEIGHT = 10.0
SIZE_WEIGHT = 5.0
LARGEST_LOG_SIZE = math.log(1000.0 / 16)  # torchvision's limit, which prevents overflow


def decode_ssd(raw: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Decode the raw output of an SSD head.

    Args:
        raw: codes [batch, A, 4] (dx, dy, dw, dh), class logits [batch, A, 1 + C] with the background first, and
            anchors [A, 4] xyxy in frame pixels.

    Returns:
        Boxes [batch, A, 4] xyxy in frame pixels, and scores [batch, A, C] without the background.

    Source: torchvision `models/detection/_utils.py`, BoxCoder.decode_single.
    """
    codes, logits, anchors = raw
    sizes = anchors[:, 2:] - anchors[:, :2]
    centres = anchors[:, :2] + sizes / 2
    centre = codes[..., :2] * (sizes / CENTRE_WEIGHT) + centres
    half = torch.exp(torch.clamp(codes[..., 2:] / SIZE_WEIGHT, max=LARGEST_LOG_SIZE)) * (sizes / 2)
    boxes = torch.cat([centre - half, centre + half], dim=-1)
    return boxes, torch.softmax(logits, dim=-1)[..., 1:]
