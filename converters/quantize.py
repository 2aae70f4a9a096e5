"""From a float artifact to an int8 one of the same format that is worth having, or the reason why there is none."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

import edgecnn
from edgecnn.compression.journal import Journal
from edgecnn.compression.plan import Plan
from edgecnn.compression.search import SMALLEST_SHARE, Found, search, search_without_labels
from edgecnn.converters.base import Converted
from edgecnn.converters.int8.bench import FloatArtifact, Int8Bench, Int8Settings
from edgecnn.errors import AccuracyError, ConversionError
from edgecnn.evidence import AccuracyEvidence, LayerDamage, ParityEvidence, QuantizationEvidence, SearchRecord

Progress = Callable[[int, int, str], None]
# Two halves of the calibration pictures whose artifacts' noise differs by more than this tell that there are too few.
_HALVES_DIFFER = 2.0


@dataclass(frozen=True)
class Quantized:
    """An int8 artifact that was made, run and measured.

    Attributes:
        converted: its files.
        evidence: how it was made.
        parity: figures of comparing its answers with the float artifact's.
        accuracy: of it, with the float artifact's value beside it; empty where there were no labels.
    """

    converted: Converted
    evidence: QuantizationEvidence
    parity: ParityEvidence
    accuracy: tuple[AccuracyEvidence, ...]


def quantize_artifact(
    source: FloatArtifact,
    settings: Int8Settings,
    folder: Path,
    *,
    precision: str = "int8",
    progress: Progress | None = None,
) -> Quantized:
    """Make one int8 artifact in `folder`: a searched one for "int8", else the whole network as `precision` says.

    Raises:
        ConversionError: the tool failed, or the runtime refuses what it wrote.
        AccuracyError: no artifact keeps the metric within the bound with enough of it in int8; says the best found.
        DataError: pictures to evaluate on took part in making it.
    """
    settings.check()
    with tempfile.TemporaryDirectory(dir=folder) as work:
        bench = Int8Bench(source, settings, Path(work), precision=precision)
        if precision != "int8" and precision not in bench.writer.whole_precisions:
            known = ", ".join(("int8", *bench.writer.whole_precisions))
            raise ConversionError(f"{source.format} is not written in {precision} here; of this kind it is in {known}")
        if progress is not None:
            progress(0, 0, "calibrating")
        bench.calibrate()
        if precision != "int8":
            bench.calibrate_on_all()
            return _measured(bench, bench.writer.write_whole(precision, folder), precision)
        journal = Journal(_journal_path(source, settings), about=_about(bench, settings))
        found, float_value = _find(bench, journal, progress)
        bench.calibrate_on_all()
        made = _measured(bench, bench.writer.write(found.plan, folder), found.plan.recipe)
        evidence = _with_search(made.evidence, settings, found, float_value, journal.minutes_now)
        return replace(made, evidence=_with_stability(bench, found.plan, evidence, progress))


def _measured(bench: Int8Bench, converted: Converted, recipe: str) -> Quantized:
    """An artifact with all that is measured of any, if it keeps the bound.

    Raises:
        AccuracyError: it doesn't.
    """
    file = converted.files[0]
    evidence = bench.evidence(file, recipe)
    accuracy = bench.accuracy(file)
    _gate(bench, evidence, accuracy)
    kept = not any(measured.allowed_drop for measured in accuracy)
    return Quantized(converted, evidence, bench.parity(file, ok=kept if accuracy else None), accuracy)


def _find(bench: Int8Bench, journal: Journal, progress: Progress | None) -> tuple[Found, float | None]:
    """The plan, and the float artifact's metric where there is data for it."""
    settings = bench.settings
    if settings.search_on is None:
        found = search_without_labels(bench, bench.source.layers, journal, progress)
        if journal.known("damage", found.plan) == float("inf"):
            raise ConversionError(f"no int8 {bench.source.format} artifact of this network runs: {bench.last_error}")
        return found, None
    float_value = bench.float_metric
    found = search(
        bench,
        bench.source.layers,
        float_metric=float_value,
        max_drop=settings.max_drop,
        budget_minutes=settings.budget_minutes,
        journal=journal,
        progress=progress,
    )
    if found.metric is None or found.metric == float("-inf"):
        why = bench.last_error or f"the budget of {settings.budget_minutes:g} minutes was too short to measure any"
        raise ConversionError(f"no int8 {bench.source.format} artifact of this network was measured: {why}")
    return found, float_value


