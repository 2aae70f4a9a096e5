"""From a trained network to a verified bundle: deployable → converters → gates → bundle."""

from __future__ import annotations

import copy
import itertools
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import torch

import edgecnn
from edgecnn._devices import default_threads, parse_device
from edgecnn.bundle import QUANTIZED, Artifact, Manifest, Refusal, TensorSpec, commit, staged, store_files
from edgecnn.converters.base import Converted, Converter
from edgecnn.converters.deployable import (
    Deployable,
    count_macs,
    is_untrained,
    set_batch_norm_statistics,
    signature,
)
from edgecnn.converters.for_target import make_for_target
from edgecnn.converters.int8.bench import Int8Settings, LabelledPictures
from edgecnn.converters.layers import record_layers
from edgecnn.converters.quantize_bundle import Conversion, make_int8
from edgecnn.errors import (
    AccuracyError,
    BlindError,
    ConversionError,
    DeviceError,
    GateError,
    MissingDependencyError,
    ParityError,
)
from edgecnn.evidence import AccuracyEvidence, Evidence, ParityEvidence, PreprocessEvidence
from edgecnn.frame import FrameFitter
from edgecnn.measure import parity
from edgecnn.measure.reference import TorchBackend
from edgecnn.registry import BACKENDS, COMPILERS, CONVERTERS
from edgecnn.results import Result, UInt8Array
from edgecnn.runners.base import Backend, Runner
from edgecnn.sources import TrainedModel
from edgecnn.targets import Target

Progress = Callable[[int, int, str], None]
Predict = Callable[[UInt8Array], Result]

# A random network is blind without batch-norm statistics; one that differs less than this between photographs
# cannot be told from one that is broken.
BLIND_BELOW = 10 * parity.LIMITS["fp32"].tensors


@dataclass(frozen=True, kw_only=True)
class AccuracyGate:
    """Labelled data that artifacts are measured on before they count.

    Attributes:
        pictures: to measure on.
        max_drop: how far below the torch network's an artifact's metric may lie.
        allow_drop: write it all the same, and say so in the evidence.
    """

    pictures: LabelledPictures
    max_drop: float
    allow_drop: bool = False


