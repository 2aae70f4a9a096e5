"""The training losses, chosen by a network's task and head."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecnn.datasets import UNLABELLED
from edgecnn.errors import SpecError
from edgecnn.sources.model import TrainedModel
from edgecnn.sources.weights import reproducible_weights
from edgecnn.tasks import Classify, Segment
from edgecnn.training.attention import answering
from edgecnn.training.frame_truth import FrameLabelTruth, FrameMapTruth
from edgecnn.training.nanodet_guidance import AssignGuidance
from edgecnn.training.nanodet_loss import NanoDetLoss
from edgecnn.training.ssd_loss import SsdLoss
from edgecnn.training.yolox_loss import YoloxLoss

# The module's raw answer in training mode and the label of each frame → parts of the loss, by name.
Objective: TypeAlias = Callable[[Any, Sequence[Any]], dict[str, Tensor]]

_SMOOTHING = 0.1
# Head → its loss, made for so many classes.
_OF_HEADS: Final[Mapping[str, Callable[..., Objective]]] = MappingProxyType(
    {"nanodet": NanoDetLoss, "ssd": SsdLoss, "yolox": YoloxLoss}
)


def objective_of(model: TrainedModel) -> Objective:
    """The loss of a network's task and head.

    Raises:
        SpecError: a detector with the user's own head, or a task that cannot be trained here.
    """
    if isinstance(model.decode, str) and model.decode in _OF_HEADS:
        return _OF_HEADS[model.decode](classes=len(model.task.labels))
    if isinstance(model.task, Classify):
        return classification_loss
    if isinstance(model.task, Segment):
        return segmentation_loss
    raise SpecError(
        f"{model.name} cannot be trained here: its task is {model.task.name}, and its head has no loss here. "
        "There are losses for YOLOX, NanoDet-Plus and SSD heads, classifiers and segmenters; or add a head to a "
        "classifier (--head ssdlite)"
    )


def guide_of(model: TrainedModel) -> AssignGuidance | None:
    """A module that is trained with the network and dropped after it: for heads that have one, from random weights.

    A trained network itself predicts better than a new guide which points suit a box, at an eighth of the cost.
    """
    if model.decode != "nanodet" or not model.is_random:
        return None
    with answering(model.module), reproducible_weights():
        return AssignGuidance(model.module, torch.zeros(1, 3, model.frame.height_px, model.frame.width_px))


def classification_loss(answer: Any, truths: Sequence[FrameLabelTruth]) -> dict[str, Tensor]:
    """Cross entropy with labels smoothed by a tenth (Szegedy et al. 2016, Inception, section 7).

    Args:
        answer: logits [batch, classes]; for networks with auxiliary classifiers, the main one's.
        truths: one per frame.
    """
    logits = answer if isinstance(answer, Tensor) else answer[0]
    wanted = torch.tensor([truth.class_id for truth in truths], device=logits.device)
    return {"class": functional.cross_entropy(logits.float(), wanted, label_smoothing=_SMOOTHING)}


def segmentation_loss(answer: Any, truths: Sequence[FrameMapTruth]) -> dict[str, Tensor]:
    """Cross entropy of every pixel that has a label.

    Args:
        answer: logits [batch, classes, h, w]; enlarged to the labels' size where they are smaller.
        truths: one per frame.
    """
    wanted = torch.stack([truth.classes for truth in truths])
    logits = answer.float()
    if logits.shape[2:] != wanted.shape[1:]:
        logits = functional.interpolate(logits, size=wanted.shape[1:], mode="bilinear", align_corners=False)
    total = functional.cross_entropy(logits, wanted, ignore_index=UNLABELLED, reduction="sum")
    return {"class": total / (wanted != UNLABELLED).sum().clamp(min=1)}


def detach_parts(parts: dict[str, Tensor]) -> dict[str, float]:
    """Parts of a loss as numbers."""
    return {name: float(value.detach()) for name, value in parts.items()}


def frozen_names(module: nn.Module, new: Collection[str]) -> frozenset[str]:
    """Parameters of the backbone: all except those in the parts of the network with new tensors.

    Args:
        module: the network.
        new: names of tensors that were not taken from the old network; not empty.

    Raises:
        SpecError: nothing is new, so nothing would be trained; or no part could be frozen.
    """
    if not new:
        raise SpecError(
            "freeze_backbone trains only the new head, but this network keeps its own head, which already has the "
            "data's classes: leave out freeze_backbone"
        )
    shared = _shared_prefix(list(module.state_dict()))
    heads = tuple(f"{shared}{name.removeprefix(shared).partition('.')[0]}." for name in new)
    frozen = frozenset(name for name, _ in module.named_parameters() if not name.startswith(heads))
    if not frozen:
        raise SpecError("freeze_backbone: every part of the network is new, so nothing could be frozen; leave it out")
    return frozen


def _shared_prefix(names: Sequence[str]) -> str:
    """The common beginning of all names, up to a dot: wrappers around the network."""
    prefix = ""
    while (
        len(parts := {name.removeprefix(prefix).partition(".")[0] for name in names}) == 1
        and f"{prefix}{min(parts)}" not in names
    ):
        prefix += f"{parts.pop()}."
    return prefix
