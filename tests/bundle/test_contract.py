"""A manifest whose values cannot be, and artifacts that have their runtime read what nobody verified."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.bundle import MANIFEST, Artifact, Bundle, Manifest, SourceRecord, TensorSpec, commit, staged, store_files
from edgecnn.bundle.companions import companions_of
from edgecnn.bundle.shipped import DEFAULTS
from edgecnn.errors import BundleError
from edgecnn.frame import FrameSpec
from edgecnn.tasks import Detect
from tests.builders.repository import REPOSITORY

EMPTY_ONNX = b"\x12\x01x"


def write(folder: Path, format_name: str = "onnx", **files: bytes) -> Bundle:
    with staged(folder) as staging:
        written = []
        for suffix, content in files.items() or {"onnx": EMPTY_ONNX}.items():
            written.append(staging / f"model.{suffix}")
            written[-1].write_bytes(content)
        manifest = Manifest(
            name="net",
            source=SourceRecord(model="m"),
            frame=FrameSpec(height_px=32, width_px=48),
            task=Detect(labels=("a", "b")),
            inputs=(TensorSpec(name="frame", dtype="uint8", shape=(1, 32, 48, 3)),),
            outputs=(
                TensorSpec(name="boxes", dtype="float32", shape=(1, 5, 4)),
                TensorSpec(name="scores", dtype="float32", shape=(1, 5, 2)),
            ),
            parameters=1,
            macs=1,
            artifacts=(
                Artifact(
                    format=format_name,
                    precision="fp32",
                    files=store_files(staging, f"{format_name}-fp32", written),
                ),
            ),
        )
        return commit(staging, folder, manifest)


def edited(bundle: Bundle, change: Callable[[dict[str, Any]], None]) -> Path:
    path = bundle.folder / MANIFEST
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return bundle.folder


def put(document: Any, place: str, value: Any) -> None:
    *way, last = [int(part) if part.isdecimal() else part for part in place.split(".")]
    for part in way:
        document = document[part]
    document[last] = value


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("batch", 0, "batch must be 1"),
        ("batch", -3, "batch must be 1"),
        ("batch", 2**40, "batch must be 1"),
        ("frame.width_px", 2**40, "frame's size must be at most"),
        ("frame.height_px", -1, "frame's size must be positive"),
        ("frame.width_px", 16000, "inputs: 'frame' has the shape"),
        ("frame.std", [0, 1, 1], "std must be positive"),
        ("frame.std", [-1, 1, 1], "std must be positive"),
        ("frame.mean", [1e999, 1, 1], "is damaged"),
        ("frame.scale", 0, "scale must be positive"),
        ("task.score_threshold", -5, r"score_threshold must be in 0\.\.1, got -5"),
        ("task.nms_iou", 1.5, r"nms_iou must be in 0\.\.1"),
        ("task.max_detections", 0, "max_detections must be"),
        ("task.max_detections", 2**62, "max_detections must be"),
        ("parameters", -1, "parameters must be"),
        ("macs", -1, "macs must be"),
        ("name", "a\x1b[2Jb", r"name must be 1 to .* got 'a\\\\x1b\[2Jb'"),
        ("name", "", "name must be"),
        ("inputs", [], "inputs must be 1 to 64"),
        ("inputs.0.dtype", "object", "has dtype 'object'"),
        ("inputs.0.shape", [1, 0, 48, 3], "dimensions, each 1 or more"),
        ("inputs.0.shape", [1, -32, -48, 3], "dimensions, each 1 or more"),
        ("inputs.0.shape", [1, 32, 32, 3], r"batch, frame\.height_px and frame\.width_px are \[1, 32, 48\]"),
        ("outputs.0.shape", [2**40, 2**40], "outputs must be boxes"),
        ("inputs.0.shape", [1] * 1000, "at most 8 dimensions"),
        ("inputs.0.shape", [2**40, 2**40], "at most 2"),
        ("outputs.0.name", "scores", "outputs must be boxes, scores, found scores, scores"),
        ("inputs.0.name", "fr\name", "inputs.name must be"),
        ("artifacts.0.format", "", "artifacts.0..format must be"),
        ("artifacts.0.files.0.path", "../../etc/passwd", "must be the name of a file next to the manifest"),
        ("artifacts.0.files.0.path", "/etc/passwd", "must be the name of a file next to the manifest"),
        ("artifacts.0.files.0.path", "..", "must be the name of a file"),
        ("artifacts.0.files.0.path", "", "must be the name of a file"),
        ("artifacts.0.files.0.path", "a\\b.onnx", "must be the name of a file"),
        ("artifacts.0.files.0.path", "-rf", "must be the name of a file"),
        ("artifacts.0.files.0.path", "a\x00.onnx", "must be the name of a file"),
        ("artifacts.0.files.0.path", "x" * 300, "must be the name of a file"),
        ("artifacts.0.files.0.path", MANIFEST, "names the manifest itself"),
        ("artifacts.0.files.0.sha256", "0" * 63 + "g", "must be 64 hexadecimal digits"),
        ("artifacts.0.files.0.bytes", -1, "bytes must be"),
        ("artifacts.0.files.0.bytes", 100 << 30, r"bytes must be 0 to 2\^31"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_refused_with_its_fields_name(
    place: str, value: Any, expected: str, tmp_path: Path
) -> None:
    folder = edited(write(tmp_path / "net.edge"), lambda document: put(document, place, value))
    with pytest.raises(BundleError, match=expected):
        Bundle.open(folder)


def test_two_artifacts_of_one_format_and_precision_are_refused(tmp_path: Path) -> None:
    folder = edited(write(tmp_path / "n.edge"), lambda d: d["artifacts"].append(d["artifacts"][0]))
    with pytest.raises(BundleError, match=r"artifacts names .*onnx.* twice"):
        Bundle.open(folder)


def test_a_manifest_of_any_depth_is_refused_without_a_crash(tmp_path: Path) -> None:
    folder = write(tmp_path / "net.edge").folder
    deep = "[" * 100_000 + "]" * 100_000
    text = (folder / MANIFEST).read_text().replace('"evidence": {', f'"evidence": {{"later": {deep}, ')
    (folder / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="is damaged"):
        Bundle.open(folder)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_or_a_device_is_never_read(tmp_path: Path) -> None:
    bundle = write(tmp_path / "net.edge")
    path = bundle.folder / bundle.manifest.artifacts[0].path
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(BundleError, match="not a file"):
        bundle.checked_path(bundle.manifest.artifacts[0])
    path.unlink()
    path.symlink_to("/dev/zero")
    with pytest.raises(BundleError, match="not a file"):
        bundle.checked_path(bundle.manifest.artifacts[0])
    (bundle.folder / MANIFEST).unlink()
    os.mkfifo(bundle.folder / MANIFEST)
    with pytest.raises(BundleError, match="it is not a file"):
        Bundle.open(bundle.folder)


# ---------------------------------------------------------------------------- files that a runtime reads beside
def onnx_with(location: str, *, inside: bool = False) -> bytes:
    """An ONNX file of which one tensor lies elsewhere; `inside` a branch of a node of a function."""
    onnx = pytest.importorskip("onnx")
    tensor = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [2], np.zeros(2, np.float32).tobytes(), raw=True)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])
    if inside:
        branch = onnx.helper.make_graph([], "branch", [], [output], [tensor])
        node = onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
        function = onnx.helper.make_function(
            "own", "f", ["c"], ["y"], [node], [onnx.helper.make_opsetid("", 18)], [], []
        )
        model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [output]), functions=[function])
    else:
        model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [output], [tensor]))
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("inside", [False, True])
def test_external_data_that_the_manifest_does_not_list_is_refused(inside: bool, tmp_path: Path) -> None:
    bundle = write(tmp_path / "net.edge", onnx=onnx_with("weights.bin", inside=inside))
    (bundle.folder / "weights.bin").write_bytes(bytes(8))
    with pytest.raises(BundleError, match=r"read 'weights\.bin', which the manifest doesn't list"):
        bundle.checked_path(bundle.manifest.artifacts[0])


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "a/../b", "..", ""])
def test_external_data_outside_the_bundle_is_refused(location: str, tmp_path: Path) -> None:
    bundle = write(tmp_path / "net.edge", onnx=onnx_with(location))
    with pytest.raises(BundleError, match="a file outside the bundle: it is not opened"):
        bundle.checked_path(bundle.manifest.artifacts[0])


def test_external_data_that_is_listed_is_hashed_and_taken(tmp_path: Path) -> None:
    content = onnx_with("NAME")
    with staged(tmp_path / "net.edge") as staging:
        (staging / "model.onnx").write_bytes(content)
    bundle = write(tmp_path / "net.edge", onnx=onnx_with("data.bin"), bin=bytes(8))
    listed = bundle.manifest.artifacts[0].files[1].path

    def rename(document: dict[str, Any]) -> None:
        main, data = document["artifacts"][0]["files"]
        (bundle.folder / listed).rename(bundle.folder / "data.bin")
        data["path"] = "data.bin"
        del main

    opened = Bundle.open(edited(bundle, rename))
    assert opened.checked_path(opened.manifest.artifacts[0]).suffix == ".onnx"
    (bundle.folder / "data.bin").write_bytes(b"tampered")
    with pytest.raises(BundleError, match=r"data\.bin is not the file that was verified"):
        opened.checked_path(opened.manifest.artifacts[0])


def test_a_compiled_context_elsewhere_is_refused_and_one_inside_is_taken(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")

    def model(mode: int) -> bytes:
        node = onnx.helper.make_node(
            "EPContext", [], ["y"], domain="com.microsoft", embed_mode=mode, ep_cache_context="../cache.bin"
        )
        return bytes(onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [])).SerializeToString())

    inside = write(tmp_path / "inside.edge", onnx=model(1))
    assert inside.checked_path(inside.manifest.artifacts[0])
    elsewhere = write(tmp_path / "elsewhere.edge", onnx=model(0))
    with pytest.raises(BundleError, match=r"'\.\./cache\.bin', a file outside the bundle"):
        elsewhere.checked_path(elsewhere.manifest.artifacts[0])


def test_weights_that_openvino_would_find_next_to_an_xml_are_listed_or_refused(tmp_path: Path) -> None:
    bundle = write(tmp_path / "net.edge", "openvino", xml=b"<net/>")
    artifact = bundle.manifest.artifacts[0]
    assert bundle.checked_path(artifact)
    (bundle.folder / artifact.path).with_suffix(".bin").write_bytes(b"planted")
    with pytest.raises(BundleError, match=r"\.bin', which the manifest doesn't list"):
        bundle.checked_path(artifact)


@pytest.mark.runtime
def test_external_buffers_of_a_tflite_file_are_seen(tmp_path: Path) -> None:
    schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
    flatbuffers = pytest.importorskip("flatbuffers")
    group = schema.ExternalBufferGroupT()
    group.name = "../weights.bin"
    model = schema.ModelT()
    model.version, model.externalBufferGroups = 3, [group]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    bundle = write(tmp_path / "net.edge", "tflite", tflite=bytes(builder.Output()))
    with pytest.raises(BundleError, match=r"'\.\./weights\.bin', a file outside the bundle"):
        bundle.checked_path(bundle.manifest.artifacts[0])


def test_a_file_of_another_kind_than_its_format_is_refused(tmp_path: Path) -> None:
    bundle = write(tmp_path / "net.edge", "openvino", onnx=EMPTY_ONNX)  # OpenVINO would read ONNX, too
    with pytest.raises(BundleError, match=r"expected a file of openvino to end in \.xml"):
        bundle.checked_path(bundle.manifest.artifacts[0])


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
def test_bytes_that_are_no_artifact_are_refused_or_name_nothing(suffix: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shipped = next(REPOSITORY.glob(f"edgecnn/assets/detector.edge/*.{suffix}")).read_bytes()
    path = tmp_path / f"model.{suffix}"
    for _ in range(200):
        content = bytearray(shipped[: int(rng.integers(1, len(shipped)))] if rng.random() < 0.5 else shipped)
        for place in rng.integers(0, min(len(content), 2000), 8):
            content[place] = int(rng.integers(0, 256))
        path.write_bytes(content)
        try:
            companions_of(path)
        except BundleError as refused:
            assert "\x1b" not in str(refused)  # noqa: PT017


@pytest.mark.parametrize("name", DEFAULTS)
def test_what_ships_passes(name: str) -> None:
    bundle = Bundle.open(name)
    for artifact in bundle.manifest.artifacts:
        bundle.checked_path(artifact)
    digest = hashlib.sha256((bundle.folder / bundle.manifest.artifacts[0].path).read_bytes()).hexdigest()
    assert digest == bundle.manifest.artifacts[0].sha256
