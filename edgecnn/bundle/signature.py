"""Signed bundles: `sign_bundle` writes a signature into a bundle, `check_signed` verifies it.

Every file is signed, the manifest too; the signature is in the bundle, as `model.sig`. Verified content is passed on as
bytes that were read once, never as a path whose content could change afterwards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.atomic import remove_partial_files, replace_inside, storage_error
from edgecnn.bundle import contents
from edgecnn.bundle.bundle import LARGEST_MANIFEST, MANIFEST, Bundle
from edgecnn.bundle.envelope import (
    SIGNATURE,
    Sealed,
    Stamp,
    Statement,
    read_sealed,
    read_statement,
    signed_bytes,
    write_sealed,
)
from edgecnn.bundle.keys import TrustedKey, check_signer, sign_bytes
from edgecnn.bundle.shipped import is_shipped
from edgecnn.errors import BundleError, SignatureError, SpecError, StorageError
from edgecnn.locks import changing
from edgecnn.older_python import moment_of
from edgecnn.printable import shortened

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

_LARGEST_SIGNATURE = 8 << 20
MOST_RELEASE = 1 << 53  # the largest integer that every JSON reader represents exactly


@dataclass(frozen=True, kw_only=True)
class Signed:
    """The verified statement of a signature.

    Attributes:
        name: name of the bundle's folder when it was signed, such as "street.edge".
        key: fingerprint of the key that signed: the output of `sha256sum key.pub`.
        release: grows from one version to the next; for another program's signature, the time when the bundle was
            written.
        digest: SHA-256 of everything that was signed.
        signed_utc, expires_utc: as in `Stamp`; "" if another program signed.
    """

    name: str
    key: str
    release: int
    digest: str
    signed_utc: str = ""
    expires_utc: str = ""


@dataclass(frozen=True, kw_only=True)
class SignedBundle:
    """A bundle whose signature and files were verified.

    Attributes:
        bundle: its manifest was read from the very bytes that were signed.
        signed: who signed it, when, and until when.
        files: name → SHA-256.
    """

    bundle: Bundle
    signed: Signed
    files: dict[str, str]


def sign_bundle(
    folder: Path,
    key: EllipticCurvePrivateKey,
    *,
    certificates: Sequence[bytes] = (),
    hint: str = "",
    release: int | None = None,
    expires_utc: str = "",
) -> Signed:
    """Write a signature of every file into a bundle; an existing signature is replaced.

    Args:
        folder: the bundle's folder.
        key: the private key.
        certificates: (DER) the signer's chain, its own first; without them verifiers must know the key itself.
        hint: the key's fingerprint.
        release: must grow; default: milliseconds since 1970, and above that of the replaced signature.
        expires_utc: devices refuse it from then on; "" for never.

    Raises:
        BundleError: not a bundle, or a file differs from its manifest.
        SignatureError: it contains something that cannot be signed.
        SpecError: `release` does not grow.
        StorageError: it is not writable, or ships with edgecnn.
    """
    if is_shipped(folder):
        raise StorageError(f"{folder} ships with edgecnn and stays as it is: copy it, and sign the copy")
    real = Path(os.path.realpath(folder))
    try:
        with changing(real):
            bundle = Bundle.open(folder)
            for artifact in bundle.manifest.artifacts:
                bundle.checked_path(artifact)
            before = stamp_of(folder)
            remove_partial_files(real)
            files = {name: contents.hash_of(real / name) for name in contents.plain_files(real)}
            stamp = Stamp(
                release=_next_release(release, before),
                signed_utc=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
                expires_utc=expires_utc,
            )
            statement = Statement(name=real.name, files=files, stamp=stamp)
            payload = statement.payload()
            sealed = Sealed(
                payload=payload,
                signature=sign_bytes(key, signed_bytes(payload)),
                hint=hint,
                chain=tuple(certificates),
            )
            replace_inside(real, SIGNATURE, write_sealed(sealed))
            return _signed(statement, payload, hint, bundle)
    except SignatureError as refused:
        raise SignatureError(f"{folder} cannot be signed: {refused}; take it out first") from refused
    except OSError as failed:
        raise storage_error(folder, failed) from failed


def _next_release(asked: int | None, before: Stamp | None) -> int:
    last = before.release if before is not None else 0
    if asked is None:
        return max(time.time_ns() // 1_000_000, last + 1)
    if not 1 <= asked <= MOST_RELEASE:
        raise SpecError(f"--release must be 1 to 2^53, got {asked}")
    if asked <= last:
        raise SpecError(f"--release {asked} is not above {last}, which it was signed as: devices would refuse it")
    return asked


def check_signed(folder: Path, keys: Sequence[TrustedKey], *, but: Sequence[str] = ()) -> SignedBundle:
    """Verify a bundle's signature and compare its files; call it under the bundle's lock (`Bundle.open_locked`).

    Args:
        folder: the bundle's folder.
        keys: the trusted keys.
        but: names of files that the caller hashes itself.

    Raises:
        SignatureError: unsigned, not by a trusted key, or a file is changed, missing or extra.
        BundleError: correctly signed but malformed; or there is no such folder.
    """
    real = Path(os.path.realpath(folder))
    try:
        return _checked(folder, real, keys, but)
    except SignatureError as refused:
        raise SignatureError(f"{folder} is refused: {refused}") from refused
    except FileNotFoundError as missing:
        if not real.is_dir():
            raise BundleError(f"{folder} does not exist") from missing
        raise SignatureError(f"{folder} is refused: {Path(missing.filename or '').name} is not there") from missing
    except OSError as failed:
        raise BundleError(f"{failed.filename or folder} cannot be read: {failed.strerror}") from failed


def _checked(folder: Path, real: Path, keys: Sequence[TrustedKey], but: Sequence[str]) -> SignedBundle:
    try:
        raw = contents.read_plain(real / SIGNATURE, _LARGEST_SIGNATURE)
    except FileNotFoundError:
        if not real.is_dir():
            raise
        raise SignatureError(f"it is not signed (no {SIGNATURE} in it)") from None
    sealed = read_sealed(raw)
    signer = check_signer(sealed.chain, keys, sealed.signature, signed_bytes(sealed.payload))
    if not sealed.chain and sealed.hint != signer:
        raise SignatureError(f"{SIGNATURE} was changed: it names another key than the one that signed")
    statement = read_statement(sealed.payload)
    if MANIFEST not in statement.files:
        raise SignatureError(f"{MANIFEST} was not signed")
    manifest = contents.read_plain(real / MANIFEST, LARGEST_MANIFEST)
    contents.compare(real, statement.files, but=(MANIFEST, *but))
    if contents.digest_of(manifest) != statement.files[MANIFEST]:
        raise SignatureError(f"{MANIFEST} is not as it was signed")
    bundle = Bundle.read(folder, manifest)
    listed = {record.path: record.sha256 for artifact in bundle.manifest.artifacts for record in artifact.files}
    for name, sha256 in listed.items():
        if statement.files.get(name) != sha256:
            raise SignatureError(f"what was signed contradicts itself: {name} is not the file that its manifest lists")
    signed = _signed(statement, sealed.payload, signer, bundle)
    return SignedBundle(bundle=bundle, signed=signed, files=dict(statement.files))


def stamp_of(folder: Path) -> Stamp | None:
    """Release and time as the bundle's signature states them, unverified; None if they cannot be read."""
    try:
        return read_statement(unverified(folder).payload).stamp
    except (SignatureError, OSError):
        return None


