"""Makes an int8 artifact from a float one of the same format, or says why none is worth having."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from edgecnn._version import __version__
from edgecnn.bundle.evidence import AccuracyEvidence, Evidence, LayerDamage, QuantizationEvidence, SearchRecord
from edgecnn.converters.base import Converted
from edgecnn.converters.int8.float_artifact import FloatArtifact
from edgecnn.converters.int8.search.journal import SearchJournal
from edgecnn.converters.int8.search.objective import SearchResult
from edgecnn.converters.int8.search.plan import Plan
from edgecnn.converters.int8.search.search import SMALLEST_SHARE, search
from edgecnn.converters.int8.search.without_labels import search_without_labels
from edgecnn.converters.int8.settings import Int8Settings
from edgecnn.converters.int8.workbench import Int8Bench
from edgecnn.converters.trial import Trial
from edgecnn.errors import AccuracyError, ConversionError

Progress = Callable[[int, int, str], None]
# A larger difference in noise between artifacts from two halves of the calibration pictures means too few pictures.
_HALVES_DIFFER = 2.0
_WAY_OUT = "train for quantization, use fp16, or give --allow-drop"


@dataclass(frozen=True)
class Quantized:
    """An int8 artifact that was made, run and measured.

    Attributes:
        converted: its files.
        evidence: its measurements and how it was made.
    """

    converted: Converted
    evidence: Evidence


def quantize_artifact(
    source: FloatArtifact,
    settings: Int8Settings,
    folder: Path,
    *,
    trial: Trial,
    progress: Progress | None = None,
) -> Quantized:
    """Make one int8 artifact in `folder`: by a search for "int8", otherwise the whole network in the given precision.

    Args:
        source: the float artifact that it is made from.
        settings: how it is made.
        folder: the folder for its files.
        trial: the artifact's trial, which names the precision.
        progress: called with (steps done, steps in all, name of the step).

    Raises:
        ConversionError: the tool failed, or the runtime cannot open the file.
        AccuracyError: no artifact is within the limit with enough of it in int8; the message describes the best one
            found.
        DataError: pictures to evaluate on were also used to make it.
    """
    settings.check()
    precision = trial.precision
    with tempfile.TemporaryDirectory(dir=folder) as work:
        bench = Int8Bench(source, settings, Path(work), precision=precision)
        if precision != "int8" and precision not in bench.writer.whole_precisions:
            known = ", ".join(("int8", *bench.writer.whole_precisions))
            raise ConversionError(f"{source.format} cannot be written in {precision} here, only in {known}")
        if progress is not None:
            progress(0, 0, "calibrating")
        bench.calibrate()
        if precision != "int8":
            bench.calibrate_on_all()
            return _tried(bench, trial, bench.writer.write_whole(precision, folder), precision)
        journal = SearchJournal(_journal_path(source, settings), about=_about(bench, settings))
        found, float_value = _find(bench, journal, progress)
        bench.calibrate_on_all()
        made = _tried(bench, trial, bench.writer.write(found.plan, folder), found.plan.recipe)
        assert made.evidence.quantization is not None
        quantization = _with_search(made.evidence.quantization, settings, found, float_value, journal.minutes_now)
        quantization = _with_stability(bench, found.plan, quantization, progress)
        return replace(made, evidence=msgspec.structs.replace(made.evidence, quantization=quantization))


def _tried(bench: Int8Bench, trial: Trial, converted: Converted, recipe: str) -> Quantized:
    """An artifact with all its measurements, if it is within the limit and enough of it is in int8.

    Raises:
        AccuracyError: it is not.
    """
    file = converted.files[0]
    made = bench.evidence(file, recipe)
    outcome = trial.run(
        bench.source.made(file, precision=bench.precision),
        bench.reference,
        about=f", with {made.int8_mac_share:.0%} of the multiply-adds in int8",
        way_out=f"This is the best artifact found; {_WAY_OUT}",
    )
    if bench.precision == "int8" and made.int8_mac_share < SMALLEST_SHARE:
        _refuse_too_little(bench, trial, made.int8_mac_share, outcome.accuracy)
    made = msgspec.structs.replace(made, snr_db=outcome.snr_db, warnings=(*made.warnings, *outcome.warnings))
    return Quantized(converted, outcome.evidence(made))


def _refuse_too_little(bench: Int8Bench, trial: Trial, share: float, accuracy: Sequence[AccuracyEvidence]) -> None:
    """Refuse an artifact with too little in int8: float is what it was made from.

    Raises:
        AccuracyError: unless the user allowed a drop, and something is in int8.
    """
    if bench.settings.allow_drop and share > 0:
        return
    if not accuracy:
        raise AccuracyError(
            f"{trial.name} has {share:.0%} of the multiply-adds in int8 (expected at least {SMALLEST_SHARE:.0%}): this "
            "network's layers cannot be quantized or lose too much; keep the float artifact"
        )
    worst = max(accuracy, key=lambda measured: measured.drop or 0.0)
    raise AccuracyError(
        f"{trial.name} is within the limit of {bench.settings.max_drop:g}, but with too little in int8 (expected at "
        f"least {SMALLEST_SHARE:.0%}): the best found has {worst.metric} {worst.value:.4f} on {worst.data}, "
        f"{worst.drop:.4f} below float, with {share:.0%} of the multiply-adds in int8; {_WAY_OUT}"
    )


def _find(bench: Int8Bench, journal: SearchJournal, progress: Progress | None) -> tuple[SearchResult, float | None]:
    """The plan, and the float artifact's metric where there are labelled pictures."""
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


def _with_search(
    evidence: QuantizationEvidence,
    settings: Int8Settings,
    found: SearchResult,
    float_value: float | None,
    minutes: float,
) -> QuantizationEvidence:
    """The evidence, with the search's record added."""
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
    """The evidence, with a warning where two disjoint halves of the calibration pictures give different artifacts."""
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
        f"two halves of the calibration pictures give artifacts of different accuracy ({figures}): the result depends "
        "on the choice of pictures; give more of them, of every kind that the network will see"
    )
    return msgspec.structs.replace(evidence, warnings=(*evidence.warnings, warning))


def _out_of_time(settings: Int8Settings) -> str:
    return (
        f"the search's budget of {settings.budget_minutes:g} minutes ran out: a longer search may find more layers "
        "that can be int8 (--budget-minutes)"
    )


def _journal_path(source: FloatArtifact, settings: Int8Settings) -> Path | None:
    return None if settings.journal is None else settings.journal / f"{source.format}.jsonl"


def _about(bench: Int8Bench, settings: Int8Settings) -> str:
    """Identity of a journal: a search continues only if this is unchanged; measurements hold for one runtime only."""
    source = bench.source
    searched = settings.search_on.images if settings.search_on is not None else ()
    weights = [f"{layer.weights} {layer.learned}" if layer.learned else layer.weights for layer in source.layers]
    parts = [
        source.format,
        __version__,
        bench.runtime,
        *weights,
        *settings.calibration.record.images,
        "half judges half" if bench.is_crossed else "|",
        *searched,
    ]
    parts += [msgspec.json.encode(source.frame).decode(), msgspec.json.encode(source.task).decode()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
