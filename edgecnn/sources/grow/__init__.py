"""Adds heads for other tasks to the backbone of a classifier, instead of its last layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

import msgspec

from edgecnn.errors import SpecError, UnknownNameError

if TYPE_CHECKING:
    from edgecnn.sources.model import TrainedModel

HEADS = {"ssdlite": "detect", "lraspp": "segment"}  # and the task of a network with that head
BODY = "body."  # prefix of the names of the classifier's own tensors
DEFAULT_SIZE_PX = (320, 320)
SMALLEST_PX = 64  # in smaller frames, a map of stride 32 cannot be distinguished from a pooled one


def grow_head(
    classifier: TrainedModel, head: str, *, labels: Sequence[str], size: tuple[int, int] | None = None
) -> TrainedModel:
    """The classifier's backbone with a new head (random weights, the same every time) for these classes.

    The backbone is found by tracing, so the user's own networks work too. Its input stays the same (colour
    order, scale, mean, std, interpolation); a detector's frame is letterboxed, a segmenter's stretched.

    Args:
        classifier: not changed; its weights are copied.
        head: "ssdlite" detects objects, "lraspp" segments.
        labels: class names; a segmenter's including the background, if that is a class.
        size: (height, width) of the frame in px; by default 320 x 320.

    Returns:
        The network, in evaluation mode. Built from the same classifier with other weights, its tensors have the same
        names and shapes.

    Raises:
        UnknownNameError: no such head.
        SpecError: not a classifier, no labels, or a frame that is too small.
        SourceError: it has no suitable feature maps.
    """
    if head not in HEADS:
        raise UnknownNameError("head to grow", head, HEADS)
    if not classifier.task.labels_whole_picture:
        raise SpecError(
            f"a head can only be added to a classifier, but the task of {classifier.name} is {classifier.task.name}: "
            "give a classifier, such as torchvision:mobilenet_v3_small"
        )
    if not labels:
        raise SpecError(f"a {head} head needs the names of its classes: give labels")
    height_px, width_px = size or DEFAULT_SIZE_PX
    if min(height_px, width_px) < SMALLEST_PX:
        raise SpecError(f"a {head} head needs a frame of at least {SMALLEST_PX} px, got {width_px}x{height_px}")
    from edgecnn.sources.grow.backbone import find_backbone
    from edgecnn.sources.weights import reproducible_weights

    backbone = find_backbone(classifier, size_px=(height_px, width_px))
    with reproducible_weights():
        grown = import_module(f"edgecnn.sources.grow.{head}").grow(backbone, tuple(labels))
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
