"""Labels of one frame for training: the answer that the network should give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from edgecnn.errors import DataError, SpecError


@dataclass(frozen=True)
class FrameBoxTruth:
    """The objects in one frame.

    Attributes:
        boxes_xyxy_px: float32 [n, 4], left, top, right, bottom in pixels of the frame; none without area.
        class_ids: int64 [n], the network's.
    """

    boxes_xyxy_px: Tensor
    class_ids: Tensor

    def to(self, device: torch.device) -> FrameBoxTruth:
        """A copy on that device."""
        return FrameBoxTruth(self.boxes_xyxy_px.to(device), self.class_ids.to(device))


@dataclass(frozen=True)
class FrameMapTruth:
    """The class of every pixel of one frame, int64 [height, width]; UNLABELLED (-1) where it is unknown."""

    classes: Tensor

    def to(self, device: torch.device) -> FrameMapTruth:
        """A copy on that device."""
        return FrameMapTruth(self.classes.to(device))


@dataclass(frozen=True)
class FrameLabelTruth:
    """The class of one frame."""

    class_id: int

    def to(self, device: torch.device) -> FrameLabelTruth:
        """Itself: it holds no tensor."""
        del device
        return self


FrameTruth: TypeAlias = FrameBoxTruth | FrameMapTruth | FrameLabelTruth


def check_boxes(truths: Sequence[FrameBoxTruth], *, frames: int, classes: int) -> None:
    """Check the labels of a batch.

    Raises:
        SpecError: there are not as many as frames.
        DataError: a class id that the network does not have.
    """
    if len(truths) != frames:
        raise SpecError(f"expected the truth of each of {frames} frames, found {len(truths)}")
    for frame, truth in enumerate(truths):
        ids = truth.class_ids
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < classes:
            raise DataError(
                f"expected class ids from 0 to {classes - 1}, found {int(ids.min())} to {int(ids.max())} in frame "
                f"{frame} of the batch; map the data set's classes to the network's"
            )
