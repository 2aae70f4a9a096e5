"""Structured pruning: removes the least important channels, and everything in other layers that depends on them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgecnn.errors import SourceError, SpecError, UnknownNameError
from edgecnn.pruning.channel_selection import Selection, macs, parameters
from edgecnn.pruning.couplings import Coupling, Side, find_couplings
from edgecnn.pruning.importance import IMPORTANCES, Importance, scorer, take_gradients
from edgecnn.pruning.layers import all_trainable, evaluated, idle_parts
from edgecnn.pruning.norms import keep_norm_outputs, norm_moments
from edgecnn.pruning.removal import Check, least_important, remove
from edgecnn.sources.model import TrainedModel

Cost = Literal["macs", "parameters"]
Gradients = Callable[[nn.Module], None]


@dataclass(frozen=True, kw_only=True)
class PruneSettings:
    """Which channels are removed first, and which are kept.

    Attributes:
        round_to: narrowed layers keep a multiple of this number of channels; SIMD units process 8 or 16 at once.
        global_ranking: True to compare channels of all layers; otherwise every layer loses the same share.
        largest_ratio: largest share of one layer's channels that may be removed, 0 to 1 (exclusive).
        keep: names of layers, or of parts of the network, whose output channels are all kept.

    Raises:
        UnknownNameError: an unknown importance.
        SpecError: a number out of range.
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
            raise SpecError(f"round_to must be a multiple of at least 1 channel, got {self.round_to}")
        _check_share(self.largest_ratio, "the largest ratio of one layer's channels")


def prune_to_share(
    model: TrainedModel,
    *,
    share: float,
    cost: Cost = "macs",
    settings: PruneSettings | None = None,
    gradients: Gradients | None = None,
    frames: Tensor | None = None,
) -> TrainedModel:
    """A copy with at most this share of the multiply-adds or parameters, as close as rounding allows.

    Layers that compute the network's answer keep their channels, as do layers whose channels are shuffled, split,
    counted or averaged by the network's own code; the latter are found by a check of the answer, for
    which some copies of the network run in float64.

    Args:
        model: not changed. The copy is less accurate until it is trained again.
        share: share of the network's present cost, 0 to 1 (exclusive).
        cost: the kind of cost.
        settings: by default, the default settings.
        gradients: for "taylor": runs the network that it gets (a copy) forward and backward on some labelled batches.
        frames: float32 [batch, 3, height, width], normalised: batch-norm statistics are adapted so that the outputs for
            these frames stay the same; without frames the statistics are unchanged.

    Raises:
        SpecError: a share outside 0 to 1, or one that cannot be reached; "taylor" without gradients.
        UnknownNameError: an unknown cost; an unknown layer to keep.
        SourceError: a network whose channels cannot be traced, or without channels that can be removed.
    """
    _check_share(share, f"the share of {cost}")
    if cost not in get_args(Cost):
        raise UnknownNameError("cost", cost, get_args(Cost))

    def choose(selection: Selection, module: nn.Module, x: Tensor) -> list[int]:
        counted = macs(module, x) if cost == "macs" else parameters(module)
        return selection.by_cost(counted, share * counted.total)

    return _prune(model, settings or PruneSettings(), gradients, choose, frames)


def cost_of(model: TrainedModel, cost: Cost) -> float:
    """Multiply-adds of one frame, or parameters: the cost that `prune_to_share` uses.

    Raises:
        SourceError: the network cannot run.
    """
    if cost == "parameters":
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
        model: not changed.
        ratio: share of all removable channels to remove, before rounding; 0 to 1 (exclusive).
        settings, gradients: as for `prune_to_share`.

    Raises:
        SpecError: a ratio outside 0 to 1, or one so small that rounding removes nothing; "taylor" without gradients.
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
            f"{model.name} has no convolutions or linear layers as modules (it may be an exported program): prune the "
            "network that it was exported from"
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
                f"the channels of {model.name} cannot be traced: {type(failed).__name__}: "
                f"{str(failed).splitlines()[0] if str(failed) else 'no message'}"
            ) from failed
        removal = _chosen(couplings, model.name, settings, lambda selection: choose(selection, module, x))
        fault = check.fault(removal)
        if fault is not None:  # some channels cannot be removed safely: try again without those layers
            couplings = check.sound(couplings)
            if not couplings:
                raise SourceError(f"{model.name} cannot be pruned: with any of its channels removed, {fault}")
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
        f"{', '.join(idle)} of {model.name} did not contribute to its answer and kept their width: "
        "they no longer fit, if training runs them"
    )
    return replace(model, module=module, warnings=(*model.warnings, warning))


def _chosen(
    couplings: Sequence[Coupling], network: str, settings: PruneSettings, choose: Callable[[Selection], list[int]]
) -> dict[Side, list[int]]:
    """The channels to remove.

    Raises:
        SourceError: none can be removed.
        SpecError: none are removed, because the request is too small.
    """
    selection = Selection(couplings, global_ranking=settings.global_ranking, largest_ratio=settings.largest_ratio)
    if selection.is_empty:
        raise SourceError(
            f"{network} has no channels that can be removed: its layers compute the answer, are kept, have no "
            f"importance of this kind ({settings.importance}), or are so narrow that rounding to {settings.round_to} "
            "keeps all of them"
        )
    removal = least_important(couplings, choose(selection))
    if not removal:
        raise SpecError(
            f"rounding to multiples of {settings.round_to} channels keeps all of {network}: request a smaller share, "
            "or a smaller rounding"
        )
    return removal


def _frame(module: nn.Module, model: TrainedModel) -> Tensor:
    """Noise with the network's input size, on the network's device."""
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
        raise SpecError(f"{what} must be between 0 and 1, got {share}")