def _gate(bench: Int8Bench, evidence: QuantizationEvidence, accuracy: Sequence[AccuracyEvidence]) -> None:
    """The bound on all labelled pictures, and enough in int8.

    Raises:
        AccuracyError: says what the best was.
    """
    settings = bench.settings
    if not accuracy or settings.allow_drop:
        return
    name, worst = f"{bench.source.format} {bench.precision}", max(accuracy, key=lambda measured: measured.drop or 0.0)
    best = (
        f"the best found has {worst.metric} {worst.value:.4f} on {worst.data}, {worst.drop:.4f} below float, with "
        f"{evidence.int8_mac_share:.0%} of the multiply-adds in int8"
    )
    way_out = "; train for quantization, take fp16, or --allow-drop"
    if worst.allowed_drop:
        raise AccuracyError(f"{name} loses more than {settings.max_drop:g}: {best}{way_out}")
    if bench.precision == "int8" and evidence.int8_mac_share < SMALLEST_SHARE:
        raise AccuracyError(
            f"{name} keeps the bound of {settings.max_drop:g} with too little in int8 (at least {SMALLEST_SHARE:.0%} "
            f"is worth it): {best}{way_out}"
        )


def _with_search(
    evidence: QuantizationEvidence, settings: Int8Settings, found: Found, float_value: float | None, minutes: float
) -> QuantizationEvidence:
    """The evidence with how the plan was found."""
    worst_first = sorted(found.damage.items(), key=lambda item: -item[1])
    damages = tuple(
        LayerDamage(name=name, damage=value, kept_float=name in evidence.float_layers) for name, value in worst_first
    )
    evidence = msgspec.structs.replace(evidence, damage=damages)
    if settings.search_on is None or float_value is None or found.metric is None:
        return evidence
    record = SearchRecord(
        metric=settings.search_on.metric,
        data=settings.search_on.name,
        n=len(settings.search_on.images),
        float_value=float_value,
        value=found.metric,
        max_drop=settings.max_drop,
        trials=found.trials,
        minutes=round(minutes, 2),
        complete=found.complete,
        images=settings.search_on.images,
    )
    warnings = evidence.warnings if found.complete else (*evidence.warnings, _out_of_time(settings))
    return msgspec.structs.replace(evidence, search=record, warnings=warnings)


def _with_stability(
    bench: Int8Bench, plan: Plan, evidence: QuantizationEvidence, progress: Progress | None
) -> QuantizationEvidence:
    """The evidence, with a warning where two disjoint halves of the calibration pictures make different artifacts."""
    settings = bench.settings
    halves = settings.calibration.halves()
    if min(map(len, halves)) < bench.source.batch:
        return evidence
    values = []
    for half in halves:
        if progress is not None:
            progress(0, 0, "calibrating on half of the pictures")
        values.append(bench.calibrated_on(half, plan))
    low, high = sorted(values)
    if settings.search_on is not None:
        if high - low <= settings.max_drop:
            return evidence
        figures = f"{settings.search_on.name}: {low:.4f} and {high:.4f}"
    else:
        if high <= _HALVES_DIFFER * low:
            return evidence
        figures = f"noise of the answers: {low:.2g} and {high:.2g} of the signal"
    warning = (
        f"two halves of the calibration pictures make artifacts of different accuracy ({figures}): which pictures "
        "are taken decides; give more of them, of every kind that the network will see"
    )
    return msgspec.structs.replace(evidence, warnings=(*evidence.warnings, warning))


def _out_of_time(settings: Int8Settings) -> str:
    return (
        f"the search's budget of {settings.budget_minutes:g} minutes ran out: more of the network may be possible in "
        "int8 than was found (--budget-minutes)"
    )


def _journal_path(source: FloatArtifact, settings: Int8Settings) -> Path | None:
    return None if settings.journal is None else settings.journal / f"{source.format}.jsonl"


def _about(bench: Int8Bench, settings: Int8Settings) -> str:
    """What must be the same for a journal to go on: its measurements hold for one runtime, too."""
    source = bench.source
    searched = settings.search_on.images if settings.search_on is not None else ()
    weights = [f"{layer.weights} {layer.learned}" if layer.learned else layer.weights for layer in source.layers]
    parts = [
        source.format,
        edgecnn.__version__,
        bench.runtime,
        *weights,
        *settings.calibration.record.images,
        "|",
        *searched,
    ]
    parts += [msgspec.json.encode(source.frame).decode(), msgspec.json.encode(source.task).decode()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
