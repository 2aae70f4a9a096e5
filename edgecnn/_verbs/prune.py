"""Take the channels that matter least out of a network."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgecnn.errors import MissingDependencyError

if TYPE_CHECKING:
    from edgecnn.sources import TrainedModel


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """A network that was made narrower and saved.

    Attributes:
        folder: NAME.model, a MODEL for every other verb; to be trained before it is used.
        macs, parameters: of one frame, and of the network, before and after.
        warnings: what the user should know of what could not be narrowed.
    """

    folder: Path
    macs: tuple[int, int]
    parameters: tuple[int, int]
    warnings: tuple[str, ...]


def prune(
    model: str | Path,
    *,
    out: str | Path,
    share: float = 0.5,
    target: Literal["macs", "parameters"] = "macs",
    importance: str = "magnitude",
    round_to: int = 8,
    keep: tuple[str, ...] = (),
    **model_options: Any,
) -> Pruning:
    """Make a network narrower, and save it as NAME.model.

    Channels go as wholes, in all layers that they touch, so that every runtime is faster for it. It answers worse
    until it is trained again: `train` goes on with the saved folder.

    Args:
        model: as for `load_model`.
        out: a folder NAME.model to write.
        share: of the multiply-adds, or parameters, that may be left; 0 to 1 (exclusive).
        target: what it is a share of.
        importance: "magnitude" (of a channel's weights) or "batch-norm" (its scale).
        round_to: narrowed layers get a multiple of so many channels; SIMD units take 8 or 16 at once.
        keep: layers, or parts of the network, that stay as wide as they are.
        model_options: as for `load_model`.

    Raises:
        SpecError, UnknownNameError: what was asked for cannot be.
        SourceError: a network whose channels cannot be followed.
        StorageError: disk full, or not writable.
        MissingDependencyError: a package of the extra [train] is not installed.
    """
    try:
        from edgecnn.compression.prune.channels import PruneSettings, prune_to_share
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("pruning", missing.name or "torch_pruning", extra="train") from missing
    from edgecnn.evidence import Stage
    from edgecnn.sources import load_model
    from edgecnn.sources.saved import check_out, check_saveable, save

    folder = check_out(out)
    original = load_model(model, **model_options)
    check_saveable(original)
    settings = PruneSettings(importance=importance, round_to=round_to, keep=keep)  # type: ignore[arg-type]
    pruned = prune_to_share(original, share=share, target=target, settings=settings)
    macs, parameters = (_macs(original), _macs(pruned)), (_parameters(original), _parameters(pruned))
    stage = Stage(
        what="prune",
        settings={"share": share, "target": target, **dataclasses.asdict(settings)},
        figures={"macs": macs[1], "macs_before": macs[0], "parameters": parameters[1]},
    )
    save(dataclasses.replace(pruned, stages=(*original.stages, stage)), folder)
    return Pruning(folder=folder, macs=macs, parameters=parameters, warnings=pruned.warnings)


def _macs(model: TrainedModel) -> int:
    from edgecnn.converters.deployable import Deployable, count_macs

    return count_macs(Deployable(model))


def _parameters(model: TrainedModel) -> int:
    return sum(parameter.numel() for parameter in model.module.parameters())
