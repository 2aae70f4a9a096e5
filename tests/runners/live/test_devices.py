"""Cameras of this machine. No machine of ours has one: OpenCV's own V4L2 code runs, on a device that fake_v4l2.c plays.

So what is shown is that we ask in the right order, and read the answers rightly; how a real camera behaves is not.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

COMPILER = shutil.which("cc") or shutil.which("gcc")
SOURCE = Path(__file__).with_name("fake_v4l2.c")

pytestmark = pytest.mark.skipif(
    COMPILER is None or sys.platform != "linux", reason="needs Linux and a C compiler: apt-get install gcc libc6-dev"
)

_WATCH = """
import json, sys
from edgecnn.runners.live.cameras.camera import open_camera

words, frames = json.loads(sys.argv[1])
if "size_px" in words:
    words["size_px"] = tuple(words["size_px"])
states, ages_ms = [], []
with open_camera("/dev/video77", on_state=lambda state, why: states.append(state), **words) as camera:
    for frame in camera:
        ages_ms.append(frame.age_ns / 1e6)
        if frame.index >= frames:
            break
    print(json.dumps({
        "notice": camera.notice, "fps": camera.fps, "pixel_format": camera.pixel_format, "size_px": camera.size_px,
        "shape": frame.image.shape, "colour": frame.image[5, 5].tolist(), "youngest_ms": min(ages_ms),
        "states": states, "reconnects": camera.reconnects, "name": camera.name,
    }))
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Runs Python in a process that has a /dev/video77; what it prints is JSON."""
    folder = tmp_path_factory.mktemp("device")
    library, jpeg = folder / "fake_v4l2.so", folder / "red.jpg"
    subprocess.run([str(COMPILER), "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], check=True)
    red = np.zeros((720, 1280, 3), np.uint8)
    red[:, :, 2] = 255
    cv2.imwrite(str(jpeg), red)

    def run(*command: str, **camera: int) -> dict[str, Any]:
        environment = {f"FAKE_{name.upper()}": str(value) for name, value in {"jpeg": jpeg, **camera}.items()}
        ran = subprocess.run(
            [sys.executable, *command],
            env={**os.environ, **environment, "LD_PRELOAD": str(library)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        report: dict[str, Any] = json.loads(ran.stdout)
        return report

    return run


@pytest.fixture
def device(program: Any) -> Any:
    """Opens /dev/video77 with these words, and tells what came."""

    def watch(words: dict[str, Any], *, frames: int = 5, **camera: int) -> Any:
        return program("-c", _WATCH, json.dumps([words, frames]), **camera)

    return watch


def test_a_camera_that_is_asked_for_nothing_gives_its_default_and_says_what_it_is(device: Any) -> None:
    report = device({})
    assert (report["size_px"], report["fps"], report["pixel_format"]) == ([640, 480], 30, "YUYV")
    assert report["shape"] == [480, 640, 3] and report["colour"] == [255, 0, 0]
    assert report["notice"] is None and report["states"] == ["live"] and report["name"] == "/dev/video77"


def test_what_is_asked_for_is_given(device: Any) -> None:
    report = device({"size_px": [1280, 720], "fps": 25, "pixel_format": "MJPG"})
    assert (report["size_px"], report["fps"], report["pixel_format"]) == ([1280, 720], 25, "MJPG")
    assert report["shape"] == [720, 1280, 3] and report["colour"][2] > 250 and report["notice"] is None


@pytest.mark.parametrize(
    ("words", "notice"),
    [
        ({"size_px": [1280, 720], "fps": 30}, "/dev/video77 gives 10 frames/s instead of 30"),
        ({"size_px": [1920, 1080]}, "/dev/video77 gives 1280x720 px instead of 1920x1080"),
        ({"pixel_format": "H264"}, "/dev/video77 gives YUYV instead of H264"),
    ],
)
def test_a_camera_that_gives_something_else_is_reported(device: Any, words: dict[str, Any], notice: str) -> None:
    assert device(words, frames=1)["notice"] == notice


def test_frames_have_the_drivers_stamps(device: Any) -> None:
    assert device({}, age_ms=40)["youngest_ms"] >= 40
    assert device({}, age_ms=3_600_000)["youngest_ms"] < 60_000  # of another clock: not believed


def test_a_camera_that_is_unplugged_is_opened_again(device: Any) -> None:
    report = device({}, frames=12, unplugged_after=5)
    assert report["reconnects"] >= 2 and report["states"][:4] == ["live", "connecting", "live", "connecting"]


@pytest.mark.runtime
def test_the_command_line_asks_a_camera_and_notes_what_it_gave(program: Any) -> None:
    words = "--camera /dev/video77 --camera-size 1280x720 --camera-fps 15 --camera-format YUYV --limit 3 --json"
    summary = program("-m", "edgecnn", "run", "default-detector", *words.split())
    assert (summary["source"], summary["frames"], summary["ended"]) == ("/dev/video77", 3, "limit")
    assert "/dev/video77 gives 10 frames/s instead of 15" in summary["remarks"]
