"""GPUs' code paths on a Vulkan device in software, which chromium brings: function, never speed.

LiteRT's GPU accelerator runs in this environment, ONNX Runtime's WebGPU in one of its own, since its package takes
the place of the ordinary one. What they answer is compared with torch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

import edgecnn
from edgecnn import Bundle, convert, open_runner
from edgecnn.bundle.evidence import Opened
from edgecnn.errors import DeviceError
from edgecnn.frame import FrameFitter
from edgecnn.measure.parity import Sample, compare, describe
from edgecnn.photographs import photographs

from .conftest import DeviceEnvironment, make_environment
from .gpu_networks import network

pytestmark = [pytest.mark.torch, pytest.mark.slow]

DRIVERS = (
    Path("/usr/lib/chromium/vk_swiftshader_icd.json"),
    Path("/usr/lib/chromium-browser/vk_swiftshader_icd.json"),
    Path("/usr/lib64/chromium-browser/vk_swiftshader_icd.json"),
)
NETWORKS = ("classify", "detect", "segment")
PROGRAM = Path(__file__).with_name("gpu_answers.py")
HOME = Path(edgecnn.__file__).parents[1]


@pytest.fixture(scope="module")
def gpu_in_software(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Vulkan has one device, SwiftShader."""
    driver = next((path for path in DRIVERS if path.exists()), None)
    if driver is None:
        pytest.skip("needs SwiftShader's Vulkan driver: apt-get install chromium libvulkan1")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VK_ICD_FILENAMES", str(driver))
        patch.setenv("VK_DRIVER_FILES", str(driver))
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield


@dataclass(frozen=True)
class Converted:
    """A bundle in ONNX and TFLite, and what torch answers."""

    bundle: Bundle
    samples: tuple[Sample, ...]

    def save_frames(self, path: Path) -> Path:
        np.save(path, np.stack([sample.frame for sample in self.samples]))
        return path


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Converted]:
    from edgecnn.converters.deployable.wrapper import Deployable

    folder = tmp_path_factory.mktemp("networks")
    made = {}
    for name in NETWORKS:
        model = network(name)
        done = convert(model, out=folder / f"{name}.edge", to=("onnx", "tflite"), precision=("fp32", "fp16"))
        assert done.bundle is not None
        assert not done.refused
        deployable = Deployable(model)
        fitter = FrameFitter(done.bundle.manifest.frame)
        samples = []
        for photograph in ("cat", "coffee"):
            frame, place = fitter(photographs()[photograph])
            samples.append(Sample(frame.copy(), place, deployable.answer(frame), ()))
        made[name] = Converted(done.bundle, tuple(samples))
    return made


@pytest.fixture(scope="module")
def webgpu(gpu_in_software: None, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> DeviceEnvironment:
    return make_environment(tmp_path_factory.mktemp("webgpu"), wheel, "webgpu")


def run_here(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(HOME)},
    )


def assert_answers_as_torch(converted: Converted, answers: Path, precision: str) -> None:
    with np.load(answers) as file:
        found = [
            {name: file[f"{index} {name}"] for name in converted.bundle.manifest.task.outputs}
            for index in range(len(converted.samples))
        ]
    evidence = compare(
        converted.samples, found, task=converted.bundle.manifest.task, precision=precision, match_results=False
    )
    assert evidence.ok, describe(evidence)


def assert_on_simulated_gpu(opened: Opened) -> None:
    assert opened.simulated
    assert "SwiftShader" in opened.device_name
    assert opened.summary.endswith("simulated")
    assert opened.operators is not None
    assert opened.operators_on_device is not None
    assert opened.operators - opened.operators_on_device <= 2  # casts from and to uint8


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_litert_on_a_gpu_answers_as_torch(
    name: str, precision: str, gpu_in_software: None, networks: dict[str, Converted], tmp_path: Path
) -> None:
    converted = networks[name]
    frames, out = converted.save_frames(tmp_path / "frames.npy"), tmp_path / "answers.npz"
    done = run_here(PROGRAM, converted.bundle.folder, "tflite", precision, "litert:gpu", frames, out)
    assert done.returncode == 0, done.stderr
    opened = msgspec.json.decode(done.stdout, type=Opened)
    assert_on_simulated_gpu(opened)
    assert opened.operators_on_device == opened.operators
    assert_answers_as_torch(converted, out, precision)


