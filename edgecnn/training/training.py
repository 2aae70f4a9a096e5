"""Runs a training, from settings to a saved network."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgecnn.datasets import Dataset
from edgecnn.errors import MissingDependencyError, SpecError, StorageError
from edgecnn.measure.accuracy import measure_accuracy
from edgecnn.results import UInt8Array
from edgecnn.training.learning_pictures import LearningPictures, open_pictures

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.sources.model import TrainedModel
    from edgecnn.training.loop import Fitted
    from edgecnn.training.settings import TrainSettings

Progress = Callable[[int, int, str], None]
_PICTURES_FOR_RANGES = 64
_TIMES_THE_WEIGHTS = 8  # disk space: two checkpoints with averages and the optimizer's moments, and the result


@dataclass(frozen=True, kw_only=True)
class Training:
    """A network that was trained and saved.

    Attributes:
        folder: NAME.model, a MODEL for every other verb.
        metric: the task's metric ("top1", "map", "miou", …).
        value: metric of the epoch that was kept, on the validation pictures.
        before: metric of the network before training (with rounding, where it is trained for int8); None where its
            classes differ.
        best_epoch, epochs: the epoch that was kept, and the number of epochs.
        stopped_early: whether it ended because the metric no longer improved.
        train, validation: numbers of pictures.
        new_layers: names of the tensors that started at random.
        history: a row for each epoch.
    """

    folder: Path
    metric: str
    value: float
    before: float | None
    best_epoch: int
    epochs: int
    stopped_early: bool
    train: int
    validation: int
    new_layers: tuple[str, ...]
    history: Sequence[dict[str, float]]


def train_network(
    model: str | Path | TrainedModel | nn.Module,
    *,
    data: str | Path,
    out: str | Path,
    validate_on: str | Path | None,
    split: str | None,
    head: str | None,
    keep_classes: bool,
    ignore_label: str | None,
    settings: TrainSettings | None,
    teacher: str | Path | TrainedModel | None,
    teacher_weights: str | Path | None,
    progress: Progress | None,
    model_options: dict[str, Any],
) -> Training:
    """Implementation of the verb `train`, whose documentation lists arguments and errors."""
    try:
        import lightning  # noqa: F401 - the message names the extra
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("training", "lightning", extra="train") from missing
    from edgecnn.sources.saved import check_out
    from edgecnn.training.distill import Distiller
    from edgecnn.training.examples import TrainingPictures
    from edgecnn.training.loop import fit
    from edgecnn.training.objective import frozen_names, objective_of
    from edgecnn.training.quantize_aware.prepare import without_rounding
    from edgecnn.training.settings import TrainSettings

    how = settings if settings is not None else TrainSettings()
    folder = check_out(out)
    original, pictures, network, new = _opened(
        model,
        data,
        validate_on,
        split=split,
        head=head,
        keep_classes=keep_classes,
        seed=how.seed,
        options=model_options,
    )
    objective = objective_of(network)
    teaching = _load_teacher(teacher, teacher_weights, student=network)
    distiller = None if teaching is None else Distiller(teaching, network, how.distillation)
    images = pictures.check(progress)
    student = _rounding(network, how, pictures.train)
    _check_room(folder, network)
    frozen = frozen_names(network.module, new) if how.freeze_backbone else ()
    last_mosaic = how.epochs - max(round(how.epochs / 10), 1)

    def evaluate(candidate: TrainedModel) -> float:
        return metric_in_torch(candidate, pictures.validation, ignore_label)

    before = None if new else evaluate(student)
    work = folder.parent / f".{folder.name}.training"
    work.mkdir(parents=True, exist_ok=True)
    fitted = fit(
        student,
        TrainingPictures(pictures.train, network.frame, how.augmentation, seed=how.seed, mosaic_until=last_mosaic),
        objective,
        how,
        evaluate=evaluate,
        distiller=distiller,
        frozen=frozen,
        checkpoint=work / "last.ckpt",
        about=_about(network, how, images, frozen, teaching),
        progress=progress,
    )
    learned = without_rounding(fitted.model, network) if how.quantize_for else fitted.model
    _save(dataclasses.replace(fitted, model=learned), original, folder, _record(how, teaching), pictures, images)
    shutil.rmtree(work, ignore_errors=True)
    return _training(folder, network, new, pictures, fitted, before)


def _opened(
    model: str | Path | TrainedModel | nn.Module,
    data: str | Path,
    validate_on: str | Path | None,
    *,
    split: str | None,
    head: str | None,
    keep_classes: bool,
    seed: int,
    options: dict[str, Any],
) -> tuple[TrainedModel, LearningPictures, TrainedModel, frozenset[str]]:
    """The network, the pictures, the network for their classes, and the names of its tensors that start at random."""
    from edgecnn.sources.grow import HEADS
    from edgecnn.sources.load import load_model
    from edgecnn.sources.saved import check_saveable

    if head is not None and head not in HEADS:
        options, head = {**options, "head": head}, None
    original = load_model(model, **({**options, "size": None} if head else options))
    check_saveable(original)
    if keep_classes and head is not None:
        raise SpecError(f"--keep-classes keeps the network's classes, but --head {head} adds one for others")
    pictures = open_pictures(original, data, validate_on, split=split, head=head, keep_classes=keep_classes, seed=seed)
    network, new = _for_classes(original, pictures.labels, head=head, size=options.get("size"))
    return original, pictures, dataclasses.replace(network, ranges={}), new  # ranges belong to the old weights


def _training(
    folder: Path,
    network: TrainedModel,
    new: frozenset[str],
    pictures: LearningPictures,
    fitted: Fitted,
    before: float | None,
) -> Training:
    return Training(
        folder=folder,
        metric=network.task.metric,
        value=fitted.best_metric,
        before=before,
        best_epoch=fitted.best_epoch,
        epochs=len(fitted.history),
        stopped_early=fitted.stopped_early,
        train=len(pictures.train),
        validation=len(pictures.validation),
        new_layers=tuple(sorted(new)),
        history=fitted.history,
    )


def _for_classes(
    model: TrainedModel, labels: tuple[str, ...], *, head: str | None, size: tuple[int, int] | None
) -> tuple[TrainedModel, frozenset[str]]:
    """The network for the data's classes, and the names of its tensors that start at random."""
    from edgecnn.sources.classes import start_with_low_scores, with_classes
    from edgecnn.sources.grow import BODY, grow_head

    if head is None:
        network, new = with_classes(model, labels)
        if model.is_random:
            start_with_low_scores(network)
        return network, new
    grown = grow_head(model, head, labels=labels, size=size)
    return grown, frozenset(name for name in grown.module.state_dict() if not name.startswith(BODY))