def build_bundle(
    model: TrainedModel,
    *,
    out: Path,
    formats: Sequence[str],
    precisions: Sequence[str],
    pictures: Sequence[UInt8Array],
    batch: int = 1,
    accuracy: AccuracyGate | None = None,
    int8: Int8Settings | None = None,
    target: Target | None = None,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a network to each format and precision, run each result, and keep those that answer as torch does.

    Args:
        model: the network.
        out: the bundle's folder; an old bundle there is replaced when this one is complete.
        formats, precisions: what to make.
        pictures: uint8 [height, width, 3] BGR, that artifacts are compared on.
        batch: frames per inference.
        accuracy: also measure the task's metric.
        int8: how int8 artifacts are made; needed where `precisions` has one that is calibrated.
        target: what is built for; where it has a compiler, quantized artifacts are compiled for it.
        progress: called with (steps done, steps in all, what is being done).

    Raises:
        BlindError: the network answers the same whatever it sees.
        ParityError: our pre-processing differs from the source's own.
        SourceError, SpecError: the network cannot be made deployable.
        MissingDependencyError: the target's compiler is not installed.
        StorageError: disk full, or `out` not writable.
    """
    steps = _Steps(2 + len(formats) * len(precisions), progress)
    converters = {name: CONVERTERS.get(name) for name in formats}  # what is missing is said before the work
    if target is not None and set(precisions) & set(target.compiled):
        _require_compiler(target)
    steps.next(f"preparing {model.name}")
    with staged(out) as staging:
        model, deployable, samples = _deployed(model, pictures)
        preprocess = _preprocess_gate(model, pictures)
        inputs, outputs = signature(deployable, batch=batch)
        rounding = _torch_rounding(deployable, samples) if model.source.random else None
        bench = _Bench(deployable, outputs, samples, batch, model.source.random, rounding)
        if accuracy is not None:
            steps.next("measuring the torch network")
            bench.accuracy, bench.reference_accuracy = accuracy, accuracy.pictures.measure(_torch_runner(deployable))
        contract = Manifest(
            edgecnn=edgecnn.__version__,
            name=model.name,
            source=model.source,
            frame=model.frame,
            task=deployable.task,
            batch=batch,
            inputs=inputs,
            outputs=outputs,
            in_graph=deployable.in_graph,
            parameters=deployable.parameter_count,
            macs=count_macs(deployable),
            layers=record_layers(deployable, deployable.example(), model.ranges),
            preprocess=preprocess,
        )
        artifacts: list[Artifact] = []
        refused: list[Refusal] = []
        for name, converter_class in converters.items():
            converter = converter_class(deployable, batch=batch)
            for precision in precisions:
                steps.next(f"{name} {precision}")
                if precision in QUANTIZED:
                    made = _quantized(contract, name, precision, converter, staging, int8, target, steps.within)
                else:
                    made = _artifact(bench, name, precision, converter, staging)
                (artifacts if isinstance(made, Artifact) else refused).append(made)  # type: ignore[arg-type]
        manifest = msgspec.structs.replace(contract, artifacts=tuple(artifacts), refused=tuple(refused))
        steps.next("writing")
        bundle = commit(staging, out, manifest) if artifacts else None
    if int8 is not None and bundle is not None:
        int8.forget_search()
    return Conversion(bundle, tuple(refused), model.warnings)


def _require_compiler(target: Target) -> None:
    if target.compiler not in COMPILERS.installed():
        needs, extra = COMPILERS.needs(target.compiler), COMPILERS.extra(target.compiler)
        raise MissingDependencyError(f"target {target.name!r}", " or ".join(needs), extra=extra)


class _Steps:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done, self._what = total, progress, -1, ""

    def next(self, what: str) -> None:
        self._done, self._what = min(self._done + 1, self._total), what
        if self._progress is not None:
            self._progress(self._done, self._total, what)

    def within(self, done: int, total: int, what: str) -> None:
        """A step that is long enough to have steps of its own."""
        if self._progress is not None:
            self._progress(done, total, f"{self._what}: {what}")


@dataclass
class _Bench:
    """What every artifact is held against."""

    deployable: Deployable
    outputs: tuple[TensorSpec, ...]
    samples: list[parity.Sample]
    batch: int
    random: bool
    torch_rounding: float | None = None
    accuracy: AccuracyGate | None = None
    reference_accuracy: AccuracyEvidence | None = None


def _deployed(
    model: TrainedModel, pictures: Sequence[UInt8Array]
) -> tuple[TrainedModel, Deployable, list[parity.Sample]]:
    """The network ready to convert, with the torch network's answers; random ones get batch-norm statistics.

    A network of the user's is changed only where it is blind as it is and its batch normalisations never saw data.

    Raises:
        BlindError: it answers the same whatever it sees.
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
    warning = f"{model.name} has random weights: this shows that the network converts; it knows nothing"
    source = msgspec.structs.replace(model.source, random=True)
    model = replace(model, module=module, source=source, warnings=(*model.warnings, warning))
    deployable = Deployable(model)
    return model, deployable, _samples(deployable, pictures)


def _samples(deployable: Deployable, pictures: Sequence[UInt8Array]) -> list[parity.Sample]:
    """Each picture as a frame, with the torch network's answer.

    Raises:
        BlindError: the answers hardly differ.
    """
    fitter = FrameFitter(deployable.frame_spec)
    samples = []
    for picture in pictures:
        fitted, place = fitter(picture)
        frame = fitted.copy()
        with torch.inference_mode():
            unsaturated = [tensor.numpy() for tensor in deployable.unsaturated(torch.from_numpy(frame))]
        samples.append(parity.Sample(frame, place, deployable.answer(frame), unsaturated))
    spread = parity.blindness(samples)
    if not spread >= BLIND_BELOW:  # NaN is blind too
        raise BlindError(
            f"the network is blind: between {len(samples)} different pictures its outputs differ by {spread:.1g} of "
            f"their size (at least {BLIND_BELOW:.0e} is needed to compare anything). Are the weights trained and the "
            "pre-processing (--mean, --std, --scale) right?"
        )
    return samples


def _torch_rounding(deployable: Deployable, samples: Sequence[parity.Sample]) -> float | None:
    """How far the torch network's answers are from those in float64; None where it can't compute in float64."""
    exact = copy.deepcopy(deployable).double()
    try:
        answers = [exact.answer(sample.frame) for sample in samples]
    except RuntimeError:  # something in it is float32 whatever it is given
        return None
    return parity.relative_error(samples, answers, deployable.task)


def _preprocess_gate(model: TrainedModel, pictures: Sequence[UInt8Array]) -> PreprocessEvidence:
    if model.reference is None:
        return PreprocessEvidence(compared=False, reason="no reference, or the frame was changed by options")
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


def _artifact(bench: _Bench, name: str, precision: str, converter: Converter, staging: Path) -> Artifact | Refusal:
    """One artifact: written, opened, run, compared; or why not."""
    evidence: ParityEvidence | None = None
    try:
        if precision not in converter.precisions:
            known = ", ".join(converter.precisions)
            raise ConversionError(f"{name} is not written in {precision} here; it is in {known}")
        with tempfile.TemporaryDirectory(dir=staging) as folder:
            converted = converter.write(precision, Path(folder))
            backend = _opened(bench, name, precision, converted)
            try:
                evidence = _parity(bench, precision, backend)
                if evidence.ok is False:
                    raise ParityError(parity.describe(evidence))
                measured = _accuracy_gate(bench, name, precision, backend)
                if evidence.ok is None and measured:  # no limits of its own, but the metric has
                    evidence = msgspec.structs.replace(evidence, ok=not any(a.allowed_drop for a in measured))
            finally:
                backend.close()
            moved = [file.rename(staging / f"{name}-{precision}{file.suffix}") for file in converted.files]
    except (GateError, DeviceError) as failed:
        return Refusal(
            format=name, precision=precision, error=type(failed).__name__, reason=str(failed), parity=evidence
        )
    overrides = ("allow-drop",) if any(a.allowed_drop for a in measured) else ()
    return Artifact(
        format=name,
        precision=precision,
        files=store_files(staging, f"{name}-{precision}", moved),
        tool=converted.tool,
        transposes=converted.transposes,
        evidence=Evidence(parity=evidence, accuracy=measured, overrides=overrides),
    )


def _quantized(
    contract: Manifest,
    name: str,
    precision: str,
    converter: Converter,
    staging: Path,
    settings: Int8Settings | None,
    target: Target | None,
    progress: Progress,
) -> Artifact | Refusal:
    """One int8 artifact beside a float one of its own, which stays out of the bundle."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            written = converter.write("fp32", folder)
        except GateError as failed:
            return Refusal(format=name, precision=precision, error=type(failed).__name__, reason=str(failed))
        files = store_files(folder, f"{name}-fp32", list(written.files))
        twin = Artifact(format=name, precision="fp32", files=files)
        if target is not None and precision in target.compiled and settings is not None:
            return make_for_target(
                contract,
                twin,
                folder,
                target=target,
                precision=precision,
                settings=settings,
                into=staging,
                progress=progress,
            )
        return make_int8(
            contract, twin, folder, precision=precision, settings=settings, into=staging, progress=progress
        )


def _opened(bench: _Bench, name: str, precision: str, converted: Converted) -> Backend:
    return BACKENDS.get(name)(
        converted.files[0],
        outputs=bench.outputs,
        device=parse_device("cpu"),
        precision=precision,
        threads=default_threads(),
    )


def _parity(bench: _Bench, precision: str, backend: Backend) -> ParityEvidence:
    rounds = math.ceil(len(bench.samples) / bench.batch)
    samples = list(itertools.islice(itertools.cycle(bench.samples), rounds * bench.batch))  # every row sees some
    answers = []
    for start in range(0, len(samples), bench.batch):
        frames = np.concatenate([sample.frame for sample in samples[start : start + bench.batch]])
        outputs = {name: value.copy() for name, value in backend.infer(frames).items()}
        answers += [{name: value[row : row + 1] for name, value in outputs.items()} for row in range(bench.batch)]
    return parity.compare(
        samples,
        answers,
        task=bench.deployable.task,
        precision=precision,
        match_results=not bench.random,
        torch_rounding=bench.torch_rounding,
        device_name=backend.opened.device_name,
        ran_on=backend.opened,
        versions={"runtime": backend.opened.runtime, "torch": str(torch.__version__)},
    )


def _accuracy_gate(bench: _Bench, name: str, precision: str, backend: Backend) -> tuple[AccuracyEvidence, ...]:
    gate, reference = bench.accuracy, bench.reference_accuracy
    if gate is None or reference is None:
        return ()
    runner = Runner(backend, frame=bench.deployable.frame_spec, task=bench.deployable.task, batch=bench.batch)
    measured = gate.pictures.measure(runner)
    drop = reference.value - measured.value
    if drop > gate.max_drop and not gate.allow_drop:
        raise AccuracyError(
            f"{name} {precision} has {measured.metric} {measured.value:.4f}, the torch network {reference.value:.4f}: "
            f"a drop of {drop:.4f} (--max-drop {gate.max_drop}). --allow-drop writes it all the same"
        )
    return (
        msgspec.structs.replace(
            measured,
            precision=precision,
            reference_value=reference.value,
            max_drop=gate.max_drop,
            allowed_drop=drop > gate.max_drop,
        ),
    )


def _torch_runner(deployable: Deployable) -> Runner:
    return Runner(TorchBackend(deployable.answer, threads=None), frame=deployable.frame_spec, task=deployable.task)
