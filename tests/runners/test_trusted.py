"""Runners that open only what a trusted key signed: replays, expiry, and files that change under way."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgecnn
from edgecnn._verbs.versus import evaluate_versus
from edgecnn.bundle import Bundle
from edgecnn.errors import BundleError, SignatureError, SpecError, StorageError
from edgecnn.runners.choose import choose_artifact
from edgecnn.runners.runner import open_choice
from edgecnn.runners.trusted import private_bundle, trusted_bundle
from tests.builders.signed import KeyPair, key_pair, small_bundle

pytestmark = pytest.mark.runtime

PICTURE = np.zeros((40, 60, 3), np.uint8)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGECNN_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("EDGECNN_VERIFY", "0")
    return tmp_path / "state"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> KeyPair:
    return key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def bundle(tmp_path: Path, keys: KeyPair) -> Path:
    folder = small_bundle(tmp_path / "street.edge")
    edgecnn.sign(folder, key=keys.private, release=5)
    return folder


def open_and_close(bundle: Path, keys: KeyPair, **words: bool) -> None:
    with edgecnn.open_runner(bundle, format="onnx", precision="fp32", trusted_keys=keys.public, **words) as runner:  # type: ignore[arg-type]
        assert runner.signed is not None
        runner(PICTURE)


@pytest.mark.parametrize("name", ["onnx", "openvino", "tflite"])
def test_what_is_signed_answers_as_without_a_key(name: str, bundle: Path, keys: KeyPair) -> None:
    with (
        edgecnn.open_runner(bundle, format=name, precision="fp32") as plain,
        edgecnn.open_runner(bundle, format=name, precision="fp32", trusted_keys=[keys.public]) as trusted,
    ):
        assert repr(plain(PICTURE)) == repr(trusted(PICTURE))
        assert plain.signed is None
        assert trusted.signed == edgecnn.verify(bundle, keys.public)


def test_a_release_older_than_what_ran_is_refused(bundle: Path, tmp_path: Path, keys: KeyPair) -> None:
    old = shutil.copytree(bundle, tmp_path / "kept" / "old.edge")
    open_and_close(old, keys)
    edgecnn.sign(bundle, key=keys.private, release=6)
    open_and_close(bundle, keys)
    open_and_close(bundle, keys)
    for refuse in (lambda: open_and_close(old, keys), lambda: edgecnn.verify(old, keys.public)):
        with pytest.raises(SignatureError, match="it is release 5, and release 6 ran here"):
            refuse()
    back = old.rename(tmp_path / "kept" / "street.edge")
    edgecnn.sign(back, key=keys.private, release=7)
    open_and_close(back, keys)


def test_two_bundles_of_one_release_are_reported(bundle: Path, tmp_path: Path, keys: KeyPair) -> None:
    other = shutil.copytree(bundle, tmp_path / "other" / "street.edge")
    (other / "model.sig").unlink()
    edgecnn.sign(other, key=keys.private, release=5, expires="2199-12-31")
    open_and_close(bundle, keys)
    with pytest.raises(SignatureError, match="another bundle of the same name and release"):
        open_and_close(other, keys)


def test_a_trial_leaves_the_old_release_its_right(bundle: Path, tmp_path: Path, keys: KeyPair) -> None:
    old = shutil.copytree(bundle, tmp_path / "kept" / "street.edge")
    open_and_close(old, keys)
    edgecnn.sign(bundle, key=keys.private, release=6)
    open_and_close(bundle, keys, remember_release=False)
    open_and_close(old, keys)


def test_verifying_alone_counts_as_no_run(bundle: Path, tmp_path: Path, keys: KeyPair, state: Path) -> None:
    edgecnn.verify(bundle, keys.public)
    assert not state.exists()


def test_an_expired_bundle_is_refused(bundle: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    edgecnn.sign(bundle, key=keys.private, expires=(datetime.now(UTC) + timedelta(days=2)).date().isoformat())
    open_and_close(bundle, keys)
    later = (datetime.now(UTC) + timedelta(days=4)).timestamp()
    monkeypatch.setattr("time.time", lambda: later)
    with pytest.raises(SignatureError, match="it expired on"):
        open_and_close(bundle, keys)


def test_a_clock_before_the_day_of_signing_is_reported_and_lets_it_run(
    bundle: Path, keys: KeyPair, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    edgecnn.sign(bundle, key=keys.private, expires="2199-12-31")
    monkeypatch.setattr("time.time", lambda: 1e6)
    open_and_close(bundle, keys)
    assert "the clock is wrong" in caplog.text


@pytest.mark.parametrize("content", ["", "[]", '{"street.edge": 5}', "nothing"])
def test_a_damaged_memory_of_releases_is_reported(content: str, bundle: Path, keys: KeyPair, state: Path) -> None:
    state.mkdir()
    (state / "releases.json").write_text(content)
    with pytest.raises(StorageError, match="is damaged"):
        open_and_close(bundle, keys)


def test_a_memory_that_others_may_write_is_reported(bundle: Path, keys: KeyPair, state: Path) -> None:
    open_and_close(bundle, keys)
    (state / "releases.json").chmod(0o666)
    with pytest.raises(StorageError, match="others may write it"):
        open_and_close(bundle, keys)


def test_where_releases_cannot_be_noted_nothing_runs(
    bundle: Path, keys: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGECNN_STATE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"EDGECNN_STATE|cannot be read"):
        open_and_close(bundle, keys)


def test_releases_of_several_bundles_are_kept_side_by_side(
    bundle: Path, tmp_path: Path, keys: KeyPair, state: Path
) -> None:
    door = small_bundle(tmp_path / "door.edge")
    edgecnn.sign(door, key=keys.private, release=2)
    open_and_close(bundle, keys)
    open_and_close(door, keys)
    known = json.loads((state / "releases.json").read_bytes())
    assert {name: ran["release"] for name, ran in known.items()} == {"street.edge": 5, "door.edge": 2}


def test_what_was_verified_is_what_is_opened(bundle: Path, keys: KeyPair) -> None:
    with trusted_bundle(bundle, keys.public) as trusted:
        choice = choose_artifact(trusted.bundle, format="onnx", precision="fp32")
        file = bundle / choice.artifact.path
        with trusted.private(choice.artifact) as copy:
            file.write_bytes(b"something else")  # after the copy was made: nobody reads it
            with open_choice(copy, choice, verify=False) as runner:
                runner(PICTURE)
        with trusted.private(choice.artifact) as copy, pytest.raises(BundleError, match="not the file that was"):
            open_choice(copy, choice, verify=False)
        file.unlink()
        file.symlink_to("/etc/passwd")
        with pytest.raises(SignatureError, match="is a link"), trusted.private(choice.artifact):
            pass


@pytest.fixture
def changed(bundle: Path, tmp_path: Path) -> Path:
    """A copy of a signed bundle, one of whose files was changed, with a right hash."""
    copy = shutil.copytree(bundle, tmp_path / "changed" / "street.edge")
    document = json.loads((copy / "manifest.json").read_bytes())
    document["task"]["labels"] = document["task"]["labels"][::-1]
    (copy / "manifest.json").write_text(json.dumps(document))
    return copy


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Labelled pictures for the small bundle."""
    labels = Bundle.open(small_bundle(tmp_path / "labels.edge")).manifest.task.labels
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    for name in labels[:2]:
        (tmp_path / "data" / name).mkdir(parents=True)
        cv2.imwrite(str(tmp_path / "data" / name / "0.png"), noise)
    return tmp_path / "data"


