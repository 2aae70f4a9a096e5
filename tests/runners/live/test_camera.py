"""Sources: every frame of a file, the newest of a stream, and clear errors where there is nothing to read."""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecnn.errors import DataError, DeviceError, SpecError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.cameras.camera import open_camera
from edgecnn.runners.live.cameras.live_camera import LiveCamera
from edgecnn.runners.live.cameras.reconnect import Reconnect

from .conftest import StreamServer, find_square, square_at, square_frame, until, write_video


def _write_pictures(folder: Path, names: list[str]) -> Path:
    folder.mkdir()
    for index, name in enumerate(names):
        cv2.imwrite(str(folder / name), square_frame(index))
    return folder


def test_a_picture_is_one_frame(tmp_path: Path) -> None:
    path = tmp_path / "square.png"
    cv2.imwrite(str(path), square_frame(3))
    with open_camera(path) as camera:
        frames = list(camera)
    assert [frame.index for frame in frames] == [0]
    assert np.array_equal(frames[0].image, square_frame(3))
    assert frames[0].source == str(path)
    assert (camera.live, camera.stills, camera.frames_total) == (False, True, 1)
    assert 0 <= frames[0].age_ns < 60e9
    assert abs(frames[0].captured_unix_ns - time.time_ns()) < 60e9


def test_a_folder_gives_its_pictures_by_name(tmp_path: Path) -> None:
    folder = _write_pictures(tmp_path / "pictures", ["b.png", "a.jpg", "C.PNG"])
    (folder / "notes.txt").write_text("not a picture")
    with open_camera(str(folder)) as camera:
        assert camera.frames_total == 3
        assert [Path(frame.source).name for frame in camera] == ["C.PNG", "a.jpg", "b.png"]


def test_a_video_gives_every_frame_in_order(tmp_path: Path) -> None:
    path = write_video(tmp_path / "square.avi", frames=40)
    with open_camera(path) as camera:
        assert (camera.fps, camera.frames_total, camera.live, camera.stills) == (20.0, 40, False, False)
        places = []
        for frame in camera:
            places.append((frame.index, find_square(frame.image)))
            time.sleep(0.0005)  # a consumer that is slow loses nothing
    assert places == [(index, square_at(index)) for index in range(40)]
    assert (camera.dropped, camera.remark) == (0, None)


def test_a_name_with_a_colon_or_a_percent_sign_is_a_file(tmp_path: Path) -> None:
    for name in ("a:b.avi", "clip%03d.avi", "http:.avi"):
        with open_camera(write_video(tmp_path / name, frames=3)) as camera:
            assert sum(1 for _ in camera) == 3


@pytest.mark.parametrize("cut", [0.3, 0.4, 0.55, 0.7])
def test_a_truncated_video_gives_its_complete_frames_and_says_so(tmp_path: Path, cut: float) -> None:
    path = write_video(tmp_path / "square.avi", frames=60)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * cut)])
    with open_camera(path) as camera:
        frames = list(camera)
    assert 5 < len(frames) < 50
    for frame in frames:  # the last too: no frame of which half is invented
        assert np.abs(frame.image.astype(int) - square_frame(frame.index)).max() < 40
    assert camera.remark is not None and "of 60 frames: truncated" in camera.remark


