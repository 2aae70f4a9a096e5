"""`edgecnn demo`: where torch is, and as a device runs it, without."""

from __future__ import annotations

import functools
import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'edgecnn[onnx]'")

import edgecnn
from edgecnn._verbs import demo as verb
from edgecnn._verbs.bench import bench
from edgecnn.bundle import Refusal
from edgecnn.cli._main import main
from edgecnn.demonstration import footage
from edgecnn.demonstration.shipped_network import record_footage
from edgecnn.errors import DataError, MissingDependencyError, SpecError, StorageError
from edgecnn.measure.latency import BenchReport
from edgecnn.measure.machine import describe_machine
from edgecnn.photographs import photographs

pytestmark = pytest.mark.runtime

ITERATIONS = 11  # as many as a median wants


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Footage of 8 frames, and few samples."""
    monkeypatch.setattr(footage, "FRAMES_EACH", 2)
    monkeypatch.setattr(verb, "bench", functools.partial(bench, iterations=ITERATIONS))


@pytest.fixture
def device(short: None, without: Callable[..., None]) -> None:
    """Onnxruntime and nothing else."""
    without("torch", "openvino", "ai_edge_litert", "tflite_runtime")


def frames_of(path: Path) -> int:
    capture, count = cv2.VideoCapture(str(path)), 0
    while capture.read()[0]:
        count += 1
    return count


@pytest.mark.usefixtures("device")
def test_a_device_runs_what_ships_with_the_runtime_that_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], assert_readable: Callable[[str], None]
) -> None:
    out = tmp_path / "demo"
    manifest = edgecnn.Bundle.open("default-detector").folder / "manifest.json"
    before = manifest.read_bytes()
    assert main(["demo", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert_readable(printed.out)
    assert "default-detector: latency of a picture" in printed.out and "default-segmenter" in printed.out
    assert re.search(r"default-detector: openvino \S+ is skipped: .*edgecnn\[openvino\]", printed.err)
    assert "edgecnn[convert]" in printed.err
    document = json.loads((out / "demo.json").read_bytes())
    assert [n["word"] for n in document["networks"]] == ["default-detector", "default-segmenter"]
    for network, video in zip(document["networks"], ("detected.mp4", "segmented.mp4"), strict=True):
        assert not network["converted"] and network["bundle"] == network["word"]
        assert {row["format"] for row in network["latency"]} == {"onnx"}
        assert all(row["n"] == ITERATIONS and row["error"] is None for row in network["latency"])
        left_out = {each["format"]: each["reason"] for each in network["left_out"]}
        assert set(left_out) == {"openvino", "tflite"}
        assert "edgecnn[openvino]" in left_out["openvino"] and "edgecnn[tflite]" in left_out["tflite"]
        assert {still["photograph"] for still in network["stills"]} == set(photographs())
        assert all(cv2.imread(str(out / still["picture"])) is not None for still in network["stills"])
        assert network["video"]["path"] == video
        assert network["video"]["frames"] == frames_of(out / video) == 8
    detector, segmenter = (
        {still["photograph"]: still["says"] for still in network["stills"]} for network in document["networks"]
    )
    assert detector["astronaut"].startswith("person") and detector["cat"].startswith("cat")
    assert segmenter["cat"].startswith("cat")
    sheet = cv2.imread(str(out / document["contact_sheet"]))
    assert sheet is not None and sheet.shape[0] == 2 * 220
    assert manifest.read_bytes() == before  # what is installed stays as it is


@pytest.mark.usefixtures("device")
def test_footage_of_ones_own_takes_the_place_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = BenchReport(bundle="", machine=describe_machine(), results=())
    monkeypatch.setattr(verb, "bench", lambda *_, **__: nothing)
    own = tmp_path / "street.avi"
    writer = cv2.VideoWriter(str(own), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for index in range(5):
        writer.write(np.full((48, 64, 3), 40 * index, np.uint8))
    writer.release()
    out = tmp_path / "demo"
    assert main(["demo", "--video", str(own), "--out", str(out), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == json.loads((out / "demo.json").read_bytes())
    assert document["footage"] == "street.avi"
    assert frames_of(out / "detected.mp4") == frames_of(out / "segmented.mp4") == 5
    assert not (out / "footage.mp4").exists()


def test_footage_that_cannot_be_used_is_reported_at_once(tmp_path: Path) -> None:
    picture, text = tmp_path / "cat.jpg", tmp_path / "notes.mp4"
    cv2.imwrite(str(picture), photographs()["cat"])
    text.write_text("no video")
    out = tmp_path / "demo"
    for video, reason in ((tmp_path / "absent.mp4", "is not a file"), (picture, "is a picture"), (text, "cannot be")):
        with pytest.raises(DataError, match=reason):
            verb.demo(out, video=video)
    assert not out.exists()
    footage.write_footage(tmp_path / "detected.mp4")
    with pytest.raises(SpecError, match="is an output of the demo"):
        verb.demo(tmp_path, video=tmp_path / "detected.mp4")


def test_without_any_runtime_the_extra_is_named(tmp_path: Path, without: Callable[..., None]) -> None:
    without("torch", "onnxruntime", "openvino", "ai_edge_litert", "tflite_runtime")
    with pytest.raises(MissingDependencyError, match=r"edgecnn\[(onnx|openvino)\]"):
        verb.demo(tmp_path / "demo")


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        verb.demo(tmp_path / "file" / "demo")


def test_control_c_in_the_video_ends_the_demo(tmp_path: Path) -> None:
    bundle = edgecnn.Bundle.open("default-detector")
    run: Any = lambda *_, **__: SimpleNamespace(signal=signal.SIGINT)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        record_footage(run, bundle, bundle.manifest.artifacts[0], tmp_path / "in.mp4", tmp_path / "out.mp4", None)


@pytest.mark.torch
@pytest.mark.usefixtures("short")
def test_a_refused_artifact_is_reported_and_ends_with_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edgecnn.converters.quantize_bundle import Conversion

    refusal = Refusal(format="onnx", precision="fp32", error="ParityError", reason="it answers differently")

    def convert(model: str, **_: Any) -> Conversion:
        return Conversion(bundle=None, refused=(refusal,), warnings=())

    monkeypatch.setattr(verb, "can_convert", lambda: True)
    monkeypatch.setattr(verb, "convert", convert)
    assert main(["demo", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("refused: onnx fp32: it answers differently") == 2
    document = json.loads((tmp_path / "demo.json").read_bytes())
    assert [network["bundle"] for network in document["networks"]] == [None, None]
    assert document["contact_sheet"] is None


@pytest.mark.torch
@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_a_workstation_converts_what_ships_before_it_runs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "safetensors", "onnx"):
        pytest.importorskip(package, reason=f"needs {package}: pip install 'edgecnn[convert]'")
    monkeypatch.setattr(verb, "shipped_formats", lambda: ["onnx"])
    report = verb.demo(tmp_path / "demo")
    assert report.whole
    for network, name in zip(report.networks, ("detector", "segmenter"), strict=True):
        assert network.bundle == tmp_path / "demo" / f"{name}.edge"
        (artifact,) = network.artifacts
        assert artifact.evidence.parity is not None and artifact.evidence.parity.ok
        assert network.bench is not None and len(network.bench.results) == 1
