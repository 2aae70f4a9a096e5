"""Prunes and trains in steps: the result of each, and continuing a stopped run."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgecnn.errors import MissingDependencyError, SpecError, UnknownNameError
from edgecnn.pruning.narrowing import Narrowing, check_same_classes, multiply_adds, parameter_count
from edgecnn.training.learning_pictures import open_pictures
from edgecnn.training.training import metric_in_torch, train_network

if TYPE_CHECKING:
    from edgecnn.pruning.schedule import PruneStep, StepFolder
    from edgecnn.sources.model import TrainedModel
    from edgecnn.training.settings import TrainSettings

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """How a narrower network is trained again.

    Attributes:
        data, split, validate_on, ignore_label, settings: as for `train`.
        distill: whether the unpruned network is the teacher.
    """

    data: str | Path
    split: str | None
    validate_on: str | Path | None
    ignore_label: str | None
    settings: TrainSettings
    distill: bool


@dataclass(frozen=True, kw_only=True)
class SteppedPruning:
    """A network that was pruned in steps.

    Attributes:
        model: the network of the last step.
        metric: the metric's name.
        unpruned: the unpruned network's metric, on the pictures that decide which epochs are kept.
        steps: all steps in order, including skipped ones.
        more: files for the result's folder.
    """

    model: TrainedModel
    metric: str
    unpruned: float
    steps: tuple[PruneStep, ...]
    more: dict[str, bytes]


def prune_in_steps(
    narrowing: Narrowing, tuning: FineTuning, *, shares: Sequence[float], folder: Path, progress: Progress | None
) -> tuple[SteppedPruning, StepFolder]:
    """Narrow a network step by step, and train it after each.

    Args:
        narrowing: how it is narrowed.
        tuning: how it is trained.
        shares: shares of the unpruned network's cost, decreasing.
        folder: the result's folder; not written here.
        progress: called with (steps done, steps in all, name of the step).

    Returns:
        The result, and the folder to remove once the result is saved.

    Raises:
        SpecError: the data has other classes, the first step cannot be done, or the folder next to the result belongs
            to another pruning.
        DataError, TrainingError, StorageError, MissingDependencyError: as `train`.
    """
    from edgecnn.pruning.schedule import StepFolder
    from edgecnn.sources.load import load_model

    unpruned, how = narrowing.unpruned, tuning.settings
    pictures = open_pictures(unpruned, tuning.data, tuning.validate_on, split=tuning.split, head=None, seed=how.seed)
    check_same_classes(unpruned, pictures.labels, tuning.data)
    images = pictures.check(progress)
    work = StepFolder(folder, about=_words(narrowing, tuning, shares, images))
    metric = work.remember("unpruned", lambda: metric_in_torch(unpruned, pictures.validation, tuning.ignore_label))
    steps = work.finished()
    while len(steps) < len(shares):
        number = len(steps) + 1
        done = [step for step in steps if not step.skipped]
        model = load_model(str(work.trained(done[-1].number))) if done else unpruned
        latency_share = 1.0
        if done and done[-1].latency is not None:
            latency_share = 1 / done[-1].latency["ratio"]
        step = _narrowed(work, narrowing, model, number, shares, latency_share, first=not done)
        if not step.skipped:
            step = _tuned(work, tuning, unpruned, step, _within(progress, number, len(shares)), pictures.validation)
        work.finish(step)
        steps.append(step)
    last = [step for step in steps if not step.skipped][-1]
    model = load_model(str(work.trained(last.number)))
    more = _drawn(steps, macs=multiply_adds(unpruned), metric=metric)
    return SteppedPruning(model=model, metric=last.metric, unpruned=metric, steps=tuple(steps), more=more), work


def _narrowed(
    work: StepFolder,
    narrowing: Narrowing,
    model: TrainedModel,
    number: int,
    shares: Sequence[float],
    latency_share: float,
    *,
    first: bool,
) -> PruneStep:
    """A step's narrower network, saved; or a skipped step."""
    from edgecnn.pruning.schedule import PruneStep
    from edgecnn.sources.saved import describe, save

    share, folder, is_last = shares[number - 1], work.narrowed(number), number == len(shares)
    figures: dict[str, Any]
    if not folder.exists():
        if narrowing.is_enough(model, share=share, latency_share=latency_share):
            return _left_out(number, share, model, "the step before already reached this share")
        try:
            narrower = narrowing.narrow(model, share=share, latency_share=latency_share)
        except UnknownNameError:
            raise
        except SpecError as impossible:
            if is_last and first:
                raise
            warnings = (f"{share:.0%} of its {narrowing.cost} was not reached: {impossible}",) if is_last else ()
            return _left_out(number, share, model, str(impossible), warnings=warnings)
        new = tuple(warning for warning in narrower.warnings if warning not in model.warnings)
        *before, stage = narrower.stages
        stage = msgspec.structs.replace(stage, figures={**stage.figures, "warnings": new})
        save(dataclasses.replace(narrower, stages=(*before, stage)), folder)
    figures = describe(folder).stages[-1].figures
    return PruneStep(
        number=number,
        share=share,
        macs=figures["macs"],
        parameters=figures["parameters"],
        latency=figures.get("latency"),
        warnings=tuple(figures["warnings"]),
    )


