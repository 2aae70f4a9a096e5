"""Several sources in one run: each gets its turn, results and recordings say which one they are of."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgecnn.errors import DataError, SpecError
from edgecnn.options import parse_size
from edgecnn.runners.live.cameras.camera import open_camera
from edgecnn.runners.live.cameras.capture_spec import CaptureSpec
from edgecnn.runners.live.cameras.group import CameraGroup, open_cameras
from edgecnn.runners.live.loop.newest import live

from .conftest import SquareRunner, StreamServer, count_frames, square_frame, until, write_video


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_recordings_keep_every_frame_of_each_source(run_squares: Any, tmp_path: Path) -> None:
    paths = [write_video(tmp_path / "a.avi", frames=12), write_video(tmp_path / "b.avi", frames=5)]
    summary = run_squares(paths, jsonl=tmp_path / "out.jsonl", record=tmp_path / "out.avi")
    assert summary.source == f"{paths[0]}, {paths[1]}" and summary.frames == 17
    found = records(tmp_path / "out.jsonl")
    for path, frames in zip(paths, (12, 5), strict=True):
        assert [record["frame"] for record in found if record["source"] == str(path)] == list(range(frames))
    recordings = [tmp_path / "out-1.avi", tmp_path / "out-2.avi"]
    assert [count_frames(path) for path in recordings] == [12, 5]
    assert summary.written == (*map(str, recordings), str(tmp_path / "out.jsonl"))


def test_streams_that_differ_only_in_what_is_hidden_get_numbers(
    run_squares: Any, stream_server: StreamServer, tmp_path: Path
) -> None:
    urls = [stream_server.url(f"stream?channel={n}", login="me:geheim@") for n in (1, 2)]
    summary = run_squares(urls, jsonl=tmp_path / "out.jsonl", limit=60)
    sources = {record["source"] for record in records(tmp_path / "out.jsonl")}
    public = stream_server.url("stream?channel=***", login="***@")
    assert sources == {f"{public} #1", f"{public} #2"}
    assert summary.ended == "limit" and "geheim" not in str(summary)


def test_each_source_has_its_own_tracker(run_squares: Any, tmp_path: Path) -> None:
    pytest.importorskip("edgefirst.tracker", reason="needs edgefirst-tracker: pip install 'edgecnn[track]'")
    paths = [write_video(tmp_path / f"{name}.avi", frames=20) for name in "ab"]
    run_squares(paths, track=True, jsonl=tmp_path / "out.jsonl")
    ids = [
        {
            d["track_id"]
            for record in records(tmp_path / "out.jsonl")
            if record["source"] == str(path)
            for d in record["detections"]
        }
        for path in paths
    ]
    assert ids[0] == ids[1]  # the same square, followed for itself: not one that jumps from picture to picture
    with pytest.raises(SpecError, match="one source at a time"):
        run_squares(paths, zones=["0,0,10,0,10,10"])


def test_states_say_which_source_they_are_of(stream_server: StreamServer) -> None:
    states: list[tuple[str, str]] = []
    urls = [stream_server.url("stream"), stream_server.url("stream?b=1")]
    with open_cameras(urls, on_state=lambda state, why: states.append((state, why))) as group:
        for camera in group.cameras:
            next(iter(camera))
        assert group.live and not group.stills and group.frames_total is None and group.remark is None
        assert group.state == "live"
    assert sorted(why.partition(": ")[0] for _, why in states) == sorted(camera.name for camera in group.cameras)


def test_of_several_sources_none_stays_open_where_one_does_not_open(
    stream_server: StreamServer, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="gone"):
        open_cameras([stream_server.url("stream"), tmp_path / "gone.avi"])
    until(lambda: not [each.name for each in threading.enumerate() if each.name.startswith("capture ")])


def test_pictures_and_videos_together_are_no_recording(run_squares: Any, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), square_frame(0))
    sources = [write_video(tmp_path / "a.avi", frames=2), tmp_path / "a.png"]
    assert run_squares(sources).frames == 3
    with pytest.raises(SpecError, match="pictures and videos"):
        run_squares(sources, record=tmp_path / "out.avi")


def test_what_no_source_can_be_asked_for_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.avi", frames=2)
    with pytest.raises(SpecError, match=r"none of these sources has a setting fps"):
        open_cameras([path, path], capture=CaptureSpec(fps=30))
    with pytest.raises(SpecError, match=r"a file has no setting size_px"):
        open_camera(path, size_px=(64, 48))
    with pytest.raises(SpecError, match="whose server sets size and rate"):
        open_camera("http://127.0.0.1/", fps=5)
    with pytest.raises(SpecError, match="whose description contains its settings"):
        open_camera("gst: videotestsrc", fps=5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"size_px": (0, 480)}, "positive px, got 0x480"),
        ({"fps": -1.0}, "positive fps"),
        ({"pixel_format": "MJPEG"}, "four characters"),
        ({"rtsp_transport": "http"}, "tcp or udp"),
    ],
)
def test_an_impossible_camera_mode_is_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        CaptureSpec(**words)


@pytest.mark.parametrize("text", ["1280", "1280x", "axb", "-1x2", "1280x720x3"])
def test_an_invalid_size_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="WIDTHxHEIGHT"):
        parse_size(text)
    assert parse_size("1280x720") == (1280, 720)


def test_runners_and_cameras_must_be_as_many(tmp_path: Path) -> None:
    with open_cameras([write_video(tmp_path / "a.avi", frames=2)]) as group:
        assert isinstance(group, CameraGroup)
        with pytest.raises(SpecError, match="1 cameras need one runner"):
            next(live(group.cameras, [SquareRunner(), SquareRunner()]))
        with pytest.raises(TypeError, match=r"group\.cameras"):
            next(iter(group))
