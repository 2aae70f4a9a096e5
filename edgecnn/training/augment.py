"""Random augmentation of pictures and their labels, with torchvision's transforms and torch's generator."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from edgecnn.datasets import UNLABELLED
from edgecnn.frame import FrameFitter, FrameSpec, placement
from edgecnn.results import UInt8Array
from edgecnn.training.settings import Augmentation

_GREY = 114  # YOLOX's and our letterbox's border
_ASPECT = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Varied:
    """An augmented picture with boxes.

    Attributes:
        image: uint8 [height, width, 3] BGR.
        boxes_xyxy_px: float64 [n, 4] in its pixels.
        class_ids: int64 [n].
    """

    image: UInt8Array
    boxes_xyxy_px: NDArray[np.float64]
    class_ids: NDArray[np.int64]


def vary_picture(image: UInt8Array, frame: FrameSpec, how: Augmentation) -> UInt8Array:
    """A frame of part of a picture, uint8 [frame height, frame width, 3] BGR; a whole one is fitted as on devices."""
    if how.smallest_crop == 1:
        fitted: UInt8Array = FrameFitter(frame)(image)[0][0]
        return _bgr(_vary(how)(_rgb(fitted)))
    crop = v2.RandomResizedCrop((frame.height_px, frame.width_px), scale=(how.smallest_crop, 1.0), ratio=_ASPECT)
    return _bgr(_vary(how)(crop(_rgb(image))))


def vary_map(
    image: UInt8Array, classes: NDArray[np.int64], frame: FrameSpec, how: Augmentation
) -> tuple[UInt8Array, NDArray[np.int64]]:
    """As `vary_picture`, with the class of every pixel, int64 [height, width]; UNLABELLED in the frame's border."""
    if how.smallest_crop == 1:
        place = placement(frame, *image.shape[:2])
        fitted: UInt8Array = FrameFitter(frame)(image)[0][0]
        image, classes = fitted, _fitted_map(classes, frame, place.covered)
        size = None
    else:
        size = v2.RandomResizedCrop((frame.height_px, frame.width_px), scale=(how.smallest_crop, 1.0), ratio=_ASPECT)
    mask = tv_tensors.Mask(torch.from_numpy(classes)[None])
    picture = _rgb(image)
    if size is not None:
        picture, mask = size(picture, mask)
    picture, mask = _vary(how)(picture, mask)
    return _bgr(picture), mask[0].numpy()


def vary_boxes(
    image: UInt8Array,
    boxes_xyxy_px: NDArray[np.float64],
    class_ids: NDArray[np.int64],
    how: Augmentation,
    *,
    zoom_out: bool = True,
) -> Varied:
    """A part of a picture, or the picture on a larger grey field, with the boxes whose centres are in it.

    Colours are unchanged: they are varied once, in the frame (`vary_colours`).

    Source of crop and field: Liu et al. 2016, SSD, section 2.2 (torchvision's RandomIoUCrop and RandomZoomOut).
    """
    steps: list[v2.Transform] = []
    if zoom_out and how.largest_zoom_out > 1:
        steps.append(v2.RandomZoomOut(fill=_GREY, side_range=(1.0, how.largest_zoom_out), p=0.3))
    if how.smallest_crop < 1 and len(boxes_xyxy_px):
        side = how.smallest_crop**0.5
        steps.append(v2.RandomIoUCrop(min_scale=side, min_aspect_ratio=_ASPECT[0], max_aspect_ratio=_ASPECT[1]))
    steps += [_flips(how), v2.ClampBoundingBoxes(), v2.SanitizeBoundingBoxes(labels_getter=_labels)]
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(boxes_xyxy_px), format="XYXY", canvas_size=image.shape[:2], dtype=torch.float64
    )
    picture, boxes, ids = v2.Compose(steps)(_rgb(image), boxes, torch.from_numpy(class_ids))
    return Varied(_bgr(picture), boxes.numpy(), ids.numpy())


def _labels(sample: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    return sample[2]


def vary_colours(frame: UInt8Array, how: Augmentation) -> UInt8Array:
    """A frame, uint8 [height, width, 3] BGR, with random colour changes."""
    return _bgr(_colours(how)(_rgb(frame)))


def _vary(how: Augmentation) -> v2.Transform:
    return v2.Compose([_flips(how), _colours(how)])


def _flips(how: Augmentation) -> v2.Transform:
    return v2.Compose([v2.RandomHorizontalFlip(how.flip), v2.RandomVerticalFlip(how.flip_vertical)])


def _colours(how: Augmentation) -> v2.Transform:
    return v2.ColorJitter(how.brightness, how.contrast, how.saturation, how.hue)


def _fitted_map(classes: NDArray[np.int64], frame: FrameSpec, covered: tuple[slice, slice]) -> NDArray[np.int64]:
    fitted = np.full((frame.height_px, frame.width_px), UNLABELLED, np.int64)
    inside = fitted[covered]
    resized = cv2.resize(classes.astype(np.int32), inside.shape[::-1], interpolation=cv2.INTER_NEAREST)
    fitted[covered] = resized
    return fitted


def _rgb(image: UInt8Array) -> tv_tensors.Image:
    return tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1))


def _bgr(picture: Tensor) -> UInt8Array:
    return np.ascontiguousarray(picture.permute(1, 2, 0).numpy()[..., ::-1])
