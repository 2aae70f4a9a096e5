"""Runs a pruning, from settings to a saved network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from edgecnn.errors import MissingDependencyError, SpecError, UnknownNameError
from edgecnn.pruning.artifact_latency import artifact_named, artifact_timer
from edgecnn.pruning.narrowing import (
    Cost,
    LabelledPictures,
    Narrowing,
    check_same_classes,
    multiply_adds,
    parameter_count,
)
from edgecnn.pruning.steps import FineTuning, prune_in_steps
from edgecnn.targets import load_target
from edgecnn.training.learning_pictures import open_pictures

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.bundle.evidence import TwinLatency
    from edgecnn.pruning.latency import Measure
    from edgecnn.pruning.schedule import PruneStep
    from edgecnn.sources.model import TrainedModel
    from edgecnn.training.settings import TrainSettings

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """A network that was narrowed and saved.

    Attributes:
        folder: NAME.model, a MODEL for every other verb; train it before use, unless it was trained here.
        macs, parameters: of one frame, and of the network, before and after.
        warnings: warnings about parts that could not be narrowed.
        latency: its figures where latency was the cost; see `edgecnn.pruning.latency.latency_figures`.
        metric: the task's metric ("top1", "map", "miou", …); "" where nothing was trained.
        unpruned: the unpruned network's metric.
        steps: steps of narrowing and training; none where nothing was trained.
    """

    folder: Path
    macs: tuple[int, int]
    parameters: tuple[int, int]
    warnings: tuple[str, ...]
    latency: dict[str, Any] | None = None
    metric: str = ""
    unpruned: float | None = None
    steps: tuple[PruneStep, ...] = ()


def prune_network(
    model: str | Path | TrainedModel | nn.Module,
    *,
    out: str | Path,
    share: float,
    cost: Cost,
    of: str | None,
    importance: str,
    round_to: int | str,
    keep: Sequence[str],
    steps: int,
    data: str | Path | None,
    split: str | None,
    validate_on: str | Path | None,
    ignore_label: str | None,
    settings: TrainSettings | None,
    distill: bool,
    progress: Progress | None,
    model_options: dict[str, Any],
) -> Pruning:
    """Implementation of the verb `prune`, whose documentation lists arguments and errors."""
    try:
        from edgecnn.pruning.channels import PruneSettings
        from edgecnn.pruning.schedule import geometric_shares
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("pruning", missing.name or "torch_pruning", extra="train") from missing
    from edgecnn.sources.load import load_model
    from edgecnn.sources.saved import check_out, check_saveable, save
    from edgecnn.training.settings import TrainSettings

    shares = geometric_shares(share, steps)
    with_training = steps > 1 or settings is not None
    _check_words(cost, of, data, importance=importance, with_training=with_training)
    channels = round_to if isinstance(round_to, int) else load_target(round_to).round_channels_to
    how = PruneSettings(importance=importance, round_to=channels, keep=tuple(keep))  # type: ignore[arg-type]
    folder = check_out(out)
    artifact = artifact_named(of) if cost == "latency" else None
    original = load_model(model, **model_options)
    check_saveable(original)
    tuned = settings if settings is not None else TrainSettings()
    pictures = None
    if data is not None:
        pictures = _labelled_pictures(original, data, validate_on, split=split, settings=tuned)
        if importance == "taylor":
            check_same_classes(original, pictures.dataset.classes.labels, data)
    with contextlib.ExitStack() as stack:
        measure = None
        if artifact is not None:
            measure = _reporting(stack.enter_context(artifact_timer(*artifact)), progress)
        narrowing = Narrowing(
            unpruned=original,
            cost=cost,
            settings=how,
            pictures=pictures,
            of="" if artifact is None else ":".join(artifact),
            measure=measure,
        )
        if not with_training:
            pruned = narrowing.narrow(original, share=share)
            save(pruned, folder)
            return _pruning(folder, original, pruned, pruned.warnings, latency=pruned.stages[-1].figures.get("latency"))
        assert data is not None
        tuning = FineTuning(
            data=data,
            split=split,
            validate_on=validate_on,
            ignore_label=ignore_label,
            settings=tuned,
            distill=distill,
        )
        return _in_steps(narrowing, tuning, shares, folder, progress)


def _in_steps(
    narrowing: Narrowing, tuning: FineTuning, shares: Sequence[float], folder: Path, progress: Progress | None
) -> Pruning:
    from edgecnn.sources.saved import save

    stepwise, work = prune_in_steps(narrowing, tuning, shares=shares, folder=folder, progress=progress)
    save(stepwise.model, folder, more=stepwise.more)
    work.remove()
    warnings = [*narrowing.unpruned.warnings, *(warning for step in stepwise.steps for warning in step.warnings)]
    return _pruning(
        folder,
        narrowing.unpruned,
        stepwise.model,
        tuple(dict.fromkeys(warnings)),
        latency=next((step.latency for step in reversed(stepwise.steps) if step.latency is not None), None),
        metric=stepwise.metric,
        unpruned=stepwise.unpruned,
        steps=stepwise.steps,
    )


def _check_words(cost: str, of: str | None, data: str | Path | None, *, importance: str, with_training: bool) -> None:
    """Refuse contradictory settings before anything is loaded.

    Raises:
        SpecError, UnknownNameError: they contradict each other.
    """
    if cost not in get_args(Cost):
        raise UnknownNameError("cost", cost, get_args(Cost))
    if of is not None and cost != "latency":
        raise SpecError(f"--of {of} names the artifact whose latency is the cost: give --latency SHARE too")
    if data is None and importance == "taylor":
        raise SpecError("--importance taylor needs labelled pictures for gradients: give --data")
    if data is None and with_training:
        raise SpecError("--steps, --epochs and --settings train the narrower network: give --data to train on")


def _labelled_pictures(
    model: TrainedModel,
    data: str | Path,
    validate_on: str | Path | None,
    *,
    split: str | None,
    settings: TrainSettings,
) -> LabelledPictures:
    """The pictures that `train` would learn from; those that it measures on are not used here either."""
    pictures = open_pictures(model, data, validate_on, split=split, head=None, seed=settings.seed)
    return LabelledPictures(dataset=pictures.train, batch=settings.batch, seed=settings.seed)


def _reporting(measure: Measure, progress: Progress | None) -> Measure:
    """The same function, with progress messages."""

    def timed(narrower: TrainedModel, wider: TrainedModel) -> TwinLatency:
        if progress is not None:
            progress(0, 0, f"timing {narrower.name} and the network that it was made from")
        return measure(narrower, wider)

    return timed


def _pruning(
    folder: Path, original: TrainedModel, pruned: TrainedModel, warnings: tuple[str, ...], **more: Any
) -> Pruning:
    return Pruning(
        folder=folder,
        macs=(multiply_adds(original), multiply_adds(pruned)),
        parameters=(parameter_count(original), parameter_count(pruned)),
        warnings=warnings,
        **more,
    )
