"""The live page: nobody is held back by who watches."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from typing import Any

import numpy as np
import pytest

from edgecnn.results import UInt8Array
from edgecnn.runners.live.frame import frame_now
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.web import server

from .conftest import SquareRunner, square_frame
from .web_page import Page, served, until

pytestmark = pytest.mark.server


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
    assert (
        time.monotonic() - start < 8
    )  # at once on a quiet machine; a viewer that takes nothing would hold it for good
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name == "web"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    for viewer in viewers:  # each was informed, or disconnected
        with contextlib.suppress(ConnectionResetError):
            while viewer.recv(65536):
                pass
        viewer.close()
    with served(port) as again:  # at once, on the same port
        assert again.ask("/healthz").status == 200


def test_who_takes_nothing_or_asks_for_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch, page: Page) -> None:
    monkeypatch.setattr(server, "STUCK_S", 0.2)
    monkeypatch.setattr(server, "SILENT_S", 0.2)
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


def test_where_too_many_are_connected_the_oldest_that_asks_nothing_gives_its_place(
    monkeypatch: pytest.MonkeyPatch, page: Page
) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 4)
    page.deliver()
    viewers = [page.connect("") for _ in range(4)]
    assert page.sink._server is not None
    until(lambda: len(page.sink._server._server.server_state.connections) == 4)  # type: ignore[union-attr]
    one_more = page.connect("")
    one_more.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    assert one_more.recv(12) == b"HTTP/1.1 200"
    with contextlib.suppress(ConnectionResetError):
        assert viewers[0].recv(1) == b""
    for viewer in (*viewers, one_more):
        viewer.close()


def test_a_picture_that_cannot_be_drawn_is_reported_once(page: Page, caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> UInt8Array:
        raise RuntimeError("no ink")

    frame = frame_now(square_frame(0), 0, "test")
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            page.sink.deliver(frame, SquareRunner()(frame.image), Annotated(fail))
            assert page.ask("/picture").status == 500
    assert [record.getMessage() for record in caplog.records] == ["the page cannot answer /picture: no ink"]
    assert page.ask("/status").status == 200
