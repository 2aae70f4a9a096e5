"""The manifest, and the folder that it commits."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgecnn.bundle import (
    MANIFEST,
    SCHEMA_VERSION,
    Artifact,
    Bundle,
    FileRecord,
    Manifest,
    Refusal,
    SourceRecord,
    TensorSpec,
    commit,
    record_evidence,
    sha256_of,
    staged,
    store_files,
)
from edgecnn.bundle.evidence import AccuracyEvidence, Evidence, LatencyEvidence, ParityEvidence, PreprocessEvidence
from edgecnn.errors import BundleError, SpecError, StorageError, UnknownTaskError
from edgecnn.frame import FrameSpec
from edgecnn.tasks import Classify, Detect, InstanceSegment, Segment, Task
from edgecnn.tasks.answer_form import BATCH, CLASSES

PARITY = ParityEvidence(max_rel_err=1e-6, limit=1e-4, frames=4, ok=True, tensors={"scores": 1e-6}, agreement=1.0)


def outputs_of(task: Task) -> tuple[TensorSpec, ...]:
    """Outputs as a manifest has them, one value for each label where the task wants that."""
    extents = {BATCH: 1, CLASSES: len(task.labels), "N": 5, "K": 3, "h": 4, "w": 6}
    return tuple(
        TensorSpec(name=form.name, dtype=form.dtype, shape=tuple(extents.get(axis, axis) for axis in form.axes))  # type: ignore[arg-type]
        for form in task.output_forms
    )


def manifest_of(*artifacts: Artifact, task: Task | None = None) -> Manifest:
    task = task or Classify(labels=("cat", "Hündchen"))
    return Manifest(
        edgecnn="0.0",
        name="net",
        source=SourceRecord(model="torchvision:net", weights="net.pth", weights_sha256="ab", versions={"torch": "2"}),
        frame=FrameSpec(height_px=32, width_px=48, fit="centre-crop", resize_short_px=50, mean=(1.0, 2.0, 3.0)),
        task=task,
        inputs=(TensorSpec(name="frame", dtype="uint8", shape=(1, 32, 48, 3)),),
        outputs=outputs_of(task),
        in_graph=("mean", "softmax"),
        parameters=10,
        macs=20,
        preprocess=PreprocessEvidence(compared=True, reference="theirs", max_levels=1.0, mean_levels=0.1, frames=4),
        artifacts=artifacts,
        refused=(Refusal(format="tflite", precision="fp16", error="ParityError", reason="no", parity=PARITY),),
    )


def onnx_file(content: bytes) -> bytes:
    """An ONNX file with nothing in it but a name of what wrote it (protobuf's field 2)."""
    return b"\x12" + bytes([len(content)]) + content


NETWORK = onnx_file(b"network")


def write_bundle(folder: Path, content: bytes = b"network", **changes: Any) -> Bundle:
    """A bundle of one file, as `convert` commits it."""
    with staged(folder) as staging:
        file = staging / "model.onnx"
        file.write_bytes(onnx_file(content))
        files = store_files(staging, "onnx-fp32", [file])
        evidence = Evidence(parity=PARITY, overrides=("allow-drop",))
        artifact = Artifact(format="onnx", precision="fp32", files=files, tool="t 1", transposes=1, evidence=evidence)
        return commit(staging, folder, manifest_of(artifact, **changes))


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    "task",
    [
        Classify(labels=("a",), top=3),
        Detect(labels=("a",), score_threshold=0.1, multi_label=True),
        Segment(labels=("a",), decided_in="finish"),
        InstanceSegment(labels=("a",), max_detections=7),
    ],
    ids=lambda task: task.name,
)
def test_what_is_written_is_what_is_read(task: Task, tmp_path: Path) -> None:
    written = write_bundle(tmp_path / "net.edge", task=task)
    read = Bundle.open(tmp_path / "net.edge")
    assert read.manifest == written.manifest
    assert read.manifest.schema == SCHEMA_VERSION
    assert read.manifest.created_utc.endswith("+00:00")
    artifact = read.artifact("onnx", "fp32")
    assert read.checked_path(artifact).read_bytes() == NETWORK
    assert artifact.bytes == len(NETWORK)
    assert artifact.sha256 == sha256_of(tmp_path / "net.edge" / artifact.path)
    assert len(artifact.path.rpartition("-")[2]) > len(".onnx"), "part of a hash is in the name"


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (Detect(labels=("bicycle",)), {"outputs": (5, 80)}, "labels: expected one for each of the 80 classes"),
        (Classify(labels=()), {"outputs": (0, 3)}, "labels: expected one for each of the 3 classes .* found 0"),
        (Detect(labels=("a",)), {"score_threshold": -5}, "score_threshold must be in 0..1, got -5"),
        (Detect(labels=("a",)), {"nms_iou": 1.5}, "nms_iou must be in 0..1"),
        (Detect(labels=("a",)), {"max_detections": 0}, "max_detections must be at least 1"),
        (Detect(labels=("a",)), {"max_candidates": -1}, "max_candidates must be at least 1"),
        (InstanceSegment(labels=("a",)), {"score_threshold": 2}, "score_threshold must be in 0..1"),
        (Classify(labels=("a",)), {"top": 0}, "top must be at least 1"),
        (Segment(labels=("a",) * 200), {"labels": ["a"] * 300}, "labels must be at most 256"),
        (Detect(labels=("a",)), {"labels": "a"}, "array"),
        (Detect(labels=("a",)), {"labels": [1]}, "labels"),
        (Detect(labels=("a",)), {"kind": 7}, "the field 'kind'"),
    ],
)
def test_a_task_that_cannot_be_is_refused_with_the_fields_name(
    task: Task, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    bundle = write_bundle(tmp_path / "net.edge", task=task)
    path = bundle.folder / MANIFEST
    document = json.loads(path.read_text(encoding="utf-8"))
    if (shape := changes.pop("outputs", None)) is not None:
        scores = next(output for output in document["outputs"] if output["name"] == "scores")
        scores["shape"] = [1, *shape] if len(scores["shape"]) == 3 else [1, shape[-1]]
    document["task"].update(changes)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle.folder)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"name": "logits"}, "outputs must be scores, found logits"),
        ({"dtype": "int8"}, "'scores' must be float32, found int8"),
        ({"shape": [1, 2, 3]}, r"outputs must be scores \[batch, C\]"),
        ({"shape": [0, 2]}, "must hold values"),
    ],
)
def test_outputs_that_are_not_the_tasks_are_refused(output: dict[str, Any], message: str, tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "net.edge")
    path = bundle.folder / MANIFEST
    document = json.loads(path.read_text(encoding="utf-8"))
    document["outputs"][0].update(output)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(BundleError, match=message):
        Bundle.open(bundle.folder)


