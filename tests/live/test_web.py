"""The live page, as a program asks for it: who may, what it says, and that nobody is held back by who watches."""

from __future__ import annotations

import contextlib
import hmac
import http.client
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs starlette and uvicorn: pip install 'edgecnn[web]'")
pytest.importorskip("uvicorn", reason="needs starlette and uvicorn: pip install 'edgecnn[web]'")

from edgecnn._verbs.run import RunStart, run
from edgecnn.cli import _main
from edgecnn.cli._web_options import with_address
from edgecnn.errors import DeviceError, MissingDependencyError, SpecError
from edgecnn.results import Classification, Result, SegmentationMap, UInt8Array
from edgecnn.runners.live.frames import frame_now
from edgecnn.runners.live.loop import LiveCounters
from edgecnn.runners.live.sinks import Annotated, EndOfRun
from edgecnn.runners.live.sinks.web import Watched, WebSink, access, newest, server, watched

from .conftest import (
    HEIGHT_PX,
    LABELS,
    WIDTH_PX,
    SquareRunner,
    StreamServer,
    find_square,
    square_at,
    square_frame,
    write_video,
)

ROUTES = ("/", "/page.js", "/page.css", "/icon.svg", "/picture", "/snapshot.jpg", "/status", "/healthz", "/readyz")
TOKEN = "the-token-of-this-test"


