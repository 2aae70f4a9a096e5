"""A live page that is served, and a run behind it that goes on when a test tells it to."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("starlette", reason="needs starlette and uvicorn: pip install 'edgecnn[web]'")
pytest.importorskip("uvicorn", reason="needs starlette and uvicorn: pip install 'edgecnn[web]'")

from edgecnn.errors import SpecError
from edgecnn.results import Result, UInt8Array
from edgecnn.runners.live.frame import frame_now
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.web import Watched, WebSink

from .conftest import SquareRunner, find_square, square_frame

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
    address: str | int = 0,
    *,
    token: str | None = None,
    score: float | None = 0.3,
    sources: tuple[str, ...] = ("test",),
    events: tuple[Path, ...] = (),
) -> Iterator[Page]:
    counters, state, scores = LiveCounters(), ["live"], [score]

    def set_score(wanted: float, source: int) -> None:
        if not 0 <= wanted <= 1:
            raise SpecError(f"score must be in 0..1, got {wanted}")
        scores[0] = wanted

    run_behind = Watched(
        info={"source": "test"},
        counters=counters,
        dropped={"camera": lambda: 0, "late": lambda: counters.dropped["late"]},
        faults={"mqtt": lambda: 0},
        sources=dict.fromkeys(sources, lambda: (state[0], "why")),
        score=lambda source: scores[0],
        set_score=set_score,
        events=lambda: events,
    )
    with WebSink(address, watched=run_behind, token=token) as sink:
        yield Page(sink, counters, state, scores)


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
