"""Check whether a trusted key signed a bundle and nothing was changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from edgecnn import options
from edgecnn.bundle.signature import Signed
from edgecnn.options import Option, kinds
from edgecnn.runners.trusted import trusted_bundle


def verify(
    bundle: options.BundleName,
    key: Annotated[
        str | Path | Sequence[str | Path],
        Option(
            help="A trusted public key or authority's certificate (PEM).",
            kind=kinds.PATH,
            metavar="KEY.pub",
            repeat=True,
        ),
    ],
) -> Signed:
    """Verify a bundle's signature and compare every file: whether a device that trusts these keys would open it.

    Args:
        bundle: a NAME.edge folder.
        key: files of public keys, or of authorities' certificates.

    Returns:
        Who signed it, when, and as which release.

    Raises:
        SignatureError: unsigned, changed, by another key, expired, or older than what ran on this machine.
        BundleError: not a bundle, or malformed.
        SpecError: a key cannot be read.
        MissingDependencyError: `cryptography` is not installed.
    """
    with trusted_bundle(bundle, key) as trusted:
        return trusted.signed