def _with_statistics(model: TrainedModel, how: TrainSettings, pictures: Dataset) -> TrainedModel:
    """The network as it is, but for norms that do nothing, because its weights came with them in the convolutions."""
    from edgecnn.training.folded_norms import has_folded_norms, with_unfolded_norms

    return with_unfolded_norms(model, _frames(model, how, pictures)) if has_folded_norms(model.module) else model


def _rounding(model: TrainedModel, how: TrainSettings, pictures: Dataset) -> TrainedModel:
    """The network to train: for int8, one that rounds, with ranges fitted to some of the pictures."""
    model = _with_statistics(model, how, pictures)
    if how.quantize_for is None:
        return model
    from edgecnn.training.quantize_aware.prepare import make_quantize_aware

    return make_quantize_aware(model, how.quantize_for, _frames(model, how, pictures))


def _frames(model: TrainedModel, how: TrainSettings, pictures: Dataset) -> list[UInt8Array]:
    """Some pictures as the network will see them, uint8 [height, width, 3] BGR."""
    from edgecnn.frame import FrameFitter

    chosen = np.random.default_rng(how.seed).permutation(len(pictures))[:_PICTURES_FOR_RANGES]
    fitter = FrameFitter(model.frame)
    return [fitter(pictures.samples[index].image())[0][0].copy() for index in chosen]


