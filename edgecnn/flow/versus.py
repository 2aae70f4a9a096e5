"""Compares one artifact's accuracy with another's: selects the other one, checks that they can be compared."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgecnn.bundle import Bundle
from edgecnn.errors import SpecError
from edgecnn.flow.evaluation import Evaluation, Subject, as_bundle
from edgecnn.formats import TORCH
from edgecnn.measure.accuracy import PairedAccuracy
from edgecnn.measure.verdict import verdict

_ARTIFACT = re.compile(r"(?:(?P<path>.+):)?(?P<format>[\w-]+):(?P<precision>[\w-]+)")


@dataclass(frozen=True, kw_only=True)
class Versus:
    """The other artifact, and the difference of the metrics.

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
    """The accuracy of one artifact, compared with another's on the same pictures.

    Attributes:
        versus: the other.
    """

    versus: Versus


def parse_other(
    versus: str | Path | Bundle, bundle: Bundle | None, model: object
) -> tuple[Bundle, str | None, str | None]:
    """The other bundle, and the format and precision given for it.

    Raises:
        SpecError: an invalid form, or torch.
        BundleError: no such bundle.
    """
    if not isinstance(versus, str):
        versus = versus if isinstance(versus, Bundle) else Bundle.open(versus)
        return versus, None, None
    parts = _ARTIFACT.fullmatch(versus)
    if TORCH in (versus, parts and parts["format"]):
        raise SpecError(_swap_hint(bundle))
    if versus and (named := as_bundle(versus)) is not None:
        return named, None, None
    if parts is None:
        raise SpecError(
            f"versus: expected FORMAT:PRECISION (of the same bundle), PATH.edge or PATH.edge:FORMAT:PRECISION, "
            f"got {versus!r}"
        )
    if parts["path"] is not None:
        return Bundle.open(parts["path"]), parts["format"], parts["precision"]
    if bundle is None:
        raise SpecError(
            f"{model} is a network, not a bundle, so it has no {parts['format']} artifact to compare with: "
            f"give --versus PATH.edge:{versus}"
        )
    return bundle, parts["format"], parts["precision"]


def _swap_hint(bundle: Bundle | None) -> str:
    if bundle is None:
        return "--versus must name an artifact of a bundle: the network that you evaluate runs in torch already"
    source = bundle.manifest.source
    weights = f" --weights {source.weights}" if source.weights else ""
    return (
        "a bundle holds no torch network; to compare with it, give the network first: "
        f"edgecnn eval {source.model}{weights} --data DATA --versus {bundle.folder}:FORMAT:PRECISION"
    )


def distinct_names(subject: Subject, other: Subject) -> tuple[str, str]:
    """Short names that distinguish the two: "int8" and "fp32" where both have one bundle and one format."""

    def words(one: Subject, bundle_of: Callable[[Bundle], str]) -> tuple[str, ...]:
        return ("" if one.bundle is None else bundle_of(one.bundle), one.format, one.runner.precision)

    for bundle_of in (lambda bundle: bundle.folder.name, lambda bundle: str(bundle.folder)):
        pairs = list(zip(words(subject, bundle_of), words(other, bundle_of), strict=True))
        first, second = (" ".join(p[i] for p in pairs if p[0] != p[1] and p[i]) for i in range(2))
        if first != second:
            break
    return first, second


def refuse_unlike(subject: Subject, other: Subject, names: tuple[str, str]) -> None:
    """Refuse to compare an artifact with itself, or with one for another task or other classes."""
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
            "names), so their metrics cannot be compared: evaluate each separately"
        )


def versus_other(other: Subject, paired: PairedAccuracy, names: tuple[str, str]) -> Versus:
    """The other artifact's record with the difference; `names` come from `distinct_names`."""
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
