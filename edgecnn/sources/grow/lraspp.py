"""LR-ASPP segmentation head: a deep map, weighted by the whole frame's average, and a shallow map.

Source: Howard et al. 2019, Searching for MobileNetV3, arXiv:1905.02244, section 6.4; the layers are torchvision's
`LRASPPHead` (which pools the whole frame where the paper pools large windows).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.segmentation.lraspp import LRASPPHead

from edgecnn.errors import SourceError, SpecError
from edgecnn.sources.grow.backbone import Backbone, Grown
from edgecnn.tasks import Segment

LOW_STRIDE = 8
MOST_CLASSES = 256  # a class map is uint8


class LrasppSegmenter(nn.Module):
    """A backbone and the head, on its last map and on the map of stride 8.

    Args:
        backbone: must have a map of stride 8.
        classes: number of classes, including the background if it is a class.
    """

    def __init__(self, backbone: Backbone, *, classes: int) -> None:
        super().__init__()
        high = max(backbone.shapes)
        self.body = backbone.features([LOW_STRIDE, high])
        self.head = LRASPPHead(backbone.shapes[LOW_STRIDE][0], backbone.shapes[high][0], classes, inter_channels=128)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, C, height, width], as large as the frame."""
        low, high = self.body(x)
        logits = self.head({"low": low, "high": high})
        return functional.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False)


def grow(backbone: Backbone, labels: tuple[str, ...]) -> Grown:
    """The segmenter.

    Raises:
        SourceError: the backbone has no map of stride 8.
        SpecError: more than 256 classes.
    """
    if len(labels) > MOST_CLASSES:
        raise SpecError(f"a segmenter can have at most {MOST_CLASSES} classes, got {len(labels)}")
    if LOW_STRIDE not in backbone.shapes:
        raise SourceError(
            f"no lraspp head can be added to {backbone.name}: it has no map of stride {LOW_STRIDE} from which "
            f"everything deeper is computed (strides found: {', '.join(map(str, backbone.shapes))}). Use another "
            "classifier"
        )
    return Grown(
        module=LrasppSegmenter(backbone, classes=len(labels)),
        task=Segment(labels=labels),
        decode=_as_tuple,
        fit="stretch",
    )


def _as_tuple(logits: Tensor) -> tuple[Tensor, ...]:
    return (logits,)