def described_claim(folder: Path) -> str:
    """For people: the statement of a bundle's signature; only a trusted key shows whether it is true."""
    real = Path(os.path.realpath(folder))
    try:
        sealed = unverified(real)
        statement = read_statement(sealed.payload)
        manifest = contents.hash_of(real / MANIFEST)
    except FileNotFoundError:
        return "no"
    except (SignatureError, OSError) as damaged:
        return f"{damaged}"
    if statement.files.get(MANIFEST) != manifest:
        return "not as it is now: the bundle was changed after it was signed; sign it again"
    signer = "a certificate" if sealed.chain else f"key {shortened(sealed.hint)}"
    stamp = statement.stamp
    which = f", release {stamp.release}, on {shortened(stamp.signed_utc)}" if stamp is not None else ""
    until = f", until {shortened(stamp.expires_utc)}" if stamp is not None and stamp.expires_utc else ""
    return f"as {shortened(statement.name)} by {signer}{which}{until}; not verified (edgecnn verify --key)"


def unverified(folder: Path) -> Sealed:
    """The signature in a bundle as it is, unverified.

    Raises:
        SignatureError: it is damaged.
        OSError: there is none.
    """
    return read_sealed(contents.read_plain(Path(os.path.realpath(folder)) / SIGNATURE, _LARGEST_SIGNATURE))


def _signed(statement: Statement, payload: bytes, key: str, bundle: Bundle) -> Signed:
    stamp = statement.stamp
    return Signed(
        name=statement.name,
        key=key,
        release=stamp.release if stamp is not None else _written_ms(bundle),
        digest=contents.digest_of(payload),
        signed_utc=stamp.signed_utc if stamp is not None else "",
        expires_utc=stamp.expires_utc if stamp is not None else "",
    )


def _written_ms(bundle: Bundle) -> int:
    """When a bundle was written, in the default unit of releases; 0 if unknown."""
    try:
        return int(moment_of(bundle.manifest.created_utc).timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0
