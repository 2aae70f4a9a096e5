"""A web server in a thread of its own, which ends at once and gives nobody more than a place."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Callable
from typing import Any, Final

from starlette.types import ASGIApp
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgecnn.runners.live.sinks.address import not_served

MOST_CONNECTIONS: Final = 64
_SILENT_S: Final = 10.0  # for a request to come
_STUCK_S: Final = 20.0  # for a viewer to take what it asked for
_KEEP_ALIVE_S: Final = 15
_SEND_BUFFER_BYTES: Final = 128 * 1024  # of the system, a connection: what lies there gets old
_CLOSE_S: Final = 1.0

# What strangers send is no news: neither are their faults. A logger of its own, so that no other program's changes.
_QUIET: Final = logging.Logger("edgecnn.web.protocol", logging.CRITICAL + 1)


def listen(host: str, port: int, what: str) -> socket.socket:
    """A socket that is listened on; port 0 takes a free one.

    Raises:
        DeviceError: the port is taken or not allowed, or the host is not this machine; names `what` is served.
    """
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as failed:
        raise not_served(what, host, port, failed) from failed
    failure = OSError("no address")
    for family, _, _, _, place in places:
        both = family == socket.AF_INET6 and place[0] == "::" and socket.has_dualstack_ipv6()
        try:
            listening = socket.create_server(place[:2], family=family, backlog=MOST_CONNECTIONS, dualstack_ipv6=both)
        except OSError as failed:
            failure = failed
        else:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)  # connections inherit it
            return listening
    raise not_served(what, host, port, failure) from failure


class WebServer:
    """Serves an application until it is closed.

    Args:
        app: made in the server's thread, where its loop is.
        listening: what `listen` gave; is closed with the server.
        each_second: called in the server's thread.
        on_close: called there, first thing at the end, to let go of all who wait.

    Attributes:
        failure: what ended the server before its time.
    """

    def __init__(
        self,
        app: ASGIApp,
        listening: socket.socket,
        *,
        on_start: Callable[[asyncio.AbstractEventLoop], None],
        each_second: Callable[[], None],
        on_close: Callable[[], None],
    ) -> None:
        self.failure: BaseException | None = None
        self._listening = listening
        self._server = _Server(app, on_start, each_second, on_close)
        self._thread = threading.Thread(target=self._serve, name="web", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        try:
            self._server.run([self._listening])
        except BaseException as failure:  # SystemExit too: uvicorn's word for what can't be started
            self.failure = failure
        finally:
            self._listening.close()

    def close(self) -> None:
        """End within a second, whatever viewers do."""
        self._server.should_exit = True
        self._thread.join(_CLOSE_S)


class _Server(Server):
    def __init__(
        self,
        app: ASGIApp,
        on_start: Callable[[asyncio.AbstractEventLoop], None],
        each_second: Callable[[], None],
        on_close: Callable[[], None],
    ) -> None:
        super().__init__(_Config(app))
        self._on_start, self._each_second, self._on_close = on_start, each_second, on_close

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._on_start(asyncio.get_running_loop())
        await super().startup(sockets)
        self._clock = asyncio.create_task(self._tell_seconds())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go of all who wait, then of all: a viewer that takes nothing would hold the end back."""
        self._clock.cancel()
        for server in self.servers:
            server.close()
        self._on_close()
        await asyncio.sleep(0.05)  # for the last answers
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=0.2)
        self.force_exit = True
        await super().shutdown(sockets)

    async def _tell_seconds(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._each_second()


class _Config(Config):
    def __init__(self, app: ASGIApp) -> None:
        super().__init__(
            app,
            loop="asyncio",
            http=_Connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )

    def configure_logging(self) -> None:
        """Leave the program's logging as it is."""


class _Connection(H11Protocol):
    """One viewer's connection: closed where too many have one, where no request comes, and where none is taken."""

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.logger = _QUIET
        self.access_log = False
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # one picture waits, not two
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._wait(_SILENT_S)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._wait(None)
        elif self._patience is None and (before is None or before.response_complete):
            self._wait(_SILENT_S)  # the rest of a request

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait(_STUCK_S)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._wait(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait(None)
        super().connection_lost(exc)

    def _wait(self, seconds: float | None) -> None:
        """Close the connection after so many seconds, unless this is called again."""
        if self._patience is not None:
            self._patience.cancel()
        self._patience = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)