def test_a_bundle_without_a_field_of_today_still_opens(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "net.edge", task=Detect(labels=("a",)))
    path = bundle.folder / MANIFEST
    document = json.loads(path.read_text(encoding="utf-8"))
    del document["task"]["max_candidates"]
    path.write_text(json.dumps(document), encoding="utf-8")
    assert Bundle.open(bundle.folder).manifest.task == Detect(labels=("a",))


def test_an_unknown_task_is_refused_with_the_package_that_may_be_missing(tmp_path: Path) -> None:
    source = SourceRecord(model="x", versions={"torch": "2", "edgecnn-poses": "1.2"})
    bundle = write_bundle(tmp_path / "net.edge")
    path = bundle.folder / MANIFEST
    document = json.loads(path.read_text(encoding="utf-8"))
    document["task"]["kind"] = "poses"
    document["source"] = msgspec.to_builtins(source)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(UnknownTaskError, match=r"the task 'poses' is not known here.*edgecnn.tasks.*edgecnn-poses 1.2"):
        Bundle.open(bundle.folder)


def test_a_manifest_is_readable_by_people(tmp_path: Path) -> None:
    write_bundle(tmp_path / "net.edge")
    text = (tmp_path / "net.edge" / MANIFEST).read_text(encoding="utf-8")
    assert "Hündchen" in text
    assert text.count("\n") > 20


