"""The list of events on the page: the newest, bounded, behind the token, and nothing but events."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette", reason="needs starlette and uvicorn: pip install 'edgecnn[web]'")
pytest.importorskip("uvicorn", reason="needs starlette and uvicorn: pip install 'edgecnn[web]'")

from edgecnn.runners.live.sinks.events.kept import MOST_EVENTS, KeptEvents
from tests.runners.live.web_page import TOKEN, served

CLIP = bytes(range(256)) * 40


def name_of(number: int, camera: str = "door") -> str:
    return f"2026-12-01T{number // 3600:02d}-{number // 60 % 60:02d}-{number % 60:02d}.000Z_{camera}"


def keep(folder: Path, number: int, *, camera: str = "door", record: Any = None, **more: Any) -> Path:
    """An event as the sink writes it."""
    event = folder / name_of(number, camera)
    event.mkdir(parents=True)
    whole = {
        "event": event.name,
        "camera": camera,
        "source": camera,
        "began_unix_ns": 1_764_547_200_000_000_000 + number * 10**9,
        "frame": 3,
        "seconds": 4.5,
        "objects": [
            {"track_id": 1, "label": "person", "zone": "gate", "score": 0.9, "box": [1, 2, 3, 4], "seconds": 4}
        ],
        **more,
    }
    (event / "event.json").write_text(json.dumps(whole if record is None else record))
    (event / "best.jpg").write_bytes(b"jpeg")
    (event / "clip.mp4").write_bytes(CLIP)
    return event


def settled(folder: Path) -> None:
    """Let a folder look as if nothing had changed in it for a while."""
    os.utime(folder, (time.time() - 60, time.time() - 60))


def test_the_newest_come_first_and_not_more_than_a_page_shows(tmp_path: Path) -> None:
    for number in range(MOST_EVENTS + 5):
        keep(tmp_path / ("yard" if number % 2 else "door"), number)
    found = KeptEvents(lambda: [tmp_path / "door", tmp_path / "yard"]).newest()
    assert [event.event for event in found] == [name_of(number) for number in range(MOST_EVENTS + 4, 4, -1)]
    assert (found[0].camera, found[0].seconds) == ("door", 4.5)
    assert (found[0].objects[0].label, found[0].objects[0].zone) == ("person", "gate")


def test_a_folder_is_read_again_when_it_changes_and_only_then(tmp_path: Path) -> None:
    first = keep(tmp_path, 1)
    settled(tmp_path)
    events = KeptEvents(lambda: [tmp_path])
    assert len(events.newest()) == 1
    (first / "event.json").write_text("no longer read")
    assert len(events.newest()) == 1
    keep(tmp_path, 2)  # changes the folder
    assert [event.event for event in events.newest()] == [name_of(2)]
    keep(tmp_path, 3)  # at once: perhaps within the same tick of the file system
    assert [event.event for event in events.newest()] == [name_of(3), name_of(2)]


@pytest.mark.parametrize(
    "record",
    [
        [],
        {"camera": 7},
        {"began_unix_ns": -1},
        {"began_unix_ns": 1 << 70},
        {"began_unix_ns": 1, "objects": [{"score": "high"}]},
        {"began_unix_ns": 1, "camera": "x" * (300 << 10)},
    ],
)
def test_what_is_no_event_is_left_out(tmp_path: Path, record: Any) -> None:
    keep(tmp_path, 1)
    keep(tmp_path, 2, record=record)
    assert [event.event for event in KeptEvents(lambda: [tmp_path]).newest()] == [name_of(1)]


def test_links_pipes_and_other_names_are_left_out(tmp_path: Path) -> None:
    folder, outside = tmp_path / "events", keep(tmp_path / "outside", 9)
    whole = keep(folder, 1)
    (folder / name_of(2)).symlink_to(outside)
    keep(folder, 3)
    for name in ("event.json", "clip.mp4", "best.jpg"):
        (folder / name_of(3) / name).unlink()
        (folder / name_of(3) / name).symlink_to(outside / name)
    piped = keep(folder, 4)
    (piped / "event.json").unlink()
    os.mkfifo(piped / "event.json")
    shutil.copytree(whole, folder / f".{name_of(5)}.partial-1")
    shutil.copytree(whole, folder / "../../etc".replace("/", "_"))
    (folder / name_of(6)).write_text("a file")
    events = KeptEvents(lambda: [folder, tmp_path / "missing"])
    assert [event.event for event in events.newest()] == [name_of(1)]
    assert events.file(name_of(1), "clip.mp4") == whole / "clip.mp4"
    for event, name in (
        (name_of(2), "clip.mp4"),
        (name_of(3), "clip.mp4"),
        (name_of(1), "event.json"),
        (name_of(1), "../event.json"),
        (f".{name_of(5)}.partial-1", "clip.mp4"),
        ("..", "clip.mp4"),
        ("", "clip.mp4"),
    ):
        assert events.file(event, name) is None, (event, name)


def test_words_are_short_and_printable(tmp_path: Path) -> None:
    objects = [{"label": "\x1b[2J\u202e<b>" + "x" * 500, "zone": "z" * 500}] * 90
    keep(tmp_path, 1, camera="door", objects=objects)
    (event,) = KeptEvents(lambda: [tmp_path]).newest()
    assert len(event.objects) == 20
    assert event.objects[0].label.startswith("\\x1b[2J\\u202e<b>xx") and len(event.objects[0].label) == 60
    assert len(event.objects[0].zone or "") == 60


@pytest.mark.server
def test_the_page_lists_events_and_gives_their_files_in_parts(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    with served(events=(tmp_path,)) as page:
        listed = page.ask("/events")
        assert (listed.status, listed.json["kept"], listed.json["most"]) == (200, True, MOST_EVENTS)
        (event,) = listed.json["events"]
        assert event["event"] == name_of(1)
        picture = page.ask(f"/events/{name_of(1)}/best.jpg")
        assert (picture.body, picture.headers["content-type"]) == (b"jpeg", "image/jpeg")
        assert picture.headers["x-content-type-options"] == "nosniff"
        clip = page.ask(f"/events/{name_of(1)}/clip.mp4")
        assert (clip.status, clip.body, clip.headers["content-type"]) == (200, CLIP, "video/mp4")
        part = page.ask(f"/events/{name_of(1)}/clip.mp4", range="bytes=100-299")
        assert (part.status, part.body) == (206, CLIP[100:300])
        assert page.ask(f"/events/{name_of(1)}/clip.mp4", range="bytes=999999-").status == 416
        for path in (
            f"/events/{name_of(2)}/clip.mp4",
            f"/events/{name_of(1)}/event.json",
            f"/events/{name_of(1)}/..%2f..%2fetc%2fpasswd",
            "/events/..%2f..%2fetc/passwd",
            f"/events/{name_of(1)}%00/clip.mp4",
            "/events/" + "x" * 5000 + "/clip.mp4",
        ):
            assert page.ask(path).status == 404, path
        assert page.ask("/events", method="POST").status == 405
    with served() as page:
        assert page.ask("/events").json == {"kept": False, "most": MOST_EVENTS, "events": []}


@pytest.mark.server
def test_events_are_behind_the_token_and_not_for_other_pages(tmp_path: Path) -> None:
    keep(tmp_path, 1)
    with served(token=TOKEN, events=(tmp_path,)) as page:
        for path in ("/events", f"/events/{name_of(1)}/clip.mp4", f"/events/{name_of(1)}/best.jpg"):
            assert page.ask(path).status == 401
            assert page.ask(path, authorization=f"Bearer {TOKEN}").status == 200
            assert page.ask(path, authorization=f"Bearer {TOKEN}", sec_fetch_site="cross-site").status == 403
