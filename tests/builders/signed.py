"""Keys, certificates and signed bundles for tests."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgecnn.bundle.shipped import ASSETS

CURVES = {"P-256": "prime256v1", "P-384": "secp384r1"}


@dataclass(frozen=True)
class KeyPair:
    """Files of a key and its public half."""

    private: Path
    public: Path


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def key_pair(folder: Path, name: str = "key", curve: str = "P-256") -> KeyPair:
    """As OpenSSL makes them."""
    pair = KeyPair(folder / f"{name}.pem", folder / f"{name}.pub")
    openssl("ecparam", "-name", CURVES[curve], "-genkey", "-noout", "-out", pair.private)
    openssl("ec", "-in", pair.private, "-pubout", "-out", pair.public)
    return pair


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and a signer that it certified by way of another one.

    Attributes:
        root: certificate of the authority.
        key: of the signer.
        chain: certificates of the signer, and of the one between.
    """

    root: Path
    key: Path
    chain: Path


def authority(folder: Path, name: str = "authority", usage: str = "digitalSignature") -> Authority:
    """As OpenSSL makes them."""
    made = {each: key_pair(folder, f"{name}-{each}") for each in ("root", "between", "signer")}
    certificates = {each: folder / f"{name}-{each}.crt" for each in made}
    ca = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"
    ends = f"basicConstraints=critical,CA:FALSE\nkeyUsage=critical,{usage}\nauthorityKeyIdentifier=keyid\n"
    for each, above, extensions in (
        ("root", "root", ca),
        ("between", "root", ca + "authorityKeyIdentifier=keyid\n"),
        ("signer", "between", ends),
    ):
        request, said = folder / "request.csr", folder / "extensions.cnf"
        said.write_text(extensions)
        openssl("req", "-new", "-key", made[each].private, "-subj", f"/CN={name} {each}", "-out", request)
        by = (
            ("-signkey", made[each].private)
            if each == above
            else ("-CA", certificates[above], "-CAkey", made[above].private, "-CAcreateserial")
        )
        openssl("x509", "-req", "-in", request, *by, "-days", "365", "-extfile", said, "-out", certificates[each])
    chain = folder / f"{name}-chain.pem"
    chain.write_bytes(certificates["signer"].read_bytes() + certificates["between"].read_bytes())
    return Authority(certificates["root"], made["signer"].private, chain)


def small_bundle(folder: Path) -> Path:
    """A bundle of 80 kB with an artifact for each of three runtimes."""
    return Path(shutil.copytree(ASSETS / "probe.edge", folder))
