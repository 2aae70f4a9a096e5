"""Losses between a student's raw answer and its teacher's, by task and head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from edgecnn.errors import SpecError
from edgecnn.sources.model import TrainedModel
from edgecnn.sources.zoo.nanodet import BINS, SIDES
from edgecnn.sources.zoo.yolox import Level
from edgecnn.tasks import Classify
from edgecnn.training.matching import pair_iou

# Raw answers of the student (in training mode) and of the teacher (in evaluation mode) → parts of the loss, by name.
AnswerLoss: TypeAlias = Callable[[Any, Any], dict[str, Tensor]]

_BOX_WEIGHT = 5.0  # as in the loss on labels
_LARGEST_LOG_CELLS = 10.0  # as there: larger than any frame, and well within float32


def answer_loss_of(model: TrainedModel, *, temperature: float) -> AnswerLoss:
    """The loss for a network's task and head; it is 0, without a gradient, for equal answers.

    Args:
        model: the student, a network with a loss in `objective_of`.
        temperature: temperature of the softmaxes.
    """
    if model.decode == "yolox":
        return yolox_answer_loss
    if model.decode == "nanodet":
        return partial(nanodet_answer_loss, temperature=temperature)
    if model.decode == "ssd":
        return partial(ssd_answer_loss, temperature=temperature)
    of_classes = classes_answer_loss if isinstance(model.task, Classify) else map_answer_loss
    return partial(of_classes, temperature=temperature)


def softened_divergence(student: Tensor, teacher: Tensor, *, temperature: float, dim: int) -> Tensor:
    """KL divergence of the student's softened class probabilities from the teacher's, times the temperature squared.

    Source: Hinton, Vinyals & Dean 2015, Distilling the Knowledge in a Neural Network, arXiv:1503.02531, section 2;
    the square keeps the gradient's size at any temperature. Their cross entropy has the same gradient, but is not 0
    for equal answers.

    Args:
        student, teacher: logits, any float type.
        dim: the axis of the classes.

    Returns:
        float32, without that axis.
    """
    log_student, log_teacher = (functional.log_softmax(x.float() / temperature, dim=dim) for x in (student, teacher))
    entropy = functional.kl_div(log_student, log_teacher, reduction="none", log_target=True)
    return entropy.sum(dim=dim) * temperature**2


def classes_answer_loss(student: Any, teacher: Any, *, temperature: float) -> dict[str, Tensor]:
    """`softened_divergence`, averaged over the frames.

    Args:
        student, teacher: logits [batch, classes]; for networks with auxiliary classifiers, the main one's.
    """
    student, teacher = (answer if isinstance(answer, Tensor) else answer[0] for answer in (student, teacher))
    _check_shapes([student], [teacher])
    return {"class": softened_divergence(student, teacher, temperature=temperature, dim=1).mean()}


def map_answer_loss(student: Tensor, teacher: Tensor, *, temperature: float) -> dict[str, Tensor]:
    """`softened_divergence`, averaged over all pixels, including those without a label.

    Args:
        student, teacher: logits [batch, classes, h, w]; where sizes differ, the larger is reduced.
    """
    if student.ndim == teacher.ndim == 4 and student.shape[2:] != teacher.shape[2:]:
        size = [min(sides) for sides in zip(student.shape[2:], teacher.shape[2:], strict=True)]
        student, teacher = (
            functional.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
            for logits in (student, teacher)
        )
    _check_shapes([student], [teacher])
    return {"class": softened_divergence(student, teacher, temperature=temperature, dim=1).mean()}


def yolox_answer_loss(student: Sequence[Level], teacher: Sequence[Level]) -> dict[str, Tensor]:
    """The terms of `YoloxLoss` with the teacher's answer instead of labels: no anchors are assigned.

    Sums over all anchors are divided by the sum of the teacher's objectness (at least 1), which is about the number
    of positive anchors that the loss on labels divides by. An anchor's box and class terms are weighted by the
    teacher's objectness: the teacher has not learned boxes and classes of other anchors.

    Args:
        student, teacher: levels of raw maps, as for `YoloxLoss`; the network gives the same in training
            and in evaluation mode, because its decoding is separate.

    Returns:
        Scalars, float32: "box" (5 (1 - IoU²)), "objectness" and "class" (divergence of the probabilities).
    """
    _check_shapes(_tensors(student), _tensors(teacher))
    (regression, objectness, classes), (their_regression, their_objectness, their_classes) = (
        [torch.cat([_rows(level[part]) for level in answer]) for part in range(3)] for answer in (student, teacher)
    )
    sure = their_objectness[:, 0].sigmoid()
    objects = sure.sum().clamp(min=1)
    apart = 1 - pair_iou(_boxes(regression), _boxes(their_regression)).square()
    confused = _sigmoid_divergence(classes, their_classes).sum(dim=1)
    return {
        "box": _BOX_WEIGHT * (sure * apart).sum() / objects,
        "objectness": _sigmoid_divergence(objectness, their_objectness).sum() / objects,
        "class": (sure * confused).sum() / objects,
    }


def nanodet_answer_loss(
    student: Sequence[tuple[Tensor, Tensor]], teacher: Sequence[tuple[Tensor, Tensor]], *, temperature: float
) -> dict[str, Tensor]:
    """What `NanoDetLoss` asks, asked of the teacher instead of labels: no points need to be assigned.

    Sums over all points are divided by the sum of the teacher's highest class scores (at least 1). Those are also what
    a point's distances count. Source of comparing distributions: Zheng et al. 2022, Localization Distillation,
    arXiv:2102.12252, section 3.2.

    Args:
        student, teacher: levels of raw maps, as `NanoDetLoss` takes them.

    Returns:
        Scalars, float32: "class" (divergence of the probabilities), "distribution" (`softened_divergence` of the
        distances' bins, on average over the sides).
    """
    _check_shapes(_tensors(student), _tensors(teacher))
    (classes, distances), (their_classes, their_distances) = (
        [torch.cat([_rows(level[part]) for level in answer]) for part in range(2)] for answer in (student, teacher)
    )
    sure = their_classes.sigmoid().amax(dim=1)
    objects = sure.sum().clamp(min=1)
    bins, their_bins = (torch.unflatten(rows, 1, (SIDES, BINS)) for rows in (distances, their_distances))
    unlike = softened_divergence(bins, their_bins, temperature=temperature, dim=2).mean(dim=1)
    return {
        "class": _sigmoid_divergence(classes, their_classes).sum() / objects,
        "distribution": (sure * unlike).sum() / objects,
    }


def ssd_answer_loss(
    student: tuple[Tensor, Tensor, Tensor], teacher: tuple[Tensor, Tensor, Tensor], *, temperature: float
) -> dict[str, Tensor]:
    """The terms of `SsdLoss` with the teacher's answer instead of labels, for all anchors.

    Sums are divided by the sum of the teacher's foreground probability (at least 1), about the number of anchors that
    match a box. That probability is also the weight of an anchor's box.

    Args:
        student, teacher: codes [N, A, 4], class logits [N, A, 1 + C] with the background first, anchors [A, 4].

    Returns:
        Scalars, float32: "box" (smooth L1 of the codes), "class" (`softened_divergence`).
    """
    _check_shapes(_tensors([student]), _tensors([teacher]))
    (codes, logits, anchors), (their_codes, their_logits, their_anchors) = student, teacher
    if not torch.allclose(anchors, their_anchors.to(anchors), atol=0.5):  # px
        raise SpecError("the teacher's boxes have other anchors than the student's: use a teacher with the same head")
    sure = 1 - their_logits.float().softmax(dim=-1)[..., 0]
    objects = sure.sum().clamp(min=1)
    box = functional.smooth_l1_loss(codes.float(), their_codes.float(), reduction="none").sum(dim=-1)
    confused = softened_divergence(logits, their_logits, temperature=temperature, dim=-1)
    return {"box": (sure * box).sum() / objects, "class": confused.sum() / objects}


def _sigmoid_divergence(logits: Tensor, wanted: Tensor) -> Tensor:
    """KL divergence of sigmoids: cross entropy minus the teacher's own entropy."""
    probability = wanted.sigmoid()
    cross_entropy, entropy = (
        functional.binary_cross_entropy_with_logits(x, probability, reduction="none") for x in (logits, wanted)
    )
    return cross_entropy - entropy


def _rows(x: Tensor) -> Tensor:
    """[N, C, h, w] to float32 [N × h × w, C]."""
    return x.float().permute(0, 2, 3, 1).flatten(0, 2)


def _boxes(regression: Tensor) -> Tensor:
    """Boxes of rows [n, 4] in cells, relative to each anchor's own corner, which is enough for IoU."""
    half = regression[:, 2:].clamp(max=_LARGEST_LOG_CELLS).exp() / 2
    return torch.cat((regression[:, :2] - half, regression[:, :2] + half), dim=1)


def _tensors(answer: Any) -> list[Any]:
    """The tensors of an answer's levels, in order; other forms are returned as they are."""
    levels = answer if isinstance(answer, list | tuple) else [answer]
    return [part for level in levels for part in (level if isinstance(level, list | tuple) else [level])]


def _check_shapes(student: Sequence[Any], teacher: Sequence[Any]) -> None:
    """Check that answers can be compared.

    Raises:
        SpecError: another number of tensors, or other shapes.
    """
    ours, theirs = ([list(getattr(part, "shape", ())) for part in parts] for parts in (student, teacher))
    if ours != theirs:
        raise SpecError(
            f"the teacher must answer as the student does, {_shapes_text(ours)}; it answers {_shapes_text(theirs)}. "
            "Use a teacher with the same head, classes and frame, or one that gives raw answers in evaluation mode too"
        )


def _shapes_text(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join(map(str, shapes)) or "nothing"
