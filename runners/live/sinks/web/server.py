"""A web server in a separate thread, which ends at once and limits every client."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from starlette.types import ASGIApp
from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol

from edgecnn.runners.live.sinks.web.access import KNOWN

MOST_CONNECTIONS: Final = 64
MOST_VIEWERS: Final = 48  # viewers that wait for pictures or stream them; the other connections serve short requests
SILENT_S: Final = 10.0  # time limit for receiving a request
STUCK_S: Final = 20.0  # time limit for a viewer to receive its answer
_KEEP_ALIVE_S: Final = 15
_CLOSE_S: Final = 1.0

# Clients' bad requests are not reported, nor are their errors. A separate logger leaves other programs' unchanged.
_QUIET: Final = logging.Logger("edgecnn.web.protocol", logging.CRITICAL + 1)


class WebServer:
    """Serves an application until it is closed.

    Args:
        app: made in the server's thread, in its loop.
        listening: a socket from `listen`; closed with the server.
        each_second: called in the server's thread.
        on_close: called in that thread at the start of closing, to release waiting viewers.

    Attributes:
        failure: the exception that ended the server early.
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
        except BaseException as failure:  # SystemExit too: uvicorn raises it when it can't start
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
        self._clock = asyncio.create_task(self._run_each_second())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Release waiting viewers, then close all connections: a viewer that reads nothing would delay the end."""
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

    async def _run_each_second(self) -> None:
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
        """Keep the program's logging unchanged."""


class _Connection(H11Protocol):
    """One viewer's connection: closed if no request comes in time, or if the answer is not read.

    With too many connections, a new one replaces another: first an idle one, then one without the token; among
    these, the oldest of the client with the most connections. So an active client gets its answer, even if others
    open as many sockets as they can.
    """

    def __init__(self, *args: Any, **words: Any) -> None:
        super().__init__(*args, **words)
        self.logger = _QUIET
        self.access_log = False
        self._patience: asyncio.TimerHandle | None = None
        self._since_s = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # so that one picture waits, not two
        self._since_s = self.loop.time()
        alive = [each for each in self.connections if not each.transport.is_closing()]
        if len(alive) > MOST_CONNECTIONS:
            self._connection_to_replace(alive).transport.abort()
        if not transport.is_closing():
            self._wait(SILENT_S)

    def _connection_to_replace(self, alive: Sequence[Any]) -> _Connection:
        others = [each for each in alive if each is not self]
        idle = [each for each in others if each.cycle is None or each.cycle.response_complete]
        strange = [each for each in others if not (each.scope or {}).get(KNOWN)]
        candidates: list[_Connection] = idle or strange or [self]
        held = Counter(each._peer for each in candidates)
        return max(candidates, key=lambda each: (held[each._peer], -each._since_s))

    @property
    def _peer(self) -> str:
        return str((self.client or ("",))[0])

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._wait(None)
        elif self._patience is None and (before is None or before.response_complete):
            self._wait(SILENT_S)  # the rest of a request

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait(STUCK_S)

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
