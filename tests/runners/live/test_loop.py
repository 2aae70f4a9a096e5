"""The loop: each frame with its own result, the newest of a live source, and durations that add up."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from edgecnn.errors import DataError, DeviceError, SpecError
from edgecnn.results import Detections, Result, UInt8Array
from edgecnn.runners.live.cameras.camera import open_camera
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.loop.counters import STAGES, Durations, LiveCounters
from edgecnn.runners.live.loop.newest import live

from .conftest import HeldRunner, ScriptedCamera, SquareRunner, StreamServer, square_at, until, write_video


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


def test_a_slow_network_drops_frames_of_a_stream_and_says_the_truth_of_the_others(stream_server: StreamServer) -> None:
    counters = LiveCounters()
    indices = []
    with open_camera(stream_server.url("stream")) as camera:
        for frame, result in live(camera, SquareRunner(0.08), counters=counters):
            indices.append(frame.index)
            assert _corner(result) == pytest.approx(square_at(frame.index), abs=2)
            if len(indices) >= 4 and camera.dropped + counters.dropped["infer"] >= 10:
                break
    assert (np.diff(indices) >= 1).all() and (np.diff(indices) > 1).any()
    assert counters.stages["deliver"].count == len(indices)  # the last one too, after which the consumer left


def test_a_slow_network_gets_the_newest_frame_next() -> None:
    counters, runner = LiveCounters(), HeldRunner()
    with ScriptedCamera() as camera, _one_by_one(live(camera, runner, counters=counters)) as answer:
        camera.show()
        first = answer()
        until(lambda: runner.begun == [(0, 0)])
        camera.show(9)
        until(lambda: counters.dropped["infer"] == 8)
        runner.let()
        assert first.result(60)[0].index == 0
        runner.let()
        assert answer().result(60)[0].index == 9
    assert runner.begun == [(0, 0), (0, 9)]
    assert counters.dropped == {"infer": 8, "deliver": 0, "late": 0}


def test_a_slow_consumer_gets_the_newest_result_and_delays_nothing_else() -> None:
    counters, runner = LiveCounters(), HeldRunner(held=False)
    with ScriptedCamera() as camera, contextlib.closing(live(camera, runner, counters=counters)) as results:
        camera.show()
        assert next(results)[0].index == 0
        for index in range(1, 10):  # the consumer is busy; the network answers all the same
            camera.show()
            until(lambda: counters.dropped["deliver"] == index - 1 and len(runner.begun) == index + 1)  # noqa: B023
        frame, result = next(results)
        until(lambda: counters.dropped["deliver"] == 8)
    assert runner.begun == [(0, index) for index in range(10)]
    assert (frame.index, _corner(result)) == (9, (0, 9))
    assert counters.dropped == {"infer": 0, "deliver": 8, "late": 0}


def test_inference_goes_on_while_the_consumer_works(tmp_path: Path) -> None:
    begun = [threading.Event() for _ in range(12)]

    class Watched(SquareRunner):
        def __call__(self, frame: UInt8Array | Frame) -> Detections:
            next(event for event in begun if not event.is_set()).set()
            return super().__call__(frame)

    with open_camera(write_video(tmp_path / "square.avi", frames=12)) as camera:
        for frame, _ in live(camera, Watched()):
            following = begun[min(frame.index + 1, 11)]
            assert following.wait(20), "the next inference waits for the consumer"


def test_what_is_older_than_allowed_is_dropped_and_counted() -> None:
    counters, runner = LiveCounters(), HeldRunner(held=False)
    with (
        ScriptedCamera() as camera,
        contextlib.closing(live(camera, runner, max_age_ms=60_000, counters=counters)) as results,
    ):
        found: list[int] = []
        for index, old in enumerate((False, True, True, False, True, False)):
            camera.show(age_ms=120_000 * old)
            if old:
                until(lambda: sum(counters.dropped.values()) == index - len(found) + 1)  # noqa: B023
            else:
                found.append(next(results)[0].index)
    assert found == [0, 3, 5]
    assert (0, 1) not in runner.begun, "what is late is not even looked at"
    assert counters.dropped == {"infer": 0, "deliver": 0, "late": 3}
    with pytest.raises(SpecError, match="max_age_ms: expected a positive number"):
        next(live(camera, runner, max_age_ms=0))


def test_a_result_that_became_too_old_in_the_network_is_dropped() -> None:
    counters, runner = LiveCounters(), HeldRunner()
    with ScriptedCamera() as camera, _one_by_one(live(camera, runner, max_age_ms=300, counters=counters)) as answer:

        def show_until(so: Callable[[], object]) -> int:
            """More frames, for those that came late; the last one's index."""
            while True:
                last = camera.show()
                until(lambda: so() or counters.dropped["late"] > last)  # noqa: B023
                if so():
                    return last

        found = answer()
        last = show_until(lambda: runner.begun)  # the first, unless the machine takes longer than that for a frame
        time.sleep(0.31)
        runner.let()
        until(lambda: counters.dropped["late"] == last + 1)
        runner.let(1000)
        last = show_until(found.done)
        assert found.result()[0].index == last


