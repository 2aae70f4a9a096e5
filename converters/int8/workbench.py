"""Makes, runs and measures int8 artifacts of one format."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle.evidence import QuantizationEvidence
from edgecnn.converters.candidate import Reference
from edgecnn.converters.int8.base import Int8Writer
from edgecnn.converters.int8.float_artifact import FloatArtifact, float_reference
from edgecnn.converters.int8.held_back import Crossed
from edgecnn.converters.int8.search.plan import Plan, RangeMethod
from edgecnn.converters.int8.settings import Int8Settings
from edgecnn.errors import ConversionError, DeviceError
from edgecnn.formats import FORMATS
from edgecnn.measure.damage import damage
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import Backend
from edgecnn.targets import threads_here

Outputs = dict[str, NDArray[Any]]

_DAMAGE_FRAMES = 16
_DRAWS = 100  # estimates a standard error to about 10 % of itself
_TIMED_ROUNDS = 15
_TIMED_FRAMES = 5  # in a round


class Int8Bench:
    """One format's float artifact, its int8 writer, and the frames and pictures on which int8 artifacts are measured.

    It is the `Objective` of the search.

    Attributes:
        runtime: package and version that runs the measurements.
        is_crossed: whether candidates are judged on pictures that their calibration has not seen, though the same
            pictures were given for both.
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
        self._other: Int8Writer | None = None  # calibrated on the other half
        if not self.writer.layers:
            raise ConversionError(f"none of the network's layers was found in the {source.format} file; convert again")
        self.range_methods: Sequence[RangeMethod] = self.writer.range_methods
        self.corrects_weights = self.writer.corrects_weights
        self.last_error = self.runtime = ""
        self._work = work
        self._drops: dict[Plan, Sequence[float]] = {}
        enough = len(self.frames) >= 2 * _DAMAGE_FRAMES
        shared = settings.search_on is not None and not set(settings.search_on.images).isdisjoint(
            settings.calibration.hashes
        )
        # On the frames that the ranges come from, the metric is too high, and the noise up to six times too low.
        self.is_crossed = enough and shared
        apart = self.is_crossed or (enough and settings.search_on is None)
        self._calibrate_first_on = self.frames[::2] if apart else self.frames
        damage_on = list(range(len(self.frames)))[1::2] if apart else list(range(len(self.frames)))
        self._damage_indices = damage_on[:: max(len(damage_on) // _DAMAGE_FRAMES, 1)][:_DAMAGE_FRAMES]
        self._damage_frames = [self.frames[index] for index in self._damage_indices]
        self._expected = self._answers(source.file, "fp32")

    def calibrate(self) -> None:
        """Collect the statistics for choosing a plan; see `calibrate_on_all`.

        If the pictures to search on are those for calibration, two writers get a half each, and each is judged on what
        the other one got; see `edgecnn.converters.int8.held_back`.
        """
        self.writer.calibrate(self._calibrate_first_on)
        if self.is_crossed:
            self._other = self._new_writer()
            self._other.calibrate(self.frames[1::2])

    def calibrate_on_all(self) -> None:
        """Collect the statistics of every frame, for the final artifact."""
        if self._calibrate_first_on is not self.frames:
            self.writer, self._other = self._new_writer(), None
            self.writer.calibrate(self.frames)

    @property
    def layers(self) -> Sequence[str]:
        """Layers that can be int8; calibration removes those whose tensors were always zero."""
        if self._other is None:
            return self.writer.layers
        both = set(self._other.layers)
        return [name for name in self.writer.layers if name in both]

    @property
    def equalisable(self) -> Sequence[str]:
        """Layers that can be equalised."""
        other = set(self.writer.equalisable if self._other is None else self._other.equalisable)
        return [name for name in self.writer.equalisable if name in other]

    def damage(self, plan: Plan) -> float:
        """Noise of a plan's answers; infinite where its artifact cannot be made or run."""
        return self._tried(plan, lambda file: damage(self._answers(file, self.precision), self._expected), float("inf"))

    def metric(self, plan: Plan) -> float:
        """The task's metric of a plan; minus infinity where its artifact cannot be made or run."""

        def measure(file: Path) -> float:
            other = None
            if self._other is not None:
                folder = file.parent / "other"
                folder.mkdir()
                other = self._other.write(plan, folder).files[0]
            value, draws = self._drawn(file, self.precision, other)
            self._drops[plan] = (self._float_drawn[1] - draws).tolist()
            return value

        return self._tried(plan, measure, float("-inf"))

    def drops(self, plan: Plan) -> Sequence[float]:
        """A plan's drop in random draws of the pictures, see `Objective`."""
        if plan not in self._drops:  # the process was killed between the two measurements
            self.metric(plan)
        return self._drops.get(plan, ())

    def relative_latency(self, plan: Plan) -> float:
        """A plan's latency over the float artifact's, see `Objective`."""
        return self._tried(plan, self._timed_with_float, float("inf"))

    def _timed_with_float(self, file: Path) -> float:
        """Both in turns: the median of the rounds' ratios, as they share the state that the machine is in."""
        frame = self.frames[0]
        with ExitStack() as opened:
            backends = []
            for one, precision in ((file, self.precision), (self.source.file, "fp32")):
                backends.append(self.source.made(one, precision=precision).open())
                opened.callback(backends[-1].close)
            rounds = [[_latency_s(backend, frame) for backend in backends] for _ in range(_TIMED_ROUNDS + 1)]
        return float(np.median([ours / theirs for ours, theirs in rounds[1:]]))  # the first round warms up

    @property
    def float_metric(self) -> float:
        """The float artifact's metric on the search's pictures."""
        return self._float_drawn[0]

    @cached_property
    def _float_drawn(self) -> tuple[float, NDArray[np.float64]]:
        return self._drawn(self.source.file, "fp32")

    def _drawn(self, file: Path, precision: str, other: Path | None = None) -> tuple[float, NDArray[np.float64]]:
        """The metric and its draws; with a second file, each answers what the other one was calibrated on."""
        assert self.settings.search_on is not None
        with ExitStack() as opened:
            runners = []
            for one in (file,) if other is None else (file, other):
                backend = self.source.made(one, precision=precision).open()
                opened.callback(backend.close)
                runners.append(self.source.runner(backend))
            predictor = runners[0] if other is None else Crossed(runners[0], runners[1], self._first_half)
            return self.settings.search_on.measure_draws(predictor, resamples=_DRAWS)

    @cached_property
    def _first_half(self) -> frozenset[str]:
        """Content hashes of the pictures in the first half of the frames."""
        batch, hashes = self.source.batch, self.settings.calibration.hashes
        return frozenset(hashes[index] for index in range(len(self.frames) * batch) if index // batch % 2 == 0)

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
        writer, other = self.writer, self._other
        self.writer, self._other = self._new_writer(), None
        try:
            self.writer.calibrate(batched(frames, self.source.batch))
            return self.damage(plan) if self.settings.search_on is None else self.metric(plan)
        finally:
            self.writer, self._other = writer, other

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


def _latency_s(backend: Backend, frame: UInt8Array) -> float:
    """The least of a few inferences' durations."""
    durations = []
    for _ in range(_TIMED_FRAMES):
        start = time.perf_counter()
        backend.infer(frame)
        durations.append(time.perf_counter() - start)
    return min(durations)


def batched(frames: Sequence[UInt8Array], batch: int) -> list[UInt8Array]:
    """Groups of `batch` frames; an incomplete last group is dropped, unless it is the only one."""
    if batch == 1:
        return list(frames)
    groups = [frames[start : start + batch] for start in range(0, len(frames) - batch + 1, batch)]
    groups = groups or [[frames[index % len(frames)] for index in range(batch)]]
    return [np.concatenate(group) for group in groups]
