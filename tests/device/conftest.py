"""Environments as a device has them: the wheel and one runtime, nothing for building."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from dataclasses import dataclass
from pathlib import Path

import pytest

import edgecnn
from edgecnn.photographs import photographs
from tests.builders.repository import REPOSITORY

PHOTOGRAPH = "coffee"
# What takes the place of the pinned versions where a runtime wants older ones.
UNPINNED = {"tflite-runtime": ("numpy", "opencv-python")}


@dataclass(frozen=True)
class Answer:
    """The first class that an artifact names, and its score."""

    label: str
    score: float


@dataclass(frozen=True)
class DeviceEnvironment:
    """A virtual environment with `edgecnn[EXTRA]` from the wheel, and a folder to work in."""

    extra: str
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "env" / "bin" / "python"

    @property
    def site_packages(self) -> Path:
        (found,) = (self.folder / "env").glob("lib/python*/site-packages")
        return found

    def size_mb(self) -> float:
        """What the packages take on the disk, in MB of 10^6 bytes."""
        files = [path for path in self.site_packages.rglob("*") if path.is_file() and not path.is_symlink()]
        return sum(path.stat().st_blocks * 512 for path in files) / 1e6

    def run(self, *words: str | Path) -> str:
        """Run a program of this environment far from the repository; gives what it prints."""
        outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        program = self.folder / "env" / "bin" / words[0]
        done = subprocess.run([program, *words[1:]], cwd=self.folder, env=outside, capture_output=True, text=True)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def classify(self, bundle: Path, format_name: str, precision: str) -> Answer:
        """What `edgecnn run` says of the photograph."""
        photograph = self.site_packages / "edgecnn" / "assets" / f"{PHOTOGRAPH}.jpg"
        words = ("--format", format_name, "--precision", precision, "--jsonl", "-")
        record = json.loads(self.run("edgecnn", "run", bundle, photograph, *words))
        return Answer(record["classes"][0]["label"], record["classes"][0]["score"])


def make_environment(folder: Path, wheel: Path, extra: str) -> DeviceEnvironment:
    """Make a fresh environment with the versions that CI knows."""
    venv.create(folder / "env", with_pip=True)
    environment = DeviceEnvironment(extra, folder)
    unpinned = UNPINNED.get(extra, ())
    pins = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pin for pin in pins if pin.partition("==")[0] not in unpinned) + "\n")
    environment.run("python", "-m", "pip", "install", "--quiet", f"{wheel}[{extra}]", "--constraint", constraints)
    return environment


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this repository."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """EfficientNet-Lite0 with its ImageNet weights, in every format and precision, made where torch is."""
    out = tmp_path_factory.mktemp("bundle") / "lite0.edge"
    conversion = edgecnn.convert("efficientnet-lite0", weights="DEFAULT", precision=("fp32", "fp16"), out=out)
    assert conversion.refused == ()
    return out


@pytest.fixture(scope="session")
def answers_here(bundle: Path) -> dict[tuple[str, str], Answer]:
    """What each artifact says of the photograph in the environment that it was made in."""
    picture = photographs()[PHOTOGRAPH]
    answers = {}
    for artifact in edgecnn.Bundle.open(bundle).manifest.artifacts:
        with edgecnn.open_runner(bundle, format=artifact.format, precision=artifact.precision) as runner:
            result = runner(picture)
        assert isinstance(result, edgecnn.Classification)
        label, score = next(iter(result))
        answers[artifact.format, artifact.precision] = Answer(label, score)
    return answers
