"""Measure the accuracy of a bundle's artifact, or of the torch network, on labelled pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from edgecnn import options
from edgecnn.datasets import logger
from edgecnn.datasets.summary import Look, watched
from edgecnn.flow.evaluation import Evaluation, dataset_for, evaluation_of, open_subject
from edgecnn.measure.accuracy import measure_accuracy
from edgecnn.measure.leakage import (
    refuse_seen_pictures,
    remark_on_learned_pictures,
)
from edgecnn.options import Option
from edgecnn.runners.runner import Runner

if TYPE_CHECKING:
    from typing import Unpack


def evaluate(
    model: options.BundleOrNetwork,
    data: Annotated[str | Path, Option(help="Labelled pictures: a folder or a COCO JSON.", group=options.LABELS)],
    *,
    format: Annotated[options.Format, Option(help="{formats}; or torch, for a network.")] = None,  # noqa: A002
    precision: options.Precision = None,
    device: options.Device = "cpu",
    threads: options.Threads = None,
    ignore_label: Annotated[str | int | None, options.IGNORE_LABEL] = None,
    split: Annotated[
        str | None,
        Option(
            help="The split of the data to measure on.",
            default="test, otherwise val, otherwise all",
            group=options.LABELS,
        ),
    ] = None,
    limit: Annotated[
        int | None, Option(help="At most this many pictures, evenly spaced.", group=options.LABELS)
    ] = None,
    score: Annotated[options.Score, Option(default="0.01")] = None,
    nms_iou: Annotated[options.NmsIou, Option(default="0.65")] = None,
    trusted_keys: options.TrustedKeys = None,
    resamples: int = 200,
    progress: Callable[[int, int], None] | None = None,
    on_start: Callable[[Runner], None] | None = None,
    **model_options: Unpack[options.NetworkOptions],
) -> Evaluation:
    """Measure accuracy on labelled pictures.

    Args:
        model: a bundle, or a network as `load_model` takes it.
        data: labelled pictures, as `edgecnn.datasets.open_dataset` takes them.
        format: for a bundle, a name of `edgecnn.formats`; "torch" for a network, and its default.
        precision: precision to run; default: fp32 if the bundle has it.
        device: as for `open_runner`; for a network, "cpu", "gpu" or "torch:cuda.N".
        threads: threads per inference; default: the cores that this process may use.
        ignore_label: for segmentation, a class of the data (name or id) whose pixels do not count.
        split: split of the data; default: "test", otherwise "val", otherwise all.
        limit: measure on at most this many pictures, evenly spaced.
        score, nms_iou: a detector's thresholds; default: 0.01 and 0.65.
        trusted_keys: as for `open_runner`; that the bundle ran is not remembered.
        resamples: how often the pictures are resampled for the interval.
        progress: called with (done, total) pictures; for an int8 artifact, and for a network that was trained here,
            first through all pictures while they are compared with those of its calibration or training.
        on_start: called with the open runner before the first picture.
        model_options: for a network, as for `load_model` (weights, size, labels, …).

    Raises:
        SpecError: options of a bundle for a network, or the reverse.
        BundleError, SignatureError, DeviceError, MissingDependencyError: see `open_runner`.
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
        trusted_keys=trusted_keys,
        options={**model_options},
    )
    with subject.runner as runner:
        dataset = dataset_for(subject, data, split=split, limit=limit)
        if on_start is not None:
            on_start(runner)
        refuse_seen_pictures(dataset, subject.pictures_seen, progress=progress)
        learned = remark_on_learned_pictures(dataset, subject.learned, progress=progress)
        look = Look(dataset.classes)
        accuracy = measure_accuracy(
            runner,
            watched(dataset, look),
            task=runner.task,
            ignore_label=ignore_label,
            progress=progress,
            resamples=resamples,
        )
        if look.findings:
            logger.warning("%s: %s", dataset.split or dataset.path.name, "; ".join(map(str, look.findings)))
        evaluation = evaluation_of(subject, dataset, accuracy, device=device, ignore_label=ignore_label)
    return evaluation if learned is None else replace(evaluation, remarks=(*evaluation.remarks, learned))
