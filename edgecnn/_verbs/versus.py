"""Measure two artifacts on the same labelled pictures, and say whether one is worse."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.bundle import Bundle
from edgecnn.flow.evaluation import as_bundle, dataset_for, evaluation_of, open_subject
from edgecnn.flow.versus import Comparison, distinct_names, parse_other, refuse_unlike, versus_other
from edgecnn.measure.accuracy import compare_accuracy
from edgecnn.measure.leakage import refuse_seen_pictures
from edgecnn.runners.runner import Runner
from edgecnn.runners.trusted import Keys

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.sources.model import TrainedModel


def evaluate_versus(
    model: str | Path | Bundle | TrainedModel | nn.Module,
    data: str | Path,
    *,
    versus: str | Path | Bundle,
    format: str | None = None,  # noqa: A002 - the command line's word
    precision: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    ignore_label: str | int | None = None,
    split: str | None = None,
    limit: int | None = None,
    score: float | None = None,
    nms_iou: float | None = None,
    trusted_keys: Keys | None = None,
    resamples: int = 200,
    progress: Callable[[int, int], None] | None = None,
    on_start: Callable[[Runner], None] | None = None,
    **model_options: Any,
) -> Comparison:
    """Measure accuracy and compare it with another artifact's, on the same labelled pictures.

    Args:
        model: a bundle, or a network as `load_model` takes it.
        data: labelled pictures, as `edgecnn.datasets.open_dataset` takes them.
        versus: "FORMAT:PRECISION" of the same bundle, "PATH.edge:FORMAT:PRECISION" of another, or "PATH.edge": its
            artifact with the same format and precision as `model`'s. It runs on the same device.
        on_start: called with each of the two runners before the first picture.
        format, precision, device, threads, ignore_label, split, limit, score, nms_iou, trusted_keys, resamples,
            progress, model_options: as for `evaluate`; both bundles must be signed.

    Raises:
        SpecError: `versus` cannot be read, is a torch network, is the same artifact, or is for another task or other
            classes; or as for `evaluate`.
        BundleError, DeviceError, MissingDependencyError, DataError: as for `evaluate`, for either.
    """
    bundle = as_bundle(model, format=format)
    other_bundle, other_format, other_precision = parse_other(versus, bundle, model)
    shared: dict[str, Any] = {"device": device, "threads": threads, "score": score, "nms_iou": nms_iou}
    keys = trusted_keys if bundle is not None else None  # of a network, the other is the only bundle
    subject = open_subject(
        bundle or model, format=format, precision=precision, trusted_keys=keys, options=model_options, **shared
    )
    with subject.runner as runner:
        if other_format is None and bundle is not None:
            other_format, other_precision = runner.format, runner.precision
        other = open_subject(
            other_bundle,
            format=other_format,
            precision=other_precision,
            trusted_keys=trusted_keys,
            options={},
            **shared,
        )
        with other.runner as other_runner:
            names = distinct_names(subject, other)
            refuse_unlike(subject, other, names)
            dataset = dataset_for(subject, data, split=split, limit=limit)
            if on_start is not None:
                on_start(runner)
                on_start(other_runner)
            refuse_seen_pictures(dataset, {**subject.pictures_seen, **other.pictures_seen}, progress=progress)
            paired = compare_accuracy(
                runner,
                other_runner,
                dataset,
                task=runner.task,
                ignore_label=ignore_label,
                progress=progress,
                resamples=resamples,
            )
            evaluation = evaluation_of(subject, dataset, paired.first, device=device, ignore_label=ignore_label)
            return Comparison(**vars(evaluation), versus=versus_other(other, paired, names))