def test_eval_measures_what_a_trusted_key_signed(bundle: Path, changed: Path, data: Path, keys: KeyPair) -> None:
    words: dict[str, Any] = {"format": "onnx", "precision": "fp32", "resamples": 2, "trusted_keys": keys.public}
    plain = edgecnn.evaluate(bundle, data, **{**words, "trusted_keys": None})
    assert edgecnn.evaluate(bundle, data, **words).value == plain.value
    with pytest.raises(SignatureError, match="not as it was signed"):
        edgecnn.evaluate(changed, data, **words)
    with pytest.raises(SignatureError, match="not as it was signed"):
        evaluate_versus(bundle, data, versus=f"{changed}:openvino:fp32", **words)
    with pytest.raises(SpecError, match="for bundles"):
        edgecnn.evaluate("default-detector", data, format="torch", trusted_keys=keys.public)


def test_bench_times_what_a_trusted_key_signed(bundle: Path, changed: Path, keys: KeyPair) -> None:
    words: dict[str, Any] = {"format": "onnx", "iterations": 2, "trusted_keys": keys.public}
    report = edgecnn.bench(bundle, **words)
    assert report.results and not report.failures
    assert any("is signed" in note for note in report.notes)  # its figures stay out of it
    edgecnn.verify(bundle, keys.public)
    with pytest.raises(SignatureError, match="not as it was signed"):
        edgecnn.bench(changed, **words)


