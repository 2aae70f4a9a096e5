"""NPUs: Qualcomm's in its maker's simulator; Intel's and Coral's as far as a machine without them goes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgecnn import Bundle, Classification, SegmentationMap, convert, open_runner
from edgecnn._verbs.bench import bench
from edgecnn._verbs.evaluate import evaluate
from edgecnn.bundle import Artifact, TensorSpec, commit, staged
from edgecnn.errors import BundleError, ConversionError, DeviceError, EdgeCnnError, MissingDependencyError
from edgecnn.formats.devices import parse_device
from edgecnn.photographs import photographs
from edgecnn.results import UInt8Array
from edgecnn.runners.onnxruntime.backend import OnnxRuntimeBackend
from edgecnn.targets import load_target
from tests.builders.networks import TINY
from tests.builders.repository import REPOSITORY

pytestmark = [pytest.mark.torch, pytest.mark.slow]
QNN = "onnxruntime:qnn"


@pytest.fixture(scope="module", autouse=True)
def plug_in() -> None:
    """Skips where Qualcomm's plug-in for ONNX Runtime, or its simulator, is not there."""
    pytest.importorskip("onnxruntime_qnn", reason="needs Qualcomm's simulator: pip install 'edgecnn[qnn]'")
    from edgecnn.runners.onnxruntime import qnn

    if not qnn.is_simulated():
        pytest.skip("the simulator is for x86-64 PCs")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parts of the photographs, to calibrate on."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, photograph in photographs().items():
        for part in range(4):
            top, left = 40 * (part % 2), 50 * (part // 2)
            cv2.imwrite(str(folder / f"{name}{part}.png"), photograph[top : top + 240, left : left + 300])
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Bundle:
    """A tiny classifier: float for any machine, and compiled for the NPU with 8-bit and 16-bit activations."""
    conversion = convert(
        TINY["classify"](),
        target="qualcomm-htp",
        precision=("fp32", "int8", "int8-a16"),
        calibration=pictures,
        out=tmp_path_factory.mktemp("htp") / "tiny.edge",
    )
    assert conversion.refused == ()
    assert conversion.bundle is not None
    return conversion.bundle


def compiled(bundle: Bundle, precision: str = "int8-a16") -> Artifact:
    return bundle.artifact("onnx", precision, "qualcomm-htp:v73")


@pytest.mark.parametrize("precision", ["int8", "int8-a16"])
def test_a_compiled_artifact_says_where_it_was_run_and_what_the_npu_has_of_it(bundle: Bundle, precision: str) -> None:
    evidence = compiled(bundle, precision).evidence
    assert evidence.placement is not None
    assert evidence.placement.operators > 10
    assert evidence.placement.share == 1, evidence.placement.off_device
    ran_on = evidence.placement.ran_on
    assert ran_on.simulated
    assert (ran_on.provider, ran_on.device_name) == ("QNNExecutionProvider", "Qualcomm HTP simulator")
    assert ran_on.operators_on_device == ran_on.operators == evidence.placement.operators
    assert evidence.parity is not None
    assert evidence.parity.ran_on == ran_on
    assert evidence.parity.ok is None  # without labels there are figures and no verdict
    assert evidence.quantization is not None
    assert evidence.quantization.int8_mac_share == 1
    assert evidence.quantization.snr_db["scores"] > {"int8": 30, "int8-a16": 45}[precision]


def test_by_default_the_bundle_opens_on_the_processor_with_what_runs_there(bundle: Bundle) -> None:
    with open_runner(bundle) as runner:
        assert (runner.format, runner.precision) == ("onnx", "fp32")
        assert not runner.backend.opened.simulated


@pytest.mark.parametrize("device", [QNN, "npu"])
def test_the_npus_words_open_what_was_compiled_for_it(bundle: Bundle, device: str) -> None:
    picture = photographs()["coffee"]
    with open_runner(bundle, device=device) as runner, open_runner(bundle) as reference:
        assert runner.precision == "int8"
        assert runner.backend.opened.simulated
        found, right = runner(picture), reference(picture)
    assert isinstance(found, Classification)
    assert isinstance(right, Classification)
    assert found.class_ids[0] == right.class_ids[0]
    assert found.scores[0] == pytest.approx(right.scores[0], abs=0.02)


def quantized_graph(bundle: Bundle, pictures: Path) -> bytes:
    """The graph that is compiled, as the compiler gets it."""
    from edgecnn.converters.int8.onnx.calibration import collect
    from edgecnn.converters.int8.onnx.graph import Graph
    from edgecnn.converters.int8.onnx.whole_graph import quantized_whole, tensors_with_ranges
    from edgecnn.converters.int8.search.calibration import load_calibration

    graph = Graph(onnx.load(bundle.folder / bundle.artifact("onnx", "fp32").path))
    frames = load_calibration(pictures, bundle.manifest.frame).frames
    seen = collect(graph, tensors_with_ranges(graph), frames, threads=1)
    model = quantized_whole(graph, activation_bits=16, range_of=lambda name, bits: (seen[name].low, seen[name].high))
    return bytes(model.SerializeToString())


def test_the_simulator_computes_what_onnx_runtime_computes_of_the_same_quantized_graph(
    bundle: Bundle, pictures: Path, tmp_path: Path
) -> None:
    path = tmp_path / "quantized.onnx"
    path.write_bytes(quantized_graph(bundle, pictures))
    frames = np.random.default_rng(0).integers(0, 256, (3, 1, 64, 64, 3), dtype=np.uint8)
    answers = []
    for device in ("cpu", QNN):
        backend = OnnxRuntimeBackend(
            path, outputs=bundle.manifest.outputs, device=parse_device(device), precision="int8-a16", threads=1
        )
        answers.append([backend.infer(frame)["scores"].copy() for frame in frames])
        backend.close()
    np.testing.assert_allclose(answers[1], answers[0], atol=2e-3)


@pytest.mark.parametrize("architecture", load_target("qualcomm-htp").architectures)
def test_every_architecture_that_the_target_names_is_known_to_the_compiler(
    architecture: str, bundle: Bundle, pictures: Path, tmp_path: Path
) -> None:
    import onnxruntime

    from edgecnn.runners.onnxruntime import qnn

    path = tmp_path / "quantized.onnx"
    path.write_bytes(quantized_graph(bundle, pictures))
    options = onnxruntime.SessionOptions()
    session = qnn.open_session(path, options, provider_options={"htp_arch": architecture.removeprefix("v")})
    assert qnn.assigned(session).elsewhere == {}


def test_an_architecture_that_the_compiler_does_not_know_is_an_error_and_no_other_one(
    bundle: Bundle, pictures: Path, tmp_path: Path
) -> None:
    import onnxruntime

    from edgecnn.runners.onnxruntime import qnn

    path = tmp_path / "quantized.onnx"
    path.write_bytes(quantized_graph(bundle, pictures))
    with pytest.raises(DeviceError, match="doesn't know it: Invalid HTP architecture: 99"):
        qnn.open_session(path, onnxruntime.SessionOptions(), provider_options={"htp_arch": "99"})


def test_a_float_artifact_is_not_run_in_half_precision_behind_ones_back(bundle: Bundle) -> None:
    with pytest.raises(DeviceError, match=r"computes in integers, but onnx-fp32-.* is fp32"):
        open_runner(bundle, device=QNN, precision="fp32")


def test_a_damaged_context_is_a_device_error(bundle: Bundle, tmp_path: Path) -> None:
    model = onnx.load(bundle.folder / compiled(bundle).path)
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.name == "ep_cache_context":
                attribute.s = attribute.s[: len(attribute.s) // 2]
    path = tmp_path / "half.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(DeviceError, match=r"cannot open half\.onnx"):
        OnnxRuntimeBackend(
            path, outputs=bundle.manifest.outputs, device=parse_device(QNN), precision="int8-a16", threads=1
        )


def only_compiled(bundle: Bundle, out: Path) -> Bundle:
    """A copy without what any machine opens."""
    import shutil

    artifact = compiled(bundle)
    with staged(out) as staging:
        shutil.copyfile(bundle.folder / artifact.path, staging / artifact.path)
        return commit(staging, out, msgspec.structs.replace(bundle.manifest, artifacts=(artifact,)))


def test_a_bundle_for_the_npu_alone_says_on_the_processor_what_it_wants(bundle: Bundle, tmp_path: Path) -> None:
    alone = only_compiled(bundle, tmp_path / "alone.edge")
    said = rf"for device 'cpu'; it holds: onnx int8-a16 for qualcomm-htp:v73 \(device {QNN}\)"
    with pytest.raises(BundleError, match=said):
        open_runner(alone)
    with pytest.raises(BundleError, match=said):
        bench(alone, iterations=1)


def test_without_the_plug_in_every_verb_says_what_the_device_needs(
    bundle: Bundle, pictures: Path, tmp_path: Path, without: Callable[..., None]
) -> None:
    without("onnxruntime_qnn")
    said = r"onnxruntime:qnn needs a Qualcomm NPU.*pip install 'edgecnn\[qnn\]'"
    with pytest.raises(DeviceError, match=said):
        open_runner(bundle, device=QNN)
    with pytest.raises(DeviceError, match=said):
        evaluate(bundle, pictures, device=QNN)
    with pytest.raises(MissingDependencyError, match=r"edgecnn\[qnn\]"):
        convert(TINY["classify"](), target="qualcomm-htp", calibration=pictures, out=tmp_path / "x.edge")
    with open_runner(bundle) as runner:  # the others open as ever
        assert runner.precision == "fp32"
    assert not (tmp_path / "x.edge").exists()


def test_a_target_of_quantized_files_without_pictures_to_calibrate_on_asks_for_them(tmp_path: Path) -> None:
    with pytest.raises(EdgeCnnError, match="give --calibration DATA"):
        convert(TINY["classify"](), target="qualcomm-htp", out=tmp_path / "x.edge")


def labelled_by_float(bundle: Bundle, pictures: Path, folder: Path) -> Path:
    """The pictures mirrored, which took no part in anything, with masks of what the float artifact says of them."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(bundle.manifest.task.labels) + "\n")
    with open_runner(bundle) as runner:
        for path in sorted(pictures.iterdir()):
            picture = read(path)[:, ::-1].copy()
            result = runner(picture)
            assert isinstance(result, SegmentationMap)
            cv2.imwrite(str(folder / "images" / path.name), picture)
            cv2.imwrite(str(folder / "masks" / path.name), result.classes)
    return folder


def read(path: Path) -> UInt8Array:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture.astype(np.uint8)


def test_accuracy_is_compared_with_float_in_the_simulator_and_too_large_a_loss_is_refused(
    pictures: Path, tmp_path: Path
) -> None:
    words: dict[str, Any] = {"target": "qualcomm-htp", "calibration": pictures}
    first = convert(TINY["segment"](), out=tmp_path / "first.edge", **words)
    assert first.bundle is not None
    evidence = compiled(first.bundle).evidence
    assert evidence.placement is not None
    assert evidence.placement.off_device == {}
    words["data"] = labelled_by_float(first.bundle, pictures, tmp_path / "labelled")
    words["max_drop"] = 0.05
    good = convert(TINY["segment"](), out=tmp_path / "good.edge", **words)
    assert good.refused == ()
    assert good.bundle is not None
    (accuracy,) = compiled(good.bundle).evidence.accuracy
    assert accuracy.n == len(list(pictures.iterdir()))
    assert accuracy.reference_value == pytest.approx(1, abs=1e-3)
    assert 0.95 < accuracy.value < 1
    assert accuracy.ran_on is not None
    assert accuracy.ran_on.simulated

    words["calibration"] = dark = tmp_path / "dark"  # ranges that are much too narrow
    dark.mkdir()
    for path in pictures.iterdir():
        cv2.imwrite(str(dark / path.name), read(path) // 16)
    bad = convert(TINY["segment"](), out=tmp_path / "bad.edge", **words)
    assert bad.bundle is not None
    assert [artifact.label for artifact in bad.bundle.manifest.artifacts] == ["onnx fp32"]
    (refusal,) = bad.refused
    assert (refusal.error, refusal.target) == ("AccuracyError", "qualcomm-htp:v73")
    assert "Qualcomm HTP simulator" in refusal.reason


@pytest.mark.parametrize("task", ["detect", "instances"])
def test_what_decodes_boxes_is_compiled_too_and_answers_as_float_does(
    task: str, pictures: Path, tmp_path: Path
) -> None:
    made = convert(TINY[task](), target="qualcomm-htp", calibration=pictures, batch=1, out=tmp_path / "x.edge")
    assert made.refused == ()
    assert made.bundle is not None
    evidence = compiled(made.bundle).evidence
    assert evidence.placement is not None
    assert evidence.placement.off_device == {}
    assert evidence.parity is not None
    assert evidence.parity.agreement is not None
    assert evidence.parity.agreement > 0.95


def test_the_command_line_compiles_for_another_architecture_and_more_than_one_frame(
    pictures: Path, tmp_path: Path
) -> None:
    out, network = tmp_path / "x.edge", "tests.builders.networks:tiny_classifier"
    words = ("--target", "qualcomm-htp:v75", "--calibration", pictures, "--batch", "2", "--out", out)
    made = edgecnn_says("convert", network, *words)
    assert made.returncode == 0, made.stderr
    assert "for qualcomm-htp:v75: 13 of 13 operators (100.0%) on the device, off it: none" in made.stdout
    with open_runner(out, device=QNN) as runner:
        assert isinstance(runner(photographs()["cat"]), Classification)


def test_what_the_compiler_refuses_is_a_refusal_and_the_others_are_written(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgecnn.converters.qualcomm_htp import QualcommHtpCompiler

    def broken(self: QualcommHtpCompiler, bits: int) -> tuple[object, str]:
        """A graph with a convolution whose weights have no scale, as no compiler takes it."""
        model = onnx.ModelProto()
        model.CopyFrom(self._graph.model)
        del model.graph.initializer[:]
        return model, "min-max"

    monkeypatch.setattr(QualcommHtpCompiler, "_quantized", broken)
    made = convert(TINY["classify"](), target="qualcomm-htp", calibration=pictures, out=tmp_path / "x.edge")
    assert made.bundle is not None
    (refusal,) = made.refused
    assert refusal.error == ConversionError.__name__
    assert refusal.reason.startswith("QNN's compiler refuses the network for qualcomm-htp:v73")


def test_a_compiler_that_dies_ends_no_more_than_its_artifact(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "compiler_that_dies.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("edgecnn.converters.qualcomm_htp.CHILD", "compiler_that_dies")
    made = convert(TINY["classify"](), target="qualcomm-htp", calibration=pictures, out=tmp_path / "x.edge")
    assert made.bundle is not None
    assert [artifact.label for artifact in made.bundle.manifest.artifacts] == ["onnx fp32"]
    (refusal,) = made.refused
    assert refusal.reason.startswith("QNN's compiler crashed on this network, for qualcomm-htp:v73: SIGABRT")


def edgecnn_says(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200"}
    command = [sys.executable, "-m", "edgecnn", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_command_line_prints_json_alone_and_says_that_it_is_simulated(bundle: Bundle, tmp_path: Path) -> None:
    picture = tmp_path / "coffee.png"
    cv2.imwrite(str(picture), photographs()["coffee"])
    ran = edgecnn_says("run", bundle.folder, picture, "--device", QNN, "--jsonl", "-")
    assert ran.returncode == 0, ran.stderr
    assert [json.loads(line)["task"] for line in ran.stdout.splitlines()] == ["classify"]
    assert "simulated" in ran.stderr
    timed = edgecnn_says("bench", bundle.folder, "--device", QNN, "--iterations", "2", "--json")
    assert timed.returncode == 0, timed.stderr
    results = json.loads(timed.stdout)
    assert sorted(result["precision"] for result in results) == ["int8", "int8-a16"]
    assert all(result["ran_on"]["simulated"] for result in results)
    shown = edgecnn_says("inspect", bundle.folder)
    assert "operators (100.0%) on the device" in shown.stdout


def test_an_intel_npu_that_is_not_here_is_built_for_and_refused_with_what_it_needs(tmp_path: Path) -> None:
    made = convert(TINY["classify"](), target="intel-npu", precision=("fp16",), out=tmp_path / "x.edge")
    assert made.bundle is not None, made.refused
    assert [artifact.label for artifact in made.bundle.manifest.artifacts] == ["openvino fp16"]
    assert any("compiled there when it is opened for the first time" in warning for warning in made.warnings)
    for device in ("openvino:NPU", "npu"):
        with pytest.raises(DeviceError, match="an Intel Core Ultra with the driver intel_vpu and its compiler"):
            open_runner(made.bundle, device=device)


def test_an_edge_tpu_that_is_not_here_is_refused_with_what_it_needs(tmp_path: Path) -> None:
    made = convert(TINY["classify"](), to=("tflite",), out=tmp_path / "x.edge")
    assert made.bundle is not None, made.refused
    with pytest.raises(DeviceError, match="a Coral Edge TPU with libedgetpu1-std"):
        open_runner(made.bundle, device="litert:edgetpu")


def test_the_counts_of_a_context_are_those_of_the_network(bundle: Bundle) -> None:
    model = onnx.load(bundle.folder / compiled(bundle).path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    float_graph = onnx.load(bundle.folder / bundle.artifact("onnx", "fp32").path).graph
    assert metadata["edgecnn.operators"] == str(len(float_graph.node))
    assert [node.op_type for node in model.graph.node if node.op_type != "DequantizeLinear"] == ["EPContext"]
    for constant in model.graph.initializer:
        assert numpy_helper.to_array(constant).size == 1  # nothing of the network is left outside the context
    assert isinstance(bundle.manifest.outputs[0], TensorSpec)