def test_fields_that_this_version_does_not_know_are_ignored(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "net.edge")
    path = bundle.folder / MANIFEST
    document = json.loads(path.read_text(encoding="utf-8"))
    document["later"] = {"a": 1}
    document["artifacts"][0]["later"] = True
    document["artifacts"][0]["evidence"]["parity"]["later"] = [1]
    path.write_text(json.dumps(document), encoding="utf-8")
    assert Bundle.open(bundle.folder).manifest == bundle.manifest


def test_a_newer_schema_is_refused_with_the_way_out(tmp_path: Path) -> None:
    folder = tmp_path / "net.edge"
    folder.mkdir()
    (folder / MANIFEST).write_text(json.dumps({"schema": SCHEMA_VERSION + 1, "frame": "of another kind"}))
    with pytest.raises(BundleError, match=r"schema 2, this edgecnn reads up to 1: update edgecnn here, or convert"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda text: text[: len(text) // 2], id="truncated"),
        pytest.param(lambda text: "", id="empty"),
        pytest.param(lambda text: "[]", id="a list"),
        pytest.param(lambda text: "{}", id="no fields"),
        pytest.param(lambda text: text.replace('"height_px": 32', '"height_px": 0'), id="a frame of no height"),
        pytest.param(lambda text: text.replace('"height_px": 32', '"height_px": "32"'), id="a text for a number"),
        pytest.param(lambda text: text.replace('"files": [', '"files": [], "old": ['), id="an artifact of no files"),
        pytest.param(lambda text: text.replace("Hündchen", "\udcff"), id="no UTF-8"),
    ],
)
def test_a_damaged_manifest_is_reported_as_damaged(damage: Callable[[str], str], tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "net.edge").folder
    path = folder / MANIFEST
    text = path.read_text(encoding="utf-8")
    damaged = damage(text)
    assert damaged != text
    path.write_bytes(damaged.encode("utf-8", "surrogateescape"))
    with pytest.raises(BundleError, match=r"manifest\.json is damaged: .*; convert again"):
        Bundle.open(folder)


def test_anything_but_a_bundle_is_reported_as_such(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"absent\.edge does not exist; make one with `edgecnn convert"):
        Bundle.open(tmp_path / "absent.edge")
    with pytest.raises(BundleError, match=r"is not a bundle \(no manifest\.json in it\)"):
        Bundle.open(tmp_path)
    file = tmp_path / "file.edge"
    file.write_text("")
    with pytest.raises(BundleError, match="cannot be read: Not a directory"):
        Bundle.open(file)


def test_an_artifact_that_is_not_there_is_answered_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="holds no onnx int8 artifact; it holds: onnx fp32"):
        write_bundle(tmp_path / "net.edge").artifact("onnx", "int8")


def test_a_new_bundle_replaces_the_old_and_leaves_none_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "net.edge"
    old = write_bundle(folder, b"old")
    new = write_bundle(folder, b"new")
    assert old.manifest.artifacts[0].path != new.manifest.artifacts[0].path
    assert entries(folder) == {MANIFEST, new.manifest.artifacts[0].path}
    assert entries(tmp_path) == {"net.edge"}
    assert Bundle.open(folder).checked_path(new.manifest.artifacts[0]).read_bytes() == onnx_file(b"new")


def test_an_old_bundle_is_whole_at_every_moment_of_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "net.edge"
    write_bundle(folder, b"old")
    seen = []
    replace = os.replace

    def watching(source: Path, target: Path) -> None:
        for _ in range(2):
            found = Bundle.open(folder)
            seen.append(found.checked_path(found.manifest.artifacts[0]).read_bytes())
            if len(seen) % 2:
                replace(source, target)

    monkeypatch.setattr(os, "replace", watching)
    write_bundle(folder, b"new")
    old, new = onnx_file(b"old"), onnx_file(b"new")
    assert seen == [old, old, old, new], "the manifest is the last to be replaced"


