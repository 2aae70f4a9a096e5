"""What a trial is of: a file that may become an artifact, the reference it is compared with, and what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import TensorSpec, sha256_of
from edgecnn.bundle.evidence import (
    AccuracyEvidence,
    Evidence,
    Opened,
    ParityEvidence,
    PlacementEvidence,
    QuantizationEvidence,
)
from edgecnn.formats.devices import parse_device
from edgecnn.frame import FrameSpec
from edgecnn.measure import parity
from edgecnn.measure.accuracy import Predictor
from edgecnn.runners.backend import Backend, open_backend
from edgecnn.runners.runner import Runner
from edgecnn.runners.verifier import Opening
from edgecnn.tasks import Task


class LabelledPictures(Protocol):
    """Labelled pictures for the network's task.

    Attributes:
        name: the data's name.
        metric: the metric's name.
    """

    name: str
    metric: str

    @property
    def images(self) -> tuple[str, ...]:
        """Content hashes of the pictures."""
        ...

    def limited(self, count: int) -> LabelledPictures:
        """At most `count` of them, evenly spaced."""
        ...

    def measure(self, runner: Runner, *, resamples: int = 200) -> AccuracyEvidence:
        """The task's metric; without resamples, without an interval."""
        ...

    def measure_draws(self, runner: Predictor, *, resamples: int) -> tuple[float, NDArray[np.float64]]:
        """The task's metric, and its values for `resamples` random draws of the pictures, always the same draws."""
        ...


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A file that may become an artifact, with all that is needed to open and run it.

    Attributes:
        format, precision: the file's format and precision.
        file: the file to open.
        frame, task, outputs, batch: as in the manifest.
        device: the device to run it on.
    """

    format: str
    file: Path
    frame: FrameSpec
    task: Task
    outputs: Sequence[TensorSpec]
    batch: int = 1
    precision: str = "fp32"
    device: str = "cpu"

    def open(self) -> Backend:
        """Open the file on its device.

        Raises:
            DeviceError: the runtime fails on it.
        """
        return open_backend(
            self.format,
            self.file,
            outputs=self.outputs,
            device=parse_device(self.device),
            precision=self.precision,
        )

    def opening(self) -> Opening:
        """The same request as `open`, for a child process."""
        files = sorted(self.file.parent.glob(f"{self.file.stem}.*"))
        return Opening(
            path=self.file,
            sha256=[sha256_of(file) for file in files],
            format=self.format,
            outputs=self.outputs,
            device=parse_device(self.device),
            precision=self.precision,
            frame_shape=(self.batch, self.frame.height_px, self.frame.width_px, 3),
        )

    def runner(self, backend: Backend) -> Runner:
        """A runner for this file, as a bundle would give."""
        return Runner(backend, frame=self.frame, task=self.task, batch=self.batch)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The reference that a candidate is compared with.

    Attributes:
        name: name of the reference in messages: "the torch network", "the float artifact".
        samples: frames with the reference's answers.
        made: dark, bright, blank and noise frames with its answers, by name.
        match_results: also compare final results of `samples`; False where rounding may change near ties.
        torch_rounding: rounding error for `samples`, see `parity.compare`.
        rounding_of: rounding error of any sample, called where a made frame fails; None where it is unknown.
        labelled: labelled pictures on which the task's metric is measured.
        reference_value: returns the reference's metric on one of these.
        max_drop: largest allowed drop of the candidate's metric below that.
        allow_drop: let a candidate with a larger drop pass, and record that in the evidence.
        took_part: content hashes of the pictures used to make the candidate.
        versions: versions of the reference's packages.
    """

    name: str
    samples: Sequence[parity.Sample]
    made: Mapping[str, parity.Sample]
    match_results: bool = True
    torch_rounding: float | None = None
    rounding_of: Callable[[parity.Sample], float | None] | None = None
    labelled: Sequence[LabelledPictures] = ()
    reference_value: Callable[[LabelledPictures], float] | None = None
    max_drop: float = 0.0
    allow_drop: bool = False
    took_part: frozenset[str] = frozenset()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The measurements of a candidate that passed.

    Attributes:
        opened: proof of the runtime, device and precision that ran.
        parity: its answers compared with the reference's.
        accuracy: its metric compared with the reference's; empty without labelled pictures.
        snr_db: signal-to-noise ratio of its outputs over `Reference.samples`, in decibels.
        warnings: warnings about the measurements.
        overrides: options that let it pass.
    """

    opened: Opened
    parity: ParityEvidence
    accuracy: tuple[AccuracyEvidence, ...]
    snr_db: dict[str, float]
    warnings: tuple[str, ...]
    overrides: tuple[str, ...]

    def evidence(
        self, quantization: QuantizationEvidence | None = None, placement: PlacementEvidence | None = None
    ) -> Evidence:
        """The measurements in the manifest's form."""
        return Evidence(
            parity=self.parity,
            accuracy=self.accuracy,
            quantization=quantization,
            placement=placement,
            overrides=self.overrides,
        )
