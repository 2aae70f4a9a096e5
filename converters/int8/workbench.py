"""Makes, runs and measures int8 artifacts of one format."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import Artifact, LayerRecord, Manifest
from edgecnn.bundle.evidence import QuantizationEvidence
from edgecnn.converters.candidate import Candidate, LabelledPictures, Reference
from edgecnn.converters.int8.base import Int8Writer
from edgecnn.converters.int8.search.calibration import Calibration
from edgecnn.converters.int8.search.plan import Plan, RangeMethod
from edgecnn.converters.trial import answers_of
from edgecnn.errors import ConversionError, DataError, DeviceError
from edgecnn.formats import FORMATS
from edgecnn.measure import parity
from edgecnn.measure.damage import damage
from edgecnn.measure.made_frames import made_frames, usable
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import Backend
from edgecnn.targets import threads_here

Outputs = dict[str, NDArray[Any]]

DEFAULT_BUDGET_MINUTES = 30.0
_DAMAGE_FRAMES = 16
_DRAWS = 100  # estimates a standard error to about 10 % of itself


@dataclass(frozen=True, kw_only=True)
class Int8Settings:
    """How an int8 artifact is made, and the limits that it must keep.

    Attributes:
        calibration: frames from which activation ranges are taken.
        search_on: labelled pictures for the search of the layers to keep float; None makes every layer int8 and
            gives figures but no verdict.
        evaluate_on: held-out labelled pictures; where given, they decide.
        max_drop: largest drop of the metric below the float artifact's.
        allow_drop: write an artifact with a larger drop too.
        budget_minutes: time for the search in each format.
        journal: file in which a search records its measurements; None keeps them in memory.
    """

    calibration: Calibration
    search_on: LabelledPictures | None = None
    evaluate_on: LabelledPictures | None = None
    max_drop: float = 0.01
    allow_drop: bool = False
    budget_minutes: float = DEFAULT_BUDGET_MINUTES
    journal: Path | None = None

    def forget_search(self) -> None:
        """Delete the searches' records: their result is now in a bundle."""
        if self.journal is not None:
            shutil.rmtree(self.journal, ignore_errors=True)

    def check(self) -> None:
        """Check that no picture for evaluation was used to make the artifact.

        Raises:
            DataError: the sets share pictures.
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
                    f"were also used for {what}: accuracy measured on them would be too high; give pictures that were "
                    f"not used"
                )


@dataclass(frozen=True, kw_only=True)
class FloatArtifact(Candidate):
    """The fp32 artifact on the CPU that an int8 artifact is made from.

    Attributes:
        layers: the torch network's layers.
    """

    layers: Sequence[LayerRecord]

    @classmethod
    def of(cls, contract: Manifest, twin: Artifact, folder: Path) -> FloatArtifact:
        """From an fp32 artifact of a bundle whose files are in `folder`."""
        return cls(
            format=twin.format,
            file=folder / twin.path,
            frame=contract.frame,
            task=contract.task,
            outputs=contract.outputs,
            layers=contract.layers,
            batch=contract.batch,
        )

    def made(self, file: Path, *, precision: str, device: str = "cpu") -> Candidate:
        """A file that was made from it, as a candidate."""
        return replace(self, file=file, precision=precision, device=device)


def float_reference(
    source: FloatArtifact, settings: Int8Settings, chosen: Sequence[int], *, labelled: Sequence[LabelledPictures]
) -> Reference:
    """The float artifact as the reference for the artifacts made from it.

    Args:
        source: the float artifact.
        settings: limits and calibration frames.
        chosen: indices of the frames on which answers are compared.
        labelled: pictures on which the metric is measured.
    """
    calibration = settings.calibration
    samples = [parity.Sample(calibration.frames[index], calibration.places[index], {}, ()) for index in chosen]
    made = {name: replace(samples[0], frame=frame) for name, frame in made_frames(samples[0].frame).items()}
    backend = source.open()
    try:
        samples = _answered(backend, samples, source.batch)
        made = dict(zip(made, _answered(backend, list(made.values()), source.batch), strict=True))
    finally:
        backend.close()
    values: dict[int, float] = {}

    def value(pictures: LabelledPictures) -> float:
        if id(pictures) not in values:
            reference = source.open()
            try:
                values[id(pictures)] = pictures.measure(source.runner(reference), resamples=0).value
            finally:
                reference.close()
        return values[id(pictures)]

    return Reference(
        name="the float artifact",
        samples=samples,
        made=usable(made),
        labelled=labelled,
        reference_value=value,
        max_drop=settings.max_drop,
        allow_drop=settings.allow_drop,
        took_part=frozenset(calibration.record.images),
    )


def _answered(backend: Backend, samples: Sequence[parity.Sample], batch: int) -> list[parity.Sample]:
    answers = answers_of(backend, samples, batch=batch)[: len(samples)]
    return [replace(sample, expected=answer) for sample, answer in zip(samples, answers, strict=True)]


class Int8Bench:
    """One format's float artifact, its int8 writer, and the frames and pictures on which int8 artifacts are measured.

    It is the `Objective` of the search.

    Attributes:
        runtime: package and version that runs the measurements.
        last_error: the error of the last artifact that failed.
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
            raise ConversionError(f"none of the network's layers was found in the {source.format} file; convert again")
        self.range_methods: Sequence[RangeMethod] = self.writer.range_methods
        self.corrects_weights = self.writer.corrects_weights
        self.last_error = self.runtime = ""
        self._work = work
        self._uncertain: dict[Plan, float] = {}
        # Without labels the noise decides; on the frames that the ranges come from, it is up to six times too low.
        apart = settings.search_on is None and len(self.frames) >= 2 * _DAMAGE_FRAMES
        self._calibrate_first_on = self.frames[::2] if apart else self.frames
        damage_on = list(range(len(self.frames)))[1::2] if apart else list(range(len(self.frames)))
        self._damage_indices = damage_on[:: max(len(damage_on) // _DAMAGE_FRAMES, 1)][:_DAMAGE_FRAMES]
        self._damage_frames = [self.frames[index] for index in self._damage_indices]
        self._expected = self._answers(source.file, "fp32")

    def calibrate(self) -> None:
        """Collect the statistics for choosing a plan; see `calibrate_on_all`."""
        self.writer.calibrate(self._calibrate_first_on)

    def calibrate_on_all(self) -> None:
        """Collect the statistics of every frame, for the final artifact."""
        if self._calibrate_first_on is not self.frames:
            self.writer = self._new_writer()
            self.writer.calibrate(self.frames)

    @property
    def layers(self) -> Sequence[str]:
        """Layers that can be int8; calibration removes those whose tensors were always zero."""
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
        """Standard error of a plan's metric, see `Objective`; infinite where its artifact cannot be made or run."""
        if plan not in self._uncertain:  # the process was killed between the two measurements
            self.metric(plan)
        return self._uncertain.get(plan, float("inf"))

    @property
    def float_metric(self) -> float:
        """The float artifact's metric on the search's pictures."""
        return self._float_drawn[0]

    @cached_property
    def _float_drawn(self) -> tuple[float, NDArray[np.float64]]:
        return self._drawn(self.source.file, "fp32")

    def _drawn(self, file: Path, precision: str) -> tuple[float, NDArray[np.float64]]:
        assert self.settings.search_on is not None
        backend = self.source.made(file, precision=precision).open()
        try:
            return self.settings.search_on.measure_draws(self.source.runner(backend), resamples=_DRAWS)
        finally:
            backend.close()

    def evidence(self, file: Path, recipe: str) -> QuantizationEvidence:
        """How an artifact was made; its trial adds the measurements."""
        total = sum(layer.macs for layer in self.source.layers)
        really = self.writer.int8_layers(file)
        return QuantizationEvidence(
            recipe=recipe,
            calibration=self.settings.calibration.record,
            float_layers=tuple(layer.name for layer in self.source.layers if layer.name not in really),
            int8_mac_share=round(sum(la.macs for la in self.source.layers if la.name in really) / max(total, 1), 4),
            snr_db={},
            warnings=self.settings.calibration.warnings,
        )

    @cached_property
    def reference(self) -> Reference:
        """The reference for artifacts: on the search's pictures and on held-out ones."""
        batch, count = self.source.batch, len(self.settings.calibration.frames)
        rows = [(index * batch + row) % count for index in self._damage_indices for row in range(batch)]
        both = (self.settings.search_on, self.settings.evaluate_on)
        return float_reference(self.source, self.settings, rows, labelled=[some for some in both if some is not None])

    def calibrated_on(self, frames: Sequence[UInt8Array], plan: Plan) -> float:
        """The plan's metric (without labels: its damage) if it is calibrated on these frames."""
        writer, self.writer = self.writer, self._new_writer()
        try:
            self.writer.calibrate(batched(frames, self.source.batch))
            return self.damage(plan) if self.settings.search_on is None else self.metric(plan)
        finally:
            self.writer = writer

    def _new_writer(self) -> Int8Writer:
        writer_class = FORMATS.get(self.source.format).load_int8_writer()
        return writer_class(self.source.file, self.source.layers, threads=threads_here())

    def _answers(self, file: Path, precision: str) -> list[Outputs]:
        backend = self.source.made(file, precision=precision).open()
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
    """Groups of `batch` frames; an incomplete last group is dropped, unless it is the only one."""
    if batch == 1:
        return list(frames)
    groups = [frames[start : start + batch] for start in range(0, len(frames) - batch + 1, batch)]
    groups = groups or [[frames[index % len(frames)] for index in range(batch)]]
    return [np.concatenate(group) for group in groups]
