"""From a trained network to a verified bundle: deployable → converters → gates → bundle."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edgecnn._version import __version__
from edgecnn.bundle import (
    QUANTIZED,
    Artifact,
    Manifest,
    Refusal,
    SourceRecord,
    check_nothing_lost,
    commit,
    removal_remarks,
    staged,
    store_files,
)
from edgecnn.bundle.evidence import PreprocessEvidence
from edgecnn.converters.base import Converter
from edgecnn.converters.candidate import Candidate, Reference
from edgecnn.converters.deployable.decoders import head_decoder
from edgecnn.converters.deployable.wrapper import Deployable, count_macs, signature
from edgecnn.converters.for_target import make_for_target
from edgecnn.converters.int8.settings import Int8Settings
from edgecnn.converters.layers import record_layers
from edgecnn.converters.quantize_bundle import Conversion, make_int8
from edgecnn.converters.torch_reference import AccuracyGate, deployed, preprocess_gate, reference_of
from edgecnn.converters.trial import REFUSING, Trial
from edgecnn.errors import ConversionError
from edgecnn.formats import FORMATS, compiler_of
from edgecnn.native_steps import native_step
from edgecnn.results import UInt8Array
from edgecnn.runners.verifier import Verifier
from edgecnn.sources.model import TrainedModel
from edgecnn.targets import Target
from edgecnn.tasks import TASKS

Progress = Callable[[int, int, str], None]


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
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Convert a network to each format and precision, run each result, and keep those that answer as torch does.

    Args:
        model: the network.
        out: the bundle's folder; of a bundle that exists there, artifacts that are still valid are kept (see
            `edgecnn.bundle.commit`).
        formats, precisions: which artifacts to make.
        pictures: uint8 [height, width, 3] BGR, on which artifacts are compared with torch.
        batch: frames per inference.
        accuracy: also measure the task's metric.
        int8: settings for int8 artifacts; needed where one of `precisions` is calibrated.
        target: the target to build for; where it has a compiler, quantized artifacts are compiled for it.
        overwrite: replace the bundle that exists there, even if artifacts or evidence are lost.
        progress: called with (steps done, steps in all, name of the step).

    Raises:
        BlindError: the network gives the same answer for every picture.
        ParityError: our pre-processing differs from the source's own.
        SourceError, SpecError: the network cannot be made deployable.
        MissingDependencyError: the target's compiler is not installed.
        StorageError: disk full, or `out` not writable.
        SpecError: int8 artifacts or evidence in `out` would be lost.
    """
    steps = _Steps(2 + len(formats) * len(precisions), progress)
    # Report a missing package before the work begins.
    converters = {name: FORMATS.get(name).load_converter() for name in formats}
    if target is not None and set(precisions) & set(target.compiled):
        for name in formats:
            compiler_of(name, target.compiler).load(f"target {target.name!r}")
    if isinstance(model.decode, str):
        head_decoder(model.decode)
    steps.next(f"preparing {model.name}")
    with staged(out) as staging, Verifier() as verifier:
        model, deployable, samples = deployed(model, pictures)
        preprocess = preprocess_gate(model, pictures)
        if accuracy is not None:
            steps.next("measuring the torch network")
        reference = reference_of(deployable, samples, model.source.random, accuracy)
        contract = _contract(model, deployable, batch, preprocess)
        if not overwrite:
            check_nothing_lost(out, contract, [(name, precision) for name in formats for precision in precisions])
        artifacts: list[Artifact] = []
        refused: list[Refusal] = []
        for name, converter_class in converters.items():
            converter = converter_class(deployable, batch=batch)
            for precision in precisions:
                steps.next(f"{name} {precision}")
                if precision in QUANTIZED:
                    made = _quantized(contract, name, precision, converter, staging, int8, target, steps.within)
                else:
                    made = _artifact(contract, reference, name, precision, converter, staging, verifier)
                (artifacts if isinstance(made, Artifact) else refused).append(made)  # type: ignore[arg-type]
        manifest = msgspec.structs.replace(contract, artifacts=tuple(artifacts), refused=tuple(refused))
        steps.next("writing")
        remarks = removal_remarks(out) if artifacts else ()
        bundle = commit(staging, out, manifest, overwrite=overwrite) if artifacts else None
    if int8 is not None and bundle is not None:
        int8.forget_search()
    return Conversion(bundle, tuple(refused), (*model.warnings, *remarks))


def _contract(model: TrainedModel, deployable: Deployable, batch: int, preprocess: PreprocessEvidence) -> Manifest:
    """What every artifact of the network promises; artifacts are added later."""
    inputs, outputs = signature(deployable, batch=batch)
    return Manifest(
        edgecnn=__version__,
        name=model.name,
        source=_with_task_package(model),
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


def _with_task_package(model: TrainedModel) -> SourceRecord:
    """The network's source; its packages include the plug-in package of its task, which opening the bundle needs."""
    source, package = model.source, TASKS.package_of(model.task.name)
    return msgspec.structs.replace(source, versions={**source.versions, **package}) if package else source


class _Steps:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total, self._progress, self._done, self._what = total, progress, -1, ""

    def next(self, what: str) -> None:
        self._done, self._what = min(self._done + 1, self._total), what
        if self._progress is not None:
            self._progress(self._done, self._total, what)

    def within(self, done: int, total: int, what: str) -> None:
        """Report progress inside a long step."""
        if self._progress is not None:
            self._progress(done, total, f"{self._what}: {what}")


def _artifact(
    contract: Manifest,
    reference: Reference,
    name: str,
    precision: str,
    converter: Converter,
    staging: Path,
    verifier: Verifier,
) -> Artifact | Refusal:
    """One artifact: written, opened, run and compared; or the reason for its refusal."""
    trial = Trial(name, precision)
    try:
        if precision not in converter.precisions:
            known = ", ".join(converter.precisions)
            raise ConversionError(f"{name} cannot be written in {precision} here; it can be written in {known}")
        with tempfile.TemporaryDirectory(dir=staging) as folder:
            with native_step(name, f"writing {name}"):
                converted = converter.write(precision, Path(folder))
            candidate = Candidate(
                format=name,
                precision=precision,
                file=converted.files[0],
                frame=contract.frame,
                task=contract.task,
                outputs=contract.outputs,
                batch=contract.batch,
            )
            with native_step(trial.name, f"running {trial.name}"):
                outcome = trial.run(candidate, reference, verifier=verifier)
            moved = [file.rename(staging / f"{name}-{precision}{file.suffix}") for file in converted.files]
    except REFUSING as failed:
        return trial.refused(failed)
    return trial.artifact(store_files(staging, f"{name}-{precision}", moved), converted, outcome.evidence())


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
    """One int8 artifact and the float artifact that it is made from, which is not kept in the bundle."""
    if (row := FORMATS.get(name)).int8_writer is None:
        why = f"{name} cannot be written in {precision}: {row.why_no_int8}"
        return Trial(name, precision).refused(ConversionError(why))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        try:
            with native_step(name, f"writing {name}"):
                written = converter.write("fp32", folder)
        except REFUSING as failed:
            return Trial(name, precision).refused(failed)
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
