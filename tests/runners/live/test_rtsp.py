"""RTSP from a real server, whose every picture holds the time it was made at: what arrives is whole, new, and soon."""

from __future__ import annotations

import gc
import itertools
import json
import os
import random
import threading
import time
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn.cli import _main
from edgecnn.errors import DeviceError, SpecError
from edgecnn.runners.live.cameras.camera import Camera, open_camera
from edgecnn.runners.live.cameras.live_camera import LiveCamera
from edgecnn.runners.live.cameras.reconnect import Reconnect

from .bar_code import grey_picture, read_ms
from .rtsp_process import NEEDS, RtspServer, rtsp_is_here

pytestmark = [pytest.mark.server, pytest.mark.skipif(not rtsp_is_here(), reason=NEEDS)]

SECRET = "ge/heim@ ?#"
QUOTED = "ge%2Fheim%40%20%3F%23"

AT_ONCE = Reconnect(give_up_s=0)


def watch(camera: Camera, frames: int, *, after_ms: int = 0) -> list[int]:
    """The times in so many frames, each whole and not older than the one before."""
    times_ms: list[int] = []
    for frame in camera:
        drawn_ms = read_ms(frame.image)
        assert drawn_ms is not None, f"frame {frame.index} was never sent"
        assert drawn_ms >= (times_ms[-1] if times_ms else after_ms), f"frame {frame.index} is from before"
        times_ms.append(drawn_ms)
        if len(times_ms) == frames:
            break
    return times_ms