def _left_out(number: int, share: float, model: TrainedModel, why: str, *, warnings: tuple[str, ...] = ()) -> PruneStep:
    """A skipped step, which leaves the network unchanged."""
    from edgecnn.pruning.schedule import PruneStep

    macs, parameters = multiply_adds(model), parameter_count(model)
    return PruneStep(number=number, share=share, macs=macs, parameters=parameters, skipped=why, warnings=warnings)


def _tuned(
    work: StepFolder,
    tuning: FineTuning,
    unpruned: TrainedModel,
    step: PruneStep,
    progress: Progress | None,
    validation: Any,
) -> PruneStep:
    """The step with its trained network."""
    from edgecnn.sources.load import load_model
    from edgecnn.sources.saved import describe

    narrowed, out = work.narrowed(step.number), work.trained(step.number)
    before: float | None
    if out.exists():  # killed before the step was recorded: the training is not repeated
        before = metric_in_torch(load_model(str(narrowed)), validation, tuning.ignore_label)
    else:
        before = train_network(
            str(narrowed),
            data=tuning.data,
            out=out,
            validate_on=tuning.validate_on,
            split=tuning.split,
            head=None,
            keep_classes=False,
            ignore_label=tuning.ignore_label,
            settings=tuning.settings,
            teacher=unpruned if tuning.distill else None,
            teacher_weights=None,
            progress=progress,
            model_options={},
        ).before
    figures = describe(out).stages[-1].figures
    return msgspec.structs.replace(
        step, metric=figures["metric"], before=before, value=figures["value"], n=figures["n"]
    )


def _words(narrowing: Narrowing, tuning: FineTuning, shares: Sequence[float], images: Sequence[str]) -> str:
    """Digest of network, settings and pictures, which must be unchanged for the steps to continue."""
    from edgecnn.sources.digest import weights_digest

    model = narrowing.unpruned
    identity = [
        (model.frame, model.task, model.blueprint),
        (narrowing.cost, narrowing.of, list(shares), dataclasses.asdict(narrowing.settings)),
        (tuning.settings, tuning.distill, tuning.ignore_label),
    ]
    digest = weights_digest(model)
    digest.update(msgspec.json.encode(identity))
    digest.update("\n".join(images).encode())
    return digest.hexdigest()[:20]


def _within(progress: Progress | None, number: int, steps: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, what: progress(done, total, f"step {number} of {steps}: {what}")


def _drawn(steps: Sequence[PruneStep], *, macs: int, metric: float) -> dict[str, bytes]:
    from edgecnn.pruning.schedule import plot_steps, steps_as_csv

    files = {"pruning.csv": steps_as_csv(steps)}
    with tempfile.TemporaryDirectory() as place:
        plot = Path(place) / "pruning.png"
        try:
            plot_steps(steps, plot, macs=macs, metric=metric)
            files[plot.name] = plot.read_bytes()
        except MissingDependencyError:
            pass  # a plot is useful, but its failure must not lose a night's work
    return files
