"""An object keeps its id while it moves, while it is hidden for a moment and while frames are dropped."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn._verbs import run as verb
from edgecnn._verbs.run import run
from edgecnn.cli._main import main
from edgecnn.errors import DataError, MissingDependencyError, SpecError
from edgecnn.results import Classification, Detections, Instances, Result, UInt8Array
from edgecnn.runners.live.frame import Frame, frame_now
from edgecnn.runners.live.loop.newest import live
from edgecnn.runners.live.tracking.counting import LineCounter
from edgecnn.runners.live.tracking.tracked_runner import TrackedRunner
from edgecnn.runners.live.tracking.tracker import UNTRACKED, Tracker
from edgecnn.runners.runner import StageTimes
from edgecnn.tasks import Classify, Detect, InstanceSegment, Segment

from .conftest import (
    HEIGHT_PX,
    WIDTH_PX,
    OpenRunner,
    ScriptedCamera,
    SquareRunner,
    StreamServer,
    square_frame,
    write_video,
)

pytest.importorskip("edgefirst.tracker", reason="needs edgefirst-tracker: pip install 'edgecnn[track]'")
LABELS = ("square", "circle")
STEP_NS = 40_000_000


def seen(
    *centres: tuple[float, float], side_px: float = 40, scores: Sequence[float] = (), class_ids: Sequence[int] = ()
) -> Detections:
    """Squares at these places."""
    places = np.array(centres, np.float32).reshape(-1, 2)
    boxes = np.concatenate([places - side_px / 2, places + side_px / 2], axis=1)
    count = len(places)
    return Detections(
        boxes,
        np.array(scores or [0.9] * count, np.float32),
        np.array(class_ids or [0] * count, np.int64),
        LABELS,
    )


def ids_of(found: Detections) -> list[int]:
    assert found.track_ids is not None
    ids: list[int] = found.track_ids.tolist()
    return ids


def test_an_object_gets_an_id_when_it_is_seen_a_second_time_and_keeps_it() -> None:
    tracker = Tracker(fps=25)
    ids = [ids_of(tracker(seen((50 + 5 * index, 80)))) for index in range(60)]
    assert ids == [[UNTRACKED]] + [[1]] * 59


def test_every_box_is_handed_back_in_its_place_with_what_belongs_to_it() -> None:
    tracker = Tracker()
    given = seen((50, 50), (300, 300), (600, 90), scores=(0.9, 0.7, 0.2), class_ids=(0, 1, 0))
    tracker(given)
    found = tracker(given)
    assert ids_of(found) == [1, 2, UNTRACKED]  # the third scores too little to be the first of an object
    assert found.track_ids is not None and found.track_ids.dtype == np.int64
    for name in ("boxes_xyxy_px", "scores", "class_ids", "labels"):
        assert getattr(found, name) is getattr(given, name)
    assert given.track_ids is None


def test_objects_that_pass_each_other_keep_their_ids() -> None:
    tracker = Tracker(fps=25)
    ids = [ids_of(tracker(seen((100 + 6 * index, 100), (400 - 6 * index, 125)))) for index in range(50)]
    assert set(map(tuple, ids[1:])) == {(1, 2)}


@pytest.mark.parametrize("hidden_frames", [1, 5, 15])
def test_an_object_that_is_hidden_for_some_frames_is_found_again(hidden_frames: int) -> None:
    tracker = Tracker(fps=25)
    nothing = seen()
    ids = []
    for index in range(40 + hidden_frames):
        hidden = 20 <= index < 20 + hidden_frames
        ids.append(ids_of(tracker(nothing if hidden else seen((50 + 4 * index, 80)))))
    assert ids[-1] == [1]
    assert ids[20] == []


def test_an_object_that_was_away_for_long_is_another() -> None:
    tracker = Tracker(fps=25, keep_lost_s=1)
    for index in range(3):
        tracker(seen((50, 50)), captured_ns=index * STEP_NS)
    back = [ids_of(tracker(seen((50, 50)), captured_ns=10**10 + index * STEP_NS)) for index in range(2)]
    assert back == [[UNTRACKED], [2]]


def test_weak_boxes_of_a_followed_object_keep_its_id() -> None:
    tracker = Tracker(fps=25)
    ids = [ids_of(tracker(seen((50 + index, 80), scores=(0.9 if index < 5 else 0.15,)))) for index in range(20)]
    assert ids[-1] == [1]


def test_an_object_that_changes_its_class_keeps_its_id() -> None:
    tracker = Tracker(fps=25)
    ids = [ids_of(tracker(seen((50, 80), class_ids=(index % 2,)))) for index in range(10)]
    assert ids[1:] == [[1]] * 9


def test_dropped_frames_dont_break_a_fast_objects_way() -> None:
    numbers = np.random.default_rng(3)
    tracker = Tracker(fps=25)
    at, found = 0, []
    while at < 120:  # 12 px a frame, one to four frames apart: up to 48 px, more than the square's 40
        found.append(ids_of(tracker(seen((50 + 12 * at, 200)), captured_ns=at * STEP_NS)))
        at += int(numbers.integers(1, 3 if at < 12 else 5))
    assert set(map(tuple, found[1:])) == {(1,)}


def test_frames_without_boxes_or_with_equal_times_are_not_an_error() -> None:
    tracker = Tracker()
    assert ids_of(tracker(seen(), captured_ns=5)) == []
    for _ in range(3):
        found = tracker(seen((50, 50)), captured_ns=5)
    assert ids_of(found) == [1]


def test_what_is_gone_is_forgotten_so_that_a_camera_may_run_for_months() -> None:
    tracker = Tracker(fps=25)
    numbers = np.random.default_rng(1)
    for _ in range(300):
        place = numbers.uniform(50, 5000, 2)
        tracker(seen((float(place[0]), float(place[1]))))
    assert len(tracker._ids) <= 30  # a second's


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"fps": 0}, "fps: expected a number above 0, got 0"),
        ({"fps": float("nan")}, "fps"),
        ({"keep_lost_s": -1}, "keep_lost_s"),
        ({"start_score": 1.5}, r"start_score: expected a number in 0\.\.1, got 1\.5"),
    ],
)
def test_impossible_settings_are_refused(words: dict[str, float], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Tracker(**words)


def test_without_the_package_the_error_names_the_extra(without: Callable[..., None]) -> None:
    without("edgefirst", "edgefirst.tracker")
    with pytest.raises(MissingDependencyError, match=r"edgefirst-tracker.*edgecnn\[track\]"):
        Tracker()


class _OpenSquareRunner(SquareRunner):
    """What `open_runner` gives, as far as `run` looks at it."""

    format, precision, why_chosen = "fake", "fp32", ""
    backend = OpenRunner.backend

    def __init__(self, task: Any = None, result: Result | None = None) -> None:
        super().__init__()
        self.task = task or Detect(labels=("square",))
        self.result = result

    def __call__(self, frame: UInt8Array | Frame) -> Any:
        return self.result if self.result is not None else super().__call__(frame)

    def __enter__(self) -> _OpenSquareRunner:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def _tracked(runner: Any, **words: Any) -> TrackedRunner:
    return TrackedRunner(runner, Tracker(fps=20), **words)


def test_tracking_is_part_of_the_stage_that_finishes() -> None:
    runner = _tracked(_OpenSquareRunner())
    image = np.full((HEIGHT_PX, WIDTH_PX, 3), 255, np.uint8)
    runner(image)
    assert runner.stage_times.infer_ns == 2000
    assert runner.stage_times.finish_ns > 3000
    assert isinstance(runner.stage_times, StageTimes)


def test_a_tracked_runner_takes_what_a_runner_takes_and_remembers_it(tmp_path: Path) -> None:
    from PIL import Image

    images = [square_frame(index) for index in range(3)]
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), image)
    frames = [frame_now(image, index, "camera") for index, image in enumerate(images)]
    for sequence in (images, tuple(frames), paths, [Image.open(path) for path in paths], np.stack(images)):
        runner: Any = _tracked(_OpenSquareRunner())
        found = runner(sequence)
        assert [each.track_ids.tolist() for each in found] == [[-1], [1], [1]]
        pictures = [each.picture for each in found]
        if isinstance(sequence, tuple):
            assert pictures == [None] * 3, "the live loop keeps no pictures"
        else:
            assert all((picture == image).all() for picture, image in zip(pictures, images, strict=True))
    with pytest.raises(DataError, match="absent"):
        _tracked(_OpenSquareRunner())("absent.png")
    with pytest.raises(SpecError, match="a picture must be"):
        runner(3)


def test_instances_are_tracked_by_their_boxes() -> None:
    masks = np.zeros((1, HEIGHT_PX, WIDTH_PX), np.bool_)
    task = InstanceSegment(labels=LABELS)
    runner = _tracked(_OpenSquareRunner(task, Instances(seen((50, 50)), masks)))
    image = np.zeros((HEIGHT_PX, WIDTH_PX, 3), np.uint8)
    runner(image)
    found = runner(image)
    assert isinstance(found, Instances)
    assert ids_of(found.detections) == [1]
    assert found.masks is masks


@pytest.mark.parametrize("task", [Classify(labels=LABELS), Segment(labels=LABELS)], ids=lambda task: task.name)
def test_a_network_that_finds_no_objects_cant_track(task: Any) -> None:
    scores = Classification(np.array([0]), np.array([1.0], np.float32), LABELS)
    with pytest.raises(SpecError, match=f"detector's objects.*task is {task.name}"):
        _tracked(_OpenSquareRunner(task, scores))


def test_a_source_that_changes_its_size_is_refused_where_places_count() -> None:
    runner = _tracked(_OpenSquareRunner(), counters=[LineCounter((10, 0), (10, 50))])
    runner(np.full((HEIGHT_PX, WIDTH_PX, 3), 255, np.uint8))
    with pytest.raises(DataError, match="changed from 160x120 to 320x240 px"):
        runner(np.full((2 * HEIGHT_PX, 2 * WIDTH_PX, 3), 255, np.uint8))


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A video of the moving square, and `run` with a network that finds it."""
    monkeypatch.setattr(verb, "open_runner", lambda *_, **__: _OpenSquareRunner())
    return write_video(tmp_path / "square.avi", frames=30)


