"""What training lowers, by what a network answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecnn.compression.train.ssd_loss import SsdLoss
from edgecnn.compression.train.targets import LabelTarget, MapTarget
from edgecnn.compression.train.yolox_loss import YoloxLoss
from edgecnn.datasets import UNLABELLED
from edgecnn.errors import SpecError
from edgecnn.sources import TrainedModel
from edgecnn.tasks import Classify, Segment

# The module's raw answer in training mode and a target for each frame → parts of the loss, by name.
Objective: TypeAlias = Callable[[Any, Sequence[Any]], dict[str, Tensor]]

_SMOOTHING = 0.1


def objective_of(model: TrainedModel) -> Objective:
    """The loss of a network's task and head.

    Raises:
        SpecError: a detector with a head of the user's own, or a task that cannot be trained here.
    """
    if model.decode == "yolox":
        return YoloxLoss(classes=len(model.task.labels))
    if model.decode == "ssd":
        return SsdLoss(classes=len(model.task.labels))
    if isinstance(model.task, Classify):
        return classification_loss
    if isinstance(model.task, Segment):
        return segmentation_loss
    raise SpecError(
        f"{model.name} cannot be trained here: it is to {model.task.name} with a head that has no loss of ours. "
        "There are losses for YOLOX and SSD heads, classifiers and segmenters; or grow a head of ours on a classifier "
        "(--head ssdlite)"
    )


def classification_loss(answer: Any, targets: Sequence[LabelTarget]) -> dict[str, Tensor]:
    """Cross entropy with labels smoothed by a tenth (Szegedy et al. 2016, Inception, section 7).

    Args:
        answer: logits [batch, classes]; of networks with auxiliary classifiers, the main one's.
        targets: one a frame.
    """
    logits = answer if isinstance(answer, Tensor) else answer[0]
    wanted = torch.tensor([target.class_id for target in targets], device=logits.device)
    return {"class": functional.cross_entropy(logits.float(), wanted, label_smoothing=_SMOOTHING)}


def segmentation_loss(answer: Any, targets: Sequence[MapTarget]) -> dict[str, Tensor]:
    """Cross entropy of every pixel that has a label.

    Args:
        answer: logits [batch, classes, h, w]; enlarged to the targets' size where they are smaller.
        targets: one a frame.
    """
    wanted = torch.stack([target.classes for target in targets])
    logits = answer.float()
    if logits.shape[2:] != wanted.shape[1:]:
        logits = functional.interpolate(logits, size=wanted.shape[1:], mode="bilinear", align_corners=False)
    total = functional.cross_entropy(logits, wanted, ignore_index=UNLABELLED, reduction="sum")
    return {"class": total / (wanted != UNLABELLED).sum().clamp(min=1)}


def detach_parts(parts: dict[str, Tensor]) -> dict[str, float]:
    """Parts of a loss as numbers."""
    return {name: float(value.detach()) for name, value in parts.items()}


def frozen_names(module: nn.Module, new: Collection[str]) -> frozenset[str]:
    """Parameters of the backbone: all but those of the parts of the network that hold what is new.

    Args:
        module: the network.
        new: names of tensors that were not taken over; not none.

    Raises:
        SpecError: nothing is new, so nothing would be trained; or nothing is left that could be frozen.
    """
    if not new:
        raise SpecError(
            "freeze_backbone trains the new head alone, but this network keeps its own head, which has the data's "
            "classes already: leave freeze_backbone out"
        )
    shared = _shared_prefix(list(module.state_dict()))
    heads = tuple(f"{shared}{name.removeprefix(shared).partition('.')[0]}." for name in new)
    frozen = frozenset(name for name, _ in module.named_parameters() if not name.startswith(heads))
    if not frozen:
        raise SpecError("freeze_backbone: the network is all head, so nothing could be frozen; leave it out")
    return frozen


def _shared_prefix(names: Sequence[str]) -> str:
    """What all names begin with, up to a dot: wrappers around the network."""
    prefix = ""
    while (
        len(parts := {name.removeprefix(prefix).partition(".")[0] for name in names}) == 1
        and f"{prefix}{min(parts)}" not in names
    ):
        prefix += f"{parts.pop()}."
    return prefix
