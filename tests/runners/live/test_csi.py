"""A Raspberry Pi's camera. There is none here: a stand-in for picamera2 checks the order of calls, and no more."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgecnn.errors import DeviceError, MissingDependencyError, SpecError
from edgecnn.runners.live.cameras.camera import open_camera
from edgecnn.runners.live.cameras.live_camera import LiveCamera
from edgecnn.runners.live.cameras.reconnect import Reconnect

AGO_NS = 7_000_000


class StandIn:
    """What `CsiGrabber` uses of picamera2.Picamera2, as its manual (Raspberry Pi, 2025) has it; gives 20 frames."""

    made: list[StandIn]

    def __init__(self, index: int) -> None:
        if index > 1:
            raise IndexError("list index out of range")
        self.index, self.calls = index, list[str]()
        self.held, self._left = 0, 20
        self.configuration: dict[str, Any] = {}
        self.made.append(self)

    def create_video_configuration(self, *, main: dict[str, Any], controls: dict[str, Any]) -> dict[str, Any]:
        return {"main": main, "controls": controls}

    def configure(self, configuration: dict[str, Any]) -> None:
        self.calls.append("configure")
        self.configuration = configuration

    def camera_configuration(self) -> dict[str, Any]:
        width, height = self.configuration["main"]["size"]
        return {"main": {"size": (width // 2 * 2, height // 2 * 2)}}

    def start(self) -> None:
        self.calls.append("start")

    def capture_request(self, *, wait: bool) -> Any:
        assert not wait
        return SimpleNamespace(get_result=self._result)

    def _result(self, *, timeout: float) -> Any:
        if not self._left:
            time.sleep(min(timeout, 0.05))
            raise TimeoutError
        self._left -= 1
        self.held += 1
        width, height = self.camera_configuration()["main"]["size"]
        blue = np.zeros((height, width, 3), np.uint8)
        blue[:, :, 0] = 255
        taken_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - AGO_NS
        return SimpleNamespace(
            make_array=lambda stream: {"main": blue}[stream],
            get_metadata=lambda: {"SensorTimestamp": taken_ns},
            release=self._release,
        )

    def _release(self) -> None:
        self.held -= 1

    def stop(self) -> None:
        self.calls.append("stop")

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def picamera2(monkeypatch: pytest.MonkeyPatch) -> type[StandIn]:
    module: Any = ModuleType("picamera2")
    module.Picamera2 = type("Picamera2", (StandIn,), {"made": []})
    monkeypatch.setitem(sys.modules, "picamera2", module)
    return module.Picamera2  # type: ignore[no-any-return]


def test_the_calls_that_a_camera_gets_and_what_is_made_of_its_answers(picamera2: type[StandIn]) -> None:
    with open_camera("csi:1", size_px=(641, 480), fps=25) as camera:
        assert isinstance(camera, LiveCamera) and camera.name == "csi:1" and camera.fps == 25
        frame = next(camera)
        assert camera.notice == "csi:1 gives 640x480 px instead of 641x480"
    device = picamera2.made[0]
    assert device.index == 1 and device.held == 0
    assert device.configuration == {
        "main": {"format": "RGB888", "size": (641, 480)},
        "controls": {"FrameRate": 25},
    }
    assert device.calls == ["configure", "start", "stop", "close"]
    assert frame.image.shape == (480, 640, 3) and (frame.image[0, 0] == (255, 0, 0)).all()
    assert AGO_NS <= frame.age_ns < 60e9 and frame.captured_ns <= time.monotonic_ns() - AGO_NS


def test_a_camera_that_falls_silent_is_closed_and_started_again(picamera2: type[StandIn]) -> None:
    again = threading.Event()
    patience = Reconnect(stall_s=0.05, first_wait_s=0.01)
    with open_camera("csi", reconnect=patience) as camera:
        for frame in camera:
            if frame.index >= 25:  # of the second
                again.set()
                break
    assert again.is_set() and len(picamera2.made) >= 2
    assert all(device.calls[-2:] == ["stop", "close"] for device in picamera2.made)


def test_a_camera_that_is_not_there_is_a_device_error(picamera2: type[StandIn]) -> None:
    with pytest.raises(DeviceError, match=r"csi:2 does not open: .*rpicam-hello"):
        open_camera("csi:2", reconnect=Reconnect(give_up_s=0))
    with pytest.raises(SpecError, match="pixel_format"):
        open_camera("csi", pixel_format="MJPG")


def test_without_picamera2_the_error_says_how_to_install_it(without: Callable[..., None]) -> None:
    without("picamera2")
    with pytest.raises(MissingDependencyError, match=r"'picamera2'.*python3-picamera2.*--system-site-packages"):
        open_camera("csi")
