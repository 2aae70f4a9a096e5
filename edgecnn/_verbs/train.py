"""Fine-tune a network on labelled pictures."""

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

from edgecnn._verbs.evaluate import evaluation_task
from edgecnn.datasets import Dataset, open_dataset
from edgecnn.datasets.base import beginning
from edgecnn.errors import DataError, MissingDependencyError, SpecError, SplitError, StorageError
from edgecnn.measure.accuracy import measure_accuracy

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.compression.train.loop import Fitted
    from edgecnn.compression.train.settings import TrainSettings
    from edgecnn.sources import TrainedModel

Progress = Callable[[int, int, str], None]
_HELD_OUT = 0.1  # of the pictures, where no others are given to measure on
_PICTURES_FOR_RANGES = 64
_TIMES_THE_WEIGHTS = 8  # on the disk: a checkpoint with averages and the optimizer's moments, twice, and the result


@dataclass(frozen=True, kw_only=True)
class Training:
    """A network that was trained and saved.

    Attributes:
        folder: NAME.model, a MODEL for every other verb.
        metric: "top1", "map" or "miou".
        value: of the epoch that was kept, on the pictures to measure on.
        before: of the network before training (rounding, where it is trained for int8); None where its classes are
            others.
        best_epoch, epochs: which epoch was kept, and how many there were.
        stopped_early: because the metric no longer rose.
        train, validation: how many pictures each.
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


def train(
    model: str | TrainedModel | nn.Module,
    *,
    data: str | Path,
    out: str | Path,
    validate_on: str | Path | None = None,
    split: str | None = None,
    head: str | None = None,
    keep_classes: bool = False,
    ignore_label: str | None = None,
    settings: TrainSettings | None = None,
    teacher: str | Path | TrainedModel | None = None,
    teacher_weights: str | Path | None = None,
    progress: Progress | None = None,
    **model_options: Any,
) -> Training:
    """Fine-tune a network for the classes of the data, and save it as NAME.model.

    Where the data's classes are the network's, it goes on with its head; else it gets a new one, which takes over the
    classes that both have by name. Stopped, it goes on where it was when it is called again with the same words.

    Args:
        model: as for `load_model`.
        data: labelled pictures, as `edgecnn.datasets.open_dataset` takes them.
        out: a folder NAME.model to write.
        validate_on: other labelled pictures, which decide what epoch is kept; without it the data's "val", else a
            tenth of the pictures, drawn by the seed, that is not trained on.
        split: of the data to learn from; without it "train", else all.
        head: "ssdlite" or "lraspp" grown on a classifier, which makes it a detector or a segmenter; or, as for
            `load_model`, how the raw maps of the user's own module decode.
        keep_classes: go on with the network's classes where the data has only some of them.
        ignore_label: for segmentation, a class of the data whose pixels don't count in the metric.
        settings: how to train.
        teacher: a network to learn from besides the labels, usually the one before it was pruned; as `load_model`
            takes them. Of the student's task, classes, head and size of frame; in its own normalisation.
        teacher_weights: for a teacher that doesn't bring its own.
        progress: called with (steps done, steps in all, what is being done).
        model_options: as for `load_model` (weights, size, replace_activations, …).

    Raises:
        SpecError: what was asked for cannot be.
        DataError: pictures or labels that cannot be learned from; none is left out silently.
        TrainingError: the loss is no longer a number, or memory ran out.
        StorageError: not enough room on the disk, or not writable.
        MissingDependencyError: a package of the extra [train] is not installed.
    """
    try:
        import lightning  # noqa: F401 - the message names the extra
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("training", "lightning", extra="train") from missing
    from edgecnn.compression.quantize_aware.prepare import without_rounding
    from edgecnn.compression.train.distill import Distiller
    from edgecnn.compression.train.loop import fit
    from edgecnn.compression.train.objective import frozen_names, objective_of
    from edgecnn.compression.train.pictures import TrainingPictures
    from edgecnn.compression.train.settings import TrainSettings
    from edgecnn.sources import load_model
    from edgecnn.sources.heads import HEADS
    from edgecnn.sources.saved import check_out, check_saveable

    if head is not None and head not in HEADS:
        model_options, head = {**model_options, "head": head}, None
    how = settings if settings is not None else TrainSettings()
    folder = check_out(out)
    size = model_options.get("size")
    original = load_model(model, **({**model_options, "size": None} if head else model_options))
    check_saveable(original)
    if keep_classes and head is not None:
        raise SpecError(f"--keep-classes goes on with the network's classes, and --head {head} grows one for others")
    pictures = open_pictures(
        original, data, validate_on, split=split, head=head, keep_classes=keep_classes, seed=how.seed
    )
    network, new = _for_classes(original, pictures.labels, head=head, size=size)
    network = dataclasses.replace(network, ranges={})  # they are of the weights as they were
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
    _save(dataclasses.replace(fitted, model=learned), original, folder, _told(how, teaching), pictures, images)
    shutil.rmtree(work, ignore_errors=True)
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


@dataclass(frozen=True)
class LearningPictures:
    """Pictures to learn from, others to measure on, and the classes of both."""

    train: Dataset
    validation: Dataset
    labels: tuple[str, ...]

    def check(self, progress: Progress | None) -> tuple[str, ...]:
        """Content hashes of all pictures, those to measure on included; see `check_pictures`."""
        from edgecnn.compression.train.check import check_apart, check_pictures

        train, validation = (check_pictures(part, progress) for part in (self.train, self.validation))
        check_apart(train, validation, where=str(self.validation.path))
        return (*train, *validation)


def open_pictures(
    model: TrainedModel,
    data: str | Path,
    validate_on: str | Path | None,
    *,
    split: str | None,
    head: str | None,
    keep_classes: bool = False,
    seed: int,
) -> LearningPictures:
    """Pictures to learn from and to measure on, with the data's own classes (in the network's order, if the same).

    Or with the network's, of which the data has some.
    """
    task = task_with_head(model, head)
    wanted, train = split, None
    if split is None:
        try:
            train, wanted = open_dataset(data, task=task, labels=(), split="train"), "train"
        except SplitError:
            wanted = None
    if train is None:
        train = open_dataset(data, task=task, labels=(), split=wanted)
    labels = train.classes.names
    if head is None and (keep_classes or _same(labels, model.task.labels)):
        labels = model.task.labels
    train = open_dataset(data, task=task, labels=labels, split=wanted)
    if keep_classes:
        _check_known(train, model)
    if validate_on is not None:
        return LearningPictures(train, open_dataset(validate_on, task=task, labels=labels), labels)
    if wanted == "train":
        try:
            return LearningPictures(train, open_dataset(data, task=task, labels=labels, split="val"), labels)
        except SplitError:
            pass
    return LearningPictures(*_held_out(train, seed), labels)


def _check_known(pictures: Dataset, model: TrainedModel) -> None:
    if strange := pictures.classes.unknown_names:
        raise DataError(
            f"{pictures.path} has classes that {model.name} doesn't: {beginning(strange)}. Leave --keep-classes out to "
            "give it the data's classes, or rename them"
        )


def task_with_head(model: TrainedModel, head: str | None) -> str:
    """Name of a network's task, with the head that is to be grown on it."""
    return {"ssdlite": "detect", "lraspp": "segment"}.get(head or "", model.task.name)


