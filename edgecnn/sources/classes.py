"""Builds a network for other classes, and keeps its trained weights where they still fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgecnn.errors import SpecError
from edgecnn.sources.model import TrainedModel
from edgecnn.sources.rebuild import build
from edgecnn.sources.shapes import reshape_like


def with_classes(model: TrainedModel, labels: Sequence[str]) -> tuple[TrainedModel, frozenset[str]]:
    """The network for these classes.

    Tensors of the same shape are kept. Of tensors that differ only in the number of classes, the rows of
    classes that both have by name are kept; the rest is random.

    Args:
        model: not changed.
        labels: class names, by class id.

    Returns:
        The network, and the names of its tensors that are new or have new rows; none where the classes are the same.

    Raises:
        SpecError: the network cannot be built for other classes.
    """
    labels = tuple(labels)
    if labels == model.task.labels:
        return model, frozenset()
    cannot = SpecError(
        f"{model.name} cannot be built for other classes: it has {len(model.task.labels)} "
        f"({', '.join(model.task.labels[:3])}, …), the data {len(labels)} ({', '.join(labels[:3])}, …). "
        "Change its factory to build it for the data's classes"
    )
    if model.blueprint is None:
        raise cannot
    try:
        built = build(model.blueprint.with_labels(labels))
    except SpecError as refused:
        raise cannot from refused
    start_with_low_scores(built)
    _narrow(built.module, like=model.module.state_dict(), before=build(model.blueprint).module.state_dict())
    new = _copy_weights(built.module, model.module.state_dict(), model.task.labels, labels)
    return replace(built, frame=model.frame, source=model.source, name=model.name, stages=model.stages), new


def start_with_low_scores(model: TrainedModel) -> None:
    """Let a random detector start with low scores, if it supports that; in place."""
    begin = getattr(model.module, "start_with_low_scores", None)
    if begin is not None:
        begin()


def _rows(old: Sequence[str], labels: Sequence[str]) -> list[tuple[int, int]]:
    """(new id, old id) of the classes that both have."""
    known = {name.casefold(): index for index, name in enumerate(old)}
    return [(index, known[name.casefold()]) for index, name in enumerate(labels) if name.casefold() in known]


@torch.no_grad()
def _narrow(module: nn.Module, *, like: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
    """Narrow a network like a pruned one, except where the other classes change it; in place.

    Args:
        module: the network as built for the new classes.
        like: tensors of the pruned network.
        before: tensors of the network as built for the old classes.
    """
    wide = module.state_dict()
    narrow = {}
    for name, tensor in wide.items():
        sides = zip(tensor.shape, before[name].shape, like[name].shape, strict=True)
        narrow[name] = tensor[tuple(slice(_side(*side)) for side in sides)]
    reshape_like(module, narrow)
    for name, own in module.state_dict().items():
        own.copy_(narrow[name])


def _side(new: int, before: int, pruned: int) -> int:
    return pruned if new == before else new


@torch.no_grad()
def _copy_weights(
    module: nn.Module, tensors: dict[str, Tensor], old: Sequence[str], labels: Sequence[str]
) -> frozenset[str]:
    new, rows = set(), _rows(old, labels)
    for name, own in module.state_dict().items():
        theirs = tensors.get(name)
        if theirs is not None and theirs.shape == own.shape:
            own.copy_(theirs)
            continue
        new.add(name)
        # An SSD's rows are anchors times classes, including the background: those start at random.
        if theirs is not None and theirs.shape == (len(old), *own.shape[1:]) and len(own) == len(labels):
            for index, known in rows:
                own[index] = theirs[known]
    return frozenset(new)
