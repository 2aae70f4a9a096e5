"""Sign a bundle, so that devices can check who made it and that nothing was changed."""

from __future__ import annotations

from datetime import datetime, time, timezone
from pathlib import Path
from typing import Annotated

from edgecnn import options
from edgecnn.bundle import Bundle
from edgecnn.bundle.keys import fingerprint_of, private_key
from edgecnn.bundle.shipped import shipped_bundle
from edgecnn.bundle.signature import Signed, sign_bundle
from edgecnn.errors import SpecError
from edgecnn.older_python import moment_of
from edgecnn.options import Option, kinds
from edgecnn.printable import shortened
from edgecnn.runners.live.cameras.urls import resolved_secret

_SIGNER = "Signer"
_HOLDS = "Validity"


def sign(
    bundle: options.BundleName,
    *,
    key: Annotated[
        str | Path,
        Option(
            help="The private key: elliptic curve (P-256, P-384), in a PEM file as OpenSSL makes it.",
            kind=kinds.PATH,
            metavar="KEY.pem",
            group=_SIGNER,
        ),
    ],
    password: Annotated[
        str | None,
        Option(
            help="The password of an encrypted key: file:PATH or env:NAME.",
            metavar="file:PATH|env:NAME",
            group=_SIGNER,
        ),
    ] = None,
    certificate: Annotated[
        str | Path | None,
        Option(
            help="The signer's certificate and the intermediate ones (PEM): devices trust the authority.",
            kind=kinds.PATH,
            metavar="CERTIFICATES.pem",
            group=_SIGNER,
        ),
    ] = None,
    release: Annotated[
        int | None,
        Option(
            help="A number that grows with each version: devices refuse a lower one than they already ran.",
            default="the time in ms",
            group=_HOLDS,
        ),
    ] = None,
    expires: Annotated[
        str | None,
        Option(help="The last day on which devices open it, such as 2027-12-31 (UTC).", metavar="DATE", group=_HOLDS),
    ] = None,
) -> Signed:
    """Add a signature of every file to a bundle (`model.sig`), in OpenSSF model-signing's format; no network is used.

    Args:
        bundle: a NAME.edge folder.
        key: file of the private key.
        password: "file:PATH" or "env:NAME" with the password of an encrypted key.
        certificate: file of the signer's certificate, followed by the intermediate certificates.
        release: must be higher than that of the replaced signature; default: milliseconds since 1970.
        expires: the last day, or the moment (ISO 8601, with its time zone), on which devices open it; default: never.

    Raises:
        SpecError: the key, the password, the date or the release cannot be used.
        BundleError: not a bundle, or damaged.
        SignatureError: it contains something that cannot be signed (a link, a folder, a hidden file).
        StorageError: not writable, or a bundle that ships with edgecnn.
        MissingDependencyError: `cryptography` is not installed.
    """
    folder = bundle.folder if isinstance(bundle, Bundle) else shipped_bundle(bundle) or Path(bundle)
    signer = private_key(Path(key), _password(password))
    chain: tuple[bytes, ...] = ()
    if certificate is not None:
        from edgecnn.bundle.certificates import chain_of

        chain = chain_of(Path(certificate), signer)
    return sign_bundle(
        folder,
        signer,
        certificates=chain,
        hint=fingerprint_of(signer.public_key()),
        release=release,
        expires_utc="" if expires is None else _end_of(expires),
    )


def _password(word: str | None) -> str | None:
    if word is None:
        return None
    if not word.startswith(("file:", "env:")):
        raise SpecError(
            "--password must be file:PATH or env:NAME: the password itself would show in the list of processes"
        )
    return resolved_secret(word, holds="the key's password")


def _end_of(text: str) -> str:
    """The moment after which a signature is no longer valid."""
    try:
        moment = moment_of(text)
    except ValueError:
        raise SpecError(f"--expires must be a day such as 2027-12-31, got {shortened(text)!r}") from None
    if len(text) <= len("2027-12-31"):
        moment = datetime.combine(moment.date(), time(23, 59, 59), timezone.utc)
    if moment.tzinfo is None:
        raise SpecError(f"--expires {text} has no time zone: end it with Z, or give a day such as 2027-12-31")
    if moment <= datetime.now(timezone.utc):
        raise SpecError(f"--expires {text} has passed: devices would refuse the bundle")
    return moment.astimezone(timezone.utc).isoformat(timespec="seconds")
