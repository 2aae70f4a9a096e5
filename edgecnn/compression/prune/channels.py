"""Structured pruning: the channels that matter least go, with all that belongs to them in other layers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgecnn.compression.prune.couplings import Coupling, Side, find_couplings
from edgecnn.compression.prune.importance import IMPORTANCES, Importance, scorer, take_gradients
from edgecnn.compression.prune.layers import all_trainable, evaluated, idle_parts
from edgecnn.compression.prune.norms import keep_norm_outputs, norm_moments
from edgecnn.compression.prune.removal import Check, least_important, remove
from edgecnn.compression.prune.selection import Selection, macs, parameters
from edgecnn.errors import SourceError, SpecError, UnknownNameError
from edgecnn.sources import TrainedModel

Target = Literal["macs", "parameters"]
Gradients = Callable[[nn.Module], None]


@dataclass(frozen=True, kw_only=True)
class PruneSettings:
    """What goes first, and what stays.

    Attributes:
        importance: "magnitude", "batch-norm" or "taylor"; see `edgecnn.compression.prune.importance.scorer`.
        round_to: layers that are narrowed get a multiple of so many channels; SIMD units take 8 or 16 at once.
        global_ranking: channels of all layers are compared; else every layer loses the same share.
        largest_ratio: of the channels of one layer, the share that may go, 0 to 1 (exclusive).
        keep: names of layers, or of parts of the network, that go on writing as many channels as they do.

    Raises:
        UnknownNameError: another importance.
        SpecError: a number out of its range.
    """

    importance: Importance = "magnitude"
    round_to: int = 8
    global_ranking: bool = True
    largest_ratio: float = 0.9
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.importance not in IMPORTANCES:
            raise UnknownNameError("importance", self.importance, IMPORTANCES)
        if self.round_to < 1:
            raise SpecError(f"channels are rounded to a multiple of at least 1, got {self.round_to}")
        _check_share(self.largest_ratio, "the largest ratio of one layer's channels")


def prune_to_share(
    model: TrainedModel,
    *,
    share: float,
    target: Target = "macs",
    settings: PruneSettings | None = None,
    gradients: Gradients | None = None,
    frames: Tensor | None = None,
) -> TrainedModel:
    """A copy with at most this share of the multiply-adds or parameters, as near to it as the rounding allows.

    Layers that write the network's answer keep their channels, as do layers whose channels are shuffled, split,
    counted or averaged by the network's own code; the latter are found by looking whether the answer survives, for
    which some copies of the network run in float64.

    Args:
        model: is not changed. The copy answers worse until it is trained again.
        share: of what the network costs now, 0 to 1 (exclusive).
        target: what it is a share of.
        settings: the default ones if None.
        gradients: for "taylor": runs the network it is given (a copy) on some labelled batches, and backward.
        frames: float32 [batch, 3, height, width], normalised: batch norms get statistics with which they write of these
            what they wrote before; without frames they keep those that they have.

    Raises:
        SpecError: a share outside of 0 to 1, or one that cannot be reached; "taylor" without gradients.
        UnknownNameError: another target; a layer to keep that is not there.
        SourceError: a network whose channels cannot be followed, or that has none that can go.
    """
    _check_share(share, f"the share of {target}")
    if target not in get_args(Target):
        raise UnknownNameError("target", target, get_args(Target))

    def choose(selection: Selection, module: nn.Module, x: Tensor) -> list[int]:
        cost = macs(module, x) if target == "macs" else parameters(module)
        return selection.by_cost(cost, share * cost.total)

    return _prune(model, settings or PruneSettings(), gradients, choose, frames)


def cost_of(model: TrainedModel, target: Target) -> float:
    """Multiply-adds of one frame, or parameters: what `prune_to_share` takes its share of.

    Raises:
        SourceError: the network cannot run.
    """
    if target == "parameters":
        return parameters(model.module).total
    try:
        with evaluated(model.module):
            return macs(model.module, _frame(model.module, model)).total
    except Exception as failed:
        raise SourceError(
            f"{model.name} cannot take a frame of {model.frame.width_px}x{model.frame.height_px} px: "
            f"{type(failed).__name__}: {str(failed).splitlines()[0] if str(failed) else 'no message'}"
        ) from failed


def prune_by_ratio(
    model: TrainedModel, *, ratio: float, settings: PruneSettings | None = None, gradients: Gradients | None = None
) -> TrainedModel:
    """A copy without the least important channels.

    Args:
        model: is not changed.
        ratio: of all the channels that may go, the share that does, before rounding; 0 to 1 (exclusive).
        settings, gradients: as for `prune_to_share`.

    Raises:
        SpecError: a ratio outside of 0 to 1, or one that rounding makes nothing of; "taylor" without gradients.
        UnknownNameError, SourceError: as `prune_to_share`.
    """
    _check_share(ratio, "the ratio of channels")
    return _prune(model, settings or PruneSettings(), gradients, lambda selection, _, __: selection.by_ratio(ratio))


def _prune(
    model: TrainedModel,
    settings: PruneSettings,
    gradients: Gradients | None,
    choose: Callable[[Selection, nn.Module, Tensor], list[int]],
    frames: Tensor | None = None,
) -> TrainedModel:
    if not any(isinstance(part, _ConvNd | nn.Linear) for part in model.module.modules()):
        raise SourceError(
            f"{model.name} has no convolutions or linear layers as modules (is it an exported program?): prune the "
            "network that it was made from"
        )
    module = copy.deepcopy(model.module)
    kept = _parts_to_keep(module, settings.keep, model.name)
    x = _frame(module, model)
    with all_trainable(module):
        if settings.importance == "taylor":
            take_gradients(module, gradients)
        try:
            score = scorer(settings.importance)
            couplings = find_couplings(module, x, score=score, kept=kept, round_to=settings.round_to)
            check = Check(module, x)
        except Exception as failed:
            raise SourceError(
                f"the channels of {model.name} cannot be followed: {type(failed).__name__}: "
                f"{str(failed).splitlines()[0] if str(failed) else 'no message'}"
            ) from failed
        removal = _chosen(couplings, model.name, settings, lambda selection: choose(selection, module, x))
        fault = check.fault(removal)
        if fault is not None:  # some layers' channels are not what they seem: without those, once more
            couplings = check.sound(couplings)
            if not couplings:
                raise SourceError(f"{model.name} cannot be pruned: whichever of its channels go, {fault}")
            removal = _chosen(couplings, model.name, settings, lambda selection: choose(selection, module, x))
            fault = check.fault(removal)
            if fault is not None:
                raise SourceError(f"{model.name} cannot be pruned: without some of its channels, {fault}")
        idle = idle_parts(module, x)
        before = {} if frames is None else norm_moments(module, frames)
        remove(module, removal)
        if frames is not None and before:
            keep_norm_outputs(module, removal, before, frames)
    if not idle:
        return replace(model, module=module)
    warning = (
        f"{', '.join(idle)} of {model.name} took no part in its answer, so pruning left them as wide as they were: "
        "they fit no longer, should training run them"
    )
    return replace(model, module=module, warnings=(*model.warnings, warning))


def _chosen(
    couplings: Sequence[Coupling], network: str, settings: PruneSettings, choose: Callable[[Selection], list[int]]
) -> dict[Side, list[int]]:
    """The channels that go.

    Raises:
        SourceError: none can go.
        SpecError: none go, so little was asked for.
    """
    selection = Selection(couplings, global_ranking=settings.global_ranking, largest_ratio=settings.largest_ratio)
    if selection.is_empty:
        raise SourceError(
            f"{network} has no channels that can go: its layers answer, are kept, have no importance of this kind "
            f"({settings.importance}), or are so narrow that rounding to {settings.round_to} leaves all of them"
        )
    removal = least_important(couplings, choose(selection))
    if not removal:
        raise SpecError(
            f"rounding to multiples of {settings.round_to} channels leaves all of {network}: ask for more to go, or "
            "for a smaller rounding"
        )
    return removal


def _frame(module: nn.Module, model: TrainedModel) -> Tensor:
    """Noise of the network's size, where the network is."""
    device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
    size = (1, 3, model.frame.height_px, model.frame.width_px)
    return torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)


def _parts_to_keep(module: nn.Module, names: Sequence[str], network: str) -> list[nn.Module]:
    parts = dict(module.named_modules())
    for name in names:
        if name not in parts:
            raise UnknownNameError(f"part of {network}", name, parts)
    return [part for name in names for part in parts[name].modules()]


def _check_share(share: float, what: str) -> None:
    if not 0 < share < 1:
        raise SpecError(f"{what} lies between 0 and 1, got {share}")
