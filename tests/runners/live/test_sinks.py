"""What is written is complete, readable, and says what the network said; whatever ends the run."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections import namedtuple
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn import rle
from edgecnn.errors import DataError, DeviceError, SpecError, StorageError
from edgecnn.results import Classification, Detections, Instances, SegmentationMap, UInt8Array
from edgecnn.runners.live.frame import Frame, frame_now
from edgecnn.runners.live.sinks import Annotated, EndOfRun, Sink
from edgecnn.runners.live.sinks.jsonl import JsonLinesSink, record_of
from edgecnn.runners.live.sinks.picture_files import PictureSink
from edgecnn.runners.live.sinks.threaded import WAITING
from edgecnn.runners.live.sinks.video import VideoSink
from edgecnn.runners.live.sinks.window import WindowSink

from .conftest import (
    HEIGHT_PX,
    LABELS,
    WIDTH_PX,
    StreamServer,
    count_frames,
    find_square,
    square_at,
    square_frame,
    until,
    write_video,
)

NOTHING = Detections(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64), LABELS)


class _Probe:
    """A sink that does something at one frame."""

    def __init__(self, at: int, action: Any) -> None:
        self.at, self.action = at, action
        self.seen = 0
        self.left = False

    def deliver(self, frame: Frame, result: Any, annotated: Annotated) -> None:
        self.seen += 1
        if frame.index == self.at:
            self.action()

    def __enter__(self) -> _Probe:
        return self

    def __exit__(self, *error: object) -> None:
        self.left = True


def _frame(index: int, *, captured_ns: int | None = None) -> Frame:
    frame = frame_now(square_frame(index), index, "test")
    return frame if captured_ns is None else Frame(frame.image, index, captured_ns, captured_ns, "test")


def _deliver(sink: Sink, frame: Frame) -> None:
    sink.deliver(frame, NOTHING, Annotated(lambda: frame.image))


def test_an_annotated_picture_is_drawn_once_and_only_when_wanted() -> None:
    calls = []

    def draw() -> UInt8Array:
        calls.append(1)
        return square_frame(0)

    annotated = Annotated(draw)
    assert calls == []
    assert annotated.picture is annotated.picture
    assert calls == [1]


# --- JSON lines


def test_a_line_of_a_detector() -> None:
    boxes = np.array([[1.234, 2, 30, 40], [5, 6, 7, 8]], np.float32)
    found = Detections(boxes, np.array([0.875, 0.5], np.float32), np.array([1, 0]), LABELS)
    frame = _frame(7)
    record = record_of(frame, found)
    assert (record["frame"], record["task"], record["size"]) == (7, "detect", [WIDTH_PX, HEIGHT_PX])
    assert (record["captured_ns"], record["captured_unix_ns"]) == (frame.captured_ns, frame.captured_unix_ns)
    assert 0 <= record["age_ms"] < 60_000
    assert record["detections"] == [
        {"label": "circle", "class_id": 1, "score": 0.875, "box": [1.23, 2.0, 30.0, 40.0], "track_id": None},
        {"label": "square", "class_id": 0, "score": 0.5, "box": [5.0, 6.0, 7.0, 8.0], "track_id": None},
    ]
    tracked = Detections(boxes, found.scores, found.class_ids, LABELS, np.array([3, 9]))
    assert [d["track_id"] for d in record_of(frame, tracked)["detections"]] == [3, 9]


def test_a_line_of_a_classifier_a_segmenter_and_of_instances() -> None:
    best = Classification(np.array([1, 0]), np.array([0.75, 0.25], np.float32), LABELS)
    assert record_of(_frame(0), best)["classes"] == [
        {"label": "circle", "class_id": 1, "score": 0.75},
        {"label": "square", "class_id": 0, "score": 0.25},
    ]

    classes = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    classes[10:40, 20:60] = 1
    segments = record_of(_frame(0), SegmentationMap(classes, LABELS))["segments"]
    assert [segment["label"] for segment in segments] == ["square", "circle"]
    assert segments[1]["share"] == pytest.approx(1200 / classes.size, abs=1e-6)
    assert np.array_equal(rle.decode(segments[1]["rle"]), classes == 1)

    one = Detections(np.array([[20, 10, 60, 40]], np.float32), np.array([0.5], np.float32), np.array([1]), LABELS)
    record = record_of(_frame(0), Instances(one, (classes == 1)[None]))
    assert record["task"] == "instances"
    assert np.array_equal(rle.decode(record["detections"][0]["rle"]), classes == 1)


def test_lines_are_there_as_soon_as_they_are_delivered(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with JsonLinesSink(path) as sink:
        for index in range(3):
            _deliver(sink, _frame(index))
            assert json.loads(path.read_text().splitlines()[-1])["frame"] == index


def test_a_reader_that_goes_away_ends_the_run(
    run_squares: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0, closefd=False) as gone:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(gone)))
        summary = run_squares(write_video(tmp_path / "in.avi", frames=20), jsonl="-")
        sys.stdout.flush()  # as Python does at exit: says nothing more
    os.close(writer)
    assert (summary.ended, summary.signal) == ("the reader closed the pipe", None)


def test_a_jsonl_file_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot be written"):
        JsonLinesSink(tmp_path / "absent" / "out.jsonl")
    if Path("/dev/full").exists():
        with pytest.raises(StorageError, match="disk is full"), JsonLinesSink("/dev/full") as sink:
            _deliver(sink, _frame(0))


# --- video


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".mov"])
def test_a_recording_holds_every_frame_at_the_sources_rate(run_squares: Any, tmp_path: Path, suffix: str) -> None:
    source = write_video(tmp_path / "in.avi", frames=30, fps=20)
    target = tmp_path / f"out{suffix}"
    summary = run_squares(source, record=target)
    assert (summary.frames, summary.dropped, summary.ended) == (30, {}, "end of source")
    assert summary.written == (str(target),)
    assert summary.stages["infer"].p50_ms == pytest.approx(0.002, rel=0.02)
    capture = cv2.VideoCapture(str(target))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(20, abs=0.1)
    capture.release()
    assert count_frames(target) == 30
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.avi", target.name])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_recording_is_closed_and_playable(
    run_squares: Any, tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.getsignal(number)
    source = write_video(tmp_path / "in.avi", frames=40)
    probe = _Probe(12, lambda: signal.raise_signal(number))
    summary = run_squares(source, record=tmp_path / "out.mp4", jsonl=tmp_path / "out.jsonl", sinks=[probe])
    assert (summary.ended, summary.signal, summary.frames) == (number.name, number, 13)
    assert count_frames(tmp_path / "out.mp4") == 13
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 13
    assert probe.left and signal.getsignal(number) is before
    assert not list(tmp_path.glob(".*"))


def test_a_recording_is_kept_when_another_sink_fails(run_squares: Any, tmp_path: Path) -> None:
    def fail() -> None:
        raise DeviceError("unplugged")

    with pytest.raises(DeviceError, match="unplugged"):
        run_squares(write_video(tmp_path / "in.avi", frames=20), record=tmp_path / "out.avi", sinks=[_Probe(8, fail)])
    assert count_frames(tmp_path / "out.avi") == 9


def test_a_limit_and_a_sink_that_has_enough_end_the_run(run_squares: Any, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.avi", frames=20)
    seen: list[tuple[int, int]] = []
    summary = run_squares(source, limit=6, progress=lambda done, total: seen.append((done, total)))
    assert (summary.frames, summary.ended, seen[-1]) == (6, "limit", (6, 6))

    def enough() -> None:
        raise EndOfRun("a key was pressed")

    assert run_squares(source, sinks=[_Probe(3, enough)]).ended == "a key was pressed"
    with pytest.raises(SpecError, match="limit"):
        run_squares(source, limit=0)


def test_a_live_recording_keeps_time(tmp_path: Path) -> None:
    second = 1_000_000_000
    with VideoSink(tmp_path / "live.avi", fps=10, live=True) as sink:
        for index, at_s in enumerate((0.0, 0.05, 0.5, 1.0)):
            _deliver(sink, _frame(index, captured_ns=5 * second + int(at_s * second)))
    assert count_frames(tmp_path / "live.avi") == 11  # one second at 10 frames/s, and its end


def test_a_live_stream_is_recorded_and_its_rate_is_remarked(
    run_squares: Any, stream_server: StreamServer, tmp_path: Path
) -> None:
    summary = run_squares(stream_server.url("stream?key=geheim"), record=tmp_path / "out.mp4", limit=5)
    assert summary.frames == 5
    assert count_frames(tmp_path / "out.mp4") >= 2
    assert "geheim" not in repr(summary)


def test_a_full_disk_closes_the_file_while_it_can(
    run_squares: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    free = iter([10**9] * 7 + [10**5] * 99)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**10, 0, next(free)))
    with pytest.raises(StorageError, match=r"disk is full: .*out\.mp4 ends after 7 frames"):
        run_squares(write_video(tmp_path / "in.avi", frames=20), record=tmp_path / "out.mp4")
    assert count_frames(tmp_path / "out.mp4") == 7


def test_anything_that_cannot_be_recorded_is_refused_before_it_starts(run_squares: Any, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.avi", frames=3)
    with pytest.raises(SpecError, match=r"suffixes: \.mp4"):
        run_squares(source, record=tmp_path / "out.xyz")
    with pytest.raises(StorageError, match="cannot be written"):
        run_squares(source, record=tmp_path / "absent" / "out.mp4")
    with pytest.raises(SpecError, match="is also the source"):
        run_squares(source, record=source)
    with pytest.raises(SpecError, match="is also the source"):
        run_squares(source, jsonl=source)
    assert count_frames(source) == 3


def test_frames_that_change_size_do_not_fit_one_video(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="160x120 to 80x60 px"), VideoSink(tmp_path / "out.avi") as sink:
        _deliver(sink, _frame(0))
        small = frame_now(np.zeros((60, 80, 3), np.uint8), 1, "test")
        _deliver(sink, small)
    assert count_frames(tmp_path / "out.avi") == 1


# --- pictures


def test_a_folder_of_pictures_is_annotated_into_a_folder(run_squares: Any, tmp_path: Path) -> None:
    pictures = tmp_path / "in"
    pictures.mkdir()
    for index, name in enumerate(("a.png", "b.jpg")):
        cv2.imwrite(str(pictures / name), square_frame(index))
    before = {path.name: path.read_bytes() for path in pictures.iterdir()}
    run_squares(pictures, record=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.jpg"]
    annotated = cv2.imread(str(tmp_path / "out" / "a.png"))
    assert annotated is not None and not np.array_equal(annotated, square_frame(0))
    with pytest.raises(SpecError, match="is also the input picture"):
        run_squares(pictures, record=pictures)
    assert {path.name: path.read_bytes() for path in pictures.iterdir()} == before
    with pytest.raises(SpecError, match="give a folder"):
        run_squares(pictures, record=tmp_path / "one.png")


def test_one_picture_is_annotated_into_one_file(run_squares: Any, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "in.png"), square_frame(5))
    summary = run_squares(tmp_path / "in.png", record=tmp_path / "out.jpg")
    assert summary.frames == 1
    assert cv2.imread(str(tmp_path / "out.jpg")) is not None
    with pytest.raises(DataError, match=r"use \.jpg or \.png"):
        PictureSink(tmp_path / "folder").deliver(
            frame_now(square_frame(0), 0, "picture.xyz"), NOTHING, Annotated(lambda: square_frame(0))
        )


# --- window, words


def test_a_window_without_a_display_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(DeviceError, match="--record FILE or --jsonl"):
        WindowSink()
    monkeypatch.setenv("DISPLAY", ":987")  # nothing answers there; Qt would end the process
    with pytest.raises(DeviceError, match="no window can be shown"):
        WindowSink()


def test_results_in_words() -> None:
    found = Detections(np.zeros((3, 4), np.float32), np.full(3, 0.5, np.float32), np.array([1, 0, 1]), LABELS)
    assert str(found) == "2 circle, 1 square"
    assert str(NOTHING) == "nothing"
    best = Classification(np.array([1, 0]), np.array([0.75, 0.25], np.float32), LABELS)
    assert str(best) == "circle 0.75, square 0.25"
    assert str(SegmentationMap(np.zeros((4, 4), np.uint8), LABELS)) == "square 100 %"


def test_the_moving_square_is_at_its_known_position() -> None:
    assert all(find_square(square_frame(index)) == square_at(index) for index in (0, 1, 40, 100))


# --- beside the loop, where a live source doesn't wait


class _At:
    """A sink that does something at every frame, and notes which it had."""

    def __init__(self, action: Any = lambda: None) -> None:
        self.action = action
        self.indices: list[int] = []

    def deliver(self, frame: Frame, result: Any, annotated: Annotated) -> None:
        self.indices.append(frame.index)
        self.action()

    def __enter__(self) -> _At:
        return self

    def __exit__(self, *error: object) -> None:
        pass


class _Slow(_At):
    pass


def test_a_slow_sink_holds_neither_the_camera_nor_the_others_back(
    run_squares: Any, stream_server: StreamServer
) -> None:
    free = threading.Event()
    held, quick = _Slow(lambda: free.wait(60)), _At()

    def progress(done: int, total: int) -> None:
        if done == 40:
            until(lambda: quick.indices)
            free.set()

    summary = run_squares(stream_server.url("stream"), sinks=[held, quick], limit=60, progress=progress)
    assert (summary.frames, summary.ended, summary.faults) == (60, "limit", ())
    assert free.is_set() and len(quick.indices) + summary.dropped.get("_At", 0) == 60
    assert summary.dropped["_Slow"] + len(held.indices) == 60
    assert summary.dropped["_Slow"] >= 40 - WAITING - 1


def test_a_sink_that_fails_is_reported_once_and_the_others_go_on(run_squares: Any, stream_server: StreamServer) -> None:
    def fail() -> None:
        raise StorageError("the disk is full")

    broken, well = _Slow(fail), _At()
    summary = run_squares(stream_server.url("stream"), sinks=[broken, well], limit=12)
    assert summary.faults == ("_Slow: the disk is full",)
    assert len(broken.indices) == 1 and len(well.indices) + summary.dropped.get("_At", 0) == 12


def test_a_run_whose_every_file_failed_ends_with_the_error(
    run_squares: Any, stream_server: StreamServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(100, 100, 0))
        with pytest.raises(StorageError, match="disk is full"):
            run_squares(stream_server.url("stream"), record=tmp_path / "out.mp4", limit=500)
        both = {"record": tmp_path / "out.mp4", "jsonl": tmp_path / "out.jsonl"}
        summary = run_squares(stream_server.url("stream"), limit=12, **both)
    assert [fault.split(":")[0] for fault in summary.faults] == ["record"]
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 12


def test_a_stuck_sink_does_not_keep_a_run_from_ending(run_squares: Any, stream_server: StreamServer) -> None:
    free = threading.Event()
    stuck, well = _Slow(lambda: free.wait(20)), _At()
    start = time.monotonic()
    summary = run_squares(stream_server.url("stream"), sinks=[stuck, well], limit=5)
    closing_s = time.monotonic() - start - summary.wall_s
    free.set()
    assert len(well.indices) == 5
    assert "still busy" in summary.faults[0]
    assert closing_s < 10  # it waits for 20


@pytest.mark.server
def test_a_live_recording_goes_on_when_the_stream_comes_back_in_another_size(run_squares: Any, tmp_path: Path) -> None:
    server = StreamServer(tmp_path)
    server.start()
    port, sizes = server.server_address[1], []

    def restart() -> None:
        nonlocal server
        if len(watch.indices) == 8:
            server.kill()
            server = StreamServer(tmp_path, port=port, scale=2)
            server.start()

    class Watch(_At):
        def deliver(self, frame: Frame, result: Any, annotated: Annotated) -> None:
            sizes.append(frame.image.shape[:2])
            super().deliver(frame, result, annotated)

    watch = Watch(restart)
    summary = run_squares(server.url("stream"), record=tmp_path / "out.mp4", sinks=[watch], limit=30)
    server.kill()
    assert summary.faults == ()
    assert {(HEIGHT_PX, WIDTH_PX), (2 * HEIGHT_PX, 2 * WIDTH_PX)} == set(sizes)
    assert count_frames(tmp_path / "out.mp4") >= 10
    assert any("was opened again" in remark for remark in summary.remarks)


def test_a_signal_ends_a_live_run_with_its_files_closed(
    run_squares: Any, stream_server: StreamServer, tmp_path: Path
) -> None:
    signalled_s: list[float] = []

    def stop() -> None:
        if len(watch.indices) == 30:
            signalled_s.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)

    watch = _At(stop)
    both = {"record": tmp_path / "out.mp4", "jsonl": tmp_path / "out.jsonl"}
    summary = run_squares(stream_server.url("stream"), sinks=[watch], **both)
    assert time.monotonic() - signalled_s[0] < 15  # 2 on a machine that has time
    assert summary.ended == "SIGTERM"
    assert count_frames(tmp_path / "out.mp4") >= 1
    assert all(json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines())