def _same(names: Sequence[str], labels: Sequence[str]) -> bool:
    return {name.casefold() for name in names} == {label.casefold() for label in labels}


def _held_out(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    count = max(round(len(dataset) * _HELD_OUT), 1)
    if count >= len(dataset):
        raise DataError(
            f"{dataset.path} has {len(dataset)} picture: training needs at least one, and one to measure on"
        )
    order = np.random.default_rng(seed).permutation(len(dataset)).tolist()
    parts = sorted(order[count:]), sorted(order[:count])
    train, validation = (
        dataclasses.replace(dataset, samples=tuple(dataset.samples[index] for index in part)) for part in parts
    )
    return train, validation


def _for_classes(
    model: TrainedModel, labels: tuple[str, ...], *, head: str | None, size: tuple[int, int] | None
) -> tuple[TrainedModel, frozenset[str]]:
    """The network for the data's classes, and the names of its tensors that start at random."""
    from edgecnn.sources.classes import expect_little, with_classes
    from edgecnn.sources.heads import BODY, grow_head

    if head is None:
        network, new = with_classes(model, labels)
        if model.source.random:
            expect_little(network)
        return network, new
    grown = grow_head(model, head, labels=labels, size=size)
    return grown, frozenset(name for name in grown.module.state_dict() if not name.startswith(BODY))


def _rounding(model: TrainedModel, how: TrainSettings, pictures: Dataset) -> TrainedModel:
    """The network as it is trained: where for int8, one that rounds, from ranges that fit some of the pictures."""
    if how.quantize_for is None:
        return model
    from edgecnn.compression.quantize_aware.prepare import make_quantize_aware
    from edgecnn.frame import FrameFitter

    chosen = np.random.default_rng(how.seed).permutation(len(pictures))[:_PICTURES_FOR_RANGES]
    fitter = FrameFitter(model.frame)
    frames = [fitter(pictures.samples[index].image())[0][0].copy() for index in chosen]
    return make_quantize_aware(model, how.quantize_for, frames)


def _load_teacher(
    teacher: str | Path | TrainedModel | None, weights: str | Path | None, *, student: TrainedModel
) -> TrainedModel | None:
    """The teacher, for frames as large as the student's where words build it."""
    from edgecnn.sources import load_model

    if teacher is None:
        if weights is not None:
            raise SpecError(f"teacher_weights {weights} without a teacher: name the network that they are of")
        return None
    options: dict[str, Any] = {} if weights is None else {"weights": weights}
    if isinstance(teacher, str | Path):
        options["size"] = (student.frame.height_px, student.frame.width_px)
    return load_model(teacher, **options)


def _told(settings: TrainSettings, teacher: TrainedModel | None) -> dict[str, Any]:
    """What the training was told, for the record: settings, and which teacher it had."""
    from edgecnn.sources.digest import weights_digest

    told: dict[str, Any] = msgspec.to_builtins(settings)
    if teacher is None:
        del told["distillation"]
    else:
        told["teacher"] = {"name": teacher.name, "weights_sha256": weights_digest(teacher).hexdigest()}
    return told


def metric_in_torch(model: TrainedModel, dataset: Dataset, ignore_label: str | None) -> float:
    """The task's metric of the torch network itself, fitted and finished as on a device."""
    from edgecnn.converters.deployable import open_reference

    with open_reference(model) as runner:
        runner.task = evaluation_task(runner.task)
        return measure_accuracy(runner, dataset, task=runner.task, ignore_label=ignore_label, resamples=0).value


def _check_room(folder: Path, model: TrainedModel) -> None:
    needed = _TIMES_THE_WEIGHTS * sum(t.numel() * t.element_size() for t in model.module.state_dict().values())
    place = next(parent for parent in folder.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise StorageError(
            f"training {model.name} wants {needed / 1e6:.0f} MB for its checkpoints, and {place} has {free / 1e6:.0f}: "
            "free some space, or give another --out"
        )


def _about(
    model: TrainedModel,
    settings: TrainSettings,
    images: Sequence[str],
    frozen: Sequence[str] | frozenset[str],
    teacher: TrainedModel | None,
) -> str:
    """What must be the same for a checkpoint to go on: network, its start, settings, pictures and the teacher."""
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
    told: dict[str, Any],
    pictures: LearningPictures,
    images: tuple[str, ...],
) -> None:
    from edgecnn.compression.train.curves import as_csv, plot_curves
    from edgecnn.evidence import Stage
    from edgecnn.sources.saved import save

    model = fitted.model
    stage = Stage(
        what="train",
        settings=told,
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
            pass  # a picture is worth having, and no reason to lose a night's work
    save(dataclasses.replace(model, stages=(*original.stages, stage)), folder, more=more)
