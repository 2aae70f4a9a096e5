"""Signed bundles: what signs, what is accepted, and that nothing changed is."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edgecnn
from edgecnn.bundle import commit, record_evidence, removal_remarks, staged
from edgecnn.bundle.envelope import SIGNATURE
from edgecnn.bundle.evidence import Evidence
from edgecnn.bundle.keys import trusted_keys
from edgecnn.cli._main import main
from edgecnn.errors import BundleError, SignatureError, SpecError, StorageError
from tests.builders.signed import CURVES, KeyPair, authority, key_pair, openssl, small_bundle


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECNN_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def bundle(tmp_path: Path, keys: KeyPair) -> Path:
    folder = small_bundle(tmp_path / "street.edge")
    edgecnn.sign(folder, key=keys.private)
    return folder


# Python of an environment with model-signing: its packages and those of LiteRT's converter exclude each other.
MODEL_SIGNING = os.environ.get("EDGECNN_MODEL_SIGNING", "")


def model_signing(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The reference program; it tells the network of nothing."""
    return subprocess.run(
        [MODEL_SIGNING, "-W", "ignore", "-m", "model_signing", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("curve", CURVES)
def test_the_reference_program_accepts_what_we_sign(curve: str, tmp_path: Path) -> None:
    if not MODEL_SIGNING:
        pytest.skip("needs model-signing in an environment of its own: EDGECNN_MODEL_SIGNING=its python")
    keys, folder = key_pair(tmp_path, curve=curve), small_bundle(tmp_path / "street.edge")
    edgecnn.sign(folder, key=keys.private, expires="2199-12-31")
    words = ("verify", "key", folder, "--signature", folder / SIGNATURE, "--public_key", keys.public)
    assert model_signing(*words).returncode == 0
    (folder / "manifest.json").write_bytes((folder / "manifest.json").read_bytes() + b"\n")
    assert model_signing(*words).returncode != 0


@pytest.mark.parametrize("curve", CURVES)
def test_we_accept_what_the_reference_program_signs(curve: str, tmp_path: Path) -> None:
    if not MODEL_SIGNING:
        pytest.skip("needs model-signing in an environment of its own: EDGECNN_MODEL_SIGNING=its python")
    keys, folder = key_pair(tmp_path, curve=curve), small_bundle(tmp_path / "street.edge")
    done = model_signing("sign", "key", folder, "--signature", folder / SIGNATURE, "--private_key", keys.private)
    assert done.returncode == 0, done.stderr
    signed = edgecnn.verify(folder, keys.public)
    assert (signed.name, signed.expires_utc) == ("street.edge", "")
    (folder / "added.txt").write_text("more")
    with pytest.raises(SignatureError, match=r"added\.txt lies in it and was not signed"):
        edgecnn.verify(folder, keys.public)


def test_certificates_are_accepted_both_ways(tmp_path: Path) -> None:
    if not MODEL_SIGNING:
        pytest.skip("needs model-signing in an environment of its own: EDGECNN_MODEL_SIGNING=its python")
    ours, folder = authority(tmp_path), small_bundle(tmp_path / "street.edge")
    edgecnn.sign(folder, key=ours.key, certificate=ours.chain)
    edgecnn.verify(folder, ours.root)
    signature = folder / SIGNATURE
    done = model_signing("verify", "certificate", folder, "--signature", signature, "--certificate_chain", ours.root)
    assert done.returncode == 0, done.stdout + done.stderr
    signature.unlink()
    leaf, between = tmp_path / "authority-signer.crt", tmp_path / "authority-between.crt"
    words = ("--private_key", ours.key, "--signing_certificate", leaf, "--certificate_chain", between)
    done = model_signing("sign", "certificate", folder, "--signature", signature, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    edgecnn.verify(folder, ours.root)


def test_certificates_of_others_and_for_other_things_are_refused(tmp_path: Path) -> None:
    ours, folder = authority(tmp_path), small_bundle(tmp_path / "street.edge")
    edgecnn.sign(folder, key=ours.key, certificate=ours.chain)
    other = authority(tmp_path, "other")
    with pytest.raises(SignatureError, match="not made by a key that is trusted"):
        edgecnn.verify(folder, other.root)
    with pytest.raises(SpecError, match="of another key"):
        edgecnn.sign(folder, key=other.key, certificate=ours.chain)
    wrong = authority(tmp_path, "wrong", usage="keyAgreement")
    edgecnn.sign(folder, key=wrong.key, certificate=wrong.chain)
    with pytest.raises(SignatureError, match="not for signing"):
        edgecnn.verify(folder, wrong.root)
    edgecnn.sign(folder, key=wrong.key)
    with pytest.raises(SignatureError, match="not made by a key that is trusted"):
        edgecnn.verify(folder, wrong.root)  # a bare key is nobody's that an authority knows


def test_a_certificate_of_no_known_version_is_refused(tmp_path: Path) -> None:
    made = authority(tmp_path)
    der = ssl.PEM_cert_to_DER_cert(made.root.read_text())
    version = der.index(bytes.fromhex("a003020102"))
    changed = der[: version + 4] + b"\x42" + der[version + 5 :]
    made.root.with_suffix(".changed").write_text(ssl.DER_cert_to_PEM_cert(changed))
    with pytest.raises(SpecError, match="no certificate that can be read: 66 is not a valid X509 version"):
        trusted_keys(made.root.with_suffix(".changed"))
    (key,) = trusted_keys(made.root)
    with pytest.raises(SignatureError, match="malformed: 66 is not a valid X509 version"):
        key.accepts(b"", b"", [changed])


@pytest.mark.parametrize("form", ["ecparam", "genpkey", "encrypted", "encrypted as of old"])
def test_keys_are_read_as_openssl_makes_them(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, public = tmp_path / "key.pem", tmp_path / "key.pub"
    password = tmp_path / "password"
    password.write_text("over the hills\n")
    secret = ("-passin", f"file:{password}") if form.startswith("encrypted") else ()
    if form == "ecparam":  # with its parameters before it
        openssl("ecparam", "-name", "secp384r1", "-genkey", "-out", key)
    elif form == "genpkey":
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
    else:
        plain = key_pair(tmp_path, "plain").private
        how = "pkcs8 -topk8" if form == "encrypted" else "ec -aes256"
        openssl(*how.split(), "-in", plain, "-passout", f"file:{password}", "-out", key)
    openssl("pkey", "-in", key, *secret, "-pubout", "-out", public)
    folder = small_bundle(tmp_path / "street.edge")
    given = f"file:{password}" if secret else None
    signed = edgecnn.sign(folder, key=key, password=given)
    assert edgecnn.verify(folder, public) == signed
    assert signed.key == hashlib.sha256(public.read_bytes()).hexdigest()
    if secret:
        monkeypatch.setenv("KEY_PASSWORD", "over the hills")
        edgecnn.sign(folder, key=key, password="env:KEY_PASSWORD")
        monkeypatch.setenv("KEY_PASSWORD", "wrong")
        with pytest.raises(SpecError, match="does not open it"):
            edgecnn.sign(folder, key=key, password="env:KEY_PASSWORD")
        with pytest.raises(SpecError, match=r"is encrypted: give its password with --password file:PATH"):
            edgecnn.sign(folder, key=key)
        with pytest.raises(SpecError, match="would show in the list of processes"):
            edgecnn.sign(folder, key=key, password="over the hills")


def test_anything_but_a_key_is_reported(tmp_path: Path, keys: KeyPair, bundle: Path) -> None:
    rsa, garbage = tmp_path / "rsa.pem", tmp_path / "garbage.pem"
    openssl("genpkey", "-algorithm", "RSA", "-out", rsa)
    openssl("ecparam", "-name", "secp256k1", "-genkey", "-noout", "-out", tmp_path / "k1.pem")
    openssl("pkey", "-in", rsa, "-pubout", "-out", tmp_path / "rsa.pub")
    garbage.write_bytes(os.urandom(100))
    for wrong, says in ((rsa, "another kind"), (garbage, "not a private key"), (tmp_path / "k1.pem", "secp256k1")):
        with pytest.raises(SpecError, match=says):
            edgecnn.sign(bundle, key=wrong)
    for wrong, says in (
        (keys.private, "no device should have"),
        (tmp_path / "rsa.pub", "another kind"),
        (garbage, "not a public key"),
        (tmp_path / "absent.pub", "cannot be read"),
        (tmp_path, "is not a file"),
        (Path("/dev/zero"), "is not a file"),
    ):
        with pytest.raises(SpecError, match=says):
            edgecnn.verify(bundle, wrong)
    with pytest.raises(SpecError, match="no key is trusted"):
        edgecnn.open_runner(bundle, trusted_keys=[])


def append(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes() + b"\n")


def rename(folder: Path) -> None:
    file = next(folder.glob("*.onnx"))
    file.rename(file.with_name("other.onnx"))


def link_out(folder: Path) -> None:
    file = next(folder.glob("*.tflite"))
    shutil.move(file, folder.parent / file.name)
    file.symlink_to(folder.parent / file.name)


def link_signature(folder: Path) -> None:
    shutil.move(folder / SIGNATURE, folder.parent / "kept.sig")
    (folder / SIGNATURE).symlink_to(folder.parent / "kept.sig")


def signature_as_folder(folder: Path) -> None:
    (folder / SIGNATURE).unlink()
    (folder / SIGNATURE).mkdir()


def edit_signature(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        document = json.loads((folder / SIGNATURE).read_bytes())
        change(document)
        (folder / SIGNATURE).write_text(json.dumps(document, separators=(",", ":")))

    return edit


def statement_of(document: dict[str, Any], change: Callable[[dict[str, Any]], Any]) -> None:
    payload = json.loads(base64.b64decode(document["dsseEnvelope"]["payload"]))
    change(payload)
    document["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()


TAMPERINGS: dict[str, Callable[[Path], Any]] = {
    "the manifest has a byte more": append("manifest.json"),
    "the signature has a byte more": append(SIGNATURE),
    "an artifact has another name": rename,
    "an artifact is a link": link_out,
    "an artifact is gone": lambda folder: next(folder.glob("*.onnx")).unlink(),
    "the manifest is gone": lambda folder: (folder / "manifest.json").unlink(),
    "the signature is gone": lambda folder: (folder / SIGNATURE).unlink(),
    "the signature is cut": lambda folder: os.truncate(folder / SIGNATURE, 400),
    "the signature is empty": lambda folder: os.truncate(folder / SIGNATURE, 0),
    "the signature is noise": lambda folder: (folder / SIGNATURE).write_bytes(os.urandom(1000)),
    "the signature is a link": link_signature,
    "the signature is a folder": signature_as_folder,
    "a file was added": lambda folder: (folder / "added.bin").write_bytes(b"x"),
    "a hidden file was added": lambda folder: (folder / ".added").write_bytes(b""),
    "a folder was added": lambda folder: (folder / "more").mkdir(),
    "a pipe was added": lambda folder: os.mkfifo(folder / "pipe"),
    "a file in other letters was added": lambda folder: (folder / "Manifest.json").write_bytes(b"{}"),
    "the signature names another key": edit_signature(
        lambda document: document["verificationMaterial"]["publicKey"].update(hint="0" * 64)
    ),
    "the signature has a word more": edit_signature(lambda document: document.update(more=1)),
    "the signature is laid out": lambda folder: (folder / SIGNATURE).write_text(
        json.dumps(json.loads((folder / SIGNATURE).read_bytes()), indent=1)
    ),
    "the release is higher": edit_signature(
        lambda document: statement_of(document, lambda message: message["predicate"]["edgecnn"].update(release=1 << 50))
    ),
    "a file is left out of what was signed": edit_signature(
        lambda document: statement_of(document, lambda message: message["predicate"]["resources"].pop())
    ),
    "there are two signatures": edit_signature(
        lambda document: document["dsseEnvelope"]["signatures"].append(document["dsseEnvelope"]["signatures"][0])
    ),
    "there is no signature": edit_signature(lambda document: document["dsseEnvelope"].update(signatures=[])),
}


@pytest.mark.parametrize("what", TAMPERINGS)
def test_a_bundle_is_refused_when(what: str, bundle: Path, keys: KeyPair) -> None:
    edgecnn.verify(bundle, keys.public)
    TAMPERINGS[what](bundle)
    with pytest.raises(SignatureError, match=r"street\.edge is refused"):
        edgecnn.verify(bundle, keys.public)
    with pytest.raises(SignatureError, match=r"street\.edge is refused"):
        edgecnn.open_runner(bundle, trusted_keys=keys.public)


def test_every_byte_of_a_signature_counts(bundle: Path, keys: KeyPair) -> None:
    raw = (bundle / SIGNATURE).read_bytes()
    for place in range(0, len(raw), 7):
        (bundle / SIGNATURE).write_bytes(raw[:place] + bytes([raw[place] ^ (1 << place % 7)]) + raw[place + 1 :])
        with pytest.raises(SignatureError):
            edgecnn.verify(bundle, keys.public)


def leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each container with a key of it under which something plain stands."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, held in list(inside):
        if isinstance(held, dict | list):
            yield from leaves(held)
        else:
            yield value, key


def test_every_field_of_a_manifest_counts(bundle: Path, keys: KeyPair) -> None:
    path = bundle / "manifest.json"
    document = json.loads(path.read_bytes())
    for holder, key in leaves(document):
        before = holder[key]
        text, flag = isinstance(before, str), isinstance(before, bool)
        holder[key] = f"{before}x" if text else not before if flag else (before or 0) + 1
        path.write_text(json.dumps(document))
        with pytest.raises(SignatureError):
            edgecnn.verify(bundle, keys.public)
        holder[key] = before


def test_another_signature_in_its_place_is_refused(bundle: Path, tmp_path: Path, keys: KeyPair) -> None:
    other = key_pair(tmp_path, "other")
    edgecnn.sign(bundle, key=other.private)
    with pytest.raises(SignatureError, match="not made by a key that is trusted"):
        edgecnn.verify(bundle, keys.public)
    edgecnn.verify(bundle, [keys.public, other.public])


def test_nothing_is_signed_that_could_not_be_verified(tmp_path: Path, keys: KeyPair) -> None:
    folder = small_bundle(tmp_path / "street.edge")
    (folder / ".notes").write_text("")
    with pytest.raises(SignatureError, match="cannot be signed"):
        edgecnn.sign(folder, key=keys.private)
    (folder / ".notes").unlink()
    (folder / "README").write_text("")
    (folder / "Readme").write_text("")
    with pytest.raises(SignatureError, match="capitals don't count"):
        edgecnn.sign(folder, key=keys.private)
    (folder / "Readme").unlink()
    next(folder.glob("*.onnx")).write_bytes(b"other")
    with pytest.raises(BundleError, match="not the file that was verified"):
        edgecnn.sign(folder, key=keys.private)
    with pytest.raises(StorageError, match="ships with edgecnn"):
        edgecnn.sign("default-detector", key=keys.private)


def test_what_killed_programs_left_is_removed_before_signing(tmp_path: Path, keys: KeyPair) -> None:
    folder = small_bundle(tmp_path / "street.edge")
    for left in (".model.sig.partial-99999", ".manifest.json.partial-99999"):
        (folder / left).write_text("half")
    edgecnn.sign(folder, key=keys.private)
    edgecnn.verify(folder, keys.public)
    assert list(folder.glob(".*")) == []


@pytest.mark.parametrize(
    ("expires", "says"),
    [("2020-01-01", "has passed"), ("soon", "must be a day"), ("2199-01-01T10:00:00", "has no time zone")],
)
def test_a_day_that_cannot_be_is_refused(expires: str, says: str, bundle: Path, keys: KeyPair) -> None:
    with pytest.raises(SpecError, match=says):
        edgecnn.sign(bundle, key=keys.private, expires=expires)


def test_releases_grow(bundle: Path, keys: KeyPair) -> None:
    first = edgecnn.sign(bundle, key=keys.private)
    assert edgecnn.sign(bundle, key=keys.private).release > first.release
    with pytest.raises(SpecError, match="is not above"):
        edgecnn.sign(bundle, key=keys.private, release=first.release)
    with pytest.raises(SpecError, match="must be 1 to"):
        edgecnn.sign(bundle, key=keys.private, release=0)


def test_figures_are_not_written_into_a_signed_bundle(bundle: Path, keys: KeyPair) -> None:
    opened = edgecnn.Bundle.open(bundle)
    before = (bundle / "manifest.json").read_bytes()
    key = opened.manifest.artifacts[0].key
    with pytest.raises(StorageError, match="is signed"):
        record_evidence(opened, {key: Evidence(overrides=("measured",))})
    assert (bundle / "manifest.json").read_bytes() == before
    edgecnn.verify(bundle, keys.public)
    (bundle / SIGNATURE).unlink()
    record_evidence(opened, {key: Evidence(overrides=("measured",))})
    assert (bundle / "manifest.json").read_bytes() != before


def test_replacing_a_bundle_removes_its_signature_and_says_so(bundle: Path) -> None:
    manifest = edgecnn.Bundle.open(bundle).manifest
    assert "sign it again" in "".join(removal_remarks(bundle))
    with staged(bundle) as staging:
        commit(staging, bundle, manifest)
    assert not (bundle / SIGNATURE).exists()
    assert removal_remarks(bundle) == ()


def test_inspect_tells_who_signed(bundle: Path, keys: KeyPair, capsys: pytest.CaptureFixture[str]) -> None:
    def inspected() -> str:
        assert main(["inspect", str(bundle)]) == 0
        return "".join(capsys.readouterr().out.split())

    assert hashlib.sha256(keys.public.read_bytes()).hexdigest() in inspected()
    append("manifest.json")(bundle)
    assert "changedafteritwassigned" in inspected()
    (bundle / SIGNATURE).unlink()
    assert "signedno" in inspected()


def test_the_program_ends_with_0_or_1(bundle: Path, keys: KeyPair, tmp_path: Path) -> None:
    def program(*words: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgecnn", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert program("sign", bundle, "--key", keys.private, "--release", str(1 << 50)).returncode == 0
    done = program("verify", bundle, "--key", keys.public)
    assert done.returncode == 0
    assert hashlib.sha256(keys.public.read_bytes()).hexdigest() in done.stdout.replace("\n", "")
    append("manifest.json")(bundle)
    done = program("verify", bundle, "--key", keys.public)
    assert (done.returncode, done.stderr.count("\n") > 0) == (1, True)
    assert program("verify", tmp_path / "absent.edge", "--key", keys.public).returncode == 2
