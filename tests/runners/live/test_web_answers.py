"""The live page, as a program asks for it: what it says."""

from __future__ import annotations

import re
import threading
import time
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn.results import Classification, SegmentationMap
from edgecnn.runners.live.loop import counters as loop_counters
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.sinks.web import newest, watched

from .conftest import LABELS, square_at
from .web_page import Answer, Page, served, square_of, until

pytestmark = pytest.mark.server


def test_the_newest_picture_is_given_to_everyone_who_waits(page: Page) -> None:
    page.deliver()
    first = page.ask("/picture?after=0")
    assert (first.status, first.headers["x-number"], first.headers["content-type"]) == (200, "1", "image/jpeg")
    assert np.allclose(square_of(first.body), square_at(0), atol=1)
    answers: list[Answer] = []
    waiting = [threading.Thread(target=lambda: answers.append(page.ask("/picture?after=1"))) for _ in range(5)]
    for thread in waiting:
        thread.start()
    until(lambda: len(page.sink._pictures._waiting) == 5)
    for _ in range(3):
        page.deliver()
    for thread in waiting:
        thread.join()
    assert len(answers) == 5
    for answer in answers:
        assert np.allclose(square_of(answer.body), square_at(int(answer.headers["x-number"]) - 1), atol=1)
        assert float(answer.headers["x-age-ms"]) >= 0


