"""A bundle, opened: a folder NAME.edge with a manifest (the contract) and one artifact per format and precision."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

import msgspec

from edgecnn.bounded import read_bounded
from edgecnn.bundle.companions import companions_of
from edgecnn.bundle.contract import check_contract
from edgecnn.bundle.manifest import SCHEMA_VERSION, Artifact, FileRecord, Manifest, SourceRecord
from edgecnn.bundle.shipped import DEFAULTS, shipped_bundle
from edgecnn.errors import BundleError, SpecError, UnknownTaskError, near_path
from edgecnn.formats import FORMATS
from edgecnn.locks import reading
from edgecnn.older_python import sha256_of_open
from edgecnn.printable import shortened
from edgecnn.tasks import task_from_json

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 64 << 20


class _SchemaOnly(msgspec.Struct):
    schema: int


class _SourceOnly(msgspec.Struct):
    source: SourceRecord


class Bundle:
    """An open bundle: its folder and its manifest."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    def __repr__(self) -> str:
        """As in "<Bundle street.edge: detect, 80 classes, 416x416 px; onnx fp32, openvino int8>"."""
        task, frame = self.manifest.task, self.manifest.frame
        classes = f"{len(task.labels)} class{'' if len(task.labels) == 1 else 'es'}"
        artifacts = ", ".join(artifact.label for artifact in self.manifest.artifacts) or "no artifacts"
        what = f"{task.name}, {classes}, {frame.width_px}x{frame.height_px} px; {artifacts}"
        return f"<Bundle {shortened(self.folder.name, length=100)}: {shortened(what)}>"

    @classmethod
    def open(cls, folder: str | Path) -> Bundle:
        """Read and validate a bundle's manifest; files are checked when an artifact is opened.

        Args:
            folder: a NAME.edge folder, or "default-detector" or "default-segmenter", which ship with edgecnn.

        Raises:
            BundleError: no such bundle, not a bundle, damaged, or from a newer schema.
        """
        folder = shipped_bundle(folder) or Path(folder)
        path = folder / MANIFEST
        try:
            raw = read_bounded(path, LARGEST_MANIFEST)
        except FileNotFoundError as missing:
            there = folder.is_dir()
            what = "is not a bundle (no manifest.json in it)" if there else "does not exist"
            near = "" if there else near_path(folder, DEFAULTS)
            way = near or "; make one with `edgecnn convert MODEL --out NAME.edge`"
            raise BundleError(f"{folder} {what}{way}") from missing
        except OSError as failed:
            raise BundleError(f"{path} cannot be read: {failed.strerror}") from failed
        return cls.read(folder, raw)

    @classmethod
    def read(cls, folder: Path, raw: bytes) -> Bundle:
        """A bundle, from the bytes of its manifest.

        Raises:
            BundleError: they are damaged, or from a newer schema.
        """
        path = folder / MANIFEST
        try:
            schema = msgspec.json.decode(raw, type=_SchemaOnly).schema
            if schema > SCHEMA_VERSION:
                raise BundleError(
                    f"{folder} has manifest schema {schema}, this edgecnn reads up to {SCHEMA_VERSION}: "
                    "update edgecnn here, or convert again with this version"
                )
            manifest = msgspec.json.decode(raw, type=Manifest, dec_hook=task_from_json)
            manifest.task.check_outputs(manifest.outputs)
            check_contract(manifest)
        except UnknownTaskError as unknown:
            raise UnknownTaskError(f"{path}: {unknown}{_absent_packages(raw)}") from unknown
        except (msgspec.DecodeError, UnicodeDecodeError, SpecError, RecursionError) as damaged:
            raise BundleError(f"{path} is damaged: {damaged}; convert again") from damaged
        return cls(folder, manifest)

    @classmethod
    @contextlib.contextmanager
    def open_locked(cls, bundle: str | Path | Bundle) -> Iterator[Bundle]:
        """A bundle whose files are not removed during the context, even if another process replaces the bundle.

        Raises:
            BundleError: as `open`.
        """
        folder = bundle.folder if isinstance(bundle, Bundle) else shipped_bundle(bundle) or Path(bundle)
        with reading(Path(os.path.realpath(folder))):
            yield bundle if isinstance(bundle, Bundle) else cls.open(bundle)

    def artifact(self, format: str, precision: str, target: str = "") -> Artifact:  # noqa: A002 - the field's word
        """The artifact of this format and precision; with `target`, the one compiled for it.

        Raises:
            BundleError: there is none; lists the artifacts in the bundle.
        """
        for artifact in self.manifest.artifacts:
            if (artifact.format, artifact.precision, artifact.target) == (format, precision, target):
                return artifact
        there = ", ".join(a.label for a in self.manifest.artifacts) or "none"
        wanted = f"{format} {precision} artifact" + (f" for {target}" if target else "")
        raise BundleError(f"{self.folder} holds no {wanted}; it holds: {there}")

    def artifact_by_label(self, text: str) -> Artifact:
        """The artifact that FORMAT:PRECISION selects, such as "tflite:int8".

        Raises:
            SpecError, UnknownNameError: it is not such a name.
            BundleError: there is none; lists the artifacts in the bundle.
        """
        name, colon, precision = text.partition(":")
        if not (name and colon and precision):
            raise SpecError(f"expected FORMAT:PRECISION, such as tflite:int8, got {text!r}")
        FORMATS.get(name)  # raises for an unknown name, with the nearest known names
        return self.artifact(name, precision)

    def checked_path(self, artifact: Artifact) -> Path:
        """The path of an artifact's file to open, after a check of the hash of each file that its runtime reads.

        Raises:
            BundleError: a file is missing, differs from the manifest, or makes the runtime read an unlisted file.
        """
        for record in artifact.files:
            self._check_file(record)
        path = self.folder / artifact.path
        wanted = FORMATS.get(artifact.format).suffixes[0] if artifact.format in FORMATS.names() else path.suffix
        if path.suffix != wanted:
            raise BundleError(f"{path}: expected a file of {artifact.format} to end in {wanted}; convert again")
        unlisted = companions_of(path) - {record.path for record in artifact.files}
        if unlisted:
            raise BundleError(
                f"{path} makes its runtime read {shortened(', '.join(sorted(unlisted)))!r}, which the manifest doesn't "
                "list, so it was never verified: remove that file if it exists, or convert again"
            )
        return path

    def _check_file(self, record: FileRecord) -> None:
        path = self.folder / record.path
        if path.parent != self.folder:
            raise BundleError(f"{self.folder}: the manifest names a file outside the bundle: {record.path}")
        try:
            there = path.stat()
            is_file, size = stat.S_ISREG(there.st_mode), there.st_size
            found = sha256_of(path) if is_file and size == record.bytes else ""
        except OSError as failed:
            raise BundleError(f"{path} cannot be read: {failed.strerror}; {self._advice}") from failed
        if found == record.sha256:
            return
        differs = f"SHA-256 {found[:12]}…" if found else f"{size} bytes" if is_file else "not a file"
        expected = f"{record.sha256[:12]}…" if found else f"{record.bytes}"
        raise BundleError(
            f"{path} is not the file that was verified ({differs}, the manifest says {expected}): {self._advice}"
        )

    @property
    def _advice(self) -> str:
        """Advice for a file that differs from the manifest."""
        with contextlib.suppress(BundleError):
            if Bundle.open(self.folder).manifest != self.manifest:
                return "the bundle was replaced after it was opened: open it again"
        return "copy the bundle again, or convert again"


def _absent_packages(raw: bytes) -> str:
    """For a message: packages that the bundle was made with and that are not installed here."""
    made_with = msgspec.json.decode(raw, type=_SourceOnly).source.versions
    installed = {each.name.casefold() for each in distributions()}
    absent = [f"{name} {version}" for name, version in made_with.items() if name.casefold() not in installed]
    return f"; it was made with {', '.join(absent)}, not installed here" if absent else ""


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return sha256_of_open(file)