def test_run_writes_ids_and_counts_to_every_sink(squares: Path, tmp_path: Path) -> None:
    lines = tmp_path / "seen.jsonl"
    plain, counted = tmp_path / "plain.avi", tmp_path / "counted.avi"
    run("no.edge", squares, track=True, record=plain)
    # the square's lower edge begins at 12,24 and goes 4 px right and 2 px down a frame
    summary = run(
        "no.edge",
        squares,
        count_lines="door=70,0,70,120",
        zones="40,0,100,0,100,120,40,120",
        record=counted,
        jsonl=lines,
    )
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [record["detections"][0]["track_id"] for record in records] == [None] + [1] * 29
    # who looks down the picture has its left edge at the right hand: the square leaves
    door = {"line": "door", "in": {}, "out": {"square": 1}}
    zone = {"zone": "zone 1", "inside": {}, "entered": {"square": 1}, "most_inside": 1}
    assert records[0]["counts"] == [{**door, "out": {}}, {**zone, "entered": {}, "most_inside": 0}]
    assert records[15]["counts"] == [door | {"out": {"square": 1}}, {**zone, "inside": {"square": 1}}]
    assert summary.counts == (door, zone)
    assert summary.remarks == ()
    assert plain.read_bytes() != counted.read_bytes()


def test_a_live_sources_objects_are_followed_by_the_clock(
    monkeypatch: pytest.MonkeyPatch, stream_server: StreamServer, tmp_path: Path
) -> None:
    monkeypatch.setattr(verb, "open_runner", lambda *_, **__: _OpenSquareRunner())
    lines = tmp_path / "live.jsonl"
    run("no.edge", stream_server.url("stream"), track=True, jsonl=lines, limit=12)
    ids = [json.loads(line)["detections"][0]["track_id"] for line in lines.read_text().splitlines()]
    assert len(ids) > 5 and ids[1:] == [1] * (len(ids) - 1)  # the first sighting may have given way to the second
    assert ids[0] in (None, 1)


