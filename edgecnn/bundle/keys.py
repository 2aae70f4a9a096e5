"""Keys that sign bundles, and those that a device trusts: elliptic curves in PEM files, as OpenSSL makes them.

`cryptography` is imported here alone, and only when a key is used.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn.bounded import read_bounded
from edgecnn.errors import MissingDependencyError, SignatureError, SpecError
from edgecnn.options.kinds import one_or_more
from edgecnn.printable import shortened

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.x509 import Certificate

CURVES = ("secp256r1", "secp384r1", "secp521r1")  # P-256, P-384 and P-521: those of the Sigstore bundle
_LARGEST_BYTES = 1 << 16
_MAKE_ONE = "`openssl ecparam -name prime256v1 -genkey -noout -out key.pem` makes one"


@dataclass(frozen=True)
class TrustedKey:
    """Who may sign: the owner of a key, or whoever has a certificate of an authority.

    Attributes:
        path: of its file.
        key: the public key; of an authority None.
        fingerprint: of that key.
        authorities: certificates that stand for themselves.
    """

    path: Path
    key: EllipticCurvePublicKey | None = None
    fingerprint: str = ""
    authorities: tuple[Certificate, ...] = ()

    def accepts(self, signature: bytes, signed: bytes, chain: Sequence[bytes]) -> str | None:
        """The fingerprint of the key that made a signature, where that is to be trusted; else None.

        Args:
            signature: DER.
            signed: what was signed.
            chain: certificates (DER) that came with it, the signer's first; empty where it was signed by a bare key.
        """
        if self.key is not None:
            return self.fingerprint if not chain and is_signed(self.key, signature, signed) else None
        from edgecnn.bundle.certificates import certified_key

        key = certified_key(chain, self.authorities) if chain else None
        return fingerprint_of(key) if key is not None and is_signed(key, signature, signed) else None


def trusted_keys(paths: str | Path | Sequence[str | Path]) -> tuple[TrustedKey, ...]:
    """Read the keys that are trusted: public keys, or certificates of authorities (PEM).

    Raises:
        SpecError: a file cannot be read, or holds something else.
        MissingDependencyError: `cryptography` is not installed.
    """
    files = one_or_more(paths)
    if not files:
        raise SpecError("no key is trusted: give the file of at least one public key")
    return tuple(_trusted(Path(file)) for file in files)


def private_key(path: Path, password: str | None = None) -> EllipticCurvePrivateKey:
    """Read the key that signs.

    Args:
        path: of the PEM file.
        password: of an encrypted one.

    Raises:
        SpecError: it cannot be read, is no such key, or the password is absent, wrong or for nothing.
        MissingDependencyError: `cryptography` is not installed.
    """
    pem = _read(path)
    ec, load_pem_private_key = _elliptic_curves(), _private_reader()
    try:
        key = load_pem_private_key(pem, None if password is None else password.encode())
    except TypeError as wrong:
        if password is None:
            raise SpecError(
                f"{path} is encrypted: give its password with --password file:PATH or env:NAME (password=… in Python)"
            ) from wrong
        raise SpecError(f"{path} is not encrypted: leave the password out") from wrong
    except Exception as wrong:  # of the library, all that a file may bring
        if password is not None and b"ENCRYPTED" in pem:
            raise SpecError(f"{path}: the password does not open it") from wrong
        raise SpecError(f"{path} is not a private key in PEM form ({_first_line(wrong)}); {_MAKE_ONE}") from wrong
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SpecError(f"{path} is a key of another kind than elliptic curves; {_MAKE_ONE}")
    _check_curve(path, key.curve.name)
    known: EllipticCurvePrivateKey = key
    return known


def sign_bytes(key: EllipticCurvePrivateKey, content: bytes) -> bytes:
    """Sign with ECDSA and the curve's own hash; DER."""
    return key.sign(content, _elliptic_curves().ECDSA(_hash_of(key.curve.key_size)))


def is_signed(key: EllipticCurvePublicKey, signature: bytes, signed: bytes) -> bool:
    """Whether the owner of a key made a signature."""
    from cryptography.exceptions import InvalidSignature

    try:
        key.verify(signature, signed, _elliptic_curves().ECDSA(_hash_of(key.curve.key_size)))
    except InvalidSignature:
        return False
    return True


