"""Int8 artifacts for a bundle, from its float ones."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from edgecnn.bundle import Artifact, Bundle, Manifest, Refusal, commit, staged, store_files
from edgecnn.converters.int8.bench import FloatArtifact, Int8Settings
from edgecnn.converters.quantize import Progress, quantize_artifact
from edgecnn.errors import BundleError, DeviceError, GateError, SpecError
from edgecnn.evidence import Evidence
from edgecnn.measure.twins import Twin, time_twins


@dataclass(frozen=True)
class Conversion:
    """What `convert` or `quantize` made.

    Attributes:
        bundle: what passed; None where nothing did.
        refused: what was made and did not pass, or could not be made.
        warnings: what the user should know, in sentences.
    """

    bundle: Bundle | None
    refused: tuple[Refusal, ...]
    warnings: tuple[str, ...]


def quantize_bundle(
    bundle: Bundle,
    *,
    out: Path,
    formats: Sequence[str],
    precision: str,
    settings: Int8Settings,
    progress: Progress | None = None,
) -> Conversion:
    """Add int8 artifacts to a bundle, or to a copy of it; what it holds stays as it is.

    Args:
        bundle: with fp32 artifacts.
        out: the bundle's own folder, or another, to be made or replaced.
        formats: of the artifacts to make.
        precision: "int8" or another that is made from float.
        settings: how.
        progress: called with (steps done, steps in all, what is being done).

    Raises:
        BundleError: no fp32 artifact of a format, no record of the network's layers, or a file was changed.
        DataError: pictures to evaluate on took part in making it.
    """
    manifest = bundle.manifest
    if not manifest.layers:
        raise BundleError(f"{bundle.folder} was written by an edgecnn that did not record layers: convert again")
    settings.check()
    twins = {name: bundle.artifact(name, "fp32") for name in formats}
    for twin in twins.values():
        bundle.checked_path(twin)
    with staged(out) as staging:
        made: list[Artifact] = []
        refused: list[Refusal] = []
        for name, twin in twins.items():

            def tell(done: int, total: int, what: str, name: str = name) -> None:
                if progress is not None:
                    progress(done, total, f"{name} {precision}: {what}")

            result = make_int8(
                manifest, twin, bundle.folder, precision=precision, settings=settings, into=staging, progress=tell
            )
            (made if isinstance(result, Artifact) else refused).append(result)  # type: ignore[arg-type]
        if not made:
            return Conversion(None, tuple(refused), ())
        new = {artifact.key for artifact in made}
        kept = [old for old in manifest.artifacts if old.key not in new]
        for record in (file for old in kept for file in old.files):
            shutil.copyfile(bundle.folder / record.path, staging / record.path)
        changed = msgspec.structs.replace(manifest, artifacts=(*kept, *made), refused=tuple(refused))
        written = commit(staging, out, changed)
    settings.forget_search()
    return Conversion(written, tuple(refused), ())


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
    """One int8 artifact, measured and timed; or why there is none.

    Args:
        contract: manifest of the bundle that it is for; its artifacts don't count.
        twin: the fp32 artifact that it is made from.
        folder: where the twin's files are.
        precision: a word of `QUANTIZED`.
        settings: how.
        into: where its files go.
        progress: called with (steps done, steps in all, what is being done).
    """
    if settings is None:
        raise SpecError(f"{precision} reads activation ranges off pictures: give --calibration DATA (or --data DATA)")
    source = FloatArtifact(
        format=twin.format,
        file=folder / twin.path,
        frame=contract.frame,
        task=contract.task,
        outputs=contract.outputs,
        layers=contract.layers,
        batch=contract.batch,
    )
    try:
        with tempfile.TemporaryDirectory(dir=into) as work:
            quantized = quantize_artifact(source, settings, Path(work), precision=precision, progress=progress)
            files = store_files(into, f"{twin.format}-{precision}", list(quantized.converted.files))
    except (GateError, DeviceError) as failed:
        return Refusal(format=twin.format, precision=precision, error=type(failed).__name__, reason=str(failed))
    allowed = any(measured.allowed_drop for measured in quantized.accuracy)
    artifact = Artifact(
        format=twin.format,
        precision=precision,
        files=files,
        tool=quantized.converted.tool,
        transposes=quantized.converted.transposes,
        evidence=Evidence(
            parity=quantized.parity,
            accuracy=quantized.accuracy,
            quantization=quantized.evidence,
            overrides=("allow-drop",) if allowed else (),
        ),
    )
    progress(0, 0, "timing it beside the float artifact")
    return _timed(contract, artifact, into, twin, folder)


def _timed(contract: Manifest, artifact: Artifact, folder: Path, twin: Artifact, twin_folder: Path) -> Artifact:
    """The artifact with its latency beside its float twin's in the evidence."""
    evidence = artifact.evidence
    assert evidence.quantization is not None
    ours, theirs = (
        Twin(manifest=contract, artifact=one, files=[place / record.path for record in one.files])
        for one, place in ((artifact, folder), (twin, twin_folder))
    )
    try:
        latency = time_twins(ours, theirs)
        quantization = msgspec.structs.replace(evidence.quantization, latency=latency)
    except DeviceError as failed:
        warnings = (*evidence.quantization.warnings, f"its latency could not be measured: {failed}")
        quantization = msgspec.structs.replace(evidence.quantization, warnings=warnings)
    return msgspec.structs.replace(artifact, evidence=msgspec.structs.replace(evidence, quantization=quantization))
