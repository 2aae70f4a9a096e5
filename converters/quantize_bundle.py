"""Makes int8 artifacts for a bundle from its float ones."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgecnn.bundle import (
    Artifact,
    Bundle,
    Manifest,
    Refusal,
    check_nothing_lost,
    commit,
    removal_remarks,
    staged,
    store_files,
)
from edgecnn.bundle.evidence import QuantizationEvidence
from edgecnn.converters.int8.float_artifact import FloatArtifact
from edgecnn.converters.int8.settings import Int8Settings
from edgecnn.converters.quantize import Progress, quantize_artifact
from edgecnn.converters.trial import REFUSING, Trial
from edgecnn.errors import BundleError, DeviceError, SpecError, SpeedError
from edgecnn.measure.int8_speedup import Twin, time_twins
from edgecnn.native_steps import native_step
from edgecnn.runners.verifier import verify_first

_FOR_THIS_MACHINE = ("int8", "int8-dynamic")  # int8-a16 is for DSPs: on a processor it is always slower


@dataclass(frozen=True)
class Conversion:
    """The result of `convert` or `quantize`.

    Attributes:
        bundle: the bundle with the artifacts that passed; None where none passed.
        refused: the artifacts that did not pass, or could not be made.
        warnings: warnings for the user, in sentences.
    """

    bundle: Bundle | None
    refused: tuple[Refusal, ...]
    warnings: tuple[str, ...]


def quantize_bundle(
    bundle: Bundle,
    *,
    out: Path,
    in_place: bool,
    formats: Sequence[str],
    precision: str,
    settings: Int8Settings,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Add int8 artifacts to a bundle, or to a copy of it; the artifacts that it holds are kept.

    Args:
        bundle: a bundle with fp32 artifacts.
        out: the folder to write.
        in_place: it is the bundle's own folder, or the one that `bundle` is a copy of; otherwise it is created or
            replaced.
        formats: formats of the artifacts to make.
        precision: "int8" or another precision that is made from float.
        settings: how they are made.
        overwrite: replace the bundle that exists there, even if artifacts or evidence are lost.
        progress: called with (steps done, steps in all, name of the step).

    Raises:
        BundleError: no fp32 artifact of a format, no record of the network's layers, or a file was changed.
        DataError: pictures to evaluate on were also used to make it.
    """
    manifest = bundle.manifest
    if not manifest.layers:
        raise BundleError(f"{bundle.folder} has no record of its layers (written by an older edgecnn): convert again")
    settings.check()
    twins = {name: bundle.artifact(name, "fp32") for name in formats}
    if not overwrite:
        check_nothing_lost(out, manifest, [(name, precision) for name in formats])
    for twin in twins.values():
        bundle.checked_path(twin)
        verify_first(bundle, twin)
    made: list[Artifact] = []
    refused: list[Refusal] = []
    with staged(out) as staging:
        with Bundle.open_locked(bundle):
            for name, twin in twins.items():

                def report(done: int, total: int, what: str, name: str = name) -> None:
                    if progress is not None:
                        progress(done, total, f"{name} {precision}: {what}")

                result = make_int8(
                    manifest, twin, bundle.folder, precision=precision, settings=settings, into=staging, progress=report
                )
                (made if isinstance(result, Artifact) else refused).append(result)  # type: ignore[arg-type]
            if not made:
                return Conversion(None, tuple(refused), ())
            new = {artifact.key for artifact in made}
            # In place, `commit` keeps the other artifacts as they are at that time.
            kept = [old for old in manifest.artifacts if old.key not in new and not in_place]
            for record in (file for old in kept for file in old.files):
                shutil.copyfile(bundle.folder / record.path, staging / record.path)
        changed = msgspec.structs.replace(manifest, artifacts=(*kept, *made), refused=tuple(refused))
        remarks = removal_remarks(out)
        written = commit(staging, out, changed, overwrite=overwrite, adds=in_place)
    settings.forget_search()
    return Conversion(written, tuple(refused), remarks)


def make_int8(
    contract: Manifest,
    twin: Artifact,
    folder: Path,
    *,
    precision: str,
    settings: Int8Settings | None,
    into: Path,
    progress: Progress,
) -> Artifact | Refusal:
    """One int8 artifact, measured and timed, or its refusal; so one that is no faster than float (`keep_slower`).

    Args:
        contract: manifest of the bundle that it is for; its artifacts are ignored.
        twin: the fp32 artifact that it is made from.
        folder: the folder with the twin's files.
        precision: one of `QUANTIZED`.
        settings: how it is made.
        into: the folder for its files.
        progress: called with (steps done, steps in all, name of the step).
    """
    if settings is None:
        raise SpecError(f"{precision} needs pictures for activation ranges: give --calibration DATA (or --data DATA)")
    source = FloatArtifact.of(contract, twin, folder)
    trial = Trial(twin.format, precision)
    try:
        with native_step(trial.name, f"making {trial.name}"), tempfile.TemporaryDirectory(dir=into) as work:
            quantized = quantize_artifact(source, settings, Path(work), trial=trial, progress=progress)
            files = store_files(into, f"{twin.format}-{precision}", list(quantized.converted.files))
    except REFUSING as failed:
        return trial.refused(failed)
    artifact = trial.artifact(files, quantized.converted, quantized.evidence)
    progress(0, 0, "timing it together with the float artifact")
    artifact = _timed(contract, artifact, into, twin, folder)
    quantization = artifact.evidence.quantization
    if quantization is None or settings.keep_slower or precision not in _FOR_THIS_MACHINE:
        return artifact
    if quantization.slower_than_float:
        for record in artifact.files:
            (into / record.path).unlink()
        return trial.refused(_not_faster(trial.name, quantization))
    return artifact


def _not_faster(name: str, quantization: QuantizationEvidence) -> SpeedError:
    latency = quantization.latency
    assert latency is not None
    threads = f"{latency.threads} thread{'' if latency.threads == 1 else 's'}"
    return SpeedError(
        f"{name} takes {latency.latency_ms:.2f} ms a frame here, float {latency.float_latency_ms:.2f} ms "
        f"({latency.ratio:.2f} times as fast [{latency.low:.2f}, {latency.high:.2f}], {latency.device_name}, {threads}"
        f"), with {quantization.int8_mac_share:.0%} of the multiply-adds in int8: use the float artifact or another "
        "format here; for another machine, or as it is smaller, give --keep-slower"
    )


def _timed(contract: Manifest, artifact: Artifact, folder: Path, twin: Artifact, twin_folder: Path) -> Artifact:
    """The artifact, with its latency and its float twin's in the evidence."""
    evidence = artifact.evidence
    assert evidence.quantization is not None
    ours, theirs = (
        Twin(manifest=contract, artifact=one, files=[place / record.path for record in one.files])
        for one, place in ((artifact, folder), (twin, twin_folder))
    )
    try:
        latency = time_twins(ours, theirs)
        if latency.low <= 1 <= latency.high:  # noise may decide: what is measured again has the last word
            latency = time_twins(ours, theirs)
        quantization = msgspec.structs.replace(evidence.quantization, latency=latency)
    except DeviceError as failed:
        warnings = (*evidence.quantization.warnings, f"its latency could not be measured: {failed}")
        quantization = msgspec.structs.replace(evidence.quantization, warnings=warnings)
    return msgspec.structs.replace(artifact, evidence=msgspec.structs.replace(evidence, quantization=quantization))