@pytest.mark.parametrize("name", ["clip.mp4", "clip.avi", "picture.png", "picture.jpg", "unknown.bin"])
def test_a_file_of_rubbish_is_refused_by_name(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / name
    for content in (b"", b"no pixels here" * 100):
        path.write_bytes(content)
        with pytest.raises(DataError, match=name), open_camera(path) as camera:
            next(camera)
    assert capfd.readouterr().err == ""  # OpenCV and FFmpeg keep quiet


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp"])
def test_a_truncated_picture_is_refused_not_filled_with_grey(
    tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"half{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    data = cv2.imencode(suffix, noise)[1].tobytes()
    path.write_bytes(data[: len(data) // 2])
    with open_camera(path) as camera, pytest.raises(DataError, match="half"):
        next(camera)
    assert capfd.readouterr().err == ""


def test_a_broken_picture_in_a_folder_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    folder = _write_pictures(tmp_path / "pictures", ["a.png", "c.png"])
    (folder / "b.png").write_bytes(b"rubbish")
    with open_camera(folder) as camera:
        assert [Path(frame.source).name for frame in camera] == ["a.png", "c.png"]
    assert camera.remark is not None and "1 of 3 pictures skipped" in camera.remark and "b.png" in camera.remark


def test_a_missing_or_empty_source_is_reported(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.mp4 does not exist"):
        open_camera(tmp_path / "gone.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty has no picture"):
        open_camera(tmp_path / "empty")
    with pytest.raises(SpecError, match="gopher:// is not supported"):
        open_camera("gopher://host/video")
    with pytest.raises(SpecError, match="camera index of 0 or more"):
        open_camera(-1)


@pytest.mark.parametrize("source", [99, "99", "/dev/video99"])
def test_an_absent_camera_is_a_device_error(source: str | int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DeviceError, match="video99 does not exist; cameras here") as caught:
        open_camera(source, reconnect=Reconnect(give_up_s=0))
    assert caught.value.exit_code == 3
    assert capfd.readouterr().err == ""


def test_a_slow_consumer_of_a_stream_gets_newer_frames_and_the_others_are_counted(
    stream_server: StreamServer,
) -> None:
    with open_camera(stream_server.url("stream")) as camera:
        assert (camera.live, camera.frames_total, camera.fps) == (True, None, None)
        indices: list[int] = []
        for frame in camera:
            indices.append(frame.index)
            assert find_square(frame.image) == pytest.approx(square_at(frame.index), abs=2)
            if len(indices) == 3:
                break
            dropped = camera.dropped
            until(lambda: camera.dropped > dropped + 3)  # noqa: B023
    assert (np.diff(indices) > 3).all()
    # what was passed over is what was dropped, but for a frame that still waited at the end
    assert camera.dropped >= indices[-1] + 1 - len(indices)


def test_of_frames_that_wait_the_newest_is_given() -> None:
    shown: queue.SimpleQueue[int | None] = queue.SimpleQueue()

    class Source:
        fps: float | None = None
        pixel_format: str | None = None
        captured_ns: int | None = None
        notice: str | None = None

        def grab(self) -> UInt8Array | None:
            index = shown.get()
            return None if index is None else square_frame(index)

        def close(self) -> None:
            pass

    with LiveCamera("test", Source) as camera:
        for first, newest in ((0, 0), (1, 9), (10, 30)):
            dropped = camera.dropped
            for index in range(first, newest + 1):
                shown.put(index)
            until(lambda: camera.dropped == dropped + newest - first)  # noqa: B023
            frame = next(camera)
            assert (frame.index, find_square(frame.image)) == (newest, square_at(newest))
        shown.put(None)
    assert camera.dropped == 28


def test_a_stream_that_is_given_up_is_a_device_error_after_its_last_frame(stream_server: StreamServer) -> None:
    camera = open_camera(stream_server.url("short?token=secret"), reconnect=Reconnect(give_up_s=0))
    seen = []
    with camera, pytest.raises(DeviceError, match=r"ended.*given up") as caught:
        for frame in camera:
            seen.append(frame.index)
    assert seen and seen[-1] == 4
    assert "secret" not in str(caught.value)


def test_a_recording_on_a_server_is_read_whole(stream_server: StreamServer, tmp_path: Path) -> None:
    write_video(tmp_path / "square.avi", frames=30)
    with open_camera(stream_server.url("square.avi")) as camera:
        assert not camera.live
        assert [frame.index for frame in camera] == list(range(30))


@pytest.mark.parametrize("path", ["absent", "stream:9"])
def test_a_stream_that_does_not_open_is_named_without_its_login(
    stream_server: StreamServer, path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    url = stream_server.url(path, login="admin:geheim@")
    with pytest.raises(DeviceError, match="does not open") as caught:
        open_camera(url, reconnect=Reconnect(give_up_s=0))
    assert "***@127.0.0.1" in str(caught.value)
    assert "geheim" not in str(caught.value) and "admin" not in str(caught.value)
    assert "geheim" not in capfd.readouterr().err


def test_closing_a_stream_ends_its_thread(stream_server: StreamServer) -> None:
    before = set(threading.enumerate())  # an earlier test's may still end
    camera = open_camera(stream_server.url("stream"))
    next(camera)
    camera.close()
    camera.close()
    assert list(camera) == []
    until(lambda: not [each for each in set(threading.enumerate()) - before if each.name.startswith("capture ")])
