"""Measure two artifacts on the same labelled pictures, and say whether one is worse."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn._verbs.evaluate import (
    TORCH,
    Evaluation,
    Subject,
    as_bundle,
    dataset_for,
    evaluation_of,
    open_subject,
)
from edgecnn.bundle import Bundle
from edgecnn.errors import SpecError
from edgecnn.measure.accuracy import PairedAccuracy, compare_accuracy
from edgecnn.measure.leakage import refuse_seen_pictures
from edgecnn.runners.base import Runner

if TYPE_CHECKING:
    from torch import nn

    from edgecnn.sources import TrainedModel

# Of a mean over n pictures, a resampled 95 % interval holds the truth in 90 % of the cases for n = 10 and in 93 % for
# n = 20 (1.96 * sqrt((n - 1) / n) standard errors, where Student's t wants 2.26 and 2.09); of one picture it has no
# width at all.
_FEWEST_PICTURES = 20
_ROUNDING = 1e-6  # of a metric: less comes from boxes whose scores tie but for the last digit

_ARTIFACT = re.compile(r"(?:(?P<path>.+):)?(?P<format>[\w-]+):(?P<precision>[\w-]+)")


@dataclass(frozen=True, kw_only=True)
class Versus:
    """The other artifact, and how far the first one's metric lies from its.

    Attributes:
        format, precision, bundle: of the other artifact.
        value, low, high: its metric, with a 95 % interval.
        difference: the first one's metric − the other's.
        difference_low, difference_high: 95 % interval of the difference, from drawing the same pictures for both.
        agreement: share of pictures with the same best class, or of equal pixels; None for detectors.
        verdict: a sentence.
    """

    format: str
    precision: str
    bundle: str
    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    agreement: float | None
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Comparison(Evaluation):
    """The accuracy of one artifact, beside another's on the same pictures.

    Attributes:
        versus: the other.
    """

    versus: Versus


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
    resamples: int = 200,
    progress: Callable[[int, int], None] | None = None,
    on_start: Callable[[Runner], None] | None = None,
    **model_options: Any,
) -> Comparison:
    """Measure accuracy beside another artifact's, on the same labelled pictures.

    Args:
        model: a bundle, or a network as `load_model` takes it.
        data: labelled pictures, as `edgecnn.datasets.open_dataset` takes them.
        versus: "FORMAT:PRECISION" of the same bundle, "PATH.edge:FORMAT:PRECISION" of another, or "PATH.edge": there,
            the format and precision that run of `model`. It runs on the same device.
        on_start: is called with each of the two runners before the first picture.
        format, precision, device, threads, ignore_label, split, limit, score, nms_iou, resamples, progress,
            model_options: as for `evaluate`.

    Raises:
        SpecError: `versus` cannot be read, is a torch network, is the same artifact, or is for another task or other
            classes; or as `evaluate` does.
        BundleError, DeviceError, MissingDependencyError, DataError: as `evaluate` does, for either.
    """
    bundle = as_bundle(model, format=format)
    other_bundle, other_format, other_precision = _parse(versus, bundle, model)
    shared: dict[str, Any] = {"device": device, "threads": threads, "score": score, "nms_iou": nms_iou}
    subject = open_subject(bundle or model, format=format, precision=precision, options=model_options, **shared)
    with subject.runner as runner:
        if other_format is None and bundle is not None:
            other_format, other_precision = runner.format, runner.precision
        other = open_subject(other_bundle, format=other_format, precision=other_precision, options={}, **shared)
        with other.runner as other_runner:
            names = _names(subject, other)
            _refuse_unlike(subject, other, names)
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
            return Comparison(**vars(evaluation), versus=_versus(other, paired, names))


def verdict(names: tuple[str, str], paired: PairedAccuracy) -> str:
    """Whether the first is worse, in a sentence: its 95 % interval leaves zero out, or it doesn't.

    Args:
        names: of the first and the second.
        paired: their figures.
    """
    first, second = names
    n, difference, low, high = paired.first.n, paired.difference, paired.low, paired.high
    near, far = sorted((abs(low), abs(high)))
    told = n >= _FEWEST_PICTURES and (high < -_ROUNDING or low > _ROUNDING)
    digits = _digits(near if told else far)
    if told:
        side, word = ("below", "worse") if high < 0 else ("above", "better")
        size, interval = f"{abs(difference):.{digits}f}", f"[{near:.{digits}f}, {far:.{digits}f}]"
        return f"{first} is {size} {side} {second} {interval}: {word}"
    value, *ends = (f"{round(figure, digits) + 0.0:+.{digits}f}" for figure in (difference, low, high))  # no "-0.000"
    figures = f"{value} [{', '.join(ends)}]"
    if n < _FEWEST_PICTURES:
        return (
            f"{n} images are too few to tell {first} from {second}, at least {_FEWEST_PICTURES} are wanted: {figures}"
        )
    return f"no difference between {first} and {second} can be told with {n} images: {figures}"


def _digits(figure: float) -> int:
    """Decimals that show it: 3, a tenth of a point, or as many as it takes to its first one."""
    return max(3, math.ceil(-math.log10(figure))) if figure > _ROUNDING else 3


def _parse(versus: str | Path | Bundle, bundle: Bundle | None, model: object) -> tuple[Bundle, str | None, str | None]:
    """The other bundle, and the format and precision that were said of it.

    Raises:
        SpecError: not one of the forms, or torch.
        BundleError: no such bundle.
    """
    if not isinstance(versus, str):
        versus = versus if isinstance(versus, Bundle) else Bundle.open(versus)
        return versus, None, None
    parts = _ARTIFACT.fullmatch(versus)
    if TORCH in (versus, parts and parts["format"]):
        raise SpecError(_torch_the_other_way_round(bundle))
    if versus and (named := as_bundle(versus)) is not None:
        return named, None, None
    if parts is None:
        raise SpecError(
            f"versus {versus!r} is not FORMAT:PRECISION (of the same bundle), PATH.edge or PATH.edge:FORMAT:PRECISION"
        )
    if parts["path"] is not None:
        return Bundle.open(parts["path"]), parts["format"], parts["precision"]
    if bundle is None:
        raise SpecError(
            f"{model} is a network, not a bundle, so it has no {parts['format']} artifact to compare with: "
            f"versus PATH.edge:{versus} names one"
        )
    return bundle, parts["format"], parts["precision"]


def _torch_the_other_way_round(bundle: Bundle | None) -> str:
    if bundle is None:
        return "versus names an artifact of a bundle, not torch: the torch network is what is compared with it already"
    source = bundle.manifest.source
    weights = f" --weights {source.weights}" if source.weights else ""
    return (
        "a bundle holds no torch network; to compare with it, give the network first: "
        f"edgecnn eval {source.model}{weights} --data DATA --versus {bundle.folder}:FORMAT:PRECISION"
    )


def _names(subject: Subject, other: Subject) -> tuple[str, str]:
    """The words in which the two differ: "int8" and "fp32" where both are of one bundle and one format."""

    def words(one: Subject, bundle_of: Callable[[Bundle], str]) -> tuple[str, ...]:
        return ("" if one.bundle is None else bundle_of(one.bundle), one.format, one.runner.precision)

    for bundle_of in (lambda bundle: bundle.folder.name, lambda bundle: str(bundle.folder)):
        pairs = list(zip(words(subject, bundle_of), words(other, bundle_of), strict=True))
        first, second = (" ".join(p[i] for p in pairs if p[0] != p[1] and p[i]) for i in range(2))
        if first != second:
            break
    return first, second


def _refuse_unlike(subject: Subject, other: Subject, names: tuple[str, str]) -> None:
    """Refuse to compare an artifact with itself, or what answers different questions."""
    if subject.artifact is not None and other.artifact is not None:
        same_files = [file.sha256 for file in subject.artifact.files] == [file.sha256 for file in other.artifact.files]
        if same_files and subject.runner.precision == other.runner.precision:
            raise SpecError(f"{subject.name} and {other.name} are the same artifact: name another one to compare with")
    task, others = subject.runner.task, other.runner.task
    first, second = names
    if task.name != others.name:
        raise SpecError(f"{first} is for the task {task.name}, {second} for {others.name}: no metric compares them")
    if task.labels != others.labels:
        raise SpecError(
            f"{first} and {second} have different classes ({len(task.labels)} and {len(others.labels)}, or other "
            "names), so that their metrics are about different things: evaluate each by itself"
        )


def _versus(other: Subject, paired: PairedAccuracy, names: tuple[str, str]) -> Versus:
    assert other.bundle is not None
    return Versus(
        format=other.format,
        precision=other.runner.precision,
        bundle=str(other.bundle.folder),
        value=paired.second.value,
        low=paired.second.low,
        high=paired.second.high,
        difference=paired.difference,
        difference_low=paired.low,
        difference_high=paired.high,
        agreement=paired.agreement,
        verdict=verdict(names, paired),
    )
