"""The references' own pre-processing, written with their libraries: what ours is compared with."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from PIL import Image

from edgecnn.frame import FrameSpec
from edgecnn.results import FloatArray, UInt8Array
from edgecnn.sources.model import ReferencePreprocess


def reference_preprocess(network: str, frame: FrameSpec) -> ReferencePreprocess:
    """What the reference implementation of a family does to a picture."""
    family = network.partition("-")[0]
    resize: Callable[[UInt8Array, FrameSpec], UInt8Array] = {
        "yolox": _yolox,
        "nanodet": _nanodet,
        "espnetv2": _espnetv2,
        "efficientnet": _efficientnet_lite,
    }[family]

    def apply(picture: UInt8Array) -> FloatArray:
        seen = resize(np.ascontiguousarray(picture), frame).astype(np.float32)
        if frame.colour == "bgr":
            seen = seen[..., ::-1]
        return ((seen * frame.scale - frame.mean) / frame.std).transpose(2, 0, 1).astype(np.float32)

    return ReferencePreprocess(f"{family} reference", apply)


def _yolox(picture: UInt8Array, frame: FrameSpec) -> UInt8Array:
    """YOLOX, `data_augment.preproc`: shrink by the smaller ratio, put top-left on grey 114."""
    ratio = min(frame.height_px / picture.shape[0], frame.width_px / picture.shape[1])
    size = (int(picture.shape[1] * ratio), int(picture.shape[0] * ratio))
    canvas = np.full((frame.height_px, frame.width_px, 3), 114, np.uint8)
    canvas[: size[1], : size[0]] = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    return canvas


def _nanodet(picture: UInt8Array, frame: FrameSpec) -> UInt8Array:
    """NanoDet's demonstrations for devices: OpenCV's resize, aspect not kept."""
    return np.asarray(cv2.resize(picture, (frame.width_px, frame.height_px), interpolation=cv2.INTER_LINEAR))


def _espnetv2(picture: UInt8Array, frame: FrameSpec) -> UInt8Array:
    """EdgeNets, `data_transforms.Resize`: Pillow's bilinear, aspect not kept."""
    resized = Image.fromarray(picture).resize((frame.width_px, frame.height_px), Image.Resampling.BILINEAR)
    return np.asarray(resized)


def _efficientnet_lite(picture: UInt8Array, frame: FrameSpec) -> UInt8Array:
    """The usual Pillow form of EfficientNet's evaluation: bicubic on the short side, then the middle."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    image = functional.resize(
        Image.fromarray(picture), [frame.resize_short_px or 0], interpolation=InterpolationMode.BICUBIC
    )
    return np.asarray(functional.center_crop(image, [frame.height_px, frame.width_px]))
