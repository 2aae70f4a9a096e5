"""Heads for other tasks, grown on the body of a classifier: its features stay, its last layers go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from edgecnn.errors import SpecError, UnknownNameError

if TYPE_CHECKING:
    from edgecnn.sources import TrainedModel

HEADS = ("ssdlite", "lraspp")
BODY = "body."  # what names of tensors begin with that are the classifier's own
DEFAULT_SIZE_PX = (320, 320)
SMALLEST_PX = 64  # below, a map of stride 32 cannot be told from one that was pooled


def grow_head(
    classifier: TrainedModel, head: str, *, labels: Sequence[str], size: tuple[int, int] | None = None
) -> TrainedModel:
    """The classifier's body with a new head (random weights, the same every time) for these classes.

    The body is found by looking, so networks of the user's own work as well. It sees what it saw before (colour
    order, scale, mean, std, interpolation); a detector's frame is letterboxed, a segmenter's stretched.

    Args:
        classifier: is not changed; its weights are copied.
        head: "ssdlite" finds objects, "lraspp" gives every pixel a class.
        labels: class names; a segmenter's with the background, if that is a class.
        size: (height, width) of the frame in px; 320 x 320 without it.

    Returns:
        The network, in evaluation mode. Built from the same classifier with other weights, it has the same names and
        shapes of tensors.

    Raises:
        UnknownNameError: no such head.
        SpecError: not a classifier, no labels, or a frame that is too small.
        SourceError: no feature maps can be found in it.
    """
    if head not in HEADS:
        raise UnknownNameError("head to grow", head, HEADS)
    if classifier.task.name != "classify":
        raise SpecError(
            f"a head is grown on a network to classify, and {classifier.name} is one to {classifier.task.name}: "
            "name a classifier, as in torchvision:mobilenet_v3_small"
        )
    if not labels:
        raise SpecError(f"a {head} head wants the names of its classes, got none")
    height_px, width_px = size or DEFAULT_SIZE_PX
    if min(height_px, width_px) < SMALLEST_PX:
        raise SpecError(f"a {head} head wants a frame of at least {SMALLEST_PX} px, got {width_px}x{height_px}")
    from edgecnn.sources.heads.backbone import find_backbone
    from edgecnn.sources.weights import reproducible_weights

    backbone = find_backbone(classifier, size_px=(height_px, width_px))
    with reproducible_weights():
        grown = import_module(f"edgecnn.sources.heads.{head}").grow(backbone, tuple(labels))
    frame = msgspec.structs.replace(
        classifier.frame, height_px=height_px, width_px=width_px, fit=grown.fit, resize_short_px=None
    )
    blueprint = classifier.blueprint and msgspec.structs.replace(
        classifier.blueprint, labels=tuple(labels), size=(height_px, width_px), head=head
    )
    return replace(
        classifier,
        module=grown.module.eval(),
        frame=frame,
        task=grown.task,
        decode=grown.decode,
        name=f"{classifier.name}-{head}",
        reference=None,
        blueprint=blueprint,
    )
