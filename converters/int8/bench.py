"""Where int8 artifacts of one format are made, run and measured."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn._devices import default_threads, parse_device
from edgecnn.bundle import LayerRecord, TensorSpec
from edgecnn.compression.calibration import Calibration
from edgecnn.compression.plan import Plan, RangeMethod
from edgecnn.converters.int8.base import Int8Writer
from edgecnn.errors import ConversionError, DataError, DeviceError
from edgecnn.evidence import AccuracyEvidence, ParityEvidence, QuantizationEvidence
from edgecnn.frame import FrameSpec
from edgecnn.measure import parity
from edgecnn.measure.damage import damage, signal_to_noise_db
from edgecnn.registry import BACKENDS, INT8_WRITERS
from edgecnn.results import UInt8Array
from edgecnn.runners.base import Backend, Runner
from edgecnn.tasks import Task

Outputs = dict[str, NDArray[Any]]

DEFAULT_BUDGET_MINUTES = 30.0
_DAMAGE_FRAMES = 16
_DRAWS = 100  # a standard error to a tenth of itself


class LabelledPictures(Protocol):
    """Pictures with truth for the network's task.

    Attributes:
        name: of the data.
        metric: name of what is measured.
    """

    name: str
    metric: str

    @property
    def images(self) -> tuple[str, ...]:
        """Content hashes of the pictures."""
        ...

    def limited(self, count: int) -> LabelledPictures:
        """So many of them at most, evenly spaced."""
        ...

    def measure(self, runner: Runner, *, resamples: int = 200) -> AccuracyEvidence:
        """The task's metric; without resamples, without an interval."""
        ...

    def measure_draws(self, runner: Runner, *, resamples: int) -> tuple[float, NDArray[np.float64]]:
        """The task's metric, and what it would be of each of so many draws of the pictures, always the same draws."""
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


class Int8Bench:
    """One format's float artifact, its writer, and the frames and pictures that int8 ones are measured on.

    It is the `Objective` of the search.

    Attributes:
        runtime: package and version that measures.
        last_error: why the last artifact that failed did.
    """

    def __init__(
        self,
        source: FloatArtifact,
        settings: Int8Settings,
        work: Path,
        *,
        precision: str,
    ) -> None:
        self.source, self.settings, self.precision = source, settings, precision
        self.frames = batched(settings.calibration.frames, source.batch)
        self.writer = self._new_writer()
        if not self.writer.layers:
            raise ConversionError(f"none of the network's layers was found in the {source.format} file")
        self.range_methods: Sequence[RangeMethod] = self.writer.range_methods
        self.corrects_weights = self.writer.corrects_weights
        self.last_error = self.runtime = ""
        self._work = work
        self._uncertain: dict[Plan, float] = {}
        # Without labels the noise decides, and on frames that ranges were read off it is too low by up to six times.
        apart = settings.search_on is None and len(self.frames) >= 2 * _DAMAGE_FRAMES
        self._calibrate_first_on = self.frames[::2] if apart else self.frames
        damage_on = list(range(len(self.frames)))[1::2] if apart else list(range(len(self.frames)))
        self._damage_indices = damage_on[:: max(len(damage_on) // _DAMAGE_FRAMES, 1)][:_DAMAGE_FRAMES]
        self._damage_frames = [self.frames[index] for index in self._damage_indices]
        self._expected = self._answers(source.file, "fp32")

    def calibrate(self) -> None:
        """Statistics to choose a plan with; see `calibrate_on_all`."""
        self.writer.calibrate(self._calibrate_first_on)

    def calibrate_on_all(self) -> None:
        """Statistics of every frame, for the artifact that ships."""
        if self._calibrate_first_on is not self.frames:
            self.writer = self._new_writer()
            self.writer.calibrate(self.frames)

    @property
    def layers(self) -> Sequence[str]:
        """Those that can be int8; after calibration fewer, where some never held anything but zeros."""
        return self.writer.layers

    def damage(self, plan: Plan) -> float:
        """Noise of a plan's answers; infinite where its artifact cannot be made or run."""
        return self._tried(plan, lambda file: damage(self._answers(file, self.precision), self._expected), float("inf"))

    def metric(self, plan: Plan) -> float:
        """The task's metric of a plan; minus infinity where its artifact cannot be made or run."""

        def measure(file: Path) -> float:
            value, draws = self._drawn(file, self.precision)
            differences = self._float_drawn[1] - draws
            self._uncertain[plan] = float(np.nanstd(differences)) if np.isfinite(differences).any() else float("inf")
            return value

        return self._tried(plan, measure, float("-inf"))

    def uncertainty(self, plan: Plan) -> float:
        """Of a plan's metric, see `Objective`; infinite where its artifact cannot be made or run."""
        if plan not in self._uncertain:  # a kill came between the two
            self.metric(plan)
        return self._uncertain.get(plan, float("inf"))

    @property
    def float_metric(self) -> float:
        """Of the float artifact, on the search's pictures."""
        return self._float_drawn[0]

    @cached_property
    def _float_drawn(self) -> tuple[float, NDArray[np.float64]]:
        return self._drawn(self.source.file, "fp32")

    def _drawn(self, file: Path, precision: str) -> tuple[float, NDArray[np.float64]]:
        assert self.settings.search_on is not None
        backend = self.source.open(file, precision=precision)
        try:
            return self.settings.search_on.measure_draws(self.source.runner(backend), resamples=_DRAWS)
        finally:
            backend.close()

    def evidence(self, file: Path, recipe: str) -> QuantizationEvidence:
        """What is to be recorded of any artifact made here."""
        total = sum(layer.macs for layer in self.source.layers)
        really = self.writer.int8_layers(file)
        return QuantizationEvidence(
            recipe=recipe,
            calibration=self.settings.calibration.record,
            float_layers=tuple(layer.name for layer in self.source.layers if layer.name not in really),
            int8_mac_share=round(sum(la.macs for la in self.source.layers if la.name in really) / max(total, 1), 4),
            snr_db=signal_to_noise_db(self._answers(file, self.precision), self._expected),
            warnings=self.settings.calibration.warnings,
        )

    def parity(self, file: Path, *, ok: bool | None) -> ParityEvidence:
        """Figures of comparing the answers with the float artifact's."""
        answers, expected = self._answers(file, self.precision), self._expected
        places = [self.settings.calibration.places[index] for index in self._damage_indices]
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
            measured = self._measure(pictures, file, self.precision, resamples=200)
            found.append(
                msgspec.structs.replace(
                    measured,
                    precision=self.precision,
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
            self.writer.calibrate(batched(frames, self.source.batch))
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
        self.runtime = backend.opened.runtime
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


def batched(frames: Sequence[UInt8Array], batch: int) -> list[UInt8Array]:
    """Groups of `batch` frames; what is left over is left out, unless it is all there is."""
    if batch == 1:
        return list(frames)
    groups = [frames[start : start + batch] for start in range(0, len(frames) - batch + 1, batch)]
    groups = groups or [[frames[index % len(frames)] for index in range(batch)]]
    return [np.concatenate(group) for group in groups]
