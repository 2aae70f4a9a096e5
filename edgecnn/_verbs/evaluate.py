"""Measure how right a bundle's artifact, or the torch network itself, is on labelled pictures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgecnn._devices import parse_device
from edgecnn._shipped import shipped_bundle
from edgecnn.bundle import MANIFEST, Artifact, Bundle
from edgecnn.datasets import Dataset, open_dataset
from edgecnn.errors import SpecError
from edgecnn.evidence import Opened
from edgecnn.measure.accuracy import Accuracy, measure_accuracy
from edgecnn.measure.leakage import (
    pictures_learned,
    pictures_seen,
    refuse_seen_pictures,
    remark_on_learned_pictures,
)
from edgecnn.runners.base import Runner, artifacts_for, choose_artifact, open_runner, with_thresholds
from edgecnn.sources import SAVED_SUFFIX
from edgecnn.tasks import Classify, Detect, InstanceSegment, Task

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.sources import TrainedModel

TORCH = "torch"

# COCO's way: nearly all boxes count, since AP ranks them by score. `run` has stricter ones.
SCORE_THRESHOLD = 0.01
NMS_IOU = 0.65
MAX_DETECTIONS = 300
_TOP_CLASSES = 5


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The accuracy of one artifact on one device.

    Attributes:
        metric: "top1", "map" or "miou".
        value: in [0, 1].
        low, high: 95 % interval, from drawing the pictures again.
        n: pictures.
        format, precision: what ran; "torch" for the network itself.
        device: as it was asked for.
        device_name, runtime: the processor, and the package that ran there.
        ran_on: proof of what ran.
        task, data, form: what was measured on.
        score_threshold, nms_iou: a detector's; None for other tasks.
        ignore_label: the class whose pixels didn't count.
        details: the metric's other figures, and `per_class`.
        left_out: pictures and objects of the data set that didn't count: reason → how many.
        unknown_classes: classes of the data set that the network doesn't have.
        remarks: what the user should know of the network.
    """

    metric: str
    value: float
    low: float
    high: float
    n: int
    format: str
    precision: str
    device: str
    device_name: str
    runtime: str
    task: str
    data: str
    form: str
    score_threshold: float | None
    nms_iou: float | None
    ignore_label: str | int | None
    ran_on: Opened | None = None
    details: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    unknown_classes: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """What is measured, open.

    Attributes:
        runner: with the thresholds that the metric wants; close it.
        bundle, artifact: what it runs; None for a network.
        remarks: what the user should know of a network.
        learned: see `edgecnn.measure.leakage.pictures_learned`; of a network only.
    """

    runner: Runner
    bundle: Bundle | None
    artifact: Artifact | None
    remarks: tuple[str, ...] = ()
    learned: Mapping[str, Collection[str]] = field(default_factory=dict)

    @property
    def format(self) -> str:
        """What runs; "torch" for a network."""
        return TORCH if self.bundle is None else self.runner.format

    @property
    def name(self) -> str:
        """For messages: "street.edge tflite int8"."""
        place = "" if self.bundle is None else str(self.bundle.folder)
        return " ".join(filter(None, (place, self.format, self.runner.precision)))

    @property
    def pictures_seen(self) -> dict[str, frozenset[str]]:
        """See `edgecnn.measure.leakage.pictures_seen`."""
        return {} if self.artifact is None else pictures_seen(self.artifact, name=self.name)


