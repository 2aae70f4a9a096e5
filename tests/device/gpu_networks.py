"""Networks of three tasks that GPUs are tried with: two of a few seeded layers, and the detector that ships."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecnn import Classify, FrameSpec, Segment, TrainedModel, load_model

FRAME = FrameSpec(height_px=64, width_px=64, fit="stretch", mean=(0.5,) * 3, std=(0.25,) * 3, scale=1 / 255)
CLASSES = ("red", "green", "blue", "grey")  # LiteRT's GPU wants a multiple of four where the graph decides


def body(outputs: int) -> nn.Sequential:
    """[N, 3, H, W] to [N, outputs, H / 8, W / 8]: plain, depthwise and pointwise convolutions."""
    layers: list[nn.Module] = []
    for inputs, wide, groups in ((3, 8, 1), (8, 16, 1), (16, 16, 16)):
        convolution = nn.Conv2d(inputs, wide, 3, stride=2, padding=1, groups=groups)
        nn.init.normal_(convolution.weight, 0, math.sqrt(2 * groups / (9 * inputs)))
        layers += [convolution, nn.BatchNorm2d(wide), nn.Hardswish()]
    last = nn.Conv2d(16, outputs, 1)
    nn.init.normal_(last.weight, 0, 0.5)
    return nn.Sequential(*layers, last)


class Classifier(nn.Module):
    """Logits [N, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body(16)
        self.head = nn.Linear(16, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(4 * self.body(x).relu().mean(dim=(2, 3)))  # type: ignore[no-any-return]


class Segmenter(nn.Module):
    """Logits [N, classes, H, W]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = body(classes)

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(self.body(x), size=x.shape[2:], mode="bilinear", align_corners=False)


def network(task: str, *, classes: int = len(CLASSES)) -> TrainedModel:
    """The task's network; `classes` are the segmenter's."""
    if task == "detect":
        return load_model("default-detector", size=(96, 96))
    torch.manual_seed(7)
    if task == "classify":
        return TrainedModel(module=Classifier().eval(), frame=FRAME, task=Classify(labels=CLASSES), name="small")
    return TrainedModel(
        module=Segmenter(classes).eval(), frame=FRAME, task=Segment(labels=CLASSES[:classes]), name="small"
    )
