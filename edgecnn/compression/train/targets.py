"""What a network should have answered, as training wants it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor


@dataclass(frozen=True)
class BoxTarget:
    """The objects in one frame.

    Attributes:
        boxes_xyxy_px: float32 [n, 4], left, top, right, bottom in pixels of the frame; none without area.
        class_ids: int64 [n], the network's.
    """

    boxes_xyxy_px: Tensor
    class_ids: Tensor

    def to(self, device: torch.device) -> BoxTarget:
        """The same there."""
        return BoxTarget(self.boxes_xyxy_px.to(device), self.class_ids.to(device))


@dataclass(frozen=True)
class MapTarget:
    """The class of every pixel of one frame, int64 [height, width]; UNLABELLED (-1) where nobody knows."""

    classes: Tensor

    def to(self, device: torch.device) -> MapTarget:
        """The same there."""
        return MapTarget(self.classes.to(device))


@dataclass(frozen=True)
class LabelTarget:
    """The class of one frame."""

    class_id: int

    def to(self, device: torch.device) -> LabelTarget:
        """Itself: a number is everywhere."""
        del device
        return self


Target: TypeAlias = BoxTarget | MapTarget | LabelTarget