def test_the_closing_table_shows_the_counts(squares: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "no.edge", str(squares), "--count-line", "door=70,0,70,120"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if "door" in line)
    assert row.split() == ["door", "square", "0", "1"]


def test_run_without_tracking_has_neither_ids_nor_counts(squares: Path, tmp_path: Path) -> None:
    lines = tmp_path / "seen.jsonl"
    summary = run("no.edge", squares, jsonl=lines, limit=3)
    records = [json.loads(line) for line in lines.read_text().splitlines()]
    assert all(record["detections"][0]["track_id"] is None and "counts" not in record for record in records)
    assert summary.counts == ()


def test_a_line_outside_the_picture_is_refused_at_the_first_frame(squares: Path) -> None:
    with pytest.raises(SpecError, match="'door' extends to 700,120, outside the picture of 160x120 px"):
        run("no.edge", squares, count_lines=["door=10,0,700,120"])


def test_boxes_that_are_all_too_weak_are_remarked(monkeypatch: pytest.MonkeyPatch, squares: Path) -> None:
    weak = _OpenSquareRunner(result=seen((50, 50), scores=(0.35,)))
    monkeypatch.setattr(verb, "open_runner", lambda *_, **__: weak)
    summary = run("no.edge", squares, track=True)
    (remark,) = summary.remarks
    assert remark.startswith("none of 30 boxes was tracked") and "0.4" in remark


