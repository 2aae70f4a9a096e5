"""Certificates that signers have, and the authorities that a device trusts instead of single keys.

A chain is checked as of the day when the signer's certificate began to hold, as OpenSSF model-signing does: nothing
that a device can trust tells when the signature was made, and cameras must not stop when a certificate ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgecnn.bounded import read_bounded
from edgecnn.errors import SignatureError, SpecError
from edgecnn.printable import shortened

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.x509 import Certificate

_MOST = 8  # certificates of a chain
_LARGEST_BYTES = 1 << 16


def read_certificates(path: Path, pem: bytes) -> tuple[Certificate, ...]:
    """The certificates of a PEM file, in order.

    Raises:
        SpecError: it holds none, or a damaged one.
    """
    from cryptography import x509

    try:
        return tuple(x509.load_pem_x509_certificates(pem))
    except Exception as wrong:  # of the library, all that a file may bring
        raise SpecError(f"{path} holds no certificate that can be read: {shortened(wrong)}") from wrong


def chain_of(path: Path, key: EllipticCurvePrivateKey) -> tuple[bytes, ...]:
    """A signer's certificates (DER), from the file that holds its own first.

    Raises:
        SpecError: it cannot be read, or its first certificate is of another key.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        pem = read_bounded(path, _LARGEST_BYTES)
    except OSError as failed:
        raise SpecError(f"{path} cannot be read: {failed.strerror}; give the file of the certificates") from failed
    certificates = read_certificates(path, pem)
    if certificates[0].public_key() != key.public_key():
        raise SpecError(f"{path}: its first certificate is of another key than the one that signs")
    return tuple(each.public_bytes(Encoding.DER) for each in certificates)


def certified_key(chain: Sequence[bytes], authorities: Sequence[Certificate]) -> EllipticCurvePublicKey | None:
    """The signer's key, where one of the authorities stands for it by way of the chain; else None.

    Args:
        chain: certificates (DER), the signer's first.
        authorities: that are trusted.

    Raises:
        SignatureError: the chain is malformed, or its first certificate is not for signing.
    """
    if len(chain) > _MOST:
        raise SignatureError(f"its signature comes with {len(chain)} certificates, more than {_MOST}")
    try:
        return _certified_key(chain, authorities)
    except SignatureError:
        raise
    except Exception as wrong:  # of the library, all that certificates may bring
        raise SignatureError(f"a certificate of its signature is malformed: {shortened(wrong)}") from wrong


def _certified_key(chain: Sequence[bytes], authorities: Sequence[Certificate]) -> EllipticCurvePublicKey | None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.verification import ExtensionPolicy, PolicyBuilder, Store, VerificationError

    signer, *between = [x509.load_der_x509_certificate(each) for each in chain]
    policy = PolicyBuilder().store(Store(list(authorities))).time(signer.not_valid_before_utc)
    policy = policy.extension_policies(
        ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ExtensionPolicy.permit_all()
    )
    try:
        policy.build_client_verifier().verify(signer, between)
    except VerificationError:
        return None
    if not _is_for_signing(signer):
        raise SignatureError("the certificate of its signature is not for signing (digital signature or code signing)")
    key = signer.public_key()
    return key if isinstance(key, ec.EllipticCurvePublicKey) else None


def _is_for_signing(certificate: Certificate) -> bool:
    from cryptography import x509
    from cryptography.x509.oid import ExtendedKeyUsageOID

    try:
        if certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature:
            return True
    except x509.ExtensionNotFound:
        pass
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return ExtendedKeyUsageOID.CODE_SIGNING in usages
