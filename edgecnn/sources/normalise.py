"""Converts frames to a network's input."""

from __future__ import annotations

import torch
from torch import Tensor

from edgecnn.frame import FrameSpec


def normalise(frames: Tensor, spec: FrameSpec) -> Tensor:
    """uint8 [batch, height, width, 3] BGR → float32 [batch, 3, height, width], the network's input."""
    x = frames.permute(0, 3, 1, 2).to(torch.float32)
    if spec.colour == "rgb":
        x = x.flip(1)
    return (x * spec.scale - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[:, None, None]
