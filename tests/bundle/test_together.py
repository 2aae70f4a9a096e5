"""Several programs at one bundle, power cuts, and what is there when another bundle is to take the place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgecnn.bundle import (
    MANIFEST,
    Artifact,
    Bundle,
    LayerRecord,
    Manifest,
    Refusal,
    SourceRecord,
    TensorSpec,
    check_nothing_lost,
    commit,
    record_evidence,
    staged,
    store_files,
)
from edgecnn.bundle.evidence import AccuracyEvidence, Evidence, LatencyEvidence
from edgecnn.errors import BundleError, SpecError
from edgecnn.frame import FrameSpec
from edgecnn.locks import changing, reading
from edgecnn.tasks import Classify
from tests.builders.repository import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "interleavings.py"


def contract(weights: str = "w", **changes: Any) -> Manifest:
    manifest = Manifest(
        name="net",
        source=SourceRecord(model="m"),
        frame=FrameSpec(height_px=8, width_px=8),
        task=Classify(labels=("a", "b")),
        inputs=(TensorSpec(name="frame", dtype="uint8", shape=(1, 8, 8, 3)),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=(1, 2)),),
        parameters=1,
        macs=1,
        layers=(LayerRecord(name="l", kind="linear", macs=1, weights=weights),),
    )
    return msgspec.structs.replace(manifest, **changes)


def write(folder: Path, *names: str, manifest: Manifest | None = None, text: str = "x", **how: Any) -> Bundle:
    """A bundle of fake ONNX files: "fp32", "int8"; their content is `text`."""
    with staged(folder) as staging:
        artifacts = []
        for precision in names:
            file = staging / "model.onnx"
            file.write_bytes(b"\x12" + bytes([len(text)]) + text.encode())
            files = store_files(staging, f"onnx-{precision}", [file])
            artifacts.append(Artifact(format="onnx", precision=precision, files=files))
        return commit(
            staging, folder, msgspec.structs.replace(manifest or contract(), artifacts=tuple(artifacts)), **how
        )


def latency(device: str = "cpu", p50_ms: float = 1.0) -> Evidence:
    return Evidence(latency=(LatencyEvidence(figures={"device": device, "p50_ms": p50_ms}, machine={"board": "b"}),))


def accuracy(data: str) -> Evidence:
    figure = AccuracyEvidence(metric="top1", value=0.5, low=0, high=1, n=3, data=data, precision="fp32", device="cpu")
    return Evidence(accuracy=(figure,))


@pytest.mark.parametrize("count", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_whatever_several_processes_do_every_file_is_there_and_no_measurement_is_lost(count: int) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--interleavings", str(count)],
        capture_output=True,
        text=True,
        timeout=1800,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["lost"] == found["failed"] == found["left over"] == 0
    assert found["measurements"] > 3 * count


# ---------------------------------------------------------------------------- measurements
def test_two_measurements_that_began_with_the_same_manifest_both_stay(tmp_path: Path) -> None:
    bundle = write(tmp_path / "net.edge", "fp32")
    record_evidence(bundle, {("onnx", "fp32"): latency("cpu")})
    record_evidence(bundle, {("onnx", "fp32"): latency("gpu")})  # `bundle` doesn't know of the first
    record_evidence(bundle, {("onnx", "fp32"): accuracy("val")})
    record_evidence(bundle, {("onnx", "fp32"): latency("gpu", 2.0)})  # measured again
    (artifact,) = Bundle.open(bundle.folder).manifest.artifacts
    figures = [(one.figures["device"], one.figures["p50_ms"]) for one in artifact.evidence.latency]
    assert figures == [("cpu", 1.0), ("gpu", 2.0)]
    assert [one.data for one in artifact.evidence.accuracy] == ["val"]


def test_a_measurement_of_a_file_that_was_replaced_is_not_recorded_of_the_other(tmp_path: Path) -> None:
    bundle = write(tmp_path / "net.edge", "fp32", text="old")
    write(tmp_path / "net.edge", "fp32", text="new")
    after = record_evidence(bundle, {("onnx", "fp32"): latency()})
    assert after.manifest.artifacts[0].evidence.latency == ()


def test_what_is_measured_while_a_conversion_runs_stays_with_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "net.edge"
    bundle = write(folder, "fp32")
    with staged(folder) as staging:
        file = staging / "model.onnx"
        file.write_bytes(b"\x12\x01x")
        files = store_files(staging, "onnx-fp32", [file])
        record_evidence(bundle, {("onnx", "fp32"): latency()})
        made = Artifact(format="onnx", precision="fp32", files=files)
        commit(staging, folder, contract(artifacts=(made,)))
    assert len(Bundle.open(folder).manifest.artifacts[0].evidence.latency) == 1


# ---------------------------------------------------------------------------- another bundle takes the place
def test_the_users_own_files_stay(tmp_path: Path) -> None:
    folder = write(tmp_path / "net.edge", "fp32", text="old").folder
    (folder / "LICENSE").write_text("MIT")
    (folder / "manifest.json.sig").write_bytes(b"signature")
    (folder / "notes-0123456789.txt").write_text("mine")
    (folder / "more").mkdir()
    new = write(folder, "fp32", text="new", overwrite=True)
    named = {MANIFEST, new.manifest.artifacts[0].path}
    assert {p.name for p in folder.iterdir()} == named | {
        "LICENSE",
        "manifest.json.sig",
        "notes-0123456789.txt",
        "more",
    }


def test_int8_and_measurements_of_another_network_go_only_with_a_word(tmp_path: Path) -> None:
    folder = tmp_path / "net.edge"
    bundle = write(folder, "fp32", "int8")
    record_evidence(bundle, {("onnx", "fp32"): latency()})
    before = (folder / MANIFEST).read_bytes()
    other = contract("other weights")
    with pytest.raises(SpecError, match=r"onnx int8.*--overwrite") as refused:
        check_nothing_lost(folder, other, [("onnx", "fp32")])  # before the work
    assert "1 measured latency of onnx fp32" in str(refused.value)
    with pytest.raises(SpecError, match="--overwrite"):
        write(folder, "fp32", manifest=other, text="other")
    assert (folder / MANIFEST).read_bytes() == before
    write(folder, "fp32", manifest=other, text="other", overwrite=True)
    assert [a.precision for a in Bundle.open(folder).manifest.artifacts] == ["fp32"]


def test_the_same_network_again_keeps_its_int8_and_what_was_measured(tmp_path: Path) -> None:
    folder = tmp_path / "net.edge"
    bundle = write(folder, "fp32", "int8")
    record_evidence(bundle, {("onnx", "fp32"): latency(), ("onnx", "int8"): latency()})
    check_nothing_lost(folder, contract(), [("onnx", "fp32")])
    write(folder, "fp32")
    artifacts = Bundle.open(folder).manifest.artifacts
    assert [a.precision for a in artifacts] == ["fp32", "int8"]
    assert all(len(a.evidence.latency) == 1 for a in artifacts)


def test_a_float_bundle_without_measurements_is_replaced_silently(tmp_path: Path) -> None:
    folder = write(tmp_path / "net.edge", "fp32").folder
    write(folder, "fp32", manifest=contract("trained on"), text="better")
    assert Bundle.open(folder).manifest.layers[0].weights == "trained on"


def test_an_artifact_that_is_refused_now_does_not_stay_unless_it_is_worth_something(tmp_path: Path) -> None:
    folder = tmp_path / "net.edge"
    write(folder, "fp32", "fp16")
    refused = Refusal(format="onnx", precision="fp16", error="ParityError", reason="no")
    write(folder, "fp32", manifest=contract(refused=(refused,)))
    manifest = Bundle.open(folder).manifest
    assert [a.precision for a in manifest.artifacts] == ["fp32"]
    assert manifest.refused == (refused,)
    assert Bundle.open(write(folder, "fp16").folder).manifest.refused == (), "it passes now"


def test_int8_for_a_network_that_was_replaced_meanwhile_is_not_added(tmp_path: Path) -> None:
    folder = write(tmp_path / "net.edge", "fp32").folder
    write(folder, "fp32", manifest=contract("others"), text="others")
    with pytest.raises(BundleError, match="was replaced while"):
        write(folder, "int8", adds=True)


def test_a_damaged_bundle_is_replaced_and_its_files_go(tmp_path: Path) -> None:
    bundle = write(tmp_path / "net.edge", "fp32", text="old")
    (bundle.folder / MANIFEST).write_text("{")
    new = write(bundle.folder, "fp32", text="new")
    assert {p.name for p in bundle.folder.iterdir()} == {MANIFEST, new.manifest.artifacts[0].path}


def test_a_bundle_of_a_newer_edgecnn_is_not_replaced(tmp_path: Path) -> None:
    bundle = write(tmp_path / "net.edge", "fp32")
    (bundle.folder / MANIFEST).write_text('{"schema": 99}')
    with pytest.raises(BundleError, match="schema 99"):
        write(bundle.folder, "fp32", overwrite=True)


# ---------------------------------------------------------------------------- power cuts, kills, locks
def test_the_disk_has_the_files_before_the_manifest_names_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "net.edge", "fp32", text="old").folder
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor: int) -> None:
        done.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).suffix)
        fsync(descriptor)

    def noting_replace(source: Path, target: Path) -> None:
        done.append("move " + Path(target).suffix)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    write(folder, "fp32", text="new")
    manifest = done.index("move .json")
    assert done.index("sync .onnx") < done.index("move .onnx") < manifest
    assert "sync .json" in done[:manifest]
    assert done.index("sync .edge") > done.index("move .onnx")
    assert done.index("sync .edge") < manifest, "the folder's list of names, before the manifest"
    assert "sync .edge" in done[manifest:], "and after it"


def test_a_second_conversion_leaves_the_first_ones_staging_alone(tmp_path: Path) -> None:
    folder = tmp_path / "net.edge"
    with staged(folder) as first:
        (first / "half").write_text("half")
        with staged(folder) as second:
            assert (first / "half").exists()
            assert second != first
        assert (first / "half").exists()
        write(folder, "fp32")
        assert (first / "half").exists()


def test_a_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib; from edgecnn.locks import changing\n"
        "with changing(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "net.edge")],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    began = time.monotonic()
    with changing(tmp_path / "net.edge"):
        pass
    assert time.monotonic() - began < 5


def test_files_that_somebody_reads_stay_until_the_next_time(tmp_path: Path) -> None:
    old = write(tmp_path / "net.edge", "fp32", text="old")
    path = old.folder / old.manifest.artifacts[0].path
    with reading(old.folder):
        write(old.folder, "fp32", text="new")
        assert path.exists()
    write(old.folder, "fp32", text="newer")
    assert not path.exists()


def test_a_program_that_opened_the_old_bundle_learns_that_it_was_replaced(tmp_path: Path) -> None:
    old = write(tmp_path / "net.edge", "fp32", text="old")
    write(old.folder, "fp32", text="new")
    with pytest.raises(BundleError, match="was replaced after it was opened: open it again"):
        old.checked_path(old.manifest.artifacts[0])
