"""A source that falls silent is opened again, without an invented frame, a leaked thread or a told password."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import DeviceError, SpecError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.camera import open_camera
from edgecnn.runners.live.cameras.group import open_cameras
from edgecnn.runners.live.cameras.live_camera import LiveCamera
from edgecnn.runners.live.cameras.reconnect import Reconnect
from edgecnn.runners.live.frame import Frame

from .conftest import HEIGHT_PX, WIDTH_PX, StreamServer, find_square, square_at, square_frame, until

pytestmark = pytest.mark.server

SOON = Reconnect(stall_s=0.5, first_wait_s=0.02, longest_wait_s=0.2)


def _cameras_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("capture ")]


def _take(camera: object, count: int) -> list[Frame]:
    frames: list[Frame] = []
    for frame in camera:  # type: ignore[attr-defined]
        frames.append(frame)
        if len(frames) == count:
            break
    return frames


def test_a_server_that_was_restarted_gives_frames_again(tmp_path: Path) -> None:
    states: list[tuple[str, str]] = []
    server = StreamServer(tmp_path)
    server.start()
    port = server.server_address[1]
    url = server.url("stream", login="admin:geheim@")
    open_camera(server.url("stream")).close()  # what OpenCV keeps for the process is there now
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    with open_camera(url, on_state=lambda state, why: states.append((state, why))) as camera:
        assert isinstance(camera, LiveCamera)
        last = -1
        for scale in (2, 1, 2, 1):  # of another size each time
            last = max(last, _take(camera, 3)[-1].index)
            assert camera.state == "live"
            server.kill()
            until(lambda: camera.state == "connecting")
            server = StreamServer(tmp_path, port=port, scale=scale)
            server.start()
            returned_s = time.monotonic()
            for frame in camera:
                if frame.captured_ns / 1e9 > returned_s and frame.image.shape[0] == HEIGHT_PX * scale:
                    break
            assert frame.index > last, "indices go on"
        assert camera.reconnects >= 4
        assert camera.remark is not None and "was opened again" in camera.remark
    server.kill()
    names = [state for state, _ in states]
    assert names[:3] == ["live", "connecting", "live"] and names.count("live") == 5
    assert "geheim" not in str(states) + str(camera.remark)
    until(lambda: threading.active_count() <= threads and not _cameras_threads())
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_every_frame_after_a_restart_is_one_that_the_server_sent(tmp_path: Path) -> None:
    server = StreamServer(tmp_path)
    server.start()
    port, frames = server.server_address[1], []
    with open_camera(server.url("stream"), reconnect=SOON) as camera:
        for _ in range(3):
            frames += _take(camera, 10)
            server.kill()
            server = StreamServer(tmp_path, port=port)
            server.start()
        frames += _take(camera, 10)
    server.kill()
    places = {square_at(index) for index in range(100)}  # a server begins with the first again
    for frame in frames:
        found = find_square(frame.image)
        assert any(abs(found[0] - left) <= 2 and abs(found[1] - top) <= 2 for left, top in places)
    assert (np.diff([frame.captured_ns for frame in frames]) > 0).all()


def test_a_stream_that_changes_its_size_goes_on(stream_server: StreamServer, tmp_path: Path) -> None:
    larger = StreamServer(tmp_path, scale=2)
    stream_server.parts = [part for pair in zip(stream_server.parts, larger.parts, strict=False) for part in pair]
    larger.server_close()
    with open_camera(stream_server.url("stream")) as camera:
        assert isinstance(camera, LiveCamera)
        for frame in _take(camera, 20):  # OpenCV 5 brings all to the size of the first: whole, and in proportion
            scale = 2 if frame.image.shape[0] == 2 * HEIGHT_PX else 1
            assert frame.image.shape == (scale * HEIGHT_PX, scale * WIDTH_PX, 3)
            assert find_square(frame.image[::scale, ::scale]) == pytest.approx(square_at(frame.index // 2 % 50), abs=2)
        assert camera.reconnects == 0


@pytest.mark.parametrize("damage", ["half", "rubbish", "empty"])
def test_damaged_pictures_are_left_out_and_nothing_takes_their_place(stream_server: StreamServer, damage: str) -> None:
    def damaged(part: bytes) -> bytes:
        jpeg = part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n")
        broken = {"half": jpeg[: len(jpeg) // 2], "rubbish": bytes(range(256)) * 4, "empty": b""}[damage]
        return b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(broken), broken)

    parts = stream_server.parts
    stream_server.parts = [damaged(part) if index % 3 == 2 else part for index, part in enumerate(parts)]
    sent = [square_frame(index).astype(int) for index in range(60) if index % 3 != 2]
    with open_camera(stream_server.url("stream"), reconnect=SOON) as camera:
        for frame in _take(camera, 12):
            assert min(np.abs(frame.image - picture).max() for picture in sent) < 40


def test_a_connection_that_stays_open_without_frames_is_stalled_and_reopened(stream_server: StreamServer) -> None:
    with open_camera(stream_server.url("silent"), reconnect=SOON) as camera:
        assert isinstance(camera, LiveCamera)
        for frame in camera:
            if frame.index >= 5:  # only another connection gives a sixth
                break
        assert camera.reconnects >= 1


def test_state_is_stalled_while_an_open_source_is_silent() -> None:
    pictures, goes_on = iter([np.zeros((8, 8, 3), np.uint8)]), threading.Event()

    class Source:
        fps: float | None = None
        pixel_format: str | None = None
        captured_ns: int | None = None
        notice: str | None = None

        def grab(self) -> UInt8Array | None:
            picture = next(pictures, None)
            if picture is None:
                goes_on.wait(30)
            return picture

        def close(self) -> None:
            pass

    with LiveCamera("test", Source, reconnect=Reconnect(stall_s=0.05, give_up_s=0)) as camera:
        next(camera)
        until(lambda: camera.state == "stalled")
        goes_on.set()
        with pytest.raises(DeviceError, match="given up"):
            next(camera)
        assert str(camera.state) == "lost"


def test_a_source_that_stays_away_is_given_up_only_on_request(tmp_path: Path) -> None:
    server = StreamServer(tmp_path)
    server.start()
    patience = Reconnect(stall_s=0.5, first_wait_s=0.02, longest_wait_s=0.1, give_up_s=0.6)
    with open_camera(server.url("stream", login="me:geheim@"), reconnect=patience) as camera:
        _take(camera, 2)
        server.kill()
        gone_s = time.monotonic()
        with pytest.raises(DeviceError, match=r"does not open.*given up") as caught:
            _take(camera, 10_000)
        assert time.monotonic() - gone_s > 0.3
    assert "geheim" not in str(caught.value)


def test_closing_does_not_wait_for_a_source_that_is_away(tmp_path: Path) -> None:
    server = StreamServer(tmp_path)
    server.start()
    camera = open_camera(server.url("stream"))
    next(camera)
    server.kill()
    until(lambda: camera.state == "connecting")  # type: ignore[attr-defined]
    start = time.monotonic()
    camera.close()
    assert time.monotonic() - start < 20  # a second; it would be tried for ever
    assert list(camera) == []


@given(st.integers(1, 200))
def test_waits_double_up_to_the_longest_and_are_drawn_from_their_second_half(attempts: int) -> None:
    wait = Reconnect(first_wait_s=0.1, longest_wait_s=1.0).wait_s(attempts)
    longest = min(1.0, 0.1 * 2 ** (attempts - 1))
    assert longest / 2 <= wait <= longest


@pytest.mark.parametrize("words", [{"stall_s": 0}, {"first_wait_s": -1}, {"give_up_s": -0.1}])
def test_waits_that_cannot_be_are_refused(words: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=next(iter(words))):
        Reconnect(**words)


def test_a_camera_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    server = StreamServer(tmp_path)
    server.server_close()
    port, states = server.server_address[1], list[tuple[str, str]]()
    patience = Reconnect(stall_s=2, first_wait_s=0.02, longest_wait_s=0.1)
    url = server.url("stream", login="admin:geheim@")
    with open_camera(url, reconnect=patience, on_state=lambda state, why: states.append((state, why))) as camera:
        assert isinstance(camera, LiveCamera) and camera.live and camera.state == "connecting" and camera.fps is None
        until(lambda: states)
        assert states[0][0] == "connecting" and "refuses the connection" in states[0][1]
        server = StreamServer(tmp_path, port=port)
        server.start()
        frame = next(camera)
        assert frame.index < 9  # the newest, not the first
        assert find_square(frame.image) == pytest.approx(square_at(frame.index), abs=60)
        assert [state for state, _ in states] == ["connecting", "live"]
        assert camera.reconnects == 0 and camera.remark is None
    server.kill()
    assert "geheim" not in str(states)


def test_a_camera_that_never_comes_is_given_up_on_request(tmp_path: Path) -> None:
    server = StreamServer(tmp_path)
    server.server_close()
    patience = Reconnect(first_wait_s=0.02, longest_wait_s=0.1, give_up_s=0.5)
    with open_camera(server.url("stream"), reconnect=patience) as camera:
        with pytest.raises(DeviceError, match=r"refuses the connection.*given up .* the first request"):
            next(camera)
        assert camera.state == "lost"  # type: ignore[attr-defined]


def test_who_waits_for_an_absent_camera_is_let_go_when_it_is_closed(tmp_path: Path) -> None:
    server = StreamServer(tmp_path)
    server.server_close()
    camera = open_camera(server.url("stream"))
    closing = threading.Timer(0.2, camera.close)
    closing.start()
    assert list(camera) == []


def test_a_recording_that_a_server_does_not_have_is_an_error_at_once(stream_server: StreamServer) -> None:
    with pytest.raises(DeviceError, match="has no stream of that name"):
        open_camera(stream_server.url("gone.mp4"))


def test_a_listeners_error_is_raised_where_frames_are_read(stream_server: StreamServer) -> None:
    def listener(state: str, why: str) -> None:
        raise ValueError(f"no {state} here")

    with (
        pytest.raises(ValueError, match="no live here"),
        open_camera(stream_server.url("stream"), on_state=listener) as camera,
    ):
        _take(camera, 3)


def test_cameras_that_are_tried_again_and_again_do_not_keep_another_from_being_opened() -> None:
    from edgecnn.runners.live.cameras.opencv_messages import OpeningOptions

    options, over, opened = OpeningOptions(), threading.Event(), threading.Event()

    def again_and_again() -> None:
        while not over.is_set():
            with options.set_to("of many"):
                time.sleep(0.01)

    def other() -> None:
        with options.set_to("of one"):
            opened.set()

    many = [threading.Thread(target=again_and_again, daemon=True) for _ in range(8)]
    for thread in many:
        thread.start()
    time.sleep(0.05)
    threading.Thread(target=other, daemon=True).start()
    assert opened.wait(10)
    over.set()
    for thread in many:
        thread.join(10)


def test_cameras_that_take_connections_and_say_nothing_are_tried_side_by_side() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        port, start_s = silent.getsockname()[1], time.monotonic()
        with open_cameras([f"rtsp://127.0.0.1:{port}/{number}" for number in range(16)]) as group:
            assert time.monotonic() - start_s < 15  # 2 s on a quiet machine; one after the other, FFmpeg takes 80
            assert group.state == "connecting" and group.live
