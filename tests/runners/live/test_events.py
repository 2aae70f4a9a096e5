"""An object that stays in a zone becomes an event: whole or not there, kept within limits, told at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("edgefirst.tracker", reason="needs edgefirst-tracker: pip install 'edgecnn[track]'")

from edgecnn.errors import SpecError
from edgecnn.results import Detections, ZoneCount
from edgecnn.runners.live.sinks.events import KeepLimits
from edgecnn.runners.live.sinks.events.dwell import Dwell

from .conftest import write_video
from .test_mqtt import Broker, Listener, broker, needs_broker

__all__ = ["broker"]
WHOLE = "all=0,0,160,0,160,120,0,120"


def events(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def record(event: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((event / "event.json").read_text())
    return found


def test_an_event_is_a_clip_a_picture_and_a_record(run_squares: Any, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.avi", frames=33, fps=20)
    summary = run_squares(source, zones=[WHOLE], events=tmp_path / "events", event_after=0.5, event_before=0.3)
    (event,) = events(tmp_path / "events")
    assert sorted(path.name for path in event.iterdir()) == ["best.jpg", "clip.mp4", "event.json"]
    said = record(event)
    assert said["event"] == event.name
    (what,) = said["objects"]
    assert (what["label"], what["zone"], what["track_id"]) == ("square", "all", 1)
    assert what["seconds"] > 0.5
    assert cv2.imread(str(event / "best.jpg")) is not None
    clip = cv2.VideoCapture(str(event / "clip.mp4"))
    frames = 0
    while clip.read()[0]:
        frames += 1
    # From 0.3 s before the object had stayed for 0.5 s, to the end.
    assert frames == 33 - said["frame"] + 6
    assert str(tmp_path / "events") in summary.written
    assert any(remark.startswith("1 event in ") for remark in summary.remarks)


def test_who_passes_by_is_no_event(run_squares: Any, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.avi", frames=20, fps=20)
    run_squares(source, zones=[WHOLE], events=tmp_path / "events", event_after=5)
    run_squares(source, zones=["corner=100,100,160,100,160,120,100,120"], events=tmp_path / "events", event_after=0.1)
    assert events(tmp_path / "events") == []


def test_events_need_tracks_and_words_of_events_need_events(run_squares: Any, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.avi", frames=2)
    with pytest.raises(SpecError, match="give --zone, or --track"):
        run_squares(source, events=tmp_path / "events")
    with pytest.raises(SpecError, match="--keep-events belongs to --events"):
        run_squares(source, keep_events="7d")
    with pytest.raises(SpecError, match="keep-events: expected an age such as 7d"):
        run_squares(source, track=True, events=tmp_path / "events", keep_events="7 weeks")
    with pytest.raises(SpecError, match="--event-after: expected 0 or more"):
        run_squares(source, track=True, events=tmp_path / "events", event_after=-1)


def objects(*placed: tuple[int, float, float]) -> Detections:
    """Boxes of tracks whose lower edges' middles are at x, with a score."""
    boxes = np.array([[x - 5, 0, x + 5, 50] for _, x, _ in placed], np.float32).reshape(-1, 4)
    zone = ZoneCount("left", ((0, 0), (100, 0), (100, 100), (0, 100)), {}, {}, 0)
    return Detections(
        boxes,
        np.array([score for *_, score in placed], np.float32),
        np.zeros(len(placed), np.int64),
        ("person",),
        np.array([track for track, *_ in placed], np.int64),
        (zone,),
    )


def test_time_counts_in_the_zone_alone_and_a_short_gap_does_not_end_it() -> None:
    dwell = Dwell(2.0)
    for at_s in (0.0, 1.0):
        assert dwell.update(objects((1, 50, 0.5), (2, 150, 0.9), (-1, 50, 0.9)), at_s)[0] == []
    assert dwell.update(objects(), 1.8) == ([], False)
    (stay,), better = dwell.update(objects((1, 60, 0.8), (2, 150, 0.9)), 2.0)
    assert (stay.track_id, stay.zone, round(stay.score, 3), better) == (1, "left", 0.8, True)
    assert dwell.update(objects((1, 150, 0.9)), 3.5)[0] == []
    assert dwell.update(objects((1, 50, 0.9)), 4.0)[0] == []  # a new stay


def made(folder: Path, name: str, *, age_s: float = 0, size: int = 100) -> Path:
    event = folder / name
    event.mkdir(parents=True)
    (event / "clip.mp4").write_bytes(bytes(size))
    (event / "event.json").write_text("{}")
    os.utime(event / "event.json", (time.time() - age_s,) * 2)
    return event


def test_the_oldest_go_beyond_an_age_or_a_size_and_nothing_else(tmp_path: Path) -> None:
    old = made(tmp_path, "2026-01-01T00-00-00.000Z_door", age_s=9 * 86400)
    middle = made(tmp_path, "2026-01-08T00-00-00.000Z_door", size=900)
    newest = made(tmp_path, "2026-01-09T00-00-00.000Z_door", size=500)
    other = made(tmp_path, "2026-01-01T00-00-00.000Z_yard", age_s=9 * 86400)
    foreign = made(tmp_path, "holiday", age_s=99 * 86400)
    namesake = made(tmp_path, "2026-01-01T00-00-00.000Z_Z_door", age_s=9 * 86400)
    assert KeepLimits.parse("7d,1TB").apply(tmp_path, "door") == 1
    assert not old.exists()
    assert KeepLimits.parse("1KB").apply(tmp_path, "door") == 1
    assert not middle.exists()
    assert KeepLimits.parse("0.1KB").apply(tmp_path, "door") == 0  # the newest stays
    assert newest.exists() and other.exists() and foreign.exists() and namesake.exists()


@needs_broker
@pytest.mark.server
def test_an_event_is_published_when_it_is_whole(run_squares: Any, tmp_path: Path, broker: Broker) -> None:
    source = write_video(tmp_path / "in.avi", frames=20, fps=20)
    with Listener(broker.port) as listener:
        run_squares(source, zones=[WHOLE], events=tmp_path / "e", event_after=0.3, mqtt=broker.url("door"))
        (event,) = events(tmp_path / "e")
        assert listener.of("door/event") == [record(event)]


_KILLED = """
import sys
from edgecnn._verbs import run as verb
from tests.runners.live.conftest import OpenRunner
verb.open_runner = lambda *_, **__: OpenRunner(0.01)
verb.run("no.edge", sys.argv[1], zones=[sys.argv[3]], events=sys.argv[2], event_after=0.2, event_before=0.2)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_process_leaves_no_half_event(run_squares: Any, tmp_path: Path) -> None:
    source, folder = write_video(tmp_path / "in.avi", frames=400, fps=20), tmp_path / "events"
    with subprocess.Popen([sys.executable, "-c", _KILLED, source, folder, WHOLE]) as program:
        end = time.monotonic() + 60
        while not list(folder.glob(".*/clip.mp4")) and time.monotonic() < end:
            time.sleep(0.01)
        program.send_signal(signal.SIGKILL)
    assert list(folder.glob(".*.partial-*"))
    assert all(sorted(p.name for p in event.iterdir())[-1] == "event.json" for event in events(folder))
    before = len(events(folder))
    short = write_video(tmp_path / "in2.avi", frames=20, fps=20)
    (tmp_path / "in.avi").unlink()
    short.rename(tmp_path / "in.avi")
    run_squares(tmp_path / "in.avi", zones=[WHOLE], events=folder, event_after=0.3)
    assert len(events(folder)) == before + 1
    assert not list(folder.glob(".*"))
