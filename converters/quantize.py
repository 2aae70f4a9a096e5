"""From a float artifact to an int8 one of the same format that is worth having, or the reason why there is none."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

import edgecnn
from edgecnn._devices import default_threads, parse_device
from edgecnn.bundle import (
    AccuracyEvidence,
    LayerDamage,
    LayerRecord,
    ParityEvidence,
    QuantizationEvidence,
    SearchRecord,
    TensorSpec,
)
from edgecnn.compression.calibration import Calibration
from edgecnn.compression.journal import Journal
from edgecnn.compression.plan import Plan, RangeMethod
from edgecnn.compression.search import SMALLEST_SHARE, Found, choose_recipe, search
from edgecnn.converters.base import Converted
from edgecnn.converters.int8.base import Int8Writer
from edgecnn.errors import AccuracyError, ConversionError, DataError, DeviceError
from edgecnn.frame import FrameSpec
from edgecnn.measure import parity
from edgecnn.measure.damage import damage, signal_to_noise_db
from edgecnn.registry import BACKENDS, INT8_WRITERS
from edgecnn.results import UInt8Array
from edgecnn.runners.base import Backend, Runner
from edgecnn.tasks import Task

Progress = Callable[[int, int, str], None]
Outputs = dict[str, NDArray[Any]]

DEFAULT_BUDGET_MINUTES = 30.0
_DAMAGE_FRAMES = 8
# Two halves of the calibration pictures whose artifacts' noise differs by more than this tell that there are too few.
_HALVES_DIFFER = 2.0


class LabelledPictures(Protocol):
    """Pictures with truth for the network's task.

    Attributes:
        name: of the data.
    """

    name: str

    @property
    def images(self) -> tuple[str, ...]:
        """Content hashes of the pictures."""
        ...

    def measure(self, runner: Runner, *, resamples: int = 200) -> AccuracyEvidence:
        """The task's metric; without resamples, without an interval."""
        ...


@dataclass(frozen=True, kw_only=True)
class Int8Settings:
    """What an int8 artifact is made with and held to.

    Attributes:
        calibration: frames for the ranges.
        search_on: labelled pictures on which layers to keep float are searched; None makes every layer int8 and
            gives figures but no verdict.
        evaluate_on: labelled pictures that took no part; the last word where they are given.
        max_drop: largest drop of the metric below the float artifact's.
        allow_drop: write it all the same.
        budget_minutes: of the search, each format.
        journal: where a search writes down what it measured; None keeps it in memory.
    """

    calibration: Calibration
    search_on: LabelledPictures | None = None
    evaluate_on: LabelledPictures | None = None
    max_drop: float = 0.01
    allow_drop: bool = False
    budget_minutes: float = DEFAULT_BUDGET_MINUTES
    journal: Path | None = None

    def forget_search(self) -> None:
        """Delete what searches wrote down: their result is in a bundle now."""
        if self.journal is not None:
            shutil.rmtree(self.journal, ignore_errors=True)

    def check(self) -> None:
        """Nothing is evaluated on pictures that it was made with.

        Raises:
            DataError: they share pictures.
        """
        if self.evaluate_on is None:
            return
        used = {"calibration": self.calibration.record.images}
        if self.search_on is not None:
            used["search"] = self.search_on.images
        for what, images in used.items():
            shared = len(set(images) & set(self.evaluate_on.images))
            if shared:
                raise DataError(
                    f"{shared} of the {len(self.evaluate_on.images)} pictures to evaluate on ({self.evaluate_on.name}) "
                    f"are among those of the {what}: an accuracy measured on them would flatter; give others"
                )


@dataclass(frozen=True, kw_only=True)
class FloatArtifact:
    """What an int8 artifact is made from.

    Attributes:
        format: of the file.
        file: fp32.
        frame, task, outputs, batch: as in the manifest.
        layers: of the torch network.
    """

    format: str
    file: Path
    frame: FrameSpec
    task: Task
    outputs: Sequence[TensorSpec]
    layers: Sequence[LayerRecord]
    batch: int = 1

    def open(self, file: Path | None = None, *, precision: str = "fp32") -> Backend:
        """The file itself, or one made from it, on the CPU."""
        return BACKENDS.get(self.format)(
            file or self.file,
            outputs=self.outputs,
            device=parse_device("cpu"),
            precision=precision,
            threads=default_threads(),
        )

    def runner(self, backend: Backend) -> Runner:
        """A runner as a bundle's would be."""
        return Runner(backend, frame=self.frame, task=self.task, batch=self.batch)


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
    source: FloatArtifact, settings: Int8Settings, folder: Path, *, progress: Progress | None = None
) -> Quantized:
    """Make one int8 artifact in `folder`.

    Raises:
        ConversionError: the tool failed, or the runtime refuses what it wrote.
        AccuracyError: no artifact keeps the metric within the bound with enough of it in int8; says the best found.
        DataError: pictures to evaluate on took part in making it.
    """
    settings.check()
    with tempfile.TemporaryDirectory(dir=folder) as work:
        bench = _Bench(source, settings, Path(work))
        if progress is not None:
            progress(0, 0, "calibrating")
        bench.writer.calibrate(bench.frames)
        journal = Journal(_journal_path(source, settings), about=_about(source, settings))
        found, float_value = _find(bench, journal, progress)
        converted = bench.writer.write(found.plan, folder)
        evidence = bench.evidence(converted.files[0], found, float_value, journal)
        accuracy = bench.accuracy(converted.files[0])
        kept = all((measured.drop or 0) <= settings.max_drop for measured in accuracy)
        figures = bench.parity(converted.files[0], ok=kept if accuracy else None)
        _gate(source.format, settings, evidence, accuracy)
        evidence = _with_stability(bench, found.plan, evidence, progress)
    return Quantized(converted, evidence, figures, accuracy)


