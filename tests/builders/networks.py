"""Tiny seeded networks, one for each task: a few convolutions that answer differently for every picture."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecnn import Classify, Detect, FrameSpec, InstanceSegment, Segment, TrainedModel

COLOURS = ("red", "green", "blue")
STRIDE_PX = 8


def _convolution(inputs: int, outputs: int, *, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution whose random answer is as large as its input."""
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
    with torch.no_grad():
        conv.weight.normal_(0, math.sqrt(2 / (9 * inputs)))
        conv.bias.normal_(0, 0.1)  # type: ignore[union-attr]
    return conv


def _body(outputs: int) -> nn.Sequential:
    """[N, 3, H, W] to [N, outputs, H / 8, W / 8]."""
    return nn.Sequential(
        _convolution(3, 8, stride=2),
        nn.ReLU(),
        _convolution(8, 16, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        _convolution(16, outputs, stride=2),
    )


class TinyClassifier(nn.Module):
    """Logits [N, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _body(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(4 * self.body(x).relu().mean(dim=(2, 3)))  # type: ignore[no-any-return]


class TinyDetector(nn.Module):
    """A raw map [N, 7, h, w]: four numbers of a box and three class logits for each cell."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _body(4 + len(COLOURS))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)  # type: ignore[no-any-return]


class TinyInstances(nn.Module):
    """The detector's map with four coefficients more, and prototypes [N, 4, 2h, 2w]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _body(4 + len(COLOURS) + 4)
        self.prototypes = nn.Sequential(_convolution(3, 8, stride=2), nn.ReLU(), _convolution(8, 4, stride=2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.body(x), self.prototypes(x)


class TinySegmenter(nn.Module):
    """Logits [N, 3, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _body(len(COLOURS))

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(self.body(x), size=x.shape[2:], mode="bilinear", align_corners=False)


def decode_cells(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes of 8 to 24 px around each cell's centre, and sigmoid scores."""
    rows = raw.permute(0, 2, 3, 1).flatten(1, 2)
    height, width = int(raw.shape[2]), int(raw.shape[3])
    centres = [(STRIDE_PX * (x + 0.5), STRIDE_PX * (y + 0.5)) for y in range(height) for x in range(width)]
    half = 4 + 8 * rows[..., 2:4].sigmoid()
    centre = torch.tensor(centres) + 4 * rows[..., :2].tanh()
    return torch.cat((centre - half, centre + half), dim=-1), (2 * rows[..., 4:7] - 1).sigmoid()


def decode_instances(raw: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As the detector's, with coefficients and prototypes."""
    cells, prototypes = raw
    boxes, scores = decode_cells(cells)
    return boxes, scores, cells[:, 7:11].permute(0, 2, 3, 1).flatten(1, 2).tanh(), prototypes


def tiny_classifier() -> TrainedModel:
    torch.manual_seed(1)
    return TrainedModel(
        module=TinyClassifier(),
        frame=FrameSpec(
            height_px=64,
            width_px=64,
            fit="centre-crop",
            resize_short_px=72,
            antialias=True,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
        ),
        task=Classify(labels=("a", "b", "c", "d", "e")),
        name="tiny-classifier",
    )


def tiny_detector() -> TrainedModel:
    torch.manual_seed(2)
    return TrainedModel(
        module=TinyDetector(),
        frame=FrameSpec(height_px=64, width_px=96, alignment="top-left", colour="bgr", scale=1 / 64),
        task=Detect(labels=COLOURS),
        decode=decode_cells,
        name="tiny-detector",
    )


def tiny_instances() -> TrainedModel:
    torch.manual_seed(3)
    return TrainedModel(
        module=TinyInstances(),
        frame=FrameSpec(height_px=96, width_px=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        task=InstanceSegment(labels=COLOURS),
        decode=decode_instances,
        name="tiny-instances",
    )


def tiny_segmenter() -> TrainedModel:
    torch.manual_seed(4)
    return TrainedModel(
        module=TinySegmenter(),
        frame=FrameSpec(height_px=64, width_px=64, fit="stretch", mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        task=Segment(labels=COLOURS),
        name="tiny-segmenter",
    )


TINY = {
    "classify": tiny_classifier,
    "detect": tiny_detector,
    "instances": tiny_instances,
    "segment": tiny_segmenter,
}
