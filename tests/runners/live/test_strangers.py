"""Strangers who hold sockets, without a token or without a word, keep nobody from the page or the metrics."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from edgecnn.runners.live.loop.counters import LiveCounters

from .web_page import TOKEN, Page, served, until

pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'edgecnn[live]'")
from edgecnn.runners.live.sinks.metrics import MetricsSink
from edgecnn.runners.live.sinks.small_server import MOST_CONNECTIONS, SmallServer

pytestmark = pytest.mark.server


@contextlib.contextmanager
def sockets(port: int, count: int, *, sends: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, from each of which this comes, and no more."""
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            connection.settimeout(10)
            if sends:
                with contextlib.suppress(OSError):  # it may be closed by now
                    connection.sendall(sends)
            held.append(connection)
        yield held


def get(port: int, path: str, token: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def metrics() -> Iterator[int]:
    """The port of metrics that are served."""
    with MetricsSink(0, counters=LiveCounters(), dropped={}, faults={}, info={"source": "test"}) as sink:
        assert sink.url is not None
        yield int(sink.url.rsplit(":", 1)[1].partition("/")[0])


HALF = b"GET /metrics HTTP/1.1\r\nHost: 127"
WHOLE = b"GET /picture?after=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize("count", [120, 400])
@pytest.mark.parametrize("sends", [b"", HALF, b"\0\xff" * 100, WHOLE], ids=["silent", "half", "rubbish", "asking"])
def test_metrics_are_served_whatever_strangers_hold(count: int, sends: bytes, metrics: int) -> None:
    assert get(metrics, "/healthz") == 200  # what the server keeps for itself is there now
    threads, before = threading.active_count(), descriptors()
    with sockets(metrics, count, sends=sends):
        for path in ("/metrics", "/healthz"):
            assert get(metrics, path) == 200
        assert threading.active_count() == threads, "no thread a connection"
        assert descriptors() - before - count < 100
    until(lambda: descriptors() <= before + 1)


@pytest.mark.parametrize("crowd", [MOST_CONNECTIONS * 3 // 2, MOST_CONNECTIONS * 3])
def test_who_comes_last_of_a_crowd_is_answered(crowd: int) -> None:
    goes_on, asked = threading.Event(), threading.Event()

    def answer(path: str, headers: dict[str, str]) -> tuple[int, str, bytes]:
        asked.set()
        assert goes_on.wait(30)
        return 200, "text/plain", b"ok"

    listening = socket.create_server(("127.0.0.1", 0), backlog=MOST_CONNECTIONS)
    port = listening.getsockname()[1]
    with contextlib.closing(SmallServer(listening, answer)), contextlib.ExitStack() as stack:
        stack.enter_context(sockets(port, MOST_CONNECTIONS))
        first = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)))
        first.request("GET", "/")
        assert asked.wait(30)  # the server's thread is busy: whoever comes now is accepted later, all at once
        listening.listen(4 * MOST_CONNECTIONS)
        stack.enter_context(sockets(port, crowd))
        last = stack.enter_context(contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)))
        last.request("GET", "/")
        goes_on.set()
        assert (first.getresponse().status, last.getresponse().status) == (200, 200)


def test_who_says_nothing_is_let_go(metrics: int) -> None:
    with sockets(metrics, 1) as (silent,):
        start_s = time.monotonic()
        with contextlib.suppress(ConnectionResetError):
            assert silent.recv(1) == b""
        assert time.monotonic() - start_s < 9


@pytest.fixture
def guarded() -> Iterator[Page]:
    """A page that asks for a token."""
    with served(token=TOKEN) as page:
        yield page


@pytest.mark.parametrize("count", [120, 400])
@pytest.mark.parametrize("sends", [b"", HALF, WHOLE], ids=["silent", "half", "asking"])
def test_the_page_is_healthy_whatever_strangers_hold(count: int, sends: bytes, guarded: Page) -> None:
    assert get(guarded.port, "/healthz", TOKEN) == 200  # what the server keeps for itself is there now
    threads, before = threading.active_count(), descriptors()
    with sockets(guarded.port, count, sends=sends):
        answers = [get(guarded.port, "/healthz", TOKEN) for _ in range(20)]
        assert answers == [200] * 20
        assert threading.active_count() == threads
        assert descriptors() - before - count < 100
    until(lambda: descriptors() <= before + 1)


def test_a_viewer_keeps_its_place_while_strangers_come(guarded: Page) -> None:
    guarded.deliver()
    asked = f"GET /video.mjpeg HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    with sockets(guarded.port, 1, sends=asked) as (viewer,):
        assert viewer.recv(12) == b"HTTP/1.1 200"
        with sockets(guarded.port, 200):
            guarded.deliver()
            seen = b""
            while seen.count(b"--frame") < 2:
                more = viewer.recv(65536)
                assert more, "the viewer lost its connection"
                seen += more


def test_with_the_most_viewers_health_still_answers(page: Page) -> None:
    page.deliver()
    asked = b"GET /video.mjpeg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with sockets(page.port, 60, sends=asked) as viewers:
        said = [viewer.recv(12) for viewer in viewers]
        assert said.count(b"HTTP/1.1 200") == 48 and said.count(b"HTTP/1.1 503") == 12
        assert get(page.port, "/healthz") == 200
    until(lambda: get(page.port, "/picture") == 200)