@pytest.mark.parametrize("size", [(640, 480), (320, 240), (160, 120)])
def test_a_bar_code_holds_its_time_and_nothing_else_does(size: tuple[int, int]) -> None:
    now_ns = time.monotonic_ns()
    picture = np.frombuffer(grey_picture(now_ns, *size), np.uint8).reshape(size[1], size[0])
    picture = np.repeat(picture[:, :, None], 3, axis=2)
    assert read_ms(picture) == now_ns // 1_000_000
    later = np.frombuffer(grey_picture(now_ns + 33_000_000, *size), np.uint8).reshape(size[1], size[0])
    half = picture.copy()
    half[size[1] // 2 :] = later[size[1] // 2 :, :, None]
    assert [read_ms(made_up) for made_up in (half, np.zeros_like(picture), np.full_like(picture, 255))] == [None] * 3


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("codec", ["h264", "jpeg"])
def test_frames_flow_over_tcp_and_udp_as_was_asked(codec: str, transport: str) -> None:
    with RtspServer(codec=codec, transport=transport) as server:
        with open_camera(server.url(), rtsp_transport=transport) as camera:  # type: ignore[arg-type]
            assert isinstance(camera, LiveCamera)
            watch(camera, 20)
            assert camera.live and camera.size_px == (640, 480) and camera.state == "live"
            assert (camera.notice is not None and "smeared" in camera.notice) == (transport == "udp")
            assert camera.fps == pytest.approx(30, abs=1) and camera.pixel_format is not None
        other = "udp" if transport == "tcp" else "tcp"
        with pytest.raises(DeviceError, match=f"over {other}; try {transport}"):  # nothing else is taken
            open_camera(server.url(), rtsp_transport=other, reconnect=AT_ONCE)  # type: ignore[arg-type]


def test_a_stream_begins_sooner_than_opencv_begins_with_it() -> None:
    plain_s, ours_s = [], []
    with RtspServer() as server:
        for _ in range(3):  # in turns, and the shortest of each: what else a busy machine does is nobody's fault
            asked_s = time.monotonic()
            plain = cv2.VideoCapture(server.url())
            assert plain.read()[0]
            plain_s.append(time.monotonic() - asked_s)  # FFmpeg looks at a stream for a second first, and stays as late
            plain.release()
            asked_s = time.monotonic()
            with open_camera(server.url()) as camera:
                watch(camera, 1)
            ours_s.append(time.monotonic() - asked_s)
    assert min(ours_s) < 0.7 * min(plain_s)


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_a_login_is_used_and_a_wrong_one_is_reported_without_showing_it(
    auth: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with RtspServer(user="watcher", password=SECRET, auth=auth) as server:
        with open_camera(server.url(login=f"watcher:{QUOTED}@")) as camera:
            watch(camera, 2)
            assert camera.name == f"rtsp://***@127.0.0.1:{server.port}/clock"
        said = []
        for url, reason in (
            (server.url(login="watcher:ge%2Fheim@"), "refuses the login"),
            (server.url(), "needs a login"),
            (server.url(login=f"watcher:{QUOTED}@", path="other"), "no stream of that name"),
        ):
            with pytest.raises(DeviceError, match=f"does not open: .*{reason}") as caught:
                open_camera(url, reconnect=AT_ONCE)
            said.append(str(caught.value))
    with pytest.raises(DeviceError, match="refuses the connection") as caught:
        open_camera(server.url(login=f"watcher:{QUOTED}@"), reconnect=AT_ONCE)
    everything = " ".join([*said, str(caught.value), *capfd.readouterr()])
    assert "heim" not in everything and "watcher" not in everything


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_the_command_line_watches_a_stream_and_prints_no_login(
    run_squares: Any, transport: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with RtspServer(user="watcher", password=SECRET, transport=transport) as server:
        url = server.url(login=f"watcher:{QUOTED}@")
        command = ["run", "no.edge", "--camera", url, "--rtsp-transport", transport, "--limit", "5", "--json"]
        assert _main.main(command) == 0
    printed, said = capfd.readouterr()
    summary = json.loads(printed)
    assert summary["source"] == f"rtsp://***@127.0.0.1:{server.port}/clock" and summary["frames"] == 5
    assert ("smeared" in str(summary["remarks"])) == (transport == "udp")
    assert "heim" not in printed + said and "watcher" not in printed + said


def test_an_unknown_host_and_a_server_of_another_kind_are_distinguished() -> None:
    with pytest.raises(DeviceError, match=r"no machine is called 'camera\.invalid'"):
        open_camera("rtsp://camera.invalid/1", reconnect=AT_ONCE)
    with pytest.raises(SpecError, match="size_px"):
        open_camera("rtsp://camera.invalid/1", size_px=(640, 480))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize(("transport", "times"), [("tcp", 4), ("udp", 2)])
def test_a_server_that_is_killed_and_returns_in_another_size_gives_frames_again(transport: str, times: int) -> None:
    chance = random.Random(7)
    states: list[str] = []
    with RtspServer(transport=transport) as server:
        words: Any = {"rtsp_transport": transport}
        with open_camera(server.url(), **words) as camera:  # what OpenCV keeps for the process is there after this
            watch(camera, 2)
        gc.collect()
        before, threads = descriptors(), threading.active_count()
        words |= {"reconnect": Reconnect(stall_s=2), "on_state": lambda state, _: states.append(state)}
        with open_camera(server.url(), **words) as camera:
            assert isinstance(camera, LiveCamera)
            newest_ms = watch(camera, 2)[-1]
            for turn in range(times):
                newest_ms = watch(camera, chance.randrange(1, 20), after_ms=newest_ms)[-1]
                server.kill()
                size = ("320x240", "640x480")[turn % 2]
                server.words["size"] = size
                server.start()
                for frame in camera:
                    drawn_ms = read_ms(frame.image)
                    assert drawn_ms is not None and drawn_ms >= newest_ms
                    newest_ms = drawn_ms
                    if newest_ms > server.accepted_s * 1000:
                        break
                away_s = time.monotonic() - server.accepted_s
                # measured in server starts, which a busy machine slows down as well
                assert away_s < max(2.0, 4 * server.start_s)
                assert "{}x{}".format(*camera.size_px or (0, 0)) == size
            assert camera.reconnects >= times
    assert states.count("live") == times + 1 and "lost" not in states
    until_s = time.monotonic() + 10
    while (descriptors() > before or threading.active_count() > threads) and time.monotonic() < until_s:
        time.sleep(0.02)
    assert descriptors() <= before and threading.active_count() <= threads


def test_a_frozen_server_is_stalled_then_connecting_and_live_again_when_it_thaws() -> None:
    states: list[tuple[str, str]] = []
    silent, back = threading.Event(), threading.Event()

    def note(state: str, why: str) -> None:
        states.append((state, why))
        if state == "connecting":
            silent.set()
        if state == "live" and silent.is_set():
            back.set()

    with (
        RtspServer() as server,
        open_camera(server.url(), reconnect=Reconnect(stall_s=1), on_state=note) as camera,
    ):
        newest_ms = watch(camera, 3)[-1]
        silent.clear()  # on a busy machine, a second may have passed without a frame before
        back.clear()
        before = len(states)
        server.freeze()
        assert silent.wait(30)
        server.thaw()
        assert back.wait(30)
        watch(camera, 5, after_ms=newest_ms)
    since = list(itertools.dropwhile(lambda each: each[0] == "live", states[before:]))
    assert [state for state, _ in since][:3] == ["stalled", "connecting", "live"]
    assert since[0][1] == "no frame in 1 s"


def test_a_server_that_stays_away_is_lost_only_on_request() -> None:
    states: list[str] = []
    with RtspServer() as server:
        patience = Reconnect(give_up_s=1)
        with open_camera(server.url(), reconnect=patience, on_state=lambda state, _: states.append(state)) as camera:
            watch(camera, 2)
            server.kill()
            with pytest.raises(DeviceError, match=r"refuses the connection.*given up"):
                watch(camera, 10_000)
    assert [state for state in states if state != "stalled"] == ["live", "connecting", "lost"]
