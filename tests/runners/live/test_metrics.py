"""Metrics are those of the run, are there while it runs, and are gone afterwards."""

from __future__ import annotations

import socket
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'edgecnn[live]'")

import numpy as np
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from edgecnn.cli import _main
from edgecnn.errors import DeviceError, SpecError
from edgecnn.results import Classification, Detections, Result, SegmentationMap
from edgecnn.runners.live.frame import Frame, frame_now
from edgecnn.runners.live.loop.counters import Durations, LiveCounters
from edgecnn.runners.live.run_summary import RunStart
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.address import parse_address
from edgecnn.runners.live.sinks.metrics import MetricsSink

from .conftest import LABELS, StreamServer, square_frame, write_video

pytestmark = pytest.mark.server


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def fetch(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
        text: str = answer.read().decode()
    return text


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(family: Metric, name: str = "", **labels: str) -> float:
    """The one sample of this name that has these labels."""
    found = [s.value for s in family.samples if s.name == (name or s.name) and labels.items() <= s.labels.items()]
    assert len(found) == 1, family.samples
    return float(found[0])


class Fetcher:
    """A sink that fetches once, at one result."""

    def __init__(self, port: int, at: int) -> None:
        self.port, self.at = port, at
        self.seen = 0
        self.text = ""

    def deliver(self, frame: Frame, result: Any, annotated: Annotated) -> None:
        self.seen += 1
        if self.seen == self.at:
            self.text = fetch(self.port)

    def __enter__(self) -> Fetcher:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_fetched_during_a_run_they_agree_with_its_counters(run_squares: Any, tmp_path: Path) -> None:
    port = free_port()
    fetcher = Fetcher(port, at=20)
    source = write_video(tmp_path / "in.avi", frames=20)
    summary = run_squares(source, metrics=port, sinks=[fetcher])
    assert summary.frames == 20
    found = families(fetcher.text)
    assert value(found["edgecnn_frames"], "edgecnn_frames_total") == 20
    assert value(found["edgecnn_dropped"], "edgecnn_dropped_total", stage="camera") == 0
    stages = found["edgecnn_stage_seconds"]
    for stage in ("capture", "fit", "infer", "finish"):
        assert value(stages, "edgecnn_stage_seconds_count", stage=stage) == 20
    assert value(stages, "edgecnn_stage_seconds_count", stage="deliver") == 19  # the last is being delivered
    assert value(stages, "edgecnn_stage_seconds_sum", stage="infer") == pytest.approx(20 * 2e-6)
    assert value(stages, "edgecnn_stage_seconds_bucket", stage="infer", le="0.001") == 20
    assert value(found["edgecnn_result_age_seconds"], "edgecnn_result_age_seconds_count") == 20
    assert value(found["edgecnn_objects"], label="square") == 1
    info = found["edgecnn_run_info"].samples[0].labels
    assert (info["source"], info["task"], info["precision"]) == (str(source), "detect", "fp32")
    assert "process_resident_memory_bytes" in found
    with socket.create_server(("127.0.0.1", port)):  # free again
        pass


def test_a_stream_counts_its_drops_and_hides_its_login(run_squares: Any, stream_server: StreamServer) -> None:
    port = free_port()
    fetcher = Fetcher(port, at=12)

    def start(begun: RunStart) -> None:
        inner = begun.runner
        inner.seconds = 0.06  # type: ignore[attr-defined]

    summary = run_squares(
        stream_server.url("stream?key=geheim", login="admin:geheim@"),
        metrics=f"127.0.0.1:{port}",
        mqtt=f"mqtt://admin:geheim@127.0.0.1:{free_port()}/door",
        sinks=[fetcher],
        limit=12,
        on_start=start,
    )
    found = families(fetcher.text)
    dropped = {
        stage: value(found["edgecnn_dropped"], "edgecnn_dropped_total", stage=stage)
        for stage in ("camera", "infer", "deliver", "late", "mqtt")
    }
    assert 0 < dropped["camera"] + dropped["infer"] <= summary.dropped["camera"] + summary.dropped["infer"]
    assert 0 < dropped["mqtt"] <= 12  # the last may still be on their way to that sink
    assert dropped["late"] == 0
    assert value(found["edgecnn_faults"], "edgecnn_faults_total", sink="mqtt") == 1
    assert "geheim" not in fetcher.text and "admin" not in fetcher.text


def test_a_taken_port_is_a_clear_error(run_squares: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_video(tmp_path / "in.avi", frames=2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=rf"127\.0\.0\.1:{port}: Address already in use; choose another port"):
            run_squares(source, metrics=port)
        assert _main.main(["run", "no.edge", str(source), "--metrics", str(port)]) == 3
    assert "choose another port" in " ".join(capfd.readouterr().err.split())


def test_the_server_ends_with_the_sink() -> None:
    before = set(threading.enumerate())
    sink = MetricsSink(0, counters=LiveCounters(), dropped={}, faults={}, info={"source": "test"})
    with sink:
        url = str(sink.url)
        text = urllib.request.urlopen(url, timeout=60).read().decode()
    assert url.startswith("http://127.0.0.1:")
    assert value(families(text)["edgecnn_frames"]) == 0
    assert "edgecnn_objects" not in text  # nothing was seen yet
    assert not [thread for thread in set(threading.enumerate()) - before if "serve_forever" in thread.name]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=60)


def test_what_the_newest_result_holds() -> None:
    frame = frame_now(square_frame(0), 0, "test")
    two = Detections(np.zeros((2, 4), np.float32), np.full(2, 0.5, np.float32), np.array([1, 1]), LABELS)
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), LABELS)
    best = Classification(np.array([1, 0]), np.array([0.75, 0.25], np.float32), LABELS)
    ground = SegmentationMap(np.zeros((4, 4), np.uint8), LABELS)

    def fetched(*results: Result) -> dict[str, Metric]:
        with MetricsSink(0, counters=LiveCounters(), dropped={}, faults={}, info={}) as sink:
            assert sink.url
            for result in results:
                sink.deliver(frame, result, Annotated(lambda: frame.image))
                text = urllib.request.urlopen(sink.url, timeout=60).read().decode()
        return families(text)

    found = fetched(two)
    assert value(found["edgecnn_objects"], label="circle") == 2
    assert value(found["edgecnn_last_frame_timestamp_seconds"]) == pytest.approx(frame.captured_unix_ns / 1e9)
    assert value(fetched(two, none)["edgecnn_objects"], label="circle") == 0  # a series stays
    assert value(fetched(best)["edgecnn_class_score"], label="circle") == 0.75
    assert value(fetched(ground)["edgecnn_area_ratio"], label="square") == 1


def test_addresses() -> None:
    assert parse_address(9109, "metrics") == ("127.0.0.1", 9109)
    assert parse_address("0.0.0.0:9109", "metrics") == ("0.0.0.0", 9109)
    assert parse_address("[::1]:9109", "metrics") == ("::1", 9109)
    for wrong in ("", "host", "host:", "70000", "-1", "1.5"):
        with pytest.raises(SpecError, match=r"PORT or HOST:PORT"):
            parse_address(wrong, "metrics")


def test_durations_are_counted_up_to_a_bound() -> None:
    samples = np.random.default_rng(1).lognormal(16, 1, 5000).astype(np.int64)
    durations = Durations()
    for sample in samples.tolist():
        durations.add(sample)
    for bound_ns in (1_000_000, 5_000_000, 10_000_000, 100_000_000):
        fewer, more = (int((samples <= bound_ns * factor).sum()) for factor in (0.99, 1.01))
        assert fewer <= durations.at_most(bound_ns) <= more
    assert durations.at_most(0) == 0
    assert durations.at_most(10**15) == 5000
