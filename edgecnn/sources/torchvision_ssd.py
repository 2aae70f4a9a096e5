"""torchvision's SSD detectors, without the post-processing, which exporters cannot convert."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from edgecnn.frame import FrameSpec
from edgecnn.results import FloatArray, UInt8Array
from edgecnn.sources.model import ReferencePreprocess
from edgecnn.tasks import Detect

NAMES = ("ssd300_vgg16", "ssdlite320_mobilenet_v3_large")


class SsdNetwork(nn.Module):
    """Backbone and head of an SSD; the anchors of one frame size are constants of the graph."""

    anchors: Tensor

    def __init__(self, detector: Any, height_px: int, width_px: int) -> None:
        super().__init__()
        self.backbone, self.head = detector.backbone, detector.head
        detector.eval()
        with torch.no_grad():
            frame = torch.zeros(1, 3, height_px, width_px)
            features = list(self.backbone(frame).values())
            anchors = detector.anchor_generator(ImageList(frame, [(height_px, width_px)]), features)[0]
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [batch, A, 4], class logits [batch, A, 1 + C], anchors [A, 4], as for `decode_ssd`."""
        answer = self.head(list(self.backbone(x).values()))
        return answer["bbox_regression"], answer["cls_logits"], self.anchors


def frame_of(detector: Any) -> FrameSpec:
    """The frame of the detector's own transform: stretched to a fixed size, normalised."""
    width, height = detector.transform.fixed_size
    return FrameSpec(
        height_px=height,
        width_px=width,
        fit="stretch",
        mean=tuple(detector.transform.image_mean),
        std=tuple(detector.transform.image_std),
    )


def task_of(detector: Any, categories: tuple[str, ...]) -> Detect:
    """The task with torchvision's own rule: an anchor may detect several classes."""
    return Detect(labels=categories[1:], nms_iou=detector.nms_thresh, multi_label=True)


def reference_of(detector: Any) -> ReferencePreprocess:
    """Torchvision's own transform of the detector."""

    def transform(picture: UInt8Array) -> FloatArray:
        tensor = torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255
        with torch.no_grad():
            images, _ = detector.transform([tensor])
        array: FloatArray = images.tensors[0].numpy()
        return array

    return ReferencePreprocess("torchvision GeneralizedRCNNTransform", transform)