def test_a_commit_that_fails_keeps_the_old_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "net.edge"
    old = write_bundle(folder, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"the disk is full at .*: nothing was written"):
        write_bundle(folder, b"new")
    monkeypatch.undo()
    assert Bundle.open(folder).manifest == old.manifest
    assert entries(tmp_path) == {"net.edge"}
    assert entries(folder) == {MANIFEST, old.manifest.artifacts[0].path}


def test_evidence_is_added_only_to_its_artifact(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "net.edge")
    other = msgspec.structs.replace(bundle.manifest.artifacts[0], precision="fp16")
    with staged(bundle.folder) as staging:
        manifest = msgspec.structs.replace(bundle.manifest, artifacts=(*bundle.manifest.artifacts, other))
        bundle = commit(staging, bundle.folder, manifest)
    accuracy = AccuracyEvidence(
        metric="top1", value=0.5, low=0.4, high=0.6, n=9, data="d", precision="fp32", device="c"
    )
    latency = LatencyEvidence(figures={"p50_ms": 1.5, "stages": {"fit": [1, 2]}}, machine={"cpu": "x"})
    evidence = msgspec.structs.replace(other.evidence, accuracy=(accuracy,), latency=(latency,))
    record_evidence(bundle, {("onnx", "fp16"): evidence, ("tflite", "fp32"): evidence})
    read = Bundle.open(bundle.folder)
    assert [a.precision for a in read.manifest.artifacts] == ["fp32", "fp16"]
    assert read.manifest.artifacts[0] == bundle.manifest.artifacts[0]
    assert read.manifest.artifacts[1].evidence == evidence
    assert msgspec.structs.replace(read.manifest, artifacts=()) == msgspec.structs.replace(
        bundle.manifest, artifacts=()
    )
    assert read.checked_path(read.manifest.artifacts[1]).read_bytes() == NETWORK
    assert entries(bundle.folder.parent) == {"net.edge"}


def test_evidence_that_cannot_be_written_leaves_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = write_bundle(tmp_path / "net.edge")
    before = (bundle.folder / MANIFEST).read_bytes()

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(StorageError, match="is not writable: Read-only file system"):
        record_evidence(bundle, {("onnx", "fp32"): Evidence()})
    monkeypatch.undo()
    assert (bundle.folder / MANIFEST).read_bytes() == before
    assert entries(tmp_path) == {"net.edge"}


def test_a_folder_that_is_not_a_bundle_is_never_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "dear.jpg").write_text("keep me")
    with pytest.raises(SpecError, match="exists and is not a bundle: choose another --out"):
        write_bundle(folder)
    assert (folder / "dear.jpg").read_text() == "keep me"
    assert entries(tmp_path) == {"photos"}


def test_a_staging_folder_is_gone_whatever_ended_it(tmp_path: Path) -> None:
    def fail(error: type[BaseException]) -> None:
        with staged(tmp_path / "net.edge") as staging:
            (staging / "half").write_text("half")
            raise error

    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error):
            fail(error)
        assert entries(tmp_path) == set()


def test_what_a_killed_run_left_is_cleaned_up_and_nothing_else(tmp_path: Path) -> None:
    left = tmp_path / ".net.edge.partial-abc"
    left.mkdir()
    (left / "half").write_text("half")
    other = tmp_path / ".other.edge.partial-abc"
    other.mkdir()
    write_bundle(tmp_path / "net.edge")
    assert entries(tmp_path) == {"net.edge", other.name}


def test_files_that_belong_together_keep_finding_each_other(tmp_path: Path) -> None:
    xml, weights = tmp_path / "model.xml", tmp_path / "model.bin"
    xml.write_text("graph")
    weights.write_text("weights")
    records = store_files(tmp_path, "openvino-fp32", [xml, weights])
    assert [Path(record.path).suffix for record in records] == [".xml", ".bin"]
    assert Path(records[0].path).stem == Path(records[1].path).stem
    assert records[1] == FileRecord(path=records[1].path, sha256=sha256_of(tmp_path / records[1].path), bytes=7)


def test_the_bundle_can_be_read_by_others(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "net.edge").folder
    assert folder.stat().st_mode & 0o777 == 0o755
    assert SCHEMA_VERSION == 1, "raise it only for what old readers cannot read"