@dataclass
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Page:
    """A page that is served, and the run behind it, which goes on when it is told to."""

    sink: WebSink
    counters: LiveCounters
    state: list[str]
    score: list[float | None]
    index: int = 0
    drawn: list[int] = field(default_factory=list)

    @property
    def port(self) -> int:
        assert self.sink.url is not None
        return int(self.sink.url.rsplit(":", 1)[1].strip("/"))

    def deliver(self, picture: UInt8Array | None = None, result: Result | None = None, source: str = "test") -> int:
        """One more result; returns its number."""
        index, self.index = self.index, self.index + 1
        image = square_frame(index)
        frame = frame_now(image if picture is None else picture, index, source)

        def draw() -> UInt8Array:
            self.drawn.append(index)
            return frame.image

        self.counters.frames += 1
        self.counters.age.add(frame.age_ns)
        for stage in self.counters.stages.values():
            stage.add(2_000_000)
        self.sink.deliver(frame, result or SquareRunner()(image), Annotated(draw))
        return self.index

    def ask(self, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Answer:
        """Ask once, as this machine; headers are words ("sec_fetch_site") and replace the usual ones."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=named)
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def set_score(self, score: float, **headers: str) -> Answer:
        body = json.dumps({"score": score}).encode()
        return self.ask("/score", method="POST", body=body, **{"content_type": "application/json"} | headers)

    def connect(self, request: str) -> socket.socket:
        """A connection that takes next to nothing in; sends what is given."""
        viewer = socket.socket()
        viewer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        viewer.settimeout(30)
        viewer.connect(("127.0.0.1", self.port))
        viewer.sendall(request.encode())
        return viewer


@contextlib.contextmanager
def served(
    address: str | int = 0, *, token: str | None = None, score: float | None = 0.3, sources: tuple[str, ...] = ("test",)
) -> Iterator[Page]:
    counters, state, scores = LiveCounters(), ["live"], [score]

    def set_score(wanted: float) -> None:
        if not 0 <= wanted <= 1:
            raise SpecError(f"score must be in 0..1, got {wanted}")
        scores[0] = wanted

    run_behind = Watched(
        info={"source": "test"},
        counters=counters,
        dropped={"camera": lambda: 0, "late": lambda: counters.dropped["late"]},
        faults={"mqtt": lambda: 0},
        sources=dict.fromkeys(sources, lambda: (state[0], "why")),
        score=lambda: scores[0],
        set_score=set_score,
    )
    with WebSink(address, watched=run_behind, token=token) as sink:
        yield Page(sink, counters, state, scores)


@pytest.fixture
def page() -> Iterator[Page]:
    with served() as page:
        yield page


def until(true: Callable[[], bool]) -> None:
    """Wait for what must come, for as long as a busy machine may take."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "waited for a minute"
        time.sleep(0.005)


def square_of(jpeg: bytes) -> tuple[int, int]:
    picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return find_square(np.asarray(picture, np.uint8))


# --- what it says


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
    told = watched.Status(replace(page.sink._watched, counters=stuck), page.sink._pictures)
    stuck.stages["capture"].add(1)
    assert told.why_not_healthy() is None  # not yet
    monkeypatch.setattr(watched, "STUCK_S", 0.4)
    monkeypatch.setattr(watched, "READY_S", 0.4)
    until(lambda: time.monotonic() - told._started_s > 0.4)
    assert told.why_not_healthy() is None  # the camera is silent: it is being opened again
    stuck.stages["capture"].add(1)
    assert told.why_not_healthy() == "frames come, and the network has answered none for 0.4 s"
    stuck.stages["infer"].add(1)
    assert told.why_not_healthy() is None


# --- who may ask


def test_this_machine_s_names_are_answered(page: Page) -> None:
    for host in ("127.0.0.1", "localhost:9", "LOCALHOST", "[::1]:8088", "localhost."):
        assert page.ask("/", host=host).status == 200, host


def test_another_name_that_leads_here_is_not(page: Page) -> None:
    page.deliver()
    for host in ("evil.example", "127.0.0.1.evil.example", "192.0.2.7", "localhost@evil.example", ""):
        for path in (*ROUTES, "/video.mjpeg", "/nowhere"):
            assert page.ask(path, host=host).status == 403, (host, path)
        assert page.set_score(0.9, host=host).status == 403
    assert page.score == [0.3]


def test_another_page_s_requests_are_refused(page: Page) -> None:
    page.deliver()
    ours = f"http://127.0.0.1:{page.port}"
    for origin in ("https://evil.example", "null", f"http://localhost:{page.port}", "http://127.0.0.1:1", "127.0.0.1"):
        assert page.set_score(0.9, origin=origin).status == 403, origin
        assert page.ask("/status", origin=origin).status == 403, origin
    for site in ("cross-site", "same-site"):
        assert page.set_score(0.9, sec_fetch_site=site).status == 403
        for path in (*ROUTES, "/video.mjpeg"):
            embedded = page.ask(path, sec_fetch_site=site, sec_fetch_mode="no-cors", sec_fetch_dest="image")
            assert embedded.status == 403, path
    visit: Any = {"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert page.ask("/", **visit).status == 200  # somebody followed a link
    assert page.ask("/snapshot.jpg", **visit).status == 403
    assert page.score == [0.3]
    assert page.set_score(0.9, origin=ours, sec_fetch_site="same-origin").status == 200
    assert page.score == [0.9]


def test_a_websocket_from_another_page_opens_nothing(page: Page) -> None:
    words = "Host: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    for origin, status in (("https://evil.example", b"403"), (f"http://127.0.0.1:{page.port}", b"403")):
        with page.connect(f"GET /status HTTP/1.1\r\n{words}{key}Origin: {origin}\r\n\r\n") as viewer:
            assert viewer.recv(1024).split(b" ")[1] == status


def test_without_the_token_no_route_answers() -> None:
    with served(token=TOKEN) as page:
        page.deliver()
        for path in (*ROUTES, "/video.mjpeg", "/score", "/nowhere", "/login", f"/status?token={TOKEN}"):
            assert page.ask(path).status == 401, path
            assert page.ask(path, cookie=f"edgecnn_{page.port}={TOKEN}; a=b").status == 401, path
        assert page.set_score(0.9).status == 401
        for wrong in (f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer", f"Basic {TOKEN}", "Bearer \xe9"):
            assert page.ask("/status", authorization=wrong).status == 401, wrong
        assert page.score == [0.3]
        for path in ROUTES:
            assert page.ask(path, authorization=f"Bearer {TOKEN}").status == 200, path
        assert page.set_score(0.9, authorization=f"Bearer {TOKEN}").status == 200
        assert page.score == [0.9]
        assert page.ask("/status", authorization=f"Bearer {TOKEN}", host="evil.example").status == 403


def test_the_token_is_handed_over_once_and_not_kept() -> None:
    with served(token=TOKEN) as page:
        wrong = page.ask("/?token=guess", accept="text/html")
        assert wrong.status == 401 and "set-cookie" not in wrong.headers
        form = f"token={TOKEN}".encode()
        for answer in (page.ask(f"/?token={TOKEN}"), page.ask("/login", method="POST", body=form)):
            assert (answer.status, answer.headers["location"]) == (303, "/")
            cookie, *words = answer.headers["set-cookie"].split("; ")
            assert {"httponly", "samesite=strict", "path=/"} == {word.lower() for word in words}
            assert cookie.startswith(f"edgecnn_{page.port}=") and TOKEN not in cookie
            assert page.ask("/status", cookie=f"other=1; {cookie}").status == 200
            assert page.set_score(0.5, cookie=cookie, origin="https://evil.example").status == 403
        assert page.ask("/login", method="POST", body=form, origin="https://evil.example").status == 403
        assert page.ask("/login", method="POST", body=b"token=" + b"x" * 10_000).status == 401
        ask_for_it = page.ask("/", accept="text/html")
        assert (ask_for_it.status, ask_for_it.headers["www-authenticate"]) == (401, "Bearer")
        assert b'type="password"' in ask_for_it.body and b'action="/login"' in ask_for_it.body


def test_wrong_tokens_wait_for_each_other_and_keep_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    with served(token=TOKEN) as page:
        page.deliver()
        monkeypatch.setattr(access, "_WRONG_TOKEN_S", 60.0)
        guesses = [page.connect("GET /?token=guess HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n") for _ in range(5)]
        assert page.ask("/status", authorization=f"Bearer {TOKEN}").status == 200
        assert page.ask("/status").status == 401  # nothing was guessed
        for guess in guesses:
            guess.settimeout(0.1)
            with pytest.raises(TimeoutError):
                guess.recv(1)
            guess.close()


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[bytes, bytes]] = []
    same = hmac.compare_digest
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or same(a, b))  # type: ignore[func-returns-value]
    with served(token=TOKEN) as page:
        page.ask("/status", authorization="Bearer guess")
        page.ask("/status", cookie=f"edgecnn_{page.port}=guess")
    assert (b"guess", TOKEN.encode()) in compared
    assert len(compared) == 2


def test_a_page_that_others_can_reach_makes_a_token_of_its_own() -> None:
    with served("0.0.0.0:0") as page:
        assert page.sink.login_url is not None and page.sink.url is not None
        address, token = page.sink.login_url.split("?token=")
        assert address == page.sink.url and len(token) >= 32
        page.deliver()
        assert page.ask("/status").status == 401
        assert page.ask("/status", authorization=f"Bearer {token}").status == 200
        # by any address, which no rebinding can use, and by this machine's own names
        own = (socket.gethostname(), f"{socket.gethostname().partition('.')[0]}.local", "192.0.2.7:80", "[2001:db8::1]")
        for host in own:
            assert page.ask("/status", host=host, authorization=f"Bearer {token}").status == 200, host
        assert page.ask("/status", host="evil.example", authorization=f"Bearer {token}").status == 403
        assert token.encode() not in page.ask("/status", authorization=f"Bearer {token}").body
    with served("0.0.0.0:0") as again:
        assert str(again.sink.login_url).partition("?")[2] != f"token={token}"
    with served("0.0.0.0:0", token=TOKEN) as given:
        assert TOKEN not in str(given.sink.login_url)  # whoever gave it has it
        assert given.ask("/status", authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize("token", ["", "two words", "schlüssel", "line\nbreak"])
def test_a_token_that_cannot_be_shown_is_refused(token: str) -> None:
    with pytest.raises(SpecError, match="ASCII"), served(token=token):
        pass


def test_every_answer_tells_browsers_what_they_may(page: Page) -> None:
    page.deliver()
    with served(token=TOKEN) as locked:
        answers = [
            *(page.ask(path) for path in (*ROUTES, "/nowhere")),
            page.ask("/score"),
            page.ask("/status", host="evil.example"),
            locked.ask("/"),
            locked.ask("/", accept="text/html"),
            locked.ask(f"/?token={TOKEN}"),
        ]
    assert {answer.status for answer in answers} == {200, 303, 401, 403, 404, 405}
    for answer in answers:
        policy = answer.headers["content-security-policy"]
        assert "unsafe" not in policy and "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "server" not in answer.headers and "access-control-allow-origin" not in answer.headers


def test_the_page_asks_nobody_else(page: Page) -> None:
    for path in ("/", "/page.js", "/page.css"):
        text = page.ask(path).body.decode()
        assert "://" not in text, path
    html = page.ask("/").body.decode()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", html)  # nothing inline


_opened: list[str] = []
_listening = threading.Event()


def _note(event: str, words: tuple[object, ...]) -> None:
    reads = event in {"open", "os.listdir", "os.scandir"}
    if reads and _listening.is_set() and threading.current_thread().name == "web":
        _opened.append(f"{event} {words[0]!r}")


def test_no_part_of_a_request_reaches_the_file_system(page: Page) -> None:
    sys.addaudithook(_note)
    page.deliver()
    _listening.set()
    try:
        for path in ("/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/page.js/../__init__.py", "/..%2fpage.html",
                     "//etc/passwd", "/page.html", "/login.html", "/%00", "/picture?after=../../x"):  # fmt: skip
            wanted = 200 if path.startswith("/picture") else 404
            assert page.ask(path).status == wanted, path
        for path in ROUTES:
            assert page.ask(path).status == 200
        assert page.set_score(0.4).status == 200
    finally:
        _listening.clear()
    assert _opened == []


def test_only_a_score_is_a_score(page: Page) -> None:
    for body, kind, status in (
        (b'{"score": 0.75}', "text/plain", 415),
        (b"score=0.75", "application/x-www-form-urlencoded", 415),
        (b'{"score": 1.5}', "application/json", 400),
        (b'{"score": "0.75"}', "application/json", 400),
        (b'{"score": 0.75, "x": 1}', "application/json", 400),
        (b'{"score": NaN}', "application/json", 400),
        (b"{" * 100_000, "application/json", 400),
        (b"", "application/json", 400),
    ):
        assert page.ask("/score", method="POST", body=body, content_type=kind).status == status, body
    assert page.score == [0.3]
    good = page.ask("/score", method="POST", body=b'{"score": 0.75}', content_type="application/json; charset=utf-8")
    assert (good.status, page.score) == (200, [0.75])


# --- nobody is held back


def stuck_viewers(page: Page) -> list[socket.socket]:
    """Viewers of every bad kind: that take nothing, that ask for half, that ask for nothing, that wait."""
    head = "HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    return [
        page.connect(f"GET /video.mjpeg {head}\r\n"),
        page.connect(f"GET /picture {head}\r\n" * 50),
        page.connect(f"GET /picture?after={page.index} {head}\r\n"),
        page.connect(f"POST /score {head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"),
        page.connect("GET /stat"),
        page.connect(""),
        page.connect("\x16\x03\x01 not http\r\n\r\n"),
    ]


NOISE = np.random.default_rng(1).integers(0, 256, (720, 1280, 3), np.uint8)  # a JPEG of 1 MB


def test_a_stuck_viewer_keeps_neither_the_run_nor_another_viewer_waiting(page: Page) -> None:
    page.deliver(NOISE)
    viewers = stuck_viewers(page)
    for _ in range(20):
        number = page.deliver(NOISE)
        answer = page.ask("/picture")
        assert (answer.status, answer.headers["x-number"]) == (200, str(number))
    assert page.sink._server is not None
    held = [
        connection.transport.get_write_buffer_size()
        for connection in list(page.sink._server._server.server_state.connections)
        if connection.transport is not None
    ]
    assert max(held) < 2 * len(page.ask("/picture").body)  # one picture waits for it, not twenty
    for viewer in viewers:
        viewer.close()


def test_the_end_waits_for_no_viewer() -> None:
    before = set(threading.enumerate())
    with served() as page:
        page.deliver(NOISE)
        viewers = stuck_viewers(page)
        assert page.ask("/picture").status == 200
        port = page.port
        start = time.monotonic()
    assert time.monotonic() - start < 2
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "web"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    for viewer in viewers:  # each was told, or cut off
        with contextlib.suppress(ConnectionResetError):
            while viewer.recv(65536):
                pass
        viewer.close()
    with served(port) as again:  # at once, on the same port
        assert again.ask("/healthz").status == 200


def test_who_takes_nothing_or_asks_for_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch, page: Page) -> None:
    monkeypatch.setattr(server, "_STUCK_S", 0.2)
    monkeypatch.setattr(server, "_SILENT_S", 0.2)
    made: list[Any] = []
    make = server._Connection.connection_made

    def note(connection: Any, transport: Any) -> None:
        made.append(connection)
        make(connection, transport)

    monkeypatch.setattr(server._Connection, "connection_made", note)
    page.deliver(NOISE)
    viewers = stuck_viewers(page)
    assert page.sink._server is not None
    connections = page.sink._server._server.server_state.connections
    until(lambda: len(made) == len(viewers))  # in this order, because each was connected before the next
    waiting = (2, 3)  # for a picture, and for the rest of a score, which has a time of its own
    bad = {connection for index, connection in enumerate(made) if index not in waiting}
    until(lambda: not bad & connections)
    assert page.ask("/healthz").status == 200
    for viewer in viewers:
        viewer.close()