@pytest.mark.torch
def test_quantize_takes_what_a_trusted_key_signed(changed: Path, data: Path, keys: KeyPair) -> None:
    with pytest.raises(SignatureError, match="not as it was signed"):
        edgecnn.quantize(changed, calibration=data, trusted_keys=keys.public)


def test_only_what_a_trusted_key_signed_is_sent_to_a_board(changed: Path, data: Path, keys: KeyPair) -> None:
    with pytest.raises(SignatureError, match="not as it was signed"):
        edgecnn.bench_on(changed, "ssh://board.invalid", trusted_keys=keys.public)
    with pytest.raises(SignatureError, match="not as it was signed"):
        edgecnn.evaluate_on(changed, data, "ssh://board.invalid", trusted_keys=keys.public)


def test_a_private_copy_can_be_opened_by_its_path_and_has_the_bundles_name(bundle: Path, keys: KeyPair) -> None:
    with private_bundle(bundle, keys.public) as copy:
        assert copy.folder.name == bundle.name and copy.folder != bundle
        assert Bundle.open(copy.folder).manifest == Bundle.open(bundle).manifest
        place = copy.folder
    assert not place.exists()


def test_the_private_copies_are_gone_afterwards(
    bundle: Path, keys: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with edgecnn.open_runner(bundle, trusted_keys=keys.public) as runner:
        assert list((runtime / "edgecnn").iterdir()) == []
        runner(PICTURE)


@pytest.mark.skipif(sys.platform == "win32", reason="wants owners of folders")
def test_a_folder_that_others_may_enter_is_not_used(
    bundle: Path, keys: KeyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "edgecnn").mkdir(mode=0o777)
    (tmp_path / "edgecnn").chmod(0o777)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with edgecnn.open_runner(bundle, trusted_keys=keys.public) as runner:
        runner(PICTURE)
    assert list((tmp_path / "edgecnn").iterdir()) == []


def test_a_link_to_a_bundle_is_followed_as_a_slot_of_a_device_is(bundle: Path, keys: KeyPair, tmp_path: Path) -> None:
    (tmp_path / "current.edge").symlink_to(bundle)
    open_and_close(tmp_path / "current.edge", keys)


def test_an_unsigned_bundle_runs_only_without_keys(tmp_path: Path, keys: KeyPair) -> None:
    folder = small_bundle(tmp_path / "street.edge")
    edgecnn.open_runner(folder).close()
    with pytest.raises(SignatureError, match="it is not signed"):
        edgecnn.open_runner(folder, trusted_keys=keys.public)
    with pytest.raises(SpecError, match="no key is trusted"):
        edgecnn.open_runner(folder, trusted_keys=())


def test_a_run_takes_keys(bundle: Path, keys: KeyPair, tmp_path: Path) -> None:
    import cv2

    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), PICTURE)
    assert edgecnn.run(bundle, picture, trusted_keys=[keys.public]).frames == 1
    (bundle / "more.txt").write_text("")
    with pytest.raises(SignatureError, match="was not signed"):
        edgecnn.run(bundle, picture, trusted_keys=[keys.public])