def evaluate(
    model: str | Path | Bundle | TrainedModel | nn.Module,
    data: str | Path,
    *,
    format: str | None = None,  # noqa: A002 - the command line's word
    precision: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    ignore_label: str | int | None = None,
    split: str | None = None,
    limit: int | None = None,
    score: float | None = None,
    nms_iou: float | None = None,
    resamples: int = 200,
    progress: Callable[[int, int], None] | None = None,
    on_start: Callable[[Runner], None] | None = None,
    **model_options: Any,
) -> Evaluation:
    """Measure accuracy on labelled pictures.

    Args:
        model: a bundle, or a network as `load_model` takes it.
        data: labelled pictures, as `edgecnn.datasets.open_dataset` takes them.
        format: "onnx", "openvino" or "tflite" of a bundle; "torch" for a network, and its default.
        precision: what runs; without it fp32 where the bundle has it.
        device: as for `open_runner`; of a network, "cpu", "gpu" or "torch:cuda.N".
        threads: of one inference; without it, the cores that this process may use.
        ignore_label: for segmentation, a class of the data (name or id) whose pixels don't count.
        split: of the data; without it "test", else "val", else all.
        limit: measure on so many pictures at most, evenly spaced.
        score, nms_iou: a detector's thresholds; 0.01 and 0.65 without them.
        resamples: how often the pictures are drawn again for the interval.
        progress: is called with (done, total) pictures; of an int8 artifact, and of a network that was
            trained here, through all pictures a first time while they are compared with those that it was made with.
        on_start: is called with the open runner before the first picture.
        model_options: for a network, as for `load_model` (weights, size, labels, …).

    Raises:
        SpecError: a network with a bundle's words, or the other way round.
        BundleError, DeviceError, MissingDependencyError: see `open_runner`.
        DataError: see `open_dataset`; or the artifact was calibrated or searched on some of the pictures.
    """
    subject = open_subject(
        model,
        format=format,
        precision=precision,
        device=device,
        threads=threads,
        score=score,
        nms_iou=nms_iou,
        options=model_options,
    )
    with subject.runner as runner:
        dataset = dataset_for(subject, data, split=split, limit=limit)
        if on_start is not None:
            on_start(runner)
        refuse_seen_pictures(dataset, subject.pictures_seen, progress=progress)
        learned = remark_on_learned_pictures(dataset, subject.learned, progress=progress)
        accuracy = measure_accuracy(
            runner,
            dataset,
            task=runner.task,
            ignore_label=ignore_label,
            progress=progress,
            resamples=resamples,
        )
        evaluation = evaluation_of(subject, dataset, accuracy, device=device, ignore_label=ignore_label)
    return evaluation if learned is None else replace(evaluation, remarks=(*evaluation.remarks, learned))


def open_subject(
    model: str | Path | Bundle | TrainedModel | nn.Module,
    *,
    format: str | None,  # noqa: A002
    precision: str | None,
    device: str,
    threads: int | None,
    score: float | None,
    nms_iou: float | None,
    options: dict[str, Any],
) -> Subject:
    """Open what is to be measured; arguments and errors are those of `evaluate`."""
    bundle = as_bundle(model, format=format)
    if bundle is None:
        subject = _open_network(
            model, format=format, precision=precision, device=device, threads=threads, options=options
        )
    else:
        subject = _open_artifact(
            bundle, format=format, precision=precision, device=device, threads=threads, options=options
        )
    try:
        subject.runner.task = evaluation_task(subject.runner.task, score=score, nms_iou=nms_iou)
    except SpecError:
        subject.runner.close()
        raise
    return subject


def dataset_for(subject: Subject, data: str | Path, *, split: str | None, limit: int | None) -> Dataset:
    """The labelled pictures for the subject's task; see `evaluate`."""
    task = subject.runner.task
    dataset = open_dataset(data, task=task.name, labels=task.labels, split=split)
    return dataset if limit is None else dataset.limited(limit)


def evaluation_of(
    subject: Subject, dataset: Dataset, accuracy: Accuracy, *, device: str, ignore_label: str | int | None
) -> Evaluation:
    """What was measured, with what it was measured on."""
    runner, task = subject.runner, subject.runner.task
    return Evaluation(
        metric=accuracy.metric,
        value=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        n=accuracy.n,
        format=subject.format,
        precision=runner.precision,
        device=device,
        device_name=runner.backend.opened.device_name,
        runtime=runner.backend.opened.runtime,
        ran_on=runner.backend.opened,
        task=task.name,
        data=str(dataset.path),
        form=dataset.form,
        score_threshold=getattr(task, "score_threshold", None),
        nms_iou=getattr(task, "nms_iou", None),
        ignore_label=ignore_label,
        details=accuracy.details,
        left_out=dict(dataset.left_out),
        unknown_classes=dataset.classes.unknown_names,
        remarks=subject.remarks,
    )