def test_too_many_connections_are_refused_and_the_others_served(monkeypatch: pytest.MonkeyPatch, page: Page) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 4)
    page.deliver()
    viewers = [page.connect("") for _ in range(4)]
    assert page.sink._server is not None
    until(lambda: len(page.sink._server._server.server_state.connections) == 4)  # type: ignore[union-attr]
    one_more = page.connect("")
    with one_more, contextlib.suppress(ConnectionResetError):
        assert one_more.recv(1) == b""
    viewers[0].sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert viewers[0].recv(12) == b"HTTP/1.1 200"
    for viewer in viewers:
        viewer.close()


def test_a_picture_that_cannot_be_drawn_is_told_once(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> UInt8Array:
        raise RuntimeError("no ink")

    frame = frame_now(square_frame(0), 0, "test")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            page.sink.deliver(frame, SquareRunner()(frame.image), Annotated(fail))
            assert page.ask("/picture").status == 500
    assert [record.getMessage() for record in caplog.records] == ["the page cannot answer /picture: no ink"]
    assert page.ask("/status").status == 200


# --- as part of a run


class Visitor:
    """A sink that asks the page once, at one result; from a thread of its own on a live source."""

    def __init__(self, at: int, visit: Callable[[int], None]) -> None:
        self.at, self.visit = at, visit
        self.port = 0
        self.start: RunStart | None = None
        self.seen = 0

    def on_start(self, start: RunStart) -> None:
        self.start = start
        self.port = int(str(start.page_url).rsplit(":", 1)[1].strip("/"))

    def deliver(self, frame: Any, result: Any, annotated: Annotated) -> None:
        self.seen += 1
        if self.seen == self.at:
            self.visit(self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def get(port: int, path: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())


class Broken:
    """A sink that fails."""

    def deliver(self, frame: Any, result: Any, annotated: Annotated) -> None:
        raise RuntimeError("broken")

    def __enter__(self) -> Broken:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_a_run_shows_itself_and_no_login(run_squares: Any, stream_server: StreamServer, tmp_path: Path) -> None:
    answers: dict[str, Answer] = {}

    def visit(port: int) -> None:
        for path in ("/status", "/picture", "/readyz"):
            answers[path] = get(port, path)
        raise EndOfRun("seen")

    visitor = Visitor(30, visit)
    summary = run_squares(
        stream_server.url("stream", login="admin:geheim@"),
        web=0,
        jsonl=tmp_path / "out.jsonl",
        sinks=[Broken(), visitor],
        on_start=visitor.on_start,
    )
    status = answers["/status"].json
    assert status["run"]["source"] == f"http://***@127.0.0.1:{stream_server.server_address[1]}/stream"
    (source,) = status["sources"]
    assert (source["name"], source["state"], source["sees"]) == (status["run"]["source"], "live", ["1 square"])
    assert (source["why"], status["run"]["task"]) == (f"frames of {WIDTH_PX}x{HEIGHT_PX} px", "detect")
    assert status["faults"] == {"jsonl": 0, "Broken": 1, "Visitor": 0}  # and the page goes on
    assert set(status["dropped"]) == {"camera", "infer", "deliver", "late", "jsonl", "Broken", "Visitor"}
    assert answers["/picture"].status == answers["/readyz"].status == 200
    for answer in answers.values():
        assert b"geheim" not in answer.body and b"admin" not in answer.body
    assert summary.ended == "seen"
    assert summary.faults == ("Broken: broken",)
    assert visitor.start is not None and visitor.start.page_login_url == visitor.start.page_url
    with pytest.raises(ConnectionRefusedError):
        get(visitor.port, "/healthz")


def test_a_recording_is_shown_too_and_a_stuck_viewer_does_not_slow_it(run_squares: Any, tmp_path: Path) -> None:
    stuck: list[socket.socket] = []

    def visit(port: int) -> None:
        viewer = socket.create_connection(("127.0.0.1", port))
        viewer.sendall(b"GET /video.mjpeg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        stuck.append(viewer)
        assert get(port, "/status").json["sources"][0]["state"] == "recording"

    visitor = Visitor(3, visit)
    source = write_video(tmp_path / "in.avi", frames=30)
    summary = run_squares(source, web=0, sinks=[visitor], on_start=visitor.on_start)
    assert (summary.frames, summary.dropped, summary.ended) == (30, {}, "end of source")
    stuck[0].close()


class _Photograph(StreamServer):
    """A stream of one photograph."""

    def __init__(self, folder: Path, picture: UInt8Array) -> None:
        super().__init__(folder)
        jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
        self.parts = [b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg)]


def test_the_score_threshold_changes_what_the_run_answers(tmp_path: Path) -> None:
    from edgecnn._photographs import photographs

    scores: list[list[float]] = []
    changed_at: list[int] = []

    class Reader(Visitor):
        def deliver(self, frame: Any, result: Any, annotated: Annotated) -> None:
            scores.append(result.scores.tolist())
            if len(scores) == 3:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                body = json.dumps({"score": 0.02})
                connection.request("POST", "/score", body, {"Content-Type": "application/json"})
                assert json.loads(connection.getresponse().read()) == {"score": 0.02}
                connection.close()
                changed_at.append(len(scores))
            if len(scores) >= 8 and len(scores[-1]) != len(scores[0]):
                raise EndOfRun("changed")
            assert len(scores) < 500

    stream = _Photograph(tmp_path, photographs()["cat"])
    stream.start()
    reader = Reader(0, lambda port: None)
    try:
        summary = run(
            "default-detector", stream.url("stream"), score=0.5, web=0, sinks=[reader], on_start=reader.on_start
        )
    finally:
        stream.kill()
    assert len(scores[0]) >= 1 and min(scores[0]) > 0.5
    assert len(scores[-1]) > len(scores[0]) and 0.02 < min(scores[-1]) <= 0.5
    assert "the score threshold was changed on the page, from 0.5 to 0.02" in summary.remarks


def test_a_taken_port_is_a_clear_error(run_squares: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_video(tmp_path / "in.avi", frames=2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=rf"127\.0\.0\.1:{port}: Address already in use; choose another port"):
            run_squares(source, web=port)
        assert _main.main(["run", "no.edge", str(source), "--web", str(port)]) == 3
    with pytest.raises(DeviceError, match=r"cannot be served on nowhere\.invalid:0"):
        run_squares(source, web="nowhere.invalid:0")
    with pytest.raises(SpecError, match="PORT or HOST:PORT"):
        run_squares(source, web="street.mp4")
    assert "choose another port" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_without_the_extra_the_error_names_it(
    package: str, run_squares: Any, tmp_path: Path, without: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("edgecnn.runners.live.sinks.web")]:
        monkeypatch.delitem(sys.modules, name)
    without(package)
    with pytest.raises(MissingDependencyError, match=rf"needs the package '{package}.*edgecnn\[web\]"):
        run_squares(write_video(tmp_path / "in.avi", frames=2), web=0)


def test_web_may_stand_alone() -> None:
    for words, wanted in (
        (["--web"], ["--web", "8088"]),
        (["run", "--web", "--show"], ["run", "--web", "8088", "--show"]),
        (["run", "b.edge", "--web", "street.mp4"], ["run", "b.edge", "--web", "8088", "street.mp4"]),
        (["--web", "/dev/video0"], ["--web", "8088", "/dev/video0"]),
        (["--web", "0"], ["--web", "0"]),
        (["--web", "0.0.0.0:9000", "x"], ["--web", "0.0.0.0:9000", "x"]),
        (["--web", "[::]:9000"], ["--web", "[::]:9000"]),
        (["--web", "http://camera:80"], ["--web", "8088", "http://camera:80"]),
        (["--web=9000", "x"], ["--web=9000", "x"]),
    ):
        assert with_address(words) == wanted


@pytest.mark.parametrize("given", [None, TOKEN])
def test_the_command_line_says_where_the_page_is_and_the_token_once(given: str | None, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.avi", frames=5)
    environment = {**os.environ} | ({"EDGECNN_WEB_TOKEN": given} if given else {})
    words = [
        "run",
        "default-detector",
        str(source),
        "--web",
        "0.0.0.0:0",
        "--jsonl",
        str(tmp_path / "o.jsonl"),
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "edgecnn", *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (shown,) = re.findall(r"^page: http://\S+:\d+/(\S*)$", done.stderr, re.MULTILINE)
    if given:
        assert shown == ""
        token = given
    else:
        token = shown.removeprefix("?token=")
        assert len(token) >= 32
    everywhere = done.stdout + (tmp_path / "o.jsonl").read_text() + done.stderr.replace(shown, "", 1)
    assert token not in everywhere
