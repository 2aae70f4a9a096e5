"""A Raspberry Pi, emulated: installed from wheels, the same answers as here, measured from here.

The instructions, libraries and kernels are those of the board's processor; its speed says nothing.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgecnn
from edgecnn.bundle import Bundle
from edgecnn.cli._main import main
from edgecnn.runners.remote.connection import SSH_VARIABLE

from .emulated_pi import EmulatedPi, why_not

pytestmark = [
    pytest.mark.torch,
    pytest.mark.server,
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_not()), reason=why_not() or "-"),
]

# Float differs in the order of additions; int8 is the same integers. OpenVINO's scales are rounded otherwise on Arm.
# Records hold six digits, which rounds by up to 5e-7; before that, ncnn's scores of this network on a Pi 5, 4 and 3
# differed from those on x86 by 1.5e-8, one step of float32. (A whole YOLOX-nano's differed by 2.9e-6.)
SCORES_DIFFER = 1e-6
SCORES_DIFFER_OPENVINO_INT8 = 3e-4  # 1.5e-4 beside a processor without VNNI
FRAMES = 4
FORMATS = ("onnx", "openvino", "tflite", "ncnn")
NO_INT8 = ("ncnn", "int8")
ARTIFACTS = [pair for pair in itertools.product(FORMATS, ("fp32", "int8")) if pair != NO_INT8]


@pytest.fixture(scope="module")
def pi(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedPi]:
    """A Raspberry Pi 5 that runs, and that ssh knows."""
    setup = shared / "pi" / "setup_pi.sh"
    if not setup.is_file():
        pytest.skip("needs ../shared/pi/setup_pi.sh, which makes the emulated board")
    folder = tmp_path_factory.mktemp("pi")
    board = EmulatedPi(setup, folder / "board", suite=os.environ.get("PI_SUITE", "bookworm"))
    board.build()
    board.start("pi5")
    board.write_client_settings(folder / "ssh_config")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SSH_VARIABLE, f"ssh -F {folder / 'ssh_config'}")
        yield board
    board.stop()
    shutil.rmtree(board.folder / "root")  # 650 MB


@pytest.fixture(scope="module")
def network() -> edgecnn.TrainedModel:
    """A classifier of a few layers."""
    torch = pytest.importorskip("torch", reason="needs the extra [convert]")
    from torch import nn

    torch.manual_seed(0)
    convolutions = [nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 16, 3, 2, 1)]
    layers = [
        layer
        for convolution in convolutions
        for layer in (convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())
    ]
    return edgecnn.TrainedModel(
        module=nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)),
        frame=edgecnn.FrameSpec(
            height_px=64, width_px=64, fit="stretch", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
        ),
        task=edgecnn.Classify(labels=("a", "b", "c", "d", "e")),
        name="tiny",
    )


@pytest.fixture(scope="module")
def tiny(network: edgecnn.TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The network in every format, float and int8; ncnn has no int8."""
    pictures = Path(edgecnn.__file__).parent / "assets"
    out = tmp_path_factory.mktemp("tiny") / "tiny.edge"
    conversion = edgecnn.convert(
        network, to=FORMATS, precision=("fp32", "int8"), calibration=pictures, out=out, keep_slower=True
    )
    assert [(refusal.format, refusal.precision) for refusal in conversion.refused] == [NO_INT8]
    assert conversion.bundle is not None
    return conversion.bundle


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames that differ, as PNG files: from a video's YUV, FFmpeg makes BGR that is one grey level off on Arm."""
    folder = tmp_path_factory.mktemp("frames") / "street"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(FRAMES):
        frame = cv2.resize(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8), (96, 64))
        cv2.imwrite(str(folder / f"{number}.png"), frame)
    return folder