@contextlib.contextmanager
def _one_by_one(
    results: Generator[tuple[Frame, Result], None, None],
) -> Iterator[Callable[[], Future[tuple[Frame, Result]]]]:
    """Asks a loop for its next answer in a thread, so that the test can go on meanwhile."""
    with ThreadPoolExecutor(1) as asking, contextlib.closing(results):
        yield lambda: asking.submit(next, results)


def test_several_cameras_share_a_network_in_turns() -> None:
    cameras, counters = [ScriptedCamera(number) for number in range(3)], LiveCounters()

    class Crowded(HeldRunner):
        """While it answers one frame, each camera gives two more: there is always one of each waiting."""

        def __call__(self, frame: UInt8Array | Frame) -> Detections:
            if len(self.begun) < 12:
                replaced = counters.dropped["infer"] + (5 if self.begun else 3)
                for camera in cameras:
                    camera.show(2)
                until(lambda: counters.dropped["infer"] == replaced)
            return super().__call__(frame)

    runner = Crowded(held=False)
    cameras[0].show()
    with contextlib.closing(live(cameras, runner, counters=counters)) as results:
        for frame, result in results:
            assert _corner(result) == (int(frame.source[-1]), frame.index)
            if len(runner.begun) > 12:
                break
    turns = [number for number, _ in runner.begun]
    assert turns == [turn % 3 for turn in range(len(turns))]
    for camera in cameras:
        camera.close()
    assert _threads_of_loops() == []


def test_several_streams_are_all_answered(stream_server: StreamServer) -> None:
    with (
        open_camera(stream_server.url("stream")) as one,
        open_camera(stream_server.url("stream?2")) as other,
        contextlib.closing(live([one, other], SquareRunner(0.01))) as results,
    ):
        seen: set[str] = set()
        for frame, result in results:
            seen.add(frame.source)
            assert _corner(result) == pytest.approx(square_at(frame.index), abs=2)
            if len(seen) == 2:
                break


def test_of_several_recordings_every_frame_is_answered_and_a_broken_one_reported_at_the_end(tmp_path: Path) -> None:
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
        def __call__(self, frame: UInt8Array | Frame) -> Detections:
            raise DeviceError("the accelerator is gone")

    with open_camera(write_video(tmp_path / "square.avi", frames=9)) as camera:
        with pytest.raises(DeviceError, match="accelerator is gone"):
            next(live(camera, Broken()))
        assert _threads_of_loops() == []


def test_a_loop_that_is_left_lets_the_network_go(stream_server: StreamServer) -> None:
    busy = threading.Event()
    calls: list[int] = []

    class Watched(SquareRunner):
        def __call__(self, frame: UInt8Array | Frame) -> Detections:
            busy.set()
            calls.append(1)
            found = super().__call__(frame)
            busy.clear()
            return found

    with open_camera(stream_server.url("stream")) as camera:
        for _ in live(camera, Watched(0.05)):
            break
        assert not busy.is_set()
        made = len(calls)
        assert _threads_of_loops() == []
        assert len(calls) == made, "the network was used after the loop was left"


def _threads_of_loops() -> list[str]:
    """Those that don't end."""

    def names() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith(("watch ", "infer"))]

    with contextlib.suppress(AssertionError):
        until(lambda: not names(), seconds=30)
    return names()


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
