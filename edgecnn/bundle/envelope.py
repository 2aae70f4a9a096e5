"""The form of a signature: a Sigstore bundle with a DSSE envelope around an in-toto statement, as OpenSSF model-signing
writes it (its predicate `https://model_signing/signature/v1.0`), so that its program verifies ours and we verify its.

What is ours stands in the predicate under `edgecnn`, which other verifiers pass over: the release, when it was signed,
and how long it holds.

Sources: github.com/secure-systems-lab/dsse (v1.0.0, protocol.md), github.com/in-toto/attestation (spec/v1),
github.com/sigstore/model-transparency (model_signing/_signing/signing.py, 1.1.1).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeVar

import msgspec

from edgecnn.errors import SignatureError
from edgecnn.printable import shortened

SIGNATURE = "model.sig"  # as model-signing calls it
_MEDIA_TYPE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
_PREDICATE = "https://model_signing/signature/v1.0"
T = TypeVar("T")


class _Exact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Outside of what is signed, nothing may stand that isn't looked at."""


class _KeyHint(_Exact, frozen=True, kw_only=True):
    hint: str


class _DerCertificate(_Exact, frozen=True, kw_only=True):
    rawBytes: str  # noqa: N815 - the format's word


class _Chain(_Exact, frozen=True, kw_only=True):
    certificates: tuple[_DerCertificate, ...]


class _Material(_Exact, frozen=True, kw_only=True, omit_defaults=True):
    publicKey: _KeyHint | None = None  # noqa: N815
    x509CertificateChain: _Chain | None = None  # noqa: N815
    tlogEntries: tuple[()]  # noqa: N815


class _Signature(_Exact, frozen=True, kw_only=True):
    sig: str
    keyid: Literal[""]


class _Envelope(_Exact, frozen=True, kw_only=True):
    payload: str
    payloadType: Literal["application/vnd.in-toto+json"]  # noqa: N815
    signatures: tuple[_Signature]


class _SigstoreBundle(_Exact, frozen=True, kw_only=True):
    mediaType: Literal["application/vnd.dev.sigstore.bundle.v0.3+json"]  # noqa: N815
    verificationMaterial: _Material  # noqa: N815
    dsseEnvelope: _Envelope  # noqa: N815


class _Digest(msgspec.Struct, frozen=True):
    sha256: str


class _Subject(msgspec.Struct, frozen=True):
    name: str
    digest: _Digest


class _Resource(msgspec.Struct, frozen=True):
    name: str
    algorithm: str
    digest: str


class _Serialization(msgspec.Struct, frozen=True):
    method: str
    hash_type: str


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """What edgecnn has signed beside the files.

    Attributes:
        release: grows from one version of a bundle to the next.
        signed_utc: when, by the clock of the machine that signed (ISO 8601).
        expires_utc: from when on it is refused; "" for never.
    """

    release: int
    signed_utc: str
    expires_utc: str = ""


class _Predicate(msgspec.Struct, frozen=True):
    serialization: _Serialization
    resources: tuple[_Resource, ...]
    edgecnn: Stamp | None = None


class _Statement(msgspec.Struct, frozen=True):
    type_: Literal["https://in-toto.io/Statement/v1"] = msgspec.field(name="_type")
    subject: tuple[_Subject]
    predicate_type: Literal["https://model_signing/signature/v1.0"] = msgspec.field(name="predicateType")
    predicate: _Predicate


