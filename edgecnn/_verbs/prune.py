"""Take the channels that matter least out of a network."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from edgecnn._verbs._artifact_latency import artifact_named, artifact_timer
from edgecnn._verbs._narrowing import (
    LabelledPictures,
    Narrowing,
    Target,
    check_same_classes,
    multiply_adds,
    parameter_count,
)
from edgecnn._verbs._prune_steps import Tuning, prune_in_steps
from edgecnn._verbs.train import open_pictures
from edgecnn.errors import MissingDependencyError, SpecError, UnknownNameError
from edgecnn.targets import load_target

if TYPE_CHECKING:
    from edgecnn.compression.prune.latency import Measure
    from edgecnn.compression.prune.schedule import PruneStep
    from edgecnn.compression.train.settings import TrainSettings
    from edgecnn.evidence import TwinLatency
    from edgecnn.sources import TrainedModel

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """A network that was made narrower and saved.

    Attributes:
        folder: NAME.model, a MODEL for every other verb; to be trained before it is used, unless that was done.
        macs, parameters: of one frame, and of the network, before and after.
        warnings: what the user should know of what could not be narrowed.
        latency: where it was the target, its figures; see `edgecnn.compression.prune.latency.latency_figures`.
        metric: "top1", "map" or "miou"; "" where nothing was trained.
        unpruned: it, of the unpruned network.
        steps: what was narrowed and trained in turns; none where nothing was trained.
    """

    folder: Path
    macs: tuple[int, int]
    parameters: tuple[int, int]
    warnings: tuple[str, ...]
    latency: dict[str, Any] | None = None
    metric: str = ""
    unpruned: float | None = None
    steps: tuple[PruneStep, ...] = ()


def prune(
    model: str | Path,
    *,
    out: str | Path,
    share: float = 0.5,
    target: Target = "macs",
    of: str | None = None,
    importance: str = "magnitude",
    round_to: int | str = 8,
    keep: tuple[str, ...] = (),
    steps: int = 1,
    data: str | Path | None = None,
    split: str | None = None,
    validate_on: str | Path | None = None,
    ignore_label: str | None = None,
    settings: TrainSettings | None = None,
    distill: bool = True,
    progress: Progress | None = None,
    **model_options: Any,
) -> Pruning:
    """Make a network narrower, and save it as NAME.model.

    Channels go as wholes, in all layers that they touch, so that every runtime is faster for it. It answers worse
    until it is trained again: here, with `settings` or several `steps`, or by `train` with the saved folder. Stopped,
    a pruning with training goes on where it was when it is called again with the same words.

    Args:
        model: as for `load_model`.
        out: a folder NAME.model to write.
        share: of the multiply-adds, parameters, or latency, that may be left; 0 to 1 (exclusive).
        target: what it is a share of; "latency" is measured on this machine, beside the unpruned network's, in turns.
        of: whose latency: "FORMAT", or "FORMAT:fp32" or "FORMAT:fp16"; without it OpenVINO's fp32, or ONNX's or
            TFLite's where that is not installed.
        importance: "magnitude" (of a channel's weights), "batch-norm" (its scale) or "taylor" (what the training
            loss would be without it, to first order, on some of the pictures).
        round_to: narrowed layers get a multiple of so many channels; SIMD units take 8 or 16 at once. Or the name of a
            target (`edgecnn.targets`), which knows its own number.
        keep: layers, or parts of the network, that stay as wide as they are.
        steps: in how many steps, with training after each; each leaves the same share of what the one before left.
        data: labelled pictures, with the network's classes for "taylor" and to train on. Batch norms then get
            statistics with which they write of these pictures what they wrote before, which saves much of what pruning
            breaks.
        split, validate_on, ignore_label: as for `train`.
        settings: how to train after each step; None trains nothing where there is one step, else as `train` does.
        distill: the unpruned network is the teacher.
        progress: called with (steps done, steps in all, what is being done).
        model_options: as for `load_model`.

    Raises:
        SpecError, UnknownNameError: what was asked for cannot be.
        SourceError: a network whose channels cannot be followed.
        DataError, TrainingError: as `train`.
        ConversionError, DeviceError: its latency cannot be measured.
        StorageError: disk full, or not writable.
        MissingDependencyError: a package of the extra [train] is not installed.
    """
    try:
        from edgecnn.compression.prune.channels import PruneSettings
        from edgecnn.compression.prune.schedule import geometric_shares
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("pruning", missing.name or "torch_pruning", extra="train") from missing
    from edgecnn.compression.train.settings import TrainSettings
    from edgecnn.sources import load_model
    from edgecnn.sources.saved import check_out, check_saveable, save

    shares = geometric_shares(share, steps)
    with_training = steps > 1 or settings is not None
    _check_words(target, of, data, importance=importance, with_training=with_training)
    channels = round_to if isinstance(round_to, int) else load_target(round_to).round_channels_to
    how = PruneSettings(importance=importance, round_to=channels, keep=keep)  # type: ignore[arg-type]
    folder = check_out(out)
    artifact = artifact_named(of) if target == "latency" else None
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
            measure = _telling(stack.enter_context(artifact_timer(*artifact)), progress)
        narrowing = Narrowing(
            unpruned=original,
            target=target,
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
        tuning = Tuning(
            data=data,
            split=split,
            validate_on=validate_on,
            ignore_label=ignore_label,
            settings=tuned,
            distill=distill,
        )
        return _in_steps(narrowing, tuning, shares, folder, progress)


def _in_steps(
    narrowing: Narrowing, tuning: Tuning, shares: Sequence[float], folder: Path, progress: Progress | None
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


def _check_words(target: str, of: str | None, data: str | Path | None, *, importance: str, with_training: bool) -> None:
    """Refuse what contradicts itself, before anything is loaded.

    Raises:
        SpecError, UnknownNameError: it does.
    """
    if target not in get_args(Target):
        raise UnknownNameError("target", target, get_args(Target))
    if of is not None and target != "latency":
        raise SpecError(f"--of {of} names the artifact whose latency is the target: give --latency SHARE, too")
    if data is None and importance == "taylor":
        raise SpecError("--importance taylor reads gradients off labelled pictures: give --data")
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
    """The pictures that `train` would learn from: those that it measures on decide nothing here, either."""
    pictures = open_pictures(model, data, validate_on, split=split, head=None, seed=settings.seed)
    return LabelledPictures(dataset=pictures.train, batch=settings.batch, seed=settings.seed)


def _telling(measure: Measure, progress: Progress | None) -> Measure:
    """The same, and says so while it works."""

    def told(narrower: TrainedModel, wider: TrainedModel) -> TwinLatency:
        if progress is not None:
            progress(0, 0, f"timing {narrower.name} beside what it was made of")
        return measure(narrower, wider)

    return told


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
