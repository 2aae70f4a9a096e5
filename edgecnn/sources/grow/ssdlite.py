"""SSDlite detection head: on the maps of the two deepest strides of a backbone and on a few smaller maps after them.

Sources: Liu et al. 2016, SSD, arXiv:1512.02325, section 2; Sandler et al. 2018, MobileNetV2, arXiv:1801.04381, section
6.2 (depthwise separable layers, and where they are attached); widths, shapes and sizes of the anchors after
torchvision's `ssdlite320_mobilenet_v3_large`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import Conv2dNormActivation, box_convert

from edgecnn.sources.grow.backbone import Backbone, Grown
from edgecnn.tasks import Detect

EXTRA_CHANNELS = (512, 256, 256, 128)  # the last value for all further maps
ASPECT_RATIOS = (2, 3)  # plus their inverses, 1, and a slightly larger 1
ANCHORS_PER_CELL = 2 + 2 * len(ASPECT_RATIOS)
SMALLEST_SCALE, LARGEST_SCALE = 0.2, 0.95  # anchor size on the first and last map, as a share of the frame's side
NMS_IOU = 0.55

Size = tuple[int, int]
_batch_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03)


class SsdliteDetector(nn.Module):
    """A backbone, smaller maps after it, and the prediction layers of each map.

    Args:
        backbone: its maps of stride 16 and more are used.
        classes: number of classes without the background.
    """

    anchors: Tensor

    def __init__(self, backbone: Backbone, *, classes: int) -> None:
        super().__init__()
        strides = [stride for stride in backbone.shapes if stride >= 16]
        self.body = backbone.features(strides)
        channels = [backbone.shapes[stride][0] for stride in strides]
        sizes: list[Size] = [(backbone.shapes[stride][1], backbone.shapes[stride][2]) for stride in strides]
        self.extra = nn.ModuleList()
        while min(sizes[-1]) > 1:
            outputs = EXTRA_CHANNELS[min(len(self.extra), len(EXTRA_CHANNELS) - 1)]
            sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
            self.extra.append(_smaller_map(channels[-1], outputs, size=sizes[-1]))
            channels.append(outputs)
        self.boxes = _predictions(channels, ANCHORS_PER_CELL * 4, sizes)
        self.classes = _predictions(channels, ANCHORS_PER_CELL * (1 + classes), sizes)
        self.register_buffer("anchors", anchor_boxes(backbone.size_px, sizes), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Codes [batch, A, 4], class logits [batch, A, 1 + C], anchors [A, 4], as for `decode_ssd`."""
        maps = list(self.body(x))
        for smaller in self.extra:
            maps.append(smaller(maps[-1]))
        codes = [_rows(layer(map_)) for layer, map_ in zip(self.boxes, maps, strict=True)]
        logits = [_rows(layer(map_)) for layer, map_ in zip(self.classes, maps, strict=True)]
        return torch.cat(codes, dim=1), torch.cat(logits, dim=1), self.anchors


def grow(backbone: Backbone, labels: tuple[str, ...]) -> Grown:
    """The detector, with torchvision's rule that an anchor may detect several classes."""
    return Grown(
        module=SsdliteDetector(backbone, classes=len(labels)),
        task=Detect(labels=labels, nms_iou=NMS_IOU, multi_label=True),
        decode="ssd",
        fit="letterbox",
    )


def anchor_boxes(size_px: Size, map_sizes: Sequence[Size]) -> Tensor:
    """The anchors of maps over a frame, float32 [A, 4] xyxy in frame px; map by map, row by row, cell by cell.

    Scales refer to the geometric mean of the frame's sides, so that an anchor of aspect 1 is a square in any frame;
    torchvision stretches them with the frame.

    Args:
        size_px: height and width of the frame.
        map_sizes: height and width of each map in cells.
    """
    height_px, width_px = size_px
    generator = DefaultBoxGenerator(
        [list(ASPECT_RATIOS) for _ in map_sizes], min_ratio=SMALLEST_SCALE, max_ratio=LARGEST_SCALE
    )
    frame = ImageList(torch.zeros(1, 3, height_px, width_px), [size_px])
    (stretched,) = generator(frame, [torch.zeros(1, 1, *size) for size in map_sizes])
    boxes = box_convert(stretched, "xyxy", "cxcywh")
    boxes[:, 2:] *= torch.tensor([height_px / width_px, width_px / height_px]).sqrt()
    anchors: Tensor = box_convert(boxes, "cxcywh", "xyxy")
    return anchors


def _smaller_map(inputs: int, outputs: int, *, size: Size) -> nn.Sequential:
    """1x1 to half the width, depthwise with stride 2, 1x1; `size` of the output."""
    hidden = outputs // 2
    return nn.Sequential(
        _convolution(inputs, hidden, kernel_size=1, normalised=True),
        _convolution(hidden, hidden, kernel_size=3, stride=2, groups=hidden, normalised=_can_be_normalised(size)),
        _convolution(hidden, outputs, kernel_size=1, normalised=_can_be_normalised(size)),
    )


def _predictions(channels: Sequence[int], outputs: int, sizes: Sequence[Size]) -> nn.ModuleList:
    """For each map a depthwise and a 1x1 convolution, initialised as in the reference."""
    layers = nn.ModuleList()
    for inputs, size in zip(channels, sizes, strict=True):
        see = _convolution(inputs, inputs, kernel_size=3, groups=inputs, normalised=_can_be_normalised(size))
        tell = nn.Conv2d(inputs, outputs, 1)
        nn.init.normal_(tell.weight, std=0.03)
        nn.init.zeros_(tell.bias)  # type: ignore[arg-type]
        layers.append(nn.Sequential(see, tell))
    return layers


def _convolution(
    inputs: int, outputs: int, *, kernel_size: int, stride: int = 1, groups: int = 1, normalised: bool
) -> nn.Module:
    made: nn.Module = Conv2dNormActivation(
        inputs,
        outputs,
        kernel_size=kernel_size,
        stride=stride,
        groups=groups,
        norm_layer=_batch_norm if normalised else None,
        activation_layer=nn.ReLU6,
    )
    return made


def _can_be_normalised(size: Size) -> bool:
    """A map of one cell has one value per frame: too few for statistics, and no variance in a batch of one."""
    return size != (1, 1)


def _rows(answer: Tensor) -> Tensor:
    """[N, anchors of a cell * values, h, w] to [N, h * w * anchors of a cell, values]."""
    return answer.permute(0, 2, 3, 1).reshape(answer.shape[0], -1, answer.shape[1] // ANCHORS_PER_CELL)