class Statement(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed.

    Attributes:
        name: of the bundle's folder when it was signed, as in "street.edge".
        files: name → SHA-256 (hexadecimal) of each file, in the order that they are listed in.
        stamp: None where another program signed.
    """

    name: str
    files: Mapping[str, str]
    stamp: Stamp | None = None

    @property
    def digest(self) -> str:
        """One SHA-256 for all files, as model-signing makes it."""
        return hashlib.sha256(b"".join(bytes.fromhex(digest) for digest in self.files.values())).hexdigest()

    def payload(self) -> bytes:
        """As in-toto's JSON."""
        predicate: dict[str, Any] = {
            "serialization": {
                "method": "files",
                "hash_type": "sha256",
                "allow_symlinks": False,
                "ignore_paths": [SIGNATURE],
            },
            "resources": [
                {"name": name, "algorithm": "sha256", "digest": digest} for name, digest in self.files.items()
            ],
        }
        if self.stamp is not None:
            predicate["edgecnn"] = msgspec.to_builtins(self.stamp)
        return msgspec.json.encode(
            {
                "_type": "https://in-toto.io/Statement/v1",
                "subject": [{"name": self.name, "digest": {"sha256": self.digest}}],
                "predicateType": _PREDICATE,
                "predicate": predicate,
            }
        )


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A signature as it was read; nothing of it is verified.

    Attributes:
        payload: the statement, as bytes.
        signature: of `signed_bytes(payload)`; DER.
        hint: fingerprint of the key that is said to have made it; "" where certificates came with it.
        chain: these certificates (DER), the signer's first.
    """

    payload: bytes
    signature: bytes
    hint: str = ""
    chain: tuple[bytes, ...] = ()


def signed_bytes(payload: bytes) -> bytes:
    """What is really signed of a payload: DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %b %d %b" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)


def write_sealed(sealed: Sealed) -> bytes:
    """A signature as a file."""
    if sealed.chain:
        certificates = tuple(_DerCertificate(rawBytes=_text(each)) for each in sealed.chain)
        material = _Material(x509CertificateChain=_Chain(certificates=certificates), tlogEntries=())
    else:
        material = _Material(publicKey=_KeyHint(hint=sealed.hint), tlogEntries=())
    return msgspec.json.encode(
        _SigstoreBundle(
            mediaType=_MEDIA_TYPE,
            verificationMaterial=material,
            dsseEnvelope=_Envelope(
                payload=_text(sealed.payload),
                payloadType=_PAYLOAD_TYPE,
                signatures=(_Signature(sig=_text(sealed.signature), keyid=""),),
            ),
        )
    )


def read_sealed(raw: bytes) -> Sealed:
    """Take a signature file apart.

    It must be written in the one way in which edgecnn and model-signing write it, so that no byte of it can be changed
    unseen.

    Raises:
        SignatureError: it is not such a file.
    """
    bundle = _decoded(raw, _SigstoreBundle)
    if json.dumps(json.loads(raw), separators=(",", ":"), ensure_ascii=False).encode() != raw:
        raise SignatureError(f"{SIGNATURE} was changed: it is not written as edgecnn and model-signing write it")
    material, envelope = bundle.verificationMaterial, bundle.dsseEnvelope
    if (material.publicKey is None) == (material.x509CertificateChain is None):
        raise SignatureError(f"{SIGNATURE} must name a key, or come with certificates")
    chain = material.x509CertificateChain.certificates if material.x509CertificateChain is not None else ()
    return Sealed(
        payload=_bytes(envelope.payload),
        signature=_bytes(envelope.signatures[0].sig),
        hint=material.publicKey.hint if material.publicKey is not None else "",
        chain=tuple(_bytes(each.rawBytes) for each in chain),
    )


def read_statement(payload: bytes) -> Statement:
    """Take a statement apart, after its signature was verified.

    Raises:
        SignatureError: it is another kind of statement, or contradicts itself.
    """
    signed = _decoded(payload, _Statement)
    how, resources = signed.predicate.serialization, signed.predicate.resources
    if (how.method, how.hash_type) != ("files", "sha256") or any(each.algorithm != "sha256" for each in resources):
        raise SignatureError(
            f"it was signed by {shortened(how.method)} with {shortened(how.hash_type)}; edgecnn reads files with "
            "sha256: sign it again"
        )
    statement = Statement(
        name=signed.subject[0].name,
        files={each.name: each.digest for each in resources},
        stamp=signed.predicate.edgecnn,
    )
    try:
        consistent = statement.digest == signed.subject[0].digest.sha256 and len(statement.files) == len(resources)
    except ValueError:
        consistent = False
    if not consistent:
        raise SignatureError("what was signed contradicts itself: its digest is not that of its files")
    return statement


def _decoded(raw: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as damaged:
        raise SignatureError(f"{SIGNATURE} is not a signature that can be read: {shortened(damaged)}") from damaged


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _bytes(text: str) -> bytes:
    """Of base64, which could be written in several ways; only one is taken."""
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as wrong:
        raise SignatureError(f"{SIGNATURE} is not a signature that can be read: {shortened(wrong)}") from wrong
    if _text(raw) != text:
        raise SignatureError(f"{SIGNATURE} was changed: it is not written as edgecnn and model-signing write it")
    return raw
