"""The gate: takes a file, its reference and pictures, and returns an artifact with evidence, or a refusal.

The order is the same for every format, precision and target: open, run, compare, measure, then refuse or record.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import Artifact, FileRecord, Refusal
from edgecnn.bundle.evidence import AccuracyEvidence, Evidence, Opened, ParityEvidence
from edgecnn.converters.base import Converted
from edgecnn.converters.candidate import Candidate, Outcome, Reference
from edgecnn.errors import AccuracyError, ConversionError, DeviceError, EdgeCnnError, Fault, GateError, ParityError
from edgecnn.measure import parity
from edgecnn.measure.damage import signal_to_noise_db
from edgecnn.measure.made_frames import is_finite, made_error
from edgecnn.runners.backend import Backend
from edgecnn.runners.verifier import Verifier

Outputs = dict[str, NDArray[Any]]
Report = Callable[[str], None]

REFUSING = (GateError, DeviceError)  # errors that refuse one artifact; any other error ends the work
ALLOW_DROP = "allow-drop"
# Networks never saw such made frames, and their values there are larger: random networks in half precision reach
# 2.4 times the limit for photographs. A wrong branch differs by more than ten times the limit.
_MADE_FRAMES = 5.0


class Trial:
    """Tests one artifact from its file to a record; every error message names the artifact.

    Args:
        format, precision, target: the artifact's format, precision and target.
    """

    def __init__(self, format: str, precision: str, *, target: str = "") -> None:  # noqa: A002 - the field's word
        self.format, self.precision, self.target = format, precision, target
        self._parity: ParityEvidence | None = None

    @property
    def name(self) -> str:
        """The artifact's name in messages: "onnx int8 for NAME"."""
        return f"{self.format} {self.precision}" + (f" for {self.target}" if self.target else "")

    def run(
        self,
        candidate: Candidate,
        reference: Reference,
        *,
        about: str = "",
        way_out: str = "Give --allow-drop to write it anyway",
        report: Report | None = None,
        verifier: Verifier | None = None,
    ) -> Outcome:
        """Open the file (first in a child process), run it, compare its answers, and measure its metric.

        Args:
            candidate: the file.
            reference: the reference.
            about: text added to the message where its metric is too low.
            way_out: advice in that message.
            report: called with each step's name.
            verifier: shared by several trials; by default, a new one.

        Raises:
            DeviceError: the runtime fails on it.
            ConversionError: the runtime crashes on it, or its answers are not finite.
            ParityError: its answers differ from the reference's.
            AccuracyError: its metric is too low.
        """
        report = report or (lambda what: None)
        self._check_in_child(candidate, verifier)
        backend = candidate.open()
        try:
            opened, count = backend.opened, len(reference.samples) + len(reference.made)
            report(f"running {count} frames on {opened.device_name}")
            answers = answers_of(backend, reference.samples, batch=candidate.batch)
            made = answers_of(backend, list(reference.made.values()), batch=candidate.batch)
            if not all(map(is_finite, [*answers, *made])):
                raise ConversionError(f"{self.name} answers with NaN or infinity on {opened.device_name}")
            found = self._compare(candidate, reference, opened, answers, made)
            accuracy = self._measure(candidate, reference, backend, about, way_out, report)
        finally:
            backend.close()
        kept = not any(measured.allowed_drop for measured in accuracy)
        if found.ok is None and accuracy:  # parity has no limits here, but the metric has
            found = msgspec.structs.replace(found, ok=kept)
        expected = [sample.expected for sample in reference.samples]
        return Outcome(
            opened=opened,
            parity=found,
            accuracy=accuracy,
            snr_db=signal_to_noise_db(answers[: len(expected)], expected),
            warnings=_warning_of_seen_pictures(reference),
            overrides=() if kept else (ALLOW_DROP,),
        )

    def artifact(
        self, files: tuple[FileRecord, ...], converted: Converted, evidence: Evidence, *, device: str = ""
    ) -> Artifact:
        """The record of an artifact that passed."""
        return Artifact(
            format=self.format,
            precision=self.precision,
            target=self.target,
            device=device,
            files=files,
            tool=converted.tool,
            transposes=converted.transposes,
            evidence=evidence,
        )

    def refused(self, error: EdgeCnnError) -> Refusal:
        """The record of an artifact that did not pass."""
        fault = Fault.of(error)
        return Refusal(
            format=self.format,
            precision=self.precision,
            target=self.target,
            error=fault.kind,
            reason=fault.reason,
            parity=self._parity,
        )

    def _check_in_child(self, candidate: Candidate, verifier: Verifier | None) -> None:
        """Raise ConversionError if the runtime crashes in a child process that opens and runs the file."""
        own = verifier or Verifier()
        try:
            own.check(candidate.opening())
        except EdgeCnnError as ended:
            crash = ended.fault.crash if ended.fault is not None else ""
            if not crash:
                raise
            how = "does not return from running it" if crash == "timeout" else f"crashes on it ({crash})"
            raise ConversionError(
                f"{self.name} was written, but the runtime {how}: the runtime has a bug in one of the network's "
                f"operators"
            ) from ended
        finally:
            if verifier is None:
                own.close()

    def _compare(
        self,
        candidate: Candidate,
        reference: Reference,
        opened: Opened,
        answers: Sequence[Outputs],
        made: Sequence[Outputs],
    ) -> ParityEvidence:
        samples = list(itertools.islice(itertools.cycle(reference.samples), len(answers)))
        found = parity.compare(
            samples,
            answers,
            task=candidate.task,
            precision=candidate.precision,
            match_results=reference.match_results,
            torch_rounding=reference.torch_rounding,
            device_name=opened.device_name,
            ran_on=opened,
            versions={"runtime": opened.runtime, **reference.versions},
        )
        limits = parity.LIMITS.get(candidate.precision)
        tie = 2 * limits.tensors if limits is not None else 0.0
        errors = {
            name: made_error(reference.samples, sample, answer, candidate.task, tie=tie)
            for (name, sample), answer in zip(reference.made.items(), made, strict=False)
        }
        self._parity = found = msgspec.structs.replace(found, made_frames=errors)
        if found.ok is False:
            raise ParityError(parity.describe(found, reference=reference.name))
        if found.limit is not None:
            self._check_made_frames(reference, errors, found.limit)
        return found

    def _check_made_frames(self, reference: Reference, errors: Mapping[str, float], limit: float) -> None:
        """Raise ParityError if the answer to a made frame differs by more than rounding explains."""
        limit *= _MADE_FRAMES
        for name, error in errors.items():
            if error <= limit:
                continue
            rounding = reference.rounding_of(reference.made[name]) if reference.rounding_of is not None else None
            if rounding is None and not reference.match_results:
                continue  # a random network, in float32 only: its answer to noise depends on rounding
            if rounding is None or error > parity.ROUNDINGS * rounding:
                assert self._parity is not None
                self._parity = msgspec.structs.replace(self._parity, ok=False)
                raise ParityError(
                    f"{self.name} agrees with {reference.name} on photographs, but not on a {name} frame: the answers "
                    f"differ by {error:.2g} (limit {limit:.2g}); check whether the network branches on its input (if "
                    "x.mean() < t: …): such a branch is fixed when the graph is written"
                )

    def _measure(
        self, candidate: Candidate, reference: Reference, backend: Backend, about: str, way_out: str, report: Report
    ) -> tuple[AccuracyEvidence, ...]:
        """The metric and the reference's metric on all labelled pictures; the largest drop decides."""
        found = []
        for pictures in reference.labelled:
            assert reference.reference_value is not None
            report(f"measuring on pictures of {pictures.name} on {backend.opened.device_name}")
            right = reference.reference_value(pictures)
            measured = pictures.measure(candidate.runner(backend))
            drop = right - measured.value
            found.append(
                msgspec.structs.replace(
                    measured,
                    precision=candidate.precision,
                    reference_value=right,
                    max_drop=reference.max_drop,
                    allowed_drop=not drop <= reference.max_drop,
                )
            )
        if reference.allow_drop or not any(measured.allowed_drop for measured in found):
            return tuple(found)
        worst = max(found, key=lambda measured: measured.drop or 0.0)
        raise AccuracyError(
            f"{self.name} has {worst.metric} {worst.value:.4f} on {worst.n} pictures of {worst.data} "
            f"({backend.opened.device_name}){about}, {reference.name} {worst.reference_value:.4f}: a drop of "
            f"{worst.drop:.4f} (--max-drop {reference.max_drop:g}). {way_out}"
        )


