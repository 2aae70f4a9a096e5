"""Every kind of sink fault in one run: each is reported once, and nothing else is affected."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("paho.mqtt", reason="needs paho-mqtt: pip install 'edgecnn[live]'")
pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'edgecnn[live]'")

from edgecnn.errors import StorageError
from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated

from .conftest import StreamServer, count_frames, until, write_video
from .test_metrics import families, fetch, free_port, value
from .test_mqtt import AtCount, Broker, Listener, needs_broker

pytestmark = pytest.mark.server

DISK_MB = 24
_LEFT_BYTES = 300_000  # less than a few seconds of a recording


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is soon full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "edgecnn-test", str(folder)]
    with contextlib.suppress(FileNotFoundError):
        if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            try:
                yield folder
            finally:
                subprocess.run(["umount", str(folder)], check=True)
            return
    pytest.skip("needs root and mount, for a disk that fills up")


class Raising:
    """A sink that fails at its tenth result."""

    def __init__(self) -> None:
        self.seen = 0

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        self.seen += 1
        if self.seen == 10:
            raise RuntimeError("a mistake in somebody's program")
        assert self.seen < 10, "it failed, and gets nothing more"

    def __enter__(self) -> Raising:
        return self

    def __exit__(self, *error: object) -> None: ...


class Stuck(Raising):
    """A sink that never comes back from its first result."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        self.seen += 1
        self.free.wait(300)


@needs_broker
def test_each_fault_is_reported_once_and_counted_and_the_others_go_on(
    run_squares: Any, stream_server: StreamServer, small_disk: Path, tmp_path: Path
) -> None:
    broker, port, stuck = Broker(tmp_path), free_port(), Stuck()
    fetched: list[str] = []
    lines = tmp_path / "out.jsonl"

    def fill() -> None:
        room = shutil.disk_usage(small_disk).free - _LEFT_BYTES
        (small_disk / "others.bin").write_bytes(bytes(max(room, 0)))

    def all_has_happened() -> bool:
        if listener.of("door/status").count("online") < 2 or listener.of("door/result")[-1]["frame"] < back_at[0]:
            return False
        fetched.append(fetch(port))
        return all(
            value(families(fetched[-1])["edgecnn_faults"], "edgecnn_faults_total", sink=sink) == 1
            for sink in ("record", "Raising")
        )

    def come_back() -> None:
        back_at.append(json.loads(lines.read_text().splitlines()[-1])["frame"])
        broker.start()

    back_at: list[int] = []
    try:
        with Listener(broker.port) as listener:
            probe = AtCount({20: broker.stop, 30: fill, 40: come_back}, until=all_has_happened)
            summary = run_squares(
                stream_server.url("stream"),
                record=small_disk / "out.mp4",
                jsonl=lines,
                mqtt=broker.url("door"),
                metrics=port,
                sinks=[Raising(), stuck, probe],
                limit=20_000,
            )
    finally:
        stuck.free.set()
        broker.stop()
    assert summary.ended == "enough"
    assert sorted(fault.partition(":")[0] for fault in summary.faults) == ["Raising", "Stuck", "record"]
    reasons = {fault.partition(": ")[0]: fault.partition(": ")[2] for fault in summary.faults}
    assert "disk is full" in reasons["record"] and "somebody's program" in reasons["Raising"]
    assert "still busy" in reasons["Stuck"]
    assert [remark for remark in summary.remarks if "closed the connection" in remark] == [
        f"the MQTT broker 127.0.0.1:{broker.port} closed the connection; the run continues and tries to reconnect"
    ]
    assert count_frames(small_disk / "out.mp4") >= 1, "what was recorded can be played"
    indices = [json.loads(line)["frame"] for line in lines.read_text().splitlines()]
    assert indices == sorted(set(indices))
    assert len(indices) + summary.dropped.get("jsonl", 0) == summary.frames
    found = families(fetched[-1])
    assert value(found["edgecnn_faults"], "edgecnn_faults_total", sink="mqtt") == 1
    assert value(found["edgecnn_faults"], "edgecnn_faults_total", sink="jsonl") == 0
    assert value(found["edgecnn_dropped"], "edgecnn_dropped_total", stage="Stuck") > 0
    assert summary.dropped["Stuck"] > 0 and summary.dropped["record"] > 0


def test_a_disk_that_is_full_to_the_last_byte_ends_the_lines_and_nothing_else(
    run_squares: Any, stream_server: StreamServer, small_disk: Path
) -> None:
    def fill() -> None:
        with (small_disk / "others.bin").open("wb", buffering=0) as others, contextlib.suppress(OSError):
            while others.write(bytes(1 << 20)):
                pass
            while others.write(b"x"):
                pass

    def failures_counted() -> bool:  # a few frames later: the last page of what was written still has room
        return value(families(fetch(port))["edgecnn_faults"], "edgecnn_faults_total", sink="jsonl") == 1

    port, probe = free_port(), AtCount({20: fill}, until=failures_counted)
    summary = run_squares(
        stream_server.url("stream"), jsonl=small_disk / "out.jsonl", metrics=port, sinks=[probe], limit=20_000
    )
    assert summary.ended == "enough"
    assert [fault.partition(":")[0] for fault in summary.faults] == ["jsonl"]
    assert "disk is full" in summary.faults[0]
    whole = (small_disk / "out.jsonl").read_bytes().rpartition(b"\n")[0].splitlines()
    assert len(whole) >= 10 and all(json.loads(line) for line in whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_with_its_files_closed(
    stream_server: StreamServer, tmp_path: Path, number: signal.Signals
) -> None:
    lines, video = tmp_path / "out.jsonl", tmp_path / "out.mp4"
    command = [sys.executable, "-m", "edgecnn", "run", "default-detector", stream_server.url("stream")]
    with subprocess.Popen(
        [*command, "--jsonl", str(lines), "--record", str(video)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as program:
        until(
            lambda: program.poll() is not None or (lines.exists() and lines.read_bytes().count(b"\n") > 20), seconds=180
        )
        program.send_signal(number)
        out = program.communicate(timeout=60)[0]
    assert program.returncode == 128 + number, out.decode()
    assert count_frames(video) >= 1 and not list(tmp_path.glob(".*"))
    assert all(json.loads(line) for line in lines.read_text().splitlines())


@pytest.mark.parametrize("free_bytes", [0, 40_000])
def test_a_full_disk_leaves_whole_events_or_none(
    run_squares: Any, small_disk: Path, tmp_path: Path, free_bytes: int
) -> None:
    source = write_video(tmp_path / "in.avi", frames=60, fps=20)
    (small_disk / "others.bin").write_bytes(bytes(max(shutil.disk_usage(small_disk).free - free_bytes, 0)))
    folder = small_disk / "events"
    with contextlib.suppress(StorageError):
        run_squares(source, zones=["whole=0,0,160,0,160,120,0,120"], events=folder, event_after=0.3)
    files = [sorted(path.name for path in event.iterdir()) for event in folder.glob("*")]
    assert all(names == ["best.jpg", "clip.mp4", "event.json"] for names in files), files
    assert not list(folder.glob(".*"))