def as_bundle(model: object, *, format: str | None = None) -> Bundle | None:  # noqa: A002
    """The bundle that `model` is or names; None where it is a network.

    What ships with edgecnn is both: "default-detector" is its bundle, unless `format` is "torch".

    Raises:
        BundleError: it looks like a bundle and isn't one that can be read.
    """
    if isinstance(model, Bundle):
        return model
    if not isinstance(model, str | Path):
        return None
    if (shipped := shipped_bundle(model)) is not None:
        return None if format == TORCH else Bundle.open(shipped)
    path = Path(model)
    if path.name == MANIFEST:
        path = path.parent
    network = path.suffix in {".pt2", SAVED_SUFFIX}
    looks_so = not network and (path.suffix == ".edge" or path.is_dir() or isinstance(model, Path))
    return Bundle.open(path) if looks_so else None


def evaluation_task(task: Task, *, score: float | None = None, nms_iou: float | None = None) -> Task:
    """The task with the thresholds that its metric wants: AP ranks all boxes, top 5 needs five classes.

    Raises:
        SpecError: thresholds for a task that has none, or outside 0..1.
    """
    if isinstance(task, Detect | InstanceSegment):
        score = SCORE_THRESHOLD if score is None else score
        nms_iou = NMS_IOU if nms_iou is None else nms_iou
        task = msgspec.structs.replace(task, max_detections=max(MAX_DETECTIONS, task.max_detections))
    if isinstance(task, Classify):
        task = msgspec.structs.replace(task, top=max(_TOP_CLASSES, task.top))
    return with_thresholds(task, score=score, nms_iou=nms_iou)


def artifacts_to_measure(
    bundle: Bundle,
    *,
    format: str | None,  # noqa: A002
    precision: str | None,
    device: str = "cpu",
) -> list[Artifact]:
    """The bundle's artifacts of this format and precision that open on this device, all where neither is given."""
    return [
        artifact
        for artifact in artifacts_for(bundle.manifest, parse_device(device), precision=precision)
        if format in (None, artifact.format) and precision in (None, artifact.precision)
    ]


def _open_artifact(
    bundle: Bundle,
    *,
    format: str | None,  # noqa: A002
    precision: str | None,
    device: str,
    threads: int | None,
    options: dict[str, Any],
) -> Subject:
    if format == TORCH:
        source = bundle.manifest.source
        weights = f" --weights {source.weights}" if source.weights else ""
        raise SpecError(
            f"{bundle.folder} holds no torch network; to measure it, give the network instead: "
            f"edgecnn eval {source.model}{weights} --data DATA"
        )
    given = sorted(name for name, value in options.items() if value not in (None, False))
    if given:
        raise SpecError(f"{', '.join(given)}: said of a network, but {bundle.folder} is a bundle, which is fixed")
    runner = open_runner(bundle, device=device, format=format, precision=precision, threads=threads)
    artifact, _ = choose_artifact(bundle, device=parse_device(device), format=format, precision=precision)
    return Subject(runner, bundle, artifact)


def _open_network(
    model: Any,
    *,
    format: str | None,  # noqa: A002
    precision: str | None,
    device: str,
    threads: int | None,
    options: dict[str, Any],
) -> Subject:
    if format not in (None, TORCH):
        raise SpecError(
            f"{model} is a network, not a bundle, so it has no {format} artifact: "
            f"edgecnn convert {model} --to {format} --out NAME.edge, then eval NAME.edge"
        )
    if precision not in (None, "fp32"):
        raise SpecError(f"a torch network is measured in fp32, not in {precision}: convert it first")
    name = parse_device(device)
    if not name.executors(TORCH):
        raise SpecError(f"a torch network runs on torch's devices (cpu, gpu, torch:cuda), not on {device!r}")
    from edgecnn.converters.deployable import open_reference
    from edgecnn.sources import load_model

    trained = load_model(model, **options)
    return Subject(
        open_reference(trained, threads=threads, device=device),
        None,
        None,
        tuple(trained.warnings),
        pictures_learned(trained.stages),
    )