class _Noting(Tracker):
    """Keeps where objects were seen, and when."""

    def __init__(self) -> None:
        super().__init__(fps=10)
        self.seen: list[tuple[float, int]] = []

    def __call__(self, found: Detections, *, captured_ns: int | None = None) -> Detections:
        assert captured_ns is not None
        self.seen.append((float(found.boxes_xyxy_px[0, 0]), captured_ns))
        return super().__call__(found, captured_ns=captured_ns)

    def speeds_px_s(self) -> list[float]:
        """From one frame to the next."""
        pairs = itertools.pairwise(self.seen)
        return [(x1 - x0) / ((ns1 - ns0) / 1e9) for (x0, ns0), (x1, ns1) in pairs]


class _UnevenRunner(_OpenSquareRunner):
    """What it finds moves 8 px a frame; it is busy for longer with some frames."""

    def __init__(self) -> None:
        super().__init__()
        self.called_ns: dict[int, list[int]] = {0: [], 1: []}

    def __call__(self, frame: UInt8Array | Frame) -> Any:
        assert isinstance(frame, Frame)
        number, index = int(frame.image[0, 0, 0]), int(frame.image[0, 0, 1])
        self.called_ns[number].append(time.monotonic_ns())
        time.sleep(0.15 if index in (2, 3) else 0.01)
        return seen((20 + 8.0 * index, 50), side_px=20)


def test_speeds_and_ages_of_cameras_that_share_a_busy_network_come_from_their_own_stamps() -> None:
    cameras, network, frames = [ScriptedCamera(0), ScriptedCamera(1)], _UnevenRunner(), 6
    trackers = [_Noting(), _Noting()]
    runners = [TrackedRunner(network, tracker, live=True) for tracker in trackers]  # type: ignore[arg-type]
    stamps: dict[str, list[int]] = {camera.name: [] for camera in cameras}
    results, start_ns = live(cameras, runners), time.monotonic_ns() - 1_000_000_000
    for index in range(frames):
        for camera in cameras:  # taken 100 ms after the last one, each; the network comes to it when it can
            camera.show(taken_ns=start_ns + 100_000_000 * index)
        for _ in cameras:
            frame, found = next(results)
            stamps[frame.source].append(frame.captured_ns)
            if index:
                assert isinstance(found, Detections) and ids_of(found) == [1]
    results.close()
    for camera in cameras:
        camera.close()
    for camera, tracker in zip(cameras, trackers, strict=True):
        assert [ns for _, ns in tracker.seen] == stamps[camera.name]
        assert tracker.speeds_px_s() == pytest.approx([80.0] * (frames - 1), rel=0.01)
    clock = np.diff(network.called_ns[0]) / 1e9  # what the time of the call would have said of the same frames
    assert np.ptp(8 / clock) > 40, "the network's clock is far off"


def test_a_recordings_own_time_says_how_far_frames_are_apart() -> None:
    tracker = _Noting()
    runner = TrackedRunner(_UnevenRunner(), tracker)  # type: ignore[arg-type]
    times_ms = (0, 100, 150, 400)  # a variable rate
    for index, ms in enumerate(times_ms):
        runner(frame_now(np.full((8, 8, 3), (0, index, 0), np.uint8), index, "a.mp4", media_ns=ms * 1_000_000))
    assert [ns // 1_000_000 for _, ns in tracker.seen] == list(times_ms)