@pytest.fixture(scope="module")
def installed(pi: EmulatedPi, wheel: Path, tiny: Bundle, frames: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command `edgecnn` on the Pi: pip has installed our wheel there, from wheels and without an index.

    The root's own packages are numpy, OpenCV (the headless one, since apt doesn't work in it: no libGL) and three
    runtimes, which the environment sees; ncnn comes from a wheel.
    """
    wheels = tmp_path_factory.mktemp("wheels")
    version = pi.run("python3 -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'").strip()
    platforms = [word for minor in (17, 28, 31) for word in ("--platform", f"manylinux_2_{minor}_aarch64")]
    only = ["--only-binary", ":all:", "--python-version", version, "--platform", "manylinux2014_aarch64", *platforms]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(wheels), *only]
    subprocess.run([*command, "click", "msgspec", "rich"], check=True)
    subprocess.run([*command, "--no-deps", "ncnn"], check=True)  # what it wants beside numpy is for its model zoo
    shutil.copy(wheel, wheels)
    pi.put(wheels, tiny.folder, frames)
    pi.run("python3 -m venv --system-site-packages --without-pip env")
    pip = "python3 -m pip --python env/bin/python install --quiet --no-compile --no-index --only-binary :all:"
    pi.run(f"{pip} --find-links {wheels.name} click msgspec rich")
    pi.run(f"{pip} --no-deps --find-links {wheels.name} ncnn {wheels.name}/{wheel.name}")
    return "env/bin/edgecnn"


def scores_there(pi: EmulatedPi, installed: str, format: str, precision: str) -> list[dict[str, float]]:  # noqa: A002
    words = f"--format {format} --precision {precision} --threads 1 --jsonl -"
    return _scores(pi.run(f"{installed} run tiny.edge street {words}"))


def _scores(lines: str) -> list[dict[str, float]]:
    records = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return [{one["label"]: one["score"] for one in record["classes"]} for record in records if "classes" in record]


def scores_here(tiny: Bundle, frames: Path, format: str, precision: str) -> list[dict[str, float]]:  # noqa: A002
    with edgecnn.open_runner(tiny, format=format, precision=precision, threads=1) as runner:
        return _scores_of(runner, frames)


def scores_of_torch(network: edgecnn.TrainedModel, frames: Path) -> list[dict[str, float]]:
    from edgecnn.converters.deployable.wrapper import open_reference

    with open_reference(network, threads=1) as runner:
        return _scores_of(runner, frames)


def _scores_of(runner: edgecnn.Runner, frames: Path) -> list[dict[str, float]]:
    scores = []
    with edgecnn.open_camera(str(frames)) as camera:
        for _, result in edgecnn.live(camera, runner):
            assert isinstance(result, edgecnn.Classification)
            scores.append(dict(result))
    return scores


def test_devices_says_what_works_there(pi: EmulatedPi, installed: str) -> None:
    report = json.loads(pi.run(f"{installed} devices cpu --json"))
    assert report["machine"]["board"] == "Raspberry Pi 5 Model B Rev 1.0 (emulated)"
    assert report["machine"]["emulated"]
    assert "asimddp" in report["machine"]["cpu_flags"]
    works = {trial["word"]: trial["works"] for trial in report["trials"]}
    assert [works[f"{runtime}:cpu"] for runtime in ("onnxruntime", "openvino", "litert", "ncnn")] == [True] * 4


@pytest.mark.parametrize(("format", "precision"), ARTIFACTS)
def test_frames_get_the_same_answers_there_and_here(
    pi: EmulatedPi,
    installed: str,
    network: edgecnn.TrainedModel,
    tiny: Bundle,
    frames: Path,
    format: str,  # noqa: A002
    precision: str,
) -> None:
    here, there = scores_here(tiny, frames, format, precision), scores_there(pi, installed, format, precision)
    limit = SCORES_DIFFER_OPENVINO_INT8 if (format, precision) == ("openvino", "int8") else SCORES_DIFFER
    assert len(here) == len(there) == FRAMES
    assert len({tuple(scores.items()) for scores in here}) == FRAMES
    for one, other in zip(here, there, strict=True):
        assert next(iter(one)) == next(iter(other))
        assert {label: other[label] for label in one} == pytest.approx(one, abs=limit)
    if precision == "fp32":
        for expected, found in zip(scores_of_torch(network, frames), there, strict=True):
            assert {label: found[label] for label in expected} == pytest.approx(expected, abs=limit)


def bench_from_here(pi: EmulatedPi, bundle: Bundle, *words: str, code: int = 0) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "edgecnn", "bench", str(bundle.folder), "--iterations", "2", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(Path(edgecnn.__file__).parents[1])}
    done = subprocess.run(
        [*command, "--picture-size", "64x64", "--on", pi.url, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_bench_from_here_brings_evidence_that_names_it_as_emulated(pi: EmulatedPi, tiny: Bundle) -> None:
    rows = bench_from_here(pi, tiny)
    assert {(row["format"], row["precision"]) for row in rows} == set(ARTIFACTS)
    for row in rows:
        assert (row["error"], row["n"]) == (None, 2)
        assert row["machine"]["board"].endswith("(emulated)")
        assert row["machine"]["conditions"]["frequency_mhz"] == 2400
    for artifact in Bundle.open(tiny.folder).manifest.artifacts:
        (evidence,) = artifact.evidence.latency
        assert evidence.machine["board"] == "Raspberry Pi 5 Model B Rev 1.0 (emulated)"
        assert evidence.machine["emulated"]
    assert not (pi.boards / "jobs").exists()


def test_devices_from_here_names_it_as_emulated(pi: EmulatedPi, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "cpu", "--on", pi.url]) == 0
    assert "Raspberry Pi 5 Model B Rev 1.0 (emulated)" in capsys.readouterr().out


def test_a_run_of_a_throttled_board_is_invalid(pi: EmulatedPi, tiny: Bundle) -> None:
    # The firmware's own tool isn't there: this one says what that says of a board that is too hot.
    tool = pi.folder / "root" / "usr" / "local" / "bin" / "vcgencmd"
    tool.write_text("#!/bin/sh\necho throttled=0x80008\n")
    tool.chmod(0o755)
    try:
        (row,) = bench_from_here(pi, tiny, "--format", "tflite", "--precision", "int8", "--no-record")
    finally:
        tool.unlink()
    assert row["machine"]["conditions"]["throttled"] == 0x80008
    assert row["unstable"][0] == "invalid: the board was slowed (soft temperature limit)"


def test_an_artifact_that_does_not_compile_for_a_processor_is_reported(pi: EmulatedPi, tiny: Bundle) -> None:
    pi.stop()
    pi.start("pi4")
    try:
        rows = bench_from_here(pi, tiny, "--format", "openvino", "--no-record", code=3)
    finally:
        pi.stop()
        pi.start("pi5")
    fp32, int8 = rows
    assert (fp32["error"], fp32["machine"]["board"]) == (None, "Raspberry Pi 4 Model B Rev 1.4 (emulated)")
    assert (int8["precision"], int8["error"]) == ("int8", "DeviceError")
    assert "openvino cannot compile" in int8["reason"]