def fingerprint_of(key: EllipticCurvePublicKey) -> str:
    """SHA-256 of the public key as a PEM file: what `sha256sum key.pub` says of OpenSSL's; 64 hexadecimal digits.

    It is the hint of a Sigstore bundle, too.
    """
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return hashlib.sha256(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


def check_signer(chain: Sequence[bytes], keys: Sequence[TrustedKey], signature: bytes, signed: bytes) -> str:
    """The fingerprint of the trusted key that made a signature.

    Raises:
        SignatureError: none did.
    """
    for key in keys:
        found = key.accepts(signature, signed, chain)
        if found is not None:
            return found
    names = ", ".join(str(key.path) for key in keys)
    raise SignatureError(
        f"its signature was not made by a key that is trusted here ({names}), or what was signed was changed since"
    )


def _trusted(path: Path) -> TrustedKey:
    pem = _read(path)
    if b"PRIVATE KEY-----" in pem:
        raise SpecError(
            f"{path} is a private key, which no device should have: give its public half "
            "(`openssl ec -in key.pem -pubout -out key.pub`)"
        )
    if b"-----BEGIN CERTIFICATE-----" in pem:
        from edgecnn.bundle.certificates import read_certificates

        return TrustedKey(path, authorities=read_certificates(path, pem))
    return _public_key(path, pem)


# What stands before the point (uncompressed) in a public key's DER, by curve: so the common keys are read without the
# library's readers of all key forms, which take half of the time that verifying adds to a start.
_PREFIXES = {
    bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"): ("SECP256R1", 65),
    bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200"): ("SECP384R1", 97),
}


def _public_key(path: Path, pem: bytes) -> TrustedKey:
    ec = _elliptic_curves()
    der = _der_of(pem)
    for prefix, (curve, size) in _PREFIXES.items():
        if der.startswith(prefix) and len(der) == len(prefix) + size:
            try:
                key = ec.EllipticCurvePublicKey.from_encoded_point(getattr(ec, curve)(), der[len(prefix) :])
            except ValueError as wrong:
                raise SpecError(f"{path} is damaged: its point is not on the curve") from wrong
            return TrustedKey(path, key, hashlib.sha256(_pem_of(der)).hexdigest())
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except Exception as wrong:
        raise SpecError(
            f"{path} is not a public key in PEM form ({_first_line(wrong)}): "
            "`openssl ec -in key.pem -pubout -out key.pub` writes one"
        ) from wrong
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise SpecError(f"{path} is a key of another kind than elliptic curves; {_MAKE_ONE}")
    _check_curve(path, key.curve.name)
    return TrustedKey(path, key, fingerprint_of(key))


def _der_of(pem: bytes) -> bytes:
    """What lies between the lines of a PEM file with one public key; b"" where it isn't that."""
    lines = pem.decode("ascii", "replace").split()
    text = " ".join(lines)
    head, tail = "-----BEGIN PUBLIC KEY----- ", " -----END PUBLIC KEY-----"
    if not (text.startswith(head) and text.endswith(tail)):
        return b""
    try:
        return base64.b64decode(text[len(head) : -len(tail)].replace(" ", ""), validate=True)
    except ValueError:
        return b""


def _pem_of(der: bytes) -> bytes:
    """A public key as OpenSSL writes it."""
    text = base64.b64encode(der).decode()
    lines = [text[start : start + 64] for start in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""]).encode()


def _check_curve(path: Path, name: str) -> None:
    if name not in CURVES:
        raise SpecError(f"{path} is a key on the curve {name}; known: P-256, P-384, P-521; {_MAKE_ONE}")


def _hash_of(bits: int) -> Any:
    from cryptography.hazmat.primitives import hashes

    known: dict[int, Any] = {256: hashes.SHA256, 384: hashes.SHA384, 521: hashes.SHA512}
    return known[bits]()


def _elliptic_curves() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as missing:
        raise MissingDependencyError("signing and verifying", "cryptography", extra="sign") from missing
    return ec


def _private_reader() -> Any:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    return load_pem_private_key


def _read(path: Path) -> bytes:
    try:
        return read_bounded(path, _LARGEST_BYTES)
    except OSError as failed:
        raise SpecError(f"{path} cannot be read: {failed.strerror}; give the file of a key (PEM)") from failed


def _first_line(error: Exception) -> str:
    return shortened(str(error).split("\n")[0] or type(error).__name__)