def test_a_picture_is_drawn_only_for_a_viewer_and_once_for_all(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    encode = newest._encode
    monkeypatch.setattr(newest, "_encode", lambda *words: encoded.append(1) or encode(*words))  # type: ignore[func-returns-value]
    for _ in range(20):
        page.deliver()
    assert page.drawn == []
    for _ in range(10):
        assert page.ask("/picture").status == 200
    assert page.drawn == [19]
    assert len(encoded) == 1


def test_a_large_picture_is_shown_smaller_and_saved_as_it_is(page: Page) -> None:
    page.deliver(np.zeros((1080, 1920, 3), np.uint8))
    shown, saved = page.ask("/picture"), page.ask("/snapshot.jpg")
    sizes = []
    for answer in (shown, saved):
        picture = cv2.imdecode(np.frombuffer(answer.body, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        sizes.append(picture.shape[:2])
    assert sizes == [(720, 1280), (1080, 1920)]
    assert re.fullmatch(r'attachment; filename="edgecnn-\d{8}T\d{6}Z-0\.jpg"', saved.headers["content-disposition"])


def test_motion_jpeg_goes_on_until_the_viewer_leaves(page: Page) -> None:
    page.deliver()
    with (
        page.connect("GET /video.mjpeg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") as viewer,
        viewer.makefile("rb") as stream,
    ):
        for index in range(3):
            while not (line := stream.readline()).startswith(b"Content-Length"):
                assert line, "the stream ended"
            stream.readline()
            assert np.allclose(square_of(stream.read(int(line.split(b":")[1]))), square_at(index), atol=1)
            page.deliver()
    assert page.sink._server is not None
    connections = page.sink._server._server.server_state.connections

    def gone() -> bool:
        page.deliver()
        return not connections

    until(gone)


def test_each_of_several_sources_has_its_picture() -> None:
    with served(sources=("front", "rear")) as page:
        page.deliver(source="rear")
        page.deliver(source="front")
        page.deliver(source="rear")
        front, rear = page.ask("/picture?source=0"), page.ask("/picture?source=1")
        assert (front.headers["x-number"], rear.headers["x-number"]) == ("2", "3")
        assert np.allclose(square_of(rear.body), square_at(2), atol=1)
        assert [source["frame"] for source in page.ask("/status").json["sources"]] == [1, 2]
        answers: list[Answer] = []
        waiting = threading.Thread(target=lambda: answers.append(page.ask("/picture?source=0&after=2")))
        waiting.start()
        until(lambda: bool(page.sink._pictures._waiting))
        page.deliver(source="rear")  # is not what it waits for
        page.deliver(source="front")
        waiting.join()
        assert answers[0].headers["x-number"] == "5"
        assert page.ask("/snapshot.jpg?source=2").status == 503


def test_figures_are_those_of_the_run(page: Page) -> None:
    for _ in range(70):
        page.deliver()
    page.counters.dropped["late"] += 4
    status = page.ask("/status").json
    (source,) = status["sources"]
    assert (source["name"], source["state"], source["why"], source["frame"]) == ("test", "live", "why", 69)
    assert (source["size_px"], source["sees"]) == ([160, 120], ["1 square"])
    assert source["silent_s"] >= 0
    assert (status["frames"], status["score"]) == (70, 0.3)
    assert status["run"] == {"source": "test"}
    assert status["stages"]["infer"] == {
        "count": 70, "p50_ms": 2.0, "p90_ms": 2.0, "p99_ms": None, "longest_ms": 2.0,
    }  # fmt: skip
    assert (status["dropped"], status["recently_dropped"]) == ({"camera": 0, "late": 4}, {"camera": 0, "late": 4})
    assert status["faults"] == {"mqtt": 0}
    assert status["rate_fps"] > 0

    def full_seconds() -> list[dict[str, Any]]:  # on a busy machine, the first may be over before anything came
        return [point for point in page.ask("/status").json["history"] if point["stages_ms"]["infer"] is not None]

    until(lambda: len(page.ask("/status").json["history"]) >= 2 and bool(full_seconds()))
    history = page.ask("/status").json["history"]
    assert [point["second"] for point in history[:2]] == [1, 2]
    assert sum(point["dropped"]["late"] for point in history) == 4
    full = full_seconds()[0]
    assert full["stages_ms"]["infer"] == 2.0
    assert (full["infer"]["p50_ms"], full["infer"]["p99_ms"]) == (2.0, None)
    assert 0 <= full["age"]["p50_ms"] <= full["age"]["p90_ms"] <= full["longest_age_ms"]
    assert page.ask("/status?since=1").json["history"][0]["second"] == 2
    assert page.ask("/status?since=99999").json["history"][0]["second"] == 1  # of another run


def test_what_other_networks_see(page: Page) -> None:
    page.deliver(result=Classification(np.array([1, 0]), np.array([0.75, 0.25], np.float32), LABELS))
    assert page.ask("/status").json["sources"][0]["sees"] == ["circle 0.75", "square 0.25"]
    page.deliver(result=SegmentationMap(np.zeros((4, 4), np.uint8), LABELS))
    assert page.ask("/status").json["sources"][0]["sees"] == ["square 100 %"]


def test_nothing_is_invented_before_the_first_result(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgecnn.runners.live.sinks.web.routes.WAIT_S", 0.05)
    assert page.ask("/picture").status == 204
    assert page.ask("/snapshot.jpg").status == 503
    (source,) = page.ask("/status").json["sources"]
    assert (source["frame"], source["size_px"], source["silent_s"], source["sees"]) == (None, None, None, [])


def test_ready_is_who_has_fresh_results_and_healthy_who_answers(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.state[0] = "connecting"
    assert page.ask("/healthz").body == b"ok\n"
    unready = page.ask("/readyz")
    assert (unready.status, unready.body) == (503, b"test is connecting, and no result has come yet: why\n")
    page.state[0] = "live"
    page.deliver()
    assert (page.ask("/readyz").status, page.ask("/readyz").body) == (200, b"ok\n")
    monkeypatch.setattr(watched, "READY_S", 0.0)
    assert b"the last result came 0 s ago: why" in page.ask("/readyz").body

    stuck = LiveCounters()  # frames come, and none is answered
    status = watched.Status(replace(page.sink._watched, counters=stuck), page.sink._pictures)
    stuck.stages["capture"].add(1)
    assert status.why_not_healthy() is None  # not yet
    monkeypatch.setattr(loop_counters, "STUCK_S", 0.4)
    monkeypatch.setattr(loop_counters, "NEWEST_S", 0.4)
    until(lambda: time.monotonic() - status._started_s > 0.4)
    assert status.why_not_healthy() is None  # the camera is silent: it is being opened again
    stuck.stages["capture"].add(1)
    assert status.why_not_healthy() == "frames come, but the network has given no result for 0.4 s"
    stuck.stages["infer"].add(1)
    assert status.why_not_healthy() is None
