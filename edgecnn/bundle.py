"""A bundle: a folder NAME.edge with a manifest (the contract) and one artifact per format and precision.

The manifest is the point of commitment. Artifact files carry part of their hash in their name, are written
beside, and count only once `manifest.json` (replaced atomically) names them: a kill at any moment leaves the old
bundle or the new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from edgecnn._shipped import is_shipped, shipped_bundle
from edgecnn._staging import move_into_place, staging_folder, write_durably
from edgecnn.errors import BundleError, SpecError, StorageError
from edgecnn.evidence import Evidence, ParityEvidence, PreprocessEvidence, Record
from edgecnn.frame import FrameSpec
from edgecnn.tasks import Task

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
# What runs, not what the file is called; int8 names decode as ai-edge-quantizer's do (w weights, a activations).
PRECISIONS = {
    "fp32": "all in 32-bit float",
    "fp16": "weights stored in 16-bit float; computes in the device's choice",
    "bf16": "computes in bfloat16, accumulates in 32 bits (OpenVINO)",
    "int8": "static_wi8_ai8: int8 weights, int8 activations with ranges from calibration",
    "int8-dynamic": "dynamic_wi8_afp32: int8 weights, activations float or quantized as they come (TFLite)",
    "int8-a16": "static_wi8_ai16: int8 weights, 16-bit activations (TFLite, Qualcomm HTP)",
}

QUANTIZED = tuple(name for name in PRECISIONS if name.startswith("int8"))  # made from a float artifact


class TensorSpec(Record, frozen=True, kw_only=True):
    """One input or output: name, numpy dtype name, shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class FileRecord(Record, frozen=True, kw_only=True):
    """One file of a bundle: path inside it, SHA-256, size."""

    path: str
    sha256: str
    bytes: int


class LayerRanges(Record, frozen=True, kw_only=True):
    """What a network that was trained for int8 learned of a layer.

    Attributes:
        reads, writes: low and high of what its 256 levels cover; None where nothing was learned. What it writes is
            meant after its batch normalisation, and after a ReLU or ReLU6 that alone reads it.
    """

    reads: tuple[float, float] | None = None
    writes: tuple[float, float] | None = None


class LayerRecord(Record, frozen=True, kw_only=True):
    """A layer with weights of the torch network, as it is found again in every format.

    Attributes:
        name: of the torch module ("backbone.stem.conv").
        kind: "convolution", "depthwise", "transposed" or "linear".
        macs: multiply-adds of one frame.
        weights: fingerprint of the float32 weights that the converters saw (batch norms folded in).
        head: whether no other layer lies between it and the network's answer.
        learned: its ranges, where the network was trained for int8.
    """

    name: str
    kind: str
    macs: int
    weights: str
    head: bool = False
    learned: LayerRanges | None = None


class Artifact(Record, frozen=True, kw_only=True):
    """One network for one runtime.

    Attributes:
        format: name in the table of back ends ("onnx", "openvino", "tflite").
        precision: what runs (see PRECISIONS).
        files: the first is the one to open; the others lie beside it.
        tool: name and version of what wrote it, and what it was told (opset, recipe).
        transposes: how many transposes its graph holds; None where nobody counted.
        target: what it was compiled for, as in "qualcomm-htp:v73"; "" for a file that any machine opens.
        device: the word without which it is never opened, as in "onnxruntime:qnn"; "" where `target` is.
    """

    format: str
    precision: str
    target: str = ""
    device: str = ""
    files: Annotated[tuple[FileRecord, ...], msgspec.Meta(min_length=1)]
    tool: str = ""
    transposes: int | None = None
    evidence: Evidence = Evidence()

    @property
    def key(self) -> tuple[str, ...]:
        """What no two artifacts of a bundle share: format and precision, and the target where it has one."""
        return (self.format, self.precision, self.target) if self.target else (self.format, self.precision)

    @property
    def label(self) -> str:
        """For people: "onnx int8", "onnx int8-a16 for qualcomm-htp:v73"."""
        return f"{self.format} {self.precision}" + (f" for {self.target}" if self.target else "")

    @property
    def path(self) -> str:
        """The file to open, relative to the bundle."""
        return self.files[0].path

    @property
    def sha256(self) -> str:
        """Hash of the file to open."""
        return self.files[0].sha256

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.bytes for file in self.files)


class Refusal(Record, frozen=True, kw_only=True):
    """An artifact that was made and did not pass, or could not be made."""

    format: str
    precision: str
    error: str
    reason: str
    target: str = ""
    parity: ParityEvidence | None = None


class SourceRecord(Record, frozen=True, kw_only=True):
    """Where the network came from.

    Attributes:
        model: as it was asked for ("torchvision:resnet18").
        weights: file name, "DEFAULT", or "" for random weights.
        weights_sha256: hash of the weights file; "" where there was none.
        random: True where no trained weights were given.
        versions: packages that took part.
    """

    model: str
    weights: str = ""
    weights_sha256: str = ""
    random: bool = False
    versions: dict[str, str] = msgspec.field(default_factory=dict)


class Manifest(Record, frozen=True, kw_only=True):
    """The contract: what goes in, what comes out, and what was found out about it."""

    schema: int = SCHEMA_VERSION
    edgecnn: str = ""
    created_utc: str = ""
    name: str
    source: SourceRecord
    frame: FrameSpec
    task: Task
    batch: int = 1
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    in_graph: tuple[str, ...] = ()
    parameters: int
    macs: int
    layers: tuple[LayerRecord, ...] = ()
    preprocess: PreprocessEvidence | None = None
    artifacts: tuple[Artifact, ...] = ()
    refused: tuple[Refusal, ...] = ()


