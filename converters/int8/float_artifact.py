"""The float artifact that an int8 artifact is made from, and compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecnn.bundle import Artifact, LayerRecord, Manifest
from edgecnn.converters.candidate import Candidate, LabelledPictures, Reference
from edgecnn.converters.int8.settings import Int8Settings
from edgecnn.converters.trial import answers_of
from edgecnn.measure import parity
from edgecnn.measure.made_frames import made_frames, usable
from edgecnn.runners.backend import Backend


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
