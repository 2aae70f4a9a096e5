"""The loop: each frame with its own result, the newest of a live source, and durations that add up."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgecnn.errors import DataError
from edgecnn.results import Detections, Result
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
        assert camera.dropped >= 10
    assert np.all(np.diff(indices) >= 1)
    assert counters.age.percentile_ms(50) < 80 + 20 + 40  # one inference, one frame interval, and some room
    assert counters.stages["deliver"].count == 8  # the last one too, after which the consumer left


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
