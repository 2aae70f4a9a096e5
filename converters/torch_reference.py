"""The torch network as the reference of a conversion: made deployable, and its answers to what artifacts are run on."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec
import torch

from edgecnn.bundle.evidence import PreprocessEvidence
from edgecnn.converters.candidate import LabelledPictures, Reference
from edgecnn.converters.deployable.wrapper import Deployable, is_untrained, set_batch_norm_statistics
from edgecnn.errors import BlindError, ParityError
from edgecnn.frame import FrameFitter, Placement
from edgecnn.measure import parity
from edgecnn.measure.made_frames import made_frames, usable
from edgecnn.measure.reference import TorchBackend
from edgecnn.results import UInt8Array
from edgecnn.runners.runner import Runner
from edgecnn.sources.model import TrainedModel

# A random network gives nearly constant outputs without batch-norm statistics; a network whose outputs differ less than
# this between photographs looks the same as a broken one.
BLIND_BELOW = 10 * parity.LIMITS["fp32"].tensors


@dataclass(frozen=True, kw_only=True)
class AccuracyGate:
    """Labelled pictures on which artifacts are measured before they are accepted.

    Attributes:
        pictures: the labelled pictures.
        max_drop: largest allowed drop of the metric below the torch network's.
        allow_drop: write an artifact with a larger drop too, and record that in the evidence.
    """

    pictures: LabelledPictures
    max_drop: float
    allow_drop: bool = False


def reference_of(
    deployable: Deployable, samples: list[parity.Sample], random: bool, gate: AccuracyGate | None
) -> Reference:
    """The reference for every artifact: the torch network's answers, and its metric where labelled data is given."""
    rounding = _RoundingError(deployable)
    photograph = samples[0]
    made = {
        name: _answered(deployable, frame, photograph.place) for name, frame in made_frames(photograph.frame).items()
    }
    values: dict[str, float] = {}
    if gate is not None:
        values[gate.pictures.name] = gate.pictures.measure(_torch_runner(deployable)).value
    return Reference(
        name="the torch network",
        samples=samples,
        made=usable(made),
        match_results=not random,
        torch_rounding=rounding(samples) if random else None,
        rounding_of=lambda sample: rounding([*samples, sample]),
        labelled=() if gate is None else (gate.pictures,),
        reference_value=lambda pictures: values[pictures.name],
        max_drop=0.0 if gate is None else gate.max_drop,
        allow_drop=gate is not None and gate.allow_drop,
        versions={"torch": str(torch.__version__)},
    )


def deployed(
    model: TrainedModel, pictures: Sequence[UInt8Array]
) -> tuple[TrainedModel, Deployable, list[parity.Sample]]:
    """The network ready to convert, and the torch network's answers; random networks get batch-norm statistics.

    The user's own network is changed only if it gives constant outputs and its batch normalisations never saw data.

    Raises:
        BlindError: it gives the same answer for every picture.
    """
    if not model.source.random:
        deployable = Deployable(model)
        try:
            return model, deployable, _samples(deployable, pictures)
        except BlindError:
            if not is_untrained(model.module):
                raise
    fitter = FrameFitter(model.frame)
    module = copy.deepcopy(model.module)
    set_batch_norm_statistics(module, model.frame, [fitter(picture)[0].copy() for picture in pictures])
    warning = f"{model.name} has random weights: this shows only that the network converts; its answers mean nothing"
    source = msgspec.structs.replace(model.source, random=True)
    model = replace(model, module=module, source=source, warnings=(*model.warnings, warning))
    deployable = Deployable(model)
    return model, deployable, _samples(deployable, pictures)


def _samples(deployable: Deployable, pictures: Sequence[UInt8Array]) -> list[parity.Sample]:
    """Each picture fitted to a frame, with the torch network's answer.

    Raises:
        BlindError: the answers hardly differ between pictures.
    """
    fitter = FrameFitter(deployable.frame_spec)
    samples = []
    for picture in pictures:
        fitted, place = fitter(picture)
        samples.append(_answered(deployable, fitted.copy(), place))
    spread = parity.blindness(samples)
    if not spread >= BLIND_BELOW:  # this is also true for NaN
        raise BlindError(
            f"the network is blind: its outputs for {len(samples)} different pictures differ by only {spread:.1g} of "
            f"their size (expected at least {BLIND_BELOW:.0e}, otherwise a comparison proves nothing). Check that the "
            "weights are trained and that --mean, --std and --scale are right"
        )
    return samples


def _answered(deployable: Deployable, frame: UInt8Array, place: Placement) -> parity.Sample:
    """A frame with the torch network's answer."""
    answer, unsaturated = deployable.both_answers(frame)
    return parity.Sample(frame, place, answer, unsaturated)


class _RoundingError:
    """Rounding error of the torch network: its answers compared with float64; None where float64 is impossible."""

    def __init__(self, deployable: Deployable) -> None:
        self._deployable = deployable

    def __call__(self, samples: Sequence[parity.Sample]) -> float | None:
        """The rounding error for these samples."""
        exact = copy.deepcopy(self._deployable).double()
        try:
            answers = [exact.answer(sample.frame) for sample in samples]
        except RuntimeError:  # a part of the network is fixed to float32
            return None
        return parity.relative_error(samples, answers, self._deployable.task)


def preprocess_gate(model: TrainedModel, pictures: Sequence[UInt8Array]) -> PreprocessEvidence:
    """Our pre-processing beside the source's own.

    Raises:
        ParityError: they differ.
    """
    if model.reference is None:
        return PreprocessEvidence(compared=False, reason="no reference, or options changed the frame")
    reference = model.reference
    evidence = parity.compare_preprocessing(
        model.frame, pictures, reference.apply, name=reference.name, square_only=reference.square_only
    )
    if evidence.compared and (
        (evidence.max_levels or 0) > parity.MAX_LEVELS or (evidence.mean_levels or 0) > parity.MEAN_LEVELS
    ):
        raise ParityError(
            f"the frame differs from {reference.name}'s by up to {evidence.max_levels} grey levels, "
            f"{evidence.mean_levels} on average (limits {parity.MAX_LEVELS} and {parity.MEAN_LEVELS})"
        )
    return evidence


def _torch_runner(deployable: Deployable) -> Runner:
    return Runner(TorchBackend(deployable.answer, threads=None), frame=deployable.frame_spec, task=deployable.task)
