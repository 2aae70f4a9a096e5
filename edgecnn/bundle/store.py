"""Bundles on disk: made, replaced and added to.

The manifest is the commit point. Artifact files have part of their hash in their name, are written next to the
others, and are valid only once `manifest.json` (replaced atomically) names them: a kill at any moment leaves the old
bundle or the new one. A process that changes a bundle holds a lock, reads the current manifest, and keeps what other
processes wrote into it; see docs/decisions.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from edgecnn.atomic import move_into_place, replace_inside, staging_folder, storage_error, write_durably
from edgecnn.bundle.bundle import MANIFEST, Bundle, sha256_of
from edgecnn.bundle.envelope import SIGNATURE
from edgecnn.bundle.evidence import Evidence
from edgecnn.bundle.manifest import FileRecord, Manifest
from edgecnn.bundle.merge import merged, merged_evidence, same_network, unavoidable_losses
from edgecnn.bundle.shipped import is_shipped
from edgecnn.errors import BundleError, SpecError, StorageError
from edgecnn.formats import FORMATS
from edgecnn.json_text import encode_json
from edgecnn.locks import changing

# The file names made by `store_files`: FORMAT-PRECISION-HASH; other files are never removed.
_OURS = re.compile(r"[a-z0-9]+-(fp32|fp16|bf16|int8)[a-z0-9.-]*-[0-9a-f]{10}(\.[a-z0-9]+)")


def store_files(staging: Path, stem: str, files: Sequence[Path]) -> tuple[FileRecord, ...]:
    """Rename an artifact's files in `staging` to `STEM-HASH.suffix` and describe them, the file to open first.

    All get the hash of all, so that files that refer to each other by name (OpenVINO's .xml and .bin) still do.
    """
    digests = [sha256_of(file) for file in files]
    tag = hashlib.sha256("".join(digests).encode()).hexdigest()[:10]
    records = []
    for file, digest in zip(files, digests, strict=True):
        stored = staging / f"{stem}-{tag}{file.suffix}"
        file.rename(stored)
        records.append(FileRecord(path=stored.name, sha256=digest, bytes=stored.stat().st_size))
    return tuple(records)


def staged(folder: Path) -> contextlib.AbstractContextManager[Path]:
    """A staging folder for a bundle at `folder`; see `edgecnn.atomic.staging_folder`."""
    return staging_folder(folder, marker=MANIFEST, what="bundle")


def check_nothing_lost(folder: Path, manifest: Manifest, attempted: Collection[tuple[str, ...]]) -> None:
    """Report before the work what `commit` would refuse after it.

    Args:
        folder: the bundle's folder.
        manifest: the new contract; its artifacts are ignored.
        attempted: keys of the artifacts that will be made.

    Raises:
        SpecError: an int8 artifact or a measurement would be lost.
    """
    old = _readable(folder)
    if old is not None:
        _refuse_loss(folder, unavoidable_losses(old, manifest, attempted))


def commit(staging: Path, folder: Path, manifest: Manifest, *, overwrite: bool = False, adds: bool = False) -> Bundle:
    """Make a bundle at `folder` from the staged files, `manifest` and what is still valid of an existing bundle.

    Artifacts of the same network that are not made again are kept, and measurements are kept with their file. Files
    that no bundle of edgecnn named are left alone. A signature, which is no longer valid, is removed.

    Args:
        staging: the staging folder, from `staged`.
        folder: the bundle's folder.
        manifest: the manifest, which names the staged files.
        overwrite: replace the existing bundle, whatever is lost; only measurements of identical files are kept.
        adds: the new artifacts belong to the existing bundle, which must still be of the same network.

    Raises:
        SpecError: int8 artifacts or evidence would be lost; lists them, and the option that allows it.
        BundleError: `adds`, and the bundle is now another network's, or was removed.
    """
    written = datetime.now(timezone.utc).isoformat(timespec="seconds")
    manifest = msgspec.structs.replace(manifest, created_utc=written, sbom=None)  # an SBOM is of the artifacts before
    with changing(Path(os.path.realpath(folder))):
        old = _readable(folder)
        if adds and (old is None or not same_network(old, manifest)):
            raise BundleError(
                f"{folder} was replaced while an artifact was made for it: nothing was written; run the command again "
                "with the new bundle"
            )
        if old is not None:
            whole, lost = merged(old, manifest, instead=overwrite and not adds)
            if not overwrite:
                _refuse_loss(folder, lost)
            manifest = whole
        write_manifest(staging, manifest)
        wanted = _files_of(manifest)
        move_into_place(staging, folder, marker=MANIFEST, wanted=wanted, unwanted=_unwanted(folder, old, wanted))
    return Bundle(folder, manifest)


def record_evidence(bundle: Bundle, evidence: Mapping[tuple[str, ...], Evidence]) -> Bundle:
    """Add measurements to the evidence of the artifacts with these keys, in the bundle's current manifest.

    A repeated measurement replaces the older one; what other processes wrote in the meantime is kept. If an artifact's
    files are no longer those of `bundle`, nothing is recorded for it.

    Raises:
        StorageError: disk full, not writable, signed, or a bundle that ships with edgecnn.
        BundleError: the bundle was removed or is damaged.
    """
    if is_shipped(bundle.folder):
        raise StorageError(f"{bundle.folder} ships with edgecnn and is read-only: copy it, and measure the copy")
    measured = {artifact.key: artifact.files for artifact in bundle.manifest.artifacts}
    folder = Path(os.path.realpath(bundle.folder))
    try:
        with changing(folder):
            if is_signed(folder):
                raise StorageError(
                    f"{bundle.folder} is signed, and devices that trust its key would refuse it with new figures: "
                    f"measure before signing, or remove {SIGNATURE}, measure, and sign it again"
                )
            now = Bundle.open(bundle.folder).manifest
            artifacts = tuple(
                msgspec.structs.replace(a, evidence=merged_evidence(a.evidence, evidence[a.key]))
                if a.key in evidence and a.files == measured.get(a.key)
                else a
                for a in now.artifacts
            )
            manifest = msgspec.structs.replace(now, artifacts=artifacts)
            replace_inside(folder, MANIFEST, _encoded(manifest))
    except OSError as failed:
        raise storage_error(bundle.folder, failed) from failed
    return Bundle(bundle.folder, manifest)


def attach_sbom(bundle: Bundle, content: bytes) -> Bundle:
    """Put a bill of materials into a bundle, in the place of the one that it has.

    Args:
        bundle: the bundle as it was when the SBOM was made of it.
        content: CycloneDX JSON.

    Raises:
        StorageError: disk full, not writable, signed, or a bundle that ships with edgecnn.
        BundleError: the bundle was removed, is damaged, or has other artifacts by now.
    """
    folder = Path(os.path.realpath(bundle.folder))
    digest = hashlib.sha256(content).hexdigest()
    record = FileRecord(path=f"sbom-{digest[:10]}.cdx.json", sha256=digest, bytes=len(content))
    if is_shipped(bundle.folder) or is_signed(folder):
        raise StorageError(
            f"{bundle.folder} is signed, or ships with edgecnn: make the SBOM before signing, or of a copy"
        )
    try:
        with changing(folder):
            now = Bundle.open(bundle.folder).manifest
            if [a.files for a in now.artifacts] != [a.files for a in bundle.manifest.artifacts]:
                raise BundleError(f"{bundle.folder} was changed while its SBOM was made: run the command again")
            replace_inside(folder, record.path, content)  # the manifest must not be there before what it names
            manifest = msgspec.structs.replace(now, sbom=record)
            replace_inside(folder, MANIFEST, _encoded(manifest))
            if now.sbom is not None and now.sbom.path != record.path:
                (folder / now.sbom.path).unlink(missing_ok=True)
    except OSError as failed:
        raise storage_error(bundle.folder, failed) from failed
    return Bundle(bundle.folder, manifest)


def is_signed(folder: Path) -> bool:
    """Whether a bundle contains a signature; whose, and whether it is valid, only verifying it shows."""
    return os.path.lexists(folder / SIGNATURE)


def removal_remarks(folder: Path) -> tuple[str, ...]:
    """Warnings for the user of a bundle that is about to be changed: its signature is removed."""
    if not is_signed(folder):
        return ()
    return (f"{folder} was signed; its signature is no longer valid and was removed: sign it again",)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into a folder that is not (yet) a bundle in use."""
    write_durably(folder / MANIFEST, _encoded(manifest))


def _encoded(manifest: Manifest) -> bytes:
    return encode_json(manifest, indent=1)


def _readable(folder: Path) -> Manifest | None:
    """The existing manifest; None where there is none, or a damaged one, which converting again repairs.

    Raises:
        BundleError: a newer edgecnn wrote it.
    """
    if not (folder / MANIFEST).exists():
        return None
    try:
        return Bundle.open(folder).manifest
    except BundleError as failed:
        if failed.__cause__ is None or isinstance(failed.__cause__, OSError):
            raise
        return None


def _refuse_loss(folder: Path, lost: Sequence[str]) -> None:
    if lost:
        raise SpecError(
            f"{folder} holds what this command would not make again: {', '.join(lost)}. Add --overwrite "
            "(overwrite=True) to lose it, or choose another --out"
        )


def _files_of(manifest: Manifest) -> set[str]:
    return {record.path for artifact in manifest.artifacts for record in artifact.files}


def _unwanted(folder: Path, old: Manifest | None, wanted: set[str]) -> set[str]:
    """Files that belonged to the bundle before, and our files that a killed run left without a manifest entry."""
    named = _files_of(old) if old is not None else set()
    named |= {old.sbom.path} if old is not None and old.sbom is not None else set()
    suffixes = {suffix for row in FORMATS for suffix in row.suffixes}
    found = [_OURS.fullmatch(path.name) for path in folder.glob("*")] if folder.is_dir() else []
    ours = {match[0] for match in found if match is not None and match[2] in suffixes}
    return (named | ours | {SIGNATURE}) - wanted