class _SchemaOnly(msgspec.Struct):
    schema: int


class Bundle:
    """An opened bundle: its folder and its manifest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """Read and validate a bundle's manifest; files are checked when an artifact is opened.

        Args:
            folder: a NAME.edge folder, or "default-detector" or "default-segmenter" for those that ship with edgecnn.

        Raises:
            BundleError: no such bundle, not a bundle, damaged, or from a newer schema.
        """
        folder = shipped_bundle(folder) or Path(folder)
        path = folder / MANIFEST
        try:
            raw = path.read_bytes()
        except FileNotFoundError as missing:
            what = "is not a bundle (no manifest.json in it)" if folder.is_dir() else "does not exist"
            raise BundleError(f"{folder} {what}; `edgecnn convert MODEL --out NAME.edge` makes one") from missing
        except OSError as failed:
            raise BundleError(f"{path} cannot be read: {failed.strerror}") from failed
        try:
            schema = msgspec.json.decode(raw, type=_SchemaOnly).schema
            if schema > SCHEMA_VERSION:
                raise BundleError(
                    f"{folder} has manifest schema {schema}, this edgecnn reads up to {SCHEMA_VERSION}: "
                    "update edgecnn here, or convert again with this version"
                )
            manifest = msgspec.json.decode(raw, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError, SpecError) as damaged:
            raise BundleError(f"{path} is damaged: {damaged}; convert again") from damaged
        return cls(folder, manifest)

    def artifact(self, format: str, precision: str, target: str = "") -> Artifact:  # noqa: A002 - the field's word
        """The artifact of this format and precision; with `target` the one that was compiled for it.

        Raises:
            BundleError: there is none; lists those there are.
        """
        for artifact in self.manifest.artifacts:
            if (artifact.format, artifact.precision, artifact.target) == (format, precision, target):
                return artifact
        there = ", ".join(a.label for a in self.manifest.artifacts) or "none"
        wanted = f"{format} {precision} artifact" + (f" for {target}" if target else "")
        raise BundleError(f"{self.folder} holds no {wanted}; it holds: {there}")

    def checked_path(self, artifact: Artifact) -> Path:
        """The path of an artifact's file to open, after the hash of each of its files was compared.

        Raises:
            BundleError: a file is absent or differs from the manifest.
        """
        for record in artifact.files:
            path = self.folder / record.path
            if path.parent != self.folder:
                raise BundleError(f"{self.folder}: the manifest names a file outside the bundle: {record.path}")
            try:
                found = sha256_of(path)
            except OSError as failed:
                raise BundleError(f"{path} cannot be read: {failed.strerror}; convert again") from failed
            if found != record.sha256:
                raise BundleError(
                    f"{path} is not the file that was verified (SHA-256 {found[:12]}…, the manifest says "
                    f"{record.sha256[:12]}…): copy the bundle again, or convert again"
                )
        return self.folder / artifact.path


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def store_files(staging: Path, stem: str, files: Sequence[Path]) -> tuple[FileRecord, ...]:
    """Rename an artifact's files in `staging` to `STEM-HASH.suffix` and describe them, first one first.

    All get the hash of all, so that files that find each other by name (OpenVINO's .xml and .bin) still do.
    """
    digests = [sha256_of(file) for file in files]
    tag = hashlib.sha256("".join(digests).encode()).hexdigest()[:10]
    records = []
    for file, digest in zip(files, digests, strict=True):
        target = staging / f"{stem}-{tag}{file.suffix}"
        file.rename(target)
        records.append(FileRecord(path=target.name, sha256=digest, bytes=target.stat().st_size))
    return tuple(records)


def staged(folder: Path) -> contextlib.AbstractContextManager[Path]:
    """A staging folder for a bundle at `folder`; see `edgecnn._staging.staging_folder`."""
    return staging_folder(folder, marker=MANIFEST, what="bundle")


def commit(staging: Path, folder: Path, manifest: Manifest) -> Bundle:
    """Make the staged files and `manifest` the bundle at `folder`; what was there before is replaced."""
    manifest = msgspec.structs.replace(manifest, created_utc=datetime.now(UTC).isoformat(timespec="seconds"))
    write_manifest(staging, manifest)
    wanted = {record.path for artifact in manifest.artifacts for record in artifact.files}
    move_into_place(staging, folder, marker=MANIFEST, wanted=wanted)
    return Bundle(folder, manifest)


def record_evidence(bundle: Bundle, evidence: Mapping[tuple[str, ...], Evidence]) -> Bundle:
    """Replace the evidence of the artifacts with these keys, atomically.

    Raises:
        StorageError: disk full, not writable, or a bundle that ships with edgecnn.
    """
    if is_shipped(bundle.folder):
        raise StorageError(f"{bundle.folder} ships with edgecnn and stays as it is: copy it, and measure the copy")
    artifacts = tuple(
        msgspec.structs.replace(a, evidence=evidence.get(a.key, a.evidence)) for a in bundle.manifest.artifacts
    )
    manifest = msgspec.structs.replace(bundle.manifest, artifacts=artifacts)
    with staged(bundle.folder) as staging:
        write_manifest(staging, manifest)
        os.replace(staging / MANIFEST, bundle.folder / MANIFEST)
    return Bundle(bundle.folder, manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into a folder that is not yet, or never will be, anybody's bundle."""
    write_durably(folder / MANIFEST, msgspec.json.format(msgspec.json.encode(manifest), indent=1))
