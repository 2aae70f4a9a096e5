"""A network for other classes: what it has learned is kept, where that has a place in the new one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgecnn.errors import SpecError
from edgecnn.sources import TrainedModel
from edgecnn.sources.shapes import reshape_like


def with_classes(model: TrainedModel, labels: Sequence[str]) -> tuple[TrainedModel, frozenset[str]]:
    """The network for these classes.

    Tensors of the same shape are taken over. Of those that differ in the number of classes alone, so are the rows of
    classes that both have by name; what remains is random.

    Args:
        model: is not changed.
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
        "Have its factory make it for the data's"
    )
    if model.blueprint is None:
        raise cannot
    try:
        built = model.blueprint.with_labels(labels).build()
    except SpecError as refused:
        raise cannot from refused
    expect_little(built)
    _narrow(built.module, like=model.module.state_dict(), before=model.blueprint.build().module.state_dict())
    new = _take_over(built.module, model.module.state_dict(), model.task.labels, labels)
    return replace(built, frame=model.frame, source=model.source, name=model.name, stages=model.stages), new


def expect_little(model: TrainedModel) -> None:
    """Let a random detector start with low scores, where it knows how; in place."""
    begin = getattr(model.module, "expect_little", None)
    if begin is not None:
        begin()


def _rows(old: Sequence[str], labels: Sequence[str]) -> list[tuple[int, int]]:
    """(new id, old id) of the classes that both have."""
    known = {name.casefold(): index for index, name in enumerate(old)}
    return [(index, known[name.casefold()]) for index, name in enumerate(labels) if name.casefold() in known]


@torch.no_grad()
def _narrow(module: nn.Module, *, like: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
    """Make a network as narrow as a pruned one, but for what other classes changed; in place.

    Args:
        module: as it is built, for the new classes.
        like: tensors of the pruned one.
        before: of one as it is built, for the old classes.
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
def _take_over(
    module: nn.Module, tensors: dict[str, Tensor], old: Sequence[str], labels: Sequence[str]
) -> frozenset[str]:
    new, rows = set(), _rows(old, labels)
    for name, own in module.state_dict().items():
        theirs = tensors.get(name)
        if theirs is not None and theirs.shape == own.shape:
            own.copy_(theirs)
            continue
        new.add(name)
        # An SSD's rows are anchors times classes, the background among them: those start anew.
        if theirs is not None and theirs.shape == (len(old), *own.shape[1:]) and len(own) == len(labels):
            for index, known in rows:
                own[index] = theirs[known]
    return frozenset(new)