def answers_of(backend: Backend, samples: Sequence[parity.Sample], *, batch: int) -> list[Outputs]:
    """The answers to single frames, run in batches; an incomplete batch is filled up with its first frames.

    Every row of a batch artifact gets frames, so there may be more answers than samples.
    """
    rounds = math.ceil(len(samples) / batch)
    frames = list(itertools.islice(itertools.cycle(sample.frame for sample in samples), rounds * batch))
    answers: list[Outputs] = []
    for start in range(0, len(frames), batch):
        found = backend.infer(np.concatenate(frames[start : start + batch]))
        outputs = {name: value.copy() for name, value in found.items()}
        answers += [{name: value[row : row + 1] for name, value in outputs.items()} for row in range(batch)]
    return answers


def _warning_of_seen_pictures(reference: Reference) -> tuple[str, ...]:
    """A warning if every metric was measured on pictures that were used to make the artifact."""
    shared = [len(reference.took_part & set(pictures.images)) for pictures in reference.labelled]
    if not shared or not all(shared):
        return ()
    return tuple(
        f"{count} of the {len(pictures.images)} pictures for the metric were also used for calibration: "
        "the metric is too high; give held-out pictures with --evaluate-on"
        for count, pictures in zip(shared, reference.labelled, strict=True)
    )
