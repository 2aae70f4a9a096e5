"""The loop: each frame with its own result, the newest of a live source, and durations that add up."""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from edgecnn.errors import DataError, DeviceError, SpecError
from edgecnn.results import Detections, Result, UInt8Array
from edgecnn.runners.live.camera import open_camera
from edgecnn.runners.live.loop import STAGES, Durations, LiveCounters, live

from .conftest import SquareRunner, StreamServer, square_at, write_video


def _corner(result: Result) -> tuple[float, ...]:
    assert isinstance(result, Detections)
    return tuple(result.boxes_xyxy_px[0, :2].tolist())


def test_every_frame_of_a_file_meets_its_own_result(tmp_path: Path) -> None:
    counters = LiveCounters()
    with open_camera(write_video(tmp_path / "square.avi", frames=25)) as camera:
        found = [(frame.index, _corner(result)) for frame, result in live(camera, SquareRunner(), counters=counters)]
    assert found == [(index, square_at(index)) for index in range(25)]
    assert counters.frames == 25
    assert set(counters.stages) == set(STAGES)
    assert all(durations.count == 25 for durations in counters.stages.values())
    assert counters.stages["infer"].total_ns == 25 * 2000


def test_a_slow_network_drops_frames_of_a_stream_and_stays_fresh(stream_server: StreamServer) -> None:
    counters = LiveCounters()
    indices = []
    with open_camera(stream_server.url("stream")) as camera:
        for frame, result in live(camera, SquareRunner(0.08), counters=counters):
            indices.append(frame.index)
            assert _corner(result) == pytest.approx(square_at(frame.index), abs=2)
            if len(indices) == 8:
                break
        assert camera.dropped + counters.dropped["infer"] >= 10
    assert np.all(np.diff(indices) >= 1)
    assert counters.age.percentile_ms(50) < 80 + 20 + 40  # one inference, one frame interval, and some room
    assert counters.stages["deliver"].count == 8  # the last one too, after which the consumer left


def test_a_slow_consumer_gets_the_newest_result_and_holds_nobody_back(stream_server: StreamServer) -> None:
    counters = LiveCounters()
    indices, ages_ms = [], []
    with open_camera(stream_server.url("stream")) as camera:
        for frame, _ in live(camera, SquareRunner(), counters=counters):
            indices.append(frame.index)
            ages_ms.append(frame.age_ns / 1e6)
            if len(indices) == 6:
                break
            time.sleep(0.1)
    assert counters.dropped["deliver"] >= 10
    assert max(ages_ms[1:]) < 300, "results that wait in a row would be half a second old by now"
    assert np.median(np.diff(indices)) >= 3


def test_inference_goes_on_while_the_consumer_works(tmp_path: Path) -> None:
    begun = [threading.Event() for _ in range(12)]

    class Watched(SquareRunner):
        def __call__(self, image: UInt8Array) -> Detections:
            next(event for event in begun if not event.is_set()).set()
            return super().__call__(image)

    with open_camera(write_video(tmp_path / "square.avi", frames=12)) as camera:
        for frame, _ in live(camera, Watched()):
            following = begun[min(frame.index + 1, 11)]
            assert following.wait(20), "the next inference waits for the consumer"


def test_what_is_older_than_allowed_is_dropped_and_counted(stream_server: StreamServer) -> None:
    counters, ages_ms = LiveCounters(), []
    slow = iter([0.12, 0.0, 0.12, 0.0, 0.0, 0.12] + [0.0] * 1000)

    class Uneven(SquareRunner):
        def __call__(self, image: UInt8Array) -> Detections:
            self.seconds = next(slow)
            return super().__call__(image)

    with open_camera(stream_server.url("stream")) as camera:
        for frame, _ in live(camera, Uneven(), max_age_ms=80, counters=counters):
            ages_ms.append(frame.age_ns / 1e6)
            if len(ages_ms) == 12:
                break
    assert counters.dropped["late"] >= 3
    assert max(ages_ms) < 80 + 200  # read a moment later
    with pytest.raises(SpecError, match="max_age_ms must be positive"):
        next(live(camera, SquareRunner(), max_age_ms=0))


def test_several_cameras_get_their_turns(stream_server: StreamServer, tmp_path: Path) -> None:
    with (
        open_camera(stream_server.url("stream")) as one,
        open_camera(stream_server.url("stream?2")) as other,
        contextlib.closing(live([one, other], SquareRunner(0.03))) as results,
    ):
        sources = [frame.source for frame, _ in itertools.islice(results, 20)]
    assert sources.count(one.name) in range(8, 13)
    assert {one.name, other.name} == set(sources)


def test_of_several_recordings_every_frame_is_answered_and_a_broken_one_told_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"rubbish")
    seen = []
    with (
        open_camera(write_video(tmp_path / "square.avi", frames=9)) as video,
        open_camera(tmp_path / "bad") as broken,
        pytest.raises(DataError, match=r"a\.png"),
    ):
        for frame, _ in live([broken, video], SquareRunner()):
            seen.append(frame.index)
    assert seen == list(range(9))


def test_an_error_of_the_network_ends_the_loop_and_no_thread_stays(tmp_path: Path) -> None:
    class Broken(SquareRunner):
        def __call__(self, image: UInt8Array) -> Detections:
            raise DeviceError("the accelerator is gone")

    with open_camera(write_video(tmp_path / "square.avi", frames=9)) as camera:
        with pytest.raises(DeviceError, match="accelerator is gone"):
            next(live(camera, Broken()))
        assert _threads_of_loops() == []


def test_a_loop_that_is_left_lets_the_network_go(stream_server: StreamServer) -> None:
    busy = threading.Event()

    class Watched(SquareRunner):
        def __call__(self, image: UInt8Array) -> Detections:
            busy.set()
            found = super().__call__(image)
            busy.clear()
            return found

    with open_camera(stream_server.url("stream")) as camera:
        for _ in live(camera, Watched(0.05)):
            break
        assert not busy.is_set()
        time.sleep(0.1)
        assert not busy.is_set()
    assert _threads_of_loops() == []


def _threads_of_loops() -> list[str]:
    """Those that still run a moment later."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        names = [t.name for t in threading.enumerate() if t.name.startswith(("watch ", "infer"))]
        if not names:
            break
        time.sleep(0.01)
    return names


def test_errors_of_the_source_reach_the_consumer(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"rubbish")
    with open_camera(tmp_path) as camera, pytest.raises(DataError, match=r"a\.png"):
        next(live(camera, SquareRunner()))


def test_percentiles_are_those_of_the_samples_to_one_percent() -> None:
    samples = np.random.default_rng(1).lognormal(16, 1, 5000).astype(np.int64)
    durations = Durations()
    for sample in samples.tolist():
        durations.add(sample)
    for percent in (1, 50, 90, 99, 100):
        exact = float(np.percentile(samples, percent, method="inverted_cdf")) / 1e6
        assert durations.percentile_ms(percent) == pytest.approx(exact, rel=0.01)
    assert durations.total_ns == int(samples.sum())


def test_durations_outside_the_range_count_as_its_ends() -> None:
    durations = Durations()
    assert math.isnan(durations.percentile_ms(50))
    durations.add(0)
    durations.add(10**15)
    assert durations.percentile_ms(50) == pytest.approx(1e-4, rel=0.01)
    assert durations.percentile_ms(100) == pytest.approx(1e7, rel=0.02)