@pytest.mark.parametrize("name", NETWORKS)
def test_webgpu_answers_as_torch(
    name: str, webgpu: DeviceEnvironment, networks: dict[str, Converted], tmp_path: Path
) -> None:
    converted = networks[name]
    frames, out = converted.save_frames(tmp_path / "frames.npy"), tmp_path / "answers.npz"
    said = webgpu.run("python", PROGRAM, converted.bundle.folder, "onnx", "fp32", "gpu", frames, out)
    opened = msgspec.json.decode(said, type=Opened)
    assert opened.provider == "WebGpuExecutionProvider"
    assert_on_simulated_gpu(opened)
    assert_answers_as_torch(converted, out, "fp32")


def test_webgpu_is_measured_after_the_processor_and_marked_as_simulated(
    webgpu: DeviceEnvironment, networks: dict[str, Converted]
) -> None:
    words = ("bench", networks["classify"].bundle.folder, "--device", "onnxruntime:webgpu", "--precision", "fp32")
    (row,) = json.loads(webgpu.run("edgecnn", *words, "--iterations", "2", "--no-record", "--json"))
    assert row["error"] is None
    assert row["ran_on"]["simulated"] is True
    assert row["agreement"]["ok"] is True
    assert row["agreement"]["max_rel_err"] < 1e-4


def test_webgpu_without_a_gpu_is_an_error_and_never_the_processor(
    webgpu: DeviceEnvironment, networks: dict[str, Converted], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "none.json"))
    monkeypatch.setenv("VK_DRIVER_FILES", str(tmp_path / "none.json"))
    frames = networks["classify"].save_frames(tmp_path / "frames.npy")
    bundle = networks["classify"].bundle.folder
    with pytest.raises(AssertionError, match=r"DeviceError.*onnxruntime:webgpu.*Vulkan"):
        webgpu.run("python", PROGRAM, bundle, "onnx", "fp32", "onnxruntime:webgpu", frames, tmp_path / "out.npz")


def test_devices_tries_the_gpus(webgpu: DeviceEnvironment) -> None:
    report: dict[str, Any] = json.loads(webgpu.run("edgecnn", "devices", "gpu", "--json"))
    trials = {trial["word"]: trial for trial in report["trials"]}
    assert trials["onnxruntime:webgpu"]["works"] is True
    assert trials["onnxruntime:webgpu"]["ran_on"]["simulated"] is True
    assert trials["litert:gpu"]["why"] == "litert is not installed"
    assert "software" in report["vulkan"].values()
    here = run_here("-m", "edgecnn", "devices", "litert:gpu", "--json")
    assert here.returncode == 0, here.stderr
    (trial,) = json.loads(here.stdout)["trials"]
    assert trial["works"] is True


def test_a_choice_that_litert_does_wrong_on_a_gpu_is_refused(gpu_in_software: None, tmp_path: Path) -> None:
    done = convert(network("segment", classes=3), out=tmp_path / "three.edge", to=("tflite",))
    assert done.bundle is not None
    with pytest.raises(DeviceError, match=r"picks the best of 3 classes in its graph.*multiple of 4"):
        open_runner(done.bundle, device="litert:gpu")


def test_a_graph_that_ends_litert_is_an_error_that_names_the_operators(gpu_in_software: None, tmp_path: Path) -> None:
    words = ("run", "default-segmenter", HOME / "edgecnn" / "assets" / "cat.jpg", "--device", "litert:gpu")
    done = run_here("-m", "edgecnn", *words)
    assert done.returncode == 3, done.stderr
    assert "cannot compile" in done.stderr
    assert "GATHER_ND" in done.stderr
