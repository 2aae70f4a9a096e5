"""A crash of native code in the program itself: it is told, and costs only the artifact that was being made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgecnn.bundle import Bundle
from edgecnn.cli import _watched


def convert(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "edgecnn", "convert", "crashing:factory", "--out", "net.edge", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2])])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.torch
def test_a_crash_while_a_network_is_built_says_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text("import ctypes\n\n\ndef factory():\n    ctypes.string_at(0)\n")
    done = convert(tmp_path)
    assert done.returncode == 3
    assert "internal failure: crashed with SIGSEGV" in done.stderr
    assert "Segmentation fault" in done.stderr and 'crashing.py", line 5 in factory' in done.stderr
    assert not (tmp_path / "net.edge").exists()


# Crashes while torch's exporter traces it for ONNX, and nowhere else.
CRASHES_IN_AN_EXPORTER = """
import ctypes

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(3, 8, 3, stride=2), nn.Linear(8, 5)

    def forward(self, x):
        if torch.onnx.is_in_onnx_export():
            ctypes.string_at(0)
        return self.last(self.first(x).relu().mean((2, 3)))


def factory():
    return Net().eval()
"""


@pytest.mark.torch
@pytest.mark.slow
def test_a_crash_in_an_exporter_costs_that_format_alone(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(CRASHES_IN_AN_EXPORTER)
    done = convert(tmp_path, "--size", "64", "--task", "classify", "--to", "onnx,openvino")
    assert done.returncode == 1, done.stderr
    assert "making onnx crashed with SIGSEGV" in done.stderr and "in forward" in done.stderr
    assert "verified; 1 was refused" in done.stdout
    manifest = Bundle.open(tmp_path / "net.edge").manifest
    assert [artifact.key for artifact in manifest.artifacts] == [("openvino", "fp32")]
    (refusal,) = manifest.refused
    assert (refusal.format, refusal.precision, refusal.error) == ("onnx", "fp32", "ConversionError")
    assert "writing onnx crashed the process (SIGSEGV)" in refusal.reason
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


STEPS = """
import sys
import tempfile

from edgecnn.errors import ConversionError
from edgecnn.native_steps import native_step, step_in, watch_steps

with tempfile.TemporaryFile() as file:
    watch_steps(file.fileno(), {"tflite": "SIGBUS"})
    assert step_in(file.fileno()) == ""
    with native_step("onnx int8", "making onnx int8"):
        assert step_in(file.fileno()) == "onnx int8"
    assert step_in(file.fileno()) == ""
    try:
        with native_step("tflite", "writing tflite"):
            sys.exit("it was done again")
    except ConversionError as refused:
        print(refused)
"""


def test_a_step_is_known_while_it_is_done_and_refused_where_it_crashed() -> None:
    done = subprocess.run([sys.executable, "-c", STEPS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "writing tflite crashed the process (SIGBUS)" in done.stdout


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["convert", "net.onnx", "--out", "x.edge"], True),
        (["--debug", "compress", "recipe.toml"], True),
        (["quantize", "--help"], False),
        (["run", "convert"], False),
        ([], False),
    ],
)
def test_the_verbs_that_write_artifacts_are_watched(words: list[str], wanted: bool) -> None:
    assert _watched.is_wanted(words) is wanted
