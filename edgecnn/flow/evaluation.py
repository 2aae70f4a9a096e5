"""Opens a bundle's artifact or a torch network for evaluation, and describes the result."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.bundle import MANIFEST, Artifact, Bundle
from edgecnn.bundle.evidence import Opened
from edgecnn.bundle.shipped import is_shipped, shipped_bundle
from edgecnn.datasets import Dataset, open_dataset
from edgecnn.errors import SpecError
from edgecnn.formats import REFERENCE, TORCH
from edgecnn.formats.devices import parse_device
from edgecnn.measure.accuracy import Accuracy
from edgecnn.measure.leakage import (
    pictures_learned,
    pictures_seen,
)
from edgecnn.runners.choose import find_fitting
from edgecnn.runners.measured import choose_here
from edgecnn.runners.runner import Runner, open_runner
from edgecnn.runners.trusted import Keys
from edgecnn.sources.table import is_network_path

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.sources.model import TrainedModel


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The accuracy of one artifact on one device.

    Attributes:
        metric: the task's metric ("top1", "map", "miou", …).
        value: in [0, 1].
        low, high: 95 % interval, from resampling the pictures.
        n: number of pictures.
        format, precision: what ran; "torch" for the network itself.
        device: the requested device.
        device_name, runtime: name of the CPU, GPU or NPU, and the package that ran there.
        ran_on: proof of execution.
        task, data, form: the task, the data and its form of labels.
        split: the part of the data; None for all of it.
        data_remarks: problems of the data, in sentences.
        score_threshold, nms_iou: a detector's; None for other tasks.
        ignore_label: the class whose pixels were ignored.
        details: the metric's other figures, and `per_class`.
        left_out: ignored pictures and objects of the data set: reason → how many.
        unknown_classes: classes of the data set that the network doesn't have.
        remarks: remarks about the network for the user.
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
    split: str | None = None
    data_remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Subject:
    """An open artifact or network to measure.

    Attributes:
        runner: with the thresholds that the metric needs; the caller must close it.
        bundle: the artifact's bundle; None for a network.
        remarks: remarks about a network for the user.
        learned: see `edgecnn.measure.leakage.pictures_learned`; for networks only.
    """

    runner: Runner
    bundle: Bundle | None
    remarks: tuple[str, ...] = ()
    learned: Mapping[str, Collection[str]] = field(default_factory=dict)

    @property
    def artifact(self) -> Artifact | None:
        """The artifact; None for a network."""
        return self.runner.artifact

    @property
    def format(self) -> str:
        """The artifact's format; "torch" for a network."""
        return self.runner.format

    @property
    def name(self) -> str:
        """The name in messages: "street.edge tflite int8"."""
        place = "" if self.bundle is None else str(self.bundle.folder)
        return " ".join(filter(None, (place, self.format, self.runner.precision)))

    @property
    def pictures_seen(self) -> dict[str, frozenset[str]]:
        """See `edgecnn.measure.leakage.pictures_seen`."""
        return {} if self.artifact is None else pictures_seen(self.artifact, name=self.name)


def open_subject(
    model: str | Path | Bundle | TrainedModel | nn.Module,
    *,
    format: str | None,  # noqa: A002
    precision: str | None,
    device: str,
    threads: int | None,
    score: float | None,
    nms_iou: float | None,
    trusted_keys: Keys | None,
    options: dict[str, Any],
) -> Subject:
    """Open what is to be measured; arguments and errors are those of `evaluate`."""
    bundle = as_bundle(model, format=format)
    if bundle is None:
        if trusted_keys is not None:
            raise SpecError(f"--trusted-key is for bundles, but {model} is a network: leave it out")
        subject = _open_network(
            model, format=format, precision=precision, device=device, threads=threads, options=options
        )
    else:
        subject = _open_artifact(
            bundle,
            format=format,
            precision=precision,
            device=device,
            threads=threads,
            trusted_keys=trusted_keys,
            options=options,
        )
    try:
        task = subject.runner.task.for_evaluation()
        subject.runner.task = task.with_thresholds(score=score, nms_iou=nms_iou)
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
    """The result, with a description of the data."""
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
        score_threshold=task.thresholds.get("score"),
        nms_iou=task.thresholds.get("nms_iou"),
        ignore_label=ignore_label,
        details=accuracy.details,
        left_out=dict(dataset.left_out),
        unknown_classes=dataset.classes.unknown_names,
        remarks=subject.remarks,
        split=dataset.split,
        data_remarks=dataset.remarks,
    )


def as_bundle(model: object, *, format: str | None = None) -> Bundle | None:  # noqa: A002
    """The bundle that `model` is or names; None for a network.

    A name that ships with edgecnn is both: "default-detector" means its bundle, unless `format` is "torch".

    Raises:
        BundleError: it looks like a bundle and cannot be read as one.
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
    looks_so = not is_network_path(path) and (path.suffix == ".edge" or path.is_dir() or isinstance(model, Path))
    return Bundle.open(path) if looks_so else None


def artifacts_to_measure(
    bundle: Bundle,
    *,
    format: str | None,  # noqa: A002
    precision: str | None,
    device: str = "cpu",
) -> list[Artifact]:
    """The bundle's artifacts of this format and precision that open on this device; all where neither is given."""
    found = find_fitting(bundle, device=device, format=format, precision=precision, here=False)
    return [choice.artifact for choice in found.fitting if choice.precision == choice.artifact.precision]


def _open_artifact(
    bundle: Bundle,
    *,
    format: str | None,  # noqa: A002
    precision: str | None,
    device: str,
    threads: int | None,
    trusted_keys: Keys | None,
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
        raise SpecError(f"{', '.join(given)}: for networks only, but {bundle.folder} is a bundle: leave it out")
    if is_shipped(bundle.folder):  # the most exact artifact, whatever was measured to be faster here
        choice, _ = choose_here(bundle, device=device, format=format, precision=precision, exact=True)
        format, precision = choice.artifact.format, choice.precision  # noqa: A001
    runner = open_runner(
        bundle,
        device=device,
        format=format,
        precision=precision,
        threads=threads,
        trusted_keys=trusted_keys,
        remember_release=False,
    )
    return Subject(runner, bundle)


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
    if not name.executors(REFERENCE):
        raise SpecError(f"a torch network runs on torch's devices (cpu, gpu, torch:cuda), not on {device!r}")
    from edgecnn.converters.deployable.wrapper import open_reference
    from edgecnn.sources.load import load_model

    trained = load_model(model, **options)
    return Subject(
        open_reference(trained, threads=threads, device=device),
        None,
        tuple(trained.warnings),
        pictures_learned(trained.stages),
    )
