"""Prune a little, train, prune a little more: what each step came to, and where a stopped one goes on."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgecnn._verbs._narrowing import Narrowing, check_same_classes, multiply_adds, parameter_count
from edgecnn._verbs.train import metric_in_torch, open_pictures, train
from edgecnn.errors import MissingDependencyError, SpecError, UnknownNameError

if TYPE_CHECKING:
    from edgecnn.compression.prune.schedule import PruneStep, StepFolder
    from edgecnn.compression.train.settings import TrainSettings
    from edgecnn.sources import TrainedModel

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class Tuning:
    """How a narrower network is trained again.

    Attributes:
        data, split, validate_on, ignore_label, settings: as for `train`.
        distill: whether the unpruned network is its teacher.
    """

    data: str | Path
    split: str | None
    validate_on: str | Path | None
    ignore_label: str | None
    settings: TrainSettings
    distill: bool


@dataclass(frozen=True, kw_only=True)
class Stepwise:
    """A network that was pruned in steps.

    Attributes:
        model: of the last step.
        metric: name of what was measured.
        unpruned: it, of the unpruned network, on the pictures that decide what epochs are kept.
        steps: first one first; those that had nothing to do among them.
        more: files for the result's folder.
    """

    model: TrainedModel
    metric: str
    unpruned: float
    steps: tuple[PruneStep, ...]
    more: dict[str, bytes]


def prune_in_steps(
    narrowing: Narrowing, tuning: Tuning, *, shares: Sequence[float], folder: Path, progress: Progress | None
) -> tuple[Stepwise, StepFolder]:
    """Make a network narrower step by step, and train it after each.

    Args:
        narrowing: how.
        tuning: how it is trained.
        shares: of what the unpruned network costs, falling.
        folder: of the result; not written here.
        progress: called with (steps done, steps in all, what is being done).

    Returns:
        The result, and what is to be removed once that is saved.

    Raises:
        SpecError: the data has other classes, the first step cannot be done, or what lies beside the result is of
            another pruning.
        DataError, TrainingError, StorageError, MissingDependencyError: as `train`.
    """
    from edgecnn.compression.prune.schedule import StepFolder
    from edgecnn.sources import load_model

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
    return Stepwise(model=model, metric=last.metric, unpruned=metric, steps=tuple(steps), more=more), work


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
    """A step's narrower network, saved, or why there is none."""
    from edgecnn.compression.prune.schedule import PruneStep
    from edgecnn.sources.saved import describe, save

    share, folder, is_last = shares[number - 1], work.narrowed(number), number == len(shares)
    figures: dict[str, Any]
    if not folder.exists():
        if narrowing.is_enough(model, share=share, latency_share=latency_share):
            return _left_out(number, share, model, "the step before went as far")
        try:
            narrower = narrowing.narrow(model, share=share, latency_share=latency_share)
        except UnknownNameError:
            raise
        except SpecError as impossible:
            if is_last and first:
                raise
            warnings = (f"{share:.0%} of its {narrowing.target} was not reached: {impossible}",) if is_last else ()
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
    """A step that leaves the network as it is."""
    from edgecnn.compression.prune.schedule import PruneStep

    macs, parameters = multiply_adds(model), parameter_count(model)
    return PruneStep(number=number, share=share, macs=macs, parameters=parameters, skipped=why, warnings=warnings)


def _tuned(
    work: StepFolder,
    tuning: Tuning,
    unpruned: TrainedModel,
    step: PruneStep,
    progress: Progress | None,
    validation: Any,
) -> PruneStep:
    """The step with its network trained."""
    from edgecnn.sources import load_model
    from edgecnn.sources.saved import describe

    narrowed, out = work.narrowed(step.number), work.trained(step.number)
    before: float | None
    if out.exists():  # killed before the step was noted: the hours are not spent again
        before = metric_in_torch(load_model(str(narrowed)), validation, tuning.ignore_label)
    else:
        before = train(
            str(narrowed),
            data=tuning.data,
            out=out,
            validate_on=tuning.validate_on,
            split=tuning.split,
            ignore_label=tuning.ignore_label,
            settings=tuning.settings,
            teacher=unpruned if tuning.distill else None,
            progress=progress,
        ).before
    figures = describe(out).stages[-1].figures
    return msgspec.structs.replace(
        step, metric=figures["metric"], before=before, value=figures["value"], n=figures["n"]
    )


def _words(narrowing: Narrowing, tuning: Tuning, shares: Sequence[float], images: Sequence[str]) -> str:
    """Digest of what must be the same for the steps to go on: network, settings and pictures."""
    from edgecnn.sources.digest import weights_digest

    model = narrowing.unpruned
    told = [
        (model.frame, model.task, model.blueprint),
        (narrowing.target, narrowing.of, list(shares), dataclasses.asdict(narrowing.settings)),
        (tuning.settings, tuning.distill, tuning.ignore_label),
    ]
    digest = weights_digest(model)
    digest.update(msgspec.json.encode(told))
    digest.update("\n".join(images).encode())
    return digest.hexdigest()[:20]


def _within(progress: Progress | None, number: int, steps: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total, what: progress(done, total, f"step {number} of {steps}: {what}")


def _drawn(steps: Sequence[PruneStep], *, macs: int, metric: float) -> dict[str, bytes]:
    from edgecnn.compression.prune.schedule import plot_steps, steps_as_csv

    files = {"pruning.csv": steps_as_csv(steps)}
    with tempfile.TemporaryDirectory() as place:
        plot = Path(place) / "pruning.png"
        try:
            plot_steps(steps, plot, macs=macs, metric=metric)
            files[plot.name] = plot.read_bytes()
        except MissingDependencyError:
            pass  # a picture is worth having, and no reason to lose a night's work
    return files