def _load_teacher(
    teacher: str | Path | TrainedModel | None, weights: str | Path | None, *, student: TrainedModel
) -> TrainedModel | None:
    """The teacher, with frames of the student's size where it is built from options."""
    from edgecnn.sources.load import load_model

    if teacher is None:
        if weights is not None:
            raise SpecError(f"teacher_weights {weights} without a teacher: give --teacher too")
        return None
    options: dict[str, Any] = {} if weights is None else {"weights": weights}
    if isinstance(teacher, str | Path):
        options["size"] = (student.frame.height_px, student.frame.width_px)
    return load_model(teacher, **options)


def _record(settings: TrainSettings, teacher: TrainedModel | None) -> dict[str, Any]:
    """The settings for the record, including the teacher."""
    from edgecnn.sources.digest import weights_digest

    record: dict[str, Any] = msgspec.to_builtins(settings)
    if teacher is None:
        del record["distillation"]
    else:
        record["teacher"] = {"name": teacher.name, "weights_sha256": weights_digest(teacher).hexdigest()}
    return record


def metric_in_torch(model: TrainedModel, dataset: Dataset, ignore_label: str | None) -> float:
    """The task's metric of the torch network itself, with the same fitting and post-processing as on a device."""
    from edgecnn.converters.deployable.wrapper import open_reference

    with open_reference(model) as runner:
        runner.task = runner.task.for_evaluation()
        return measure_accuracy(runner, dataset, task=runner.task, ignore_label=ignore_label, resamples=0).value


def _check_room(folder: Path, model: TrainedModel) -> None:
    needed = _TIMES_THE_WEIGHTS * sum(t.numel() * t.element_size() for t in model.module.state_dict().values())
    place = next(parent for parent in folder.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise StorageError(
            f"training {model.name} needs {needed / 1e6:.0f} MB for its checkpoints, but {place} has {free / 1e6:.0f}: "
            "free some space, or give another --out"
        )


def _about(
    model: TrainedModel,
    settings: TrainSettings,
    images: Sequence[str],
    frozen: Sequence[str] | frozenset[str],
    teacher: TrainedModel | None,
) -> str:
    """Identity of a run, which must be unchanged to continue: network, its start, settings, pictures and teacher."""
    from edgecnn.sources.digest import weights_digest

    digest = weights_digest(model)
    digest.update(msgspec.json.encode([settings, model.frame, model.task, model.blueprint, sorted(frozen)]))
    digest.update("\n".join(images).encode())
    if teacher is not None:
        digest.update(weights_digest(teacher).digest())
        digest.update(msgspec.json.encode([teacher.frame, teacher.blueprint]))
    return digest.hexdigest()[:20]


def _save(
    fitted: Fitted,
    original: TrainedModel,
    folder: Path,
    record: dict[str, Any],
    pictures: LearningPictures,
    images: tuple[str, ...],
) -> None:
    from edgecnn.bundle.evidence import Stage
    from edgecnn.sources.saved import save
    from edgecnn.training.curves import as_csv, plot_curves

    model = fitted.model
    stage = Stage(
        what="train",
        settings=record,
        figures={
            "metric": model.task.metric,
            "value": fitted.best_metric,
            "n": len(pictures.validation),
            "best_epoch": fitted.best_epoch,
            "epochs": len(fitted.history),
        },
        images=images,
    )
    more = {"training.csv": as_csv(fitted.history)}
    with tempfile.TemporaryDirectory() as place:
        try:
            plot = Path(place) / "training.png"
            plot_curves(fitted.history, plot, metric=model.task.metric, best_epoch=fitted.best_epoch)
            more[plot.name] = plot.read_bytes()
        except MissingDependencyError:
            pass  # a plot is useful, but its failure must not lose a night's work
    save(dataclasses.replace(model, stages=(*original.stages, stage)), folder, more=more)