def _find(bench: _Bench, journal: Journal, progress: Progress | None) -> tuple[Found, float | None]:
    """The plan, and the float artifact's metric where there is data for it."""
    settings = bench.settings
    if settings.search_on is None:
        plan = choose_recipe(bench, journal, progress)[0]
        if journal.value("damage", plan, bench.damage) == float("inf"):
            raise ConversionError(f"no int8 {bench.source.format} artifact of this network runs: {bench.last_error}")
        return Found(plan=plan, metric=None, within=True, damage={}, trials=0, complete=True), None
    float_value = bench.measured(bench.source.file, "fp32", resamples=0)
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


class _Bench:
    """One format's float artifact, its writer, and the frames and pictures that int8 ones are measured on.

    It is the `Objective` of the search.
    """

    def __init__(
        self,
        source: FloatArtifact,
        settings: Int8Settings,
        work: Path,
    ) -> None:
        self.source, self.settings = source, settings
        self.frames = _batched(settings.calibration.frames, source.batch)
        self.writer = self._new_writer()
        if not self.writer.layers:
            raise ConversionError(f"none of the network's layers was found in the {source.format} file")
        self.layers: Sequence[str] = self.writer.layers
        self.range_methods: Sequence[RangeMethod] = self.writer.range_methods
        self.corrects_bias = self.writer.corrects_bias
        self.last_error = ""
        self._work = work
        self._damage_step = max(len(self.frames) // _DAMAGE_FRAMES, 1)
        self._damage_frames = self.frames[:: self._damage_step][:_DAMAGE_FRAMES]
        self._expected = self._answers(source.file, "fp32")

    def damage(self, plan: Plan) -> float:
        """Noise of a plan's answers; infinite where its artifact cannot be made or run."""
        return self._tried(plan, lambda file: damage(self._answers(file, "int8"), self._expected), float("inf"))

    def metric(self, plan: Plan) -> float:
        """The task's metric of a plan; minus infinity where its artifact cannot be made or run."""
        return self._tried(plan, lambda file: self.measured(file, "int8", resamples=0), float("-inf"))

    def measured(self, file: Path, precision: str, *, resamples: int) -> float:
        """The task's metric on the search's pictures."""
        assert self.settings.search_on is not None
        return self._measure(self.settings.search_on, file, precision, resamples=resamples).value

    def evidence(self, file: Path, found: Found, float_value: float | None, journal: Journal) -> QuantizationEvidence:
        """What is to be recorded of the artifact that was chosen."""
        total = sum(layer.macs for layer in self.source.layers)
        really = self.writer.int8_layers(file)
        kept_float = [layer.name for layer in self.source.layers if layer.name not in really]
        settings = self.settings
        record = None
        if settings.search_on is not None and float_value is not None and found.metric is not None:
            record = SearchRecord(
                metric=self.source.task.metric,
                data=settings.search_on.name,
                n=len(settings.search_on.images),
                float_value=float_value,
                value=found.metric,
                max_drop=settings.max_drop,
                trials=found.trials,
                minutes=round(journal.minutes_now, 2),
                complete=found.complete,
                images=settings.search_on.images,
            )
        worst_first = sorted(found.damage.items(), key=lambda item: -item[1])
        return QuantizationEvidence(
            recipe=found.plan.recipe,
            calibration=settings.calibration.record,
            float_layers=tuple(kept_float),
            int8_mac_share=round(sum(la.macs for la in self.source.layers if la.name in really) / max(total, 1), 4),
            snr_db=signal_to_noise_db(self._answers(file, "int8"), self._expected),
            damage=tuple(
                LayerDamage(name=name, damage=value, kept_float=name in kept_float) for name, value in worst_first
            ),
            search=record,
            warnings=settings.calibration.warnings + (() if found.complete else (_out_of_time(settings),)),
        )

    def parity(self, file: Path, *, ok: bool | None) -> ParityEvidence:
        """Figures of comparing the answers with the float artifact's."""
        answers, expected = self._answers(file, "int8"), self._expected
        places = self.settings.calibration.places[:: self._damage_step][: len(expected)]
        samples = [
            parity.Sample(frame, place, right, ())
            for frame, place, right in zip(self._damage_frames, places, expected, strict=True)
        ]
        match = self.source.batch == 1
        found = parity.compare(samples, answers, task=self.source.task, precision="int8", match_results=match)
        return msgspec.structs.replace(found, ok=ok)

    def accuracy(self, file: Path) -> tuple[AccuracyEvidence, ...]:
        """The metric with its interval, on the search's pictures and on those that took no part."""
        found = []
        for pictures in (self.settings.search_on, self.settings.evaluate_on):
            if pictures is None:
                continue
            reference = self._measure(pictures, self.source.file, "fp32", resamples=0).value
            measured = self._measure(pictures, file, "int8", resamples=200)
            found.append(
                msgspec.structs.replace(
                    measured,
                    precision="int8",
                    reference_value=reference,
                    max_drop=self.settings.max_drop,
                    allowed_drop=reference - measured.value > self.settings.max_drop,
                )
            )
        return tuple(found)

    def calibrated_on(self, frames: Sequence[UInt8Array], plan: Plan) -> float:
        """The plan's metric, or without labels its damage, had it been calibrated on these frames."""
        writer, self.writer = self.writer, self._new_writer()
        try:
            self.writer.calibrate(_batched(frames, self.source.batch))
            return self.damage(plan) if self.settings.search_on is None else self.metric(plan)
        finally:
            self.writer = writer

    def _new_writer(self) -> Int8Writer:
        writer_class = INT8_WRITERS.get(self.source.format)
        return writer_class(self.source.file, self.source.layers, threads=default_threads())

    def _measure(self, pictures: LabelledPictures, file: Path, precision: str, *, resamples: int) -> AccuracyEvidence:
        backend = self.source.open(file, precision=precision)
        try:
            return pictures.measure(self.source.runner(backend), resamples=resamples)
        finally:
            backend.close()

    def _answers(self, file: Path, precision: str) -> list[Outputs]:
        backend = self.source.open(file, precision=precision)
        try:
            return [{k: v.copy() for k, v in backend.infer(frame).items()} for frame in self._damage_frames]
        finally:
            backend.close()

    def _tried(self, plan: Plan, measure: Callable[[Path], float], failed_value: float) -> float:
        with tempfile.TemporaryDirectory(dir=self._work) as folder:
            try:
                return measure(self.writer.write(plan, Path(folder)).files[0])
            except (ConversionError, DeviceError) as failed:
                self.last_error = str(failed)
                return failed_value


def _gate(
    name: str,
    settings: Int8Settings,
    evidence: QuantizationEvidence,
    accuracy: Sequence[AccuracyEvidence],
) -> None:
    """The bound on the pictures with the last word, and enough in int8.

    Raises:
        AccuracyError: says what the best was.
    """
    if not accuracy or settings.allow_drop:
        return
    best = (
        f"the best found has {accuracy[-1].metric} {accuracy[-1].value:.4f} on {accuracy[-1].data}, "
        f"{accuracy[-1].drop:.4f} below float, with {evidence.int8_mac_share:.0%} of the multiply-adds in int8"
    )
    way_out = "; train for quantization, take fp16, or --allow-drop"
    if any((measured.drop or 0) > settings.max_drop for measured in accuracy):
        raise AccuracyError(f"{name} int8 loses more than {settings.max_drop:g}: {best}{way_out}")
    if evidence.int8_mac_share < SMALLEST_SHARE:
        raise AccuracyError(
            f"{name} int8 keeps the bound of {settings.max_drop:g} with too little in int8 (at least "
            f"{SMALLEST_SHARE:.0%} is worth it): {best}{way_out}"
        )


def _with_stability(
    bench: _Bench, plan: Plan, evidence: QuantizationEvidence, progress: Progress | None
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


def _batched(frames: Sequence[UInt8Array], batch: int) -> list[UInt8Array]:
    """Groups of `batch` frames; what is left over is left out, unless it is all there is."""
    if batch == 1:
        return list(frames)
    groups = [frames[start : start + batch] for start in range(0, len(frames) - batch + 1, batch)]
    groups = groups or [[frames[index % len(frames)] for index in range(batch)]]
    return [np.concatenate(group) for group in groups]


def _out_of_time(settings: Int8Settings) -> str:
    return (
        f"the search's budget of {settings.budget_minutes:g} minutes ran out: more of the network may be possible in "
        "int8 than was found (--budget-minutes)"
    )


def _journal_path(source: FloatArtifact, settings: Int8Settings) -> Path | None:
    return None if settings.journal is None else settings.journal / f"{source.format}.jsonl"


def _about(source: FloatArtifact, settings: Int8Settings) -> str:
    """What must be the same for a journal to go on."""
    searched = settings.search_on.images if settings.search_on is not None else ()
    weights = [layer.weights for layer in source.layers]
    parts = [source.format, edgecnn.__version__, *weights, *settings.calibration.record.images, "|", *searched]
    parts += [msgspec.json.encode(source.frame).decode(), msgspec.json.encode(source.task).decode()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:20]
