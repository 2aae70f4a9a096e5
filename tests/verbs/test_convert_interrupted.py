"""A `convert` that is stopped in the middle, or has no room: the old bundle or nothing, and nothing half-written."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecnn import Bundle, convert
from edgecnn.bundle import MANIFEST
from edgecnn.errors import StorageError
from tests.builders.formats import require_format
from tests.builders.networks import tiny_classifier
from tests.builders.repository import REPOSITORY

pytestmark = pytest.mark.torch

# A network that says in which stage it is called, and waits there to be stopped. Without STOP_AT it is ordinary.
NETWORK = """
import os, time
from pathlib import Path
import torch
from torch import nn
from edgecnn import Classify, FrameSpec, TrainedModel


def stage():
    if torch.jit.is_tracing():
        return "openvino"
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return "export"
    return "torch"


def wait_in(name):
    if os.environ.get("STOP_AT") == name:
        Path("here").touch()
        for _ in range(600):  # short sleeps: some tools look at signals between steps of Python only
            time.sleep(0.05)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        wait_in("construction")
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        wait_in(stage())
        return self.head(self.conv(x).relu().mean(dim=(2, 3)))


def factory():
    frame = FrameSpec(height_px=32, width_px=32, mean=(0.5, 0.5, 0.5))
    return TrainedModel(module=Net(), frame=frame, task=Classify(labels=("a", "b", "c")))


def wide_factory():
    model = factory()
    torch.manual_seed(0)
    model.module.conv = nn.Conv2d(3, 40_000, 3, stride=2)  # 4.5 MB of weights
    model.module.head = nn.Linear(40_000, 3)
    return model
"""

OUT = "net.edge"


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder with the network in it, to run in."""
    require_format("onnx")
    (tmp_path / "net.py").write_text(NETWORK)
    return tmp_path


def command(*options: str, factory: str = "net:factory", out: str = OUT, to: str = "onnx") -> list[str]:
    return [sys.executable, "-m", "edgecnn", "convert", factory, "--to", to, "--out", out, *options]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200", **more}


def run(folder: Path, *options: str, **arguments: str) -> subprocess.CompletedProcess[str]:
    """A convert that nobody stops."""
    return subprocess.run(
        command(*options, **arguments),
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def stop_in_the_middle(folder: Path, stage: str, number: signal.Signals, *, to: str = "onnx") -> tuple[int, str]:
    """Start a convert, send a signal when it has reached a stage; its exit code and what it said."""
    here = folder / "here"
    here.unlink(missing_ok=True)
    process = subprocess.Popen(
        command(to=to),
        cwd=folder,
        env=environment(STOP_AT=stage),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with process:
        try:
            deadline = time.monotonic() + 100
            while not here.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            assert process.poll() is None, process.communicate()[0]
            assert here.exists(), f"stage {stage} was not reached"
            time.sleep(0.05)
            process.send_signal(number)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    return process.returncode, said


def leftovers(folder: Path) -> set[str]:
    """What lies in the folder besides the network and the bundle."""
    return {path.name for path in folder.iterdir()} - {"net.py", "here", OUT, "__pycache__"}


def contents(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("construction", signal.SIGTERM),
        ("torch", signal.SIGTERM),
        ("torch", signal.SIGINT),
        ("export", signal.SIGTERM),
        ("openvino", signal.SIGTERM),
    ],
)
def test_a_stopped_convert_leaves_nothing(stage: str, number: signal.Signals, workplace: Path) -> None:
    if stage == "openvino":
        require_format("openvino")
    code, said = stop_in_the_middle(workplace, stage, number, to="openvino" if stage == "openvino" else "onnx")
    assert code == 128 + number, said
    assert "Traceback" not in said
    assert not (workplace / OUT).exists()
    assert leftovers(workplace) == set()


def test_a_kill_leaves_the_old_bundle_or_none_and_the_next_convert_cleans_up(workplace: Path) -> None:
    require_format("openvino")
    code, said = stop_in_the_middle(workplace, "torch", signal.SIGKILL, to="openvino")
    assert code == -signal.SIGKILL, said
    assert not (workplace / OUT).exists()
    left = leftovers(workplace)
    assert len(left) == 1, "nobody can clean up after a kill"
    assert left.pop().startswith(f".{OUT}.partial-")

    made = run(workplace, to="openvino")
    assert made.returncode == 0, made.stderr
    assert leftovers(workplace) == set()
    bundle = Bundle.open(workplace / OUT)
    for artifact in bundle.manifest.artifacts:
        assert bundle.checked_path(artifact).is_file()

    old = contents(workplace / OUT)
    code, said = stop_in_the_middle(workplace, "torch", signal.SIGTERM, to="openvino")
    assert code == 143, said
    assert contents(workplace / OUT) == old
    assert leftovers(workplace) == set()

    code, said = stop_in_the_middle(workplace, "torch", signal.SIGKILL, to="openvino")
    assert code == -signal.SIGKILL, said
    assert contents(workplace / OUT) == old


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A disk of this size, mounted; skips where that is not allowed."""
    disk = folder / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    mounted = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_reported_and_leaves_what_was_there(workplace: Path) -> None:
    require_format("openvino")
    with small_disk(workplace, "1m") as disk:
        old = disk / OUT
        old.mkdir()
        (old / MANIFEST).write_text("{}")
        full = run(workplace, out=f"disk/{OUT}", factory="net:wide_factory", to="openvino")
        assert full.returncode == 3, full.stderr
        assert "StorageError: the disk is full at" in full.stderr
        assert "Traceback" not in full.stderr
        assert contents(old) == {MANIFEST: b"{}"}
        assert {path.name for path in disk.iterdir()} == {OUT}


@pytest.mark.parametrize("to", ["onnx", "tflite"])
def test_a_full_disk_is_noticed_by_every_converter(to: str, tmp_path: Path) -> None:
    require_format(to)
    with small_disk(tmp_path, "16k") as disk:
        with pytest.raises(StorageError, match="the disk is full at"):
            convert(tiny_classifier(), out=disk / OUT, to=[to])
        assert list(disk.iterdir()) == []


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="is not writable") as refused:
        convert(tiny_classifier(), out=tmp_path / "file" / OUT, to=["onnx"])
    assert refused.value.exit_code == 3
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_read_only_disk_is_reported(tmp_path: Path) -> None:
    with small_disk(tmp_path, "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(StorageError, match="is not writable: Read-only file system"):
            convert(tiny_classifier(), out=disk / OUT, to=["onnx"])
        assert list(disk.iterdir()) == []
