"""A web server for short answers, in a separate thread, with limits on everything that a client can use up."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from typing import Final, TypeAlias

from edgecnn.older_python import timeout

MOST_CONNECTIONS: Final = 32
_WAITING: Final = 128  # not yet accepted; one more would have to ask again, a second later
_REQUEST_S: Final = 5.0  # time limit for receiving a request
_ANSWER_S: Final = 10.0  # time limit for sending an answer
_LONGEST_REQUEST_BYTES: Final = 16 << 10
_CLOSE_S: Final = 1.0

# Called with the path and the request's headers by lower-case name; returns status, media type and body.
Answer: TypeAlias = Callable[[str, dict[str, str]], tuple[int, str, bytes]]


class SmallServer:
    """Answers GET requests, one per connection.

    With too many connections, the one idle for longest is closed, so that an active client gets its answer.

    Args:
        listening: the listening socket; closed with the server.
        answer: called in the server's thread.
    """

    def __init__(self, listening: socket.socket, answer: Answer) -> None:
        self._listening, self._answer = listening, answer
        self._idle: dict[asyncio.StreamWriter, None] = {}  # oldest first: no request yet, or already answered
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="web metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Release the port, whatever connected clients do."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_CLOSE_S)

    def _serve(self) -> None:
        try:
            self._loop.run_until_complete(self._until_stopped())
        finally:
            self._listening.close()
            self._loop.close()

    async def _until_stopped(self) -> None:
        server = await asyncio.start_server(
            self._connected, sock=self._listening, limit=_LONGEST_REQUEST_BYTES, backlog=_WAITING
        )
        await self._stopping.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections[task] = writer
        room = self._make_room()
        self._idle[writer] = None
        try:
            if room:
                await self._serve_one(reader, writer)
        except (OSError, TimeoutError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # clients' errors are not reported
        finally:
            self._idle.pop(writer, None)
            del self._connections[task]
            writer.transport.abort()

    def _make_room(self) -> bool:
        """Close the connection that has been idle for longest, if need be; False where none is idle."""
        # One that was closed lives on in its task for some turns of the loop: it takes no place.
        if sum(not writer.transport.is_closing() for writer in self._connections.values()) <= MOST_CONNECTIONS:
            return True
        oldest = next((writer for writer in self._idle if not writer.transport.is_closing()), None)
        if oldest is None:
            return False
        del self._idle[oldest]
        oldest.transport.abort()
        return True

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with timeout(_REQUEST_S):
            header = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self._idle.pop(writer, None)
        first, *lines = header.split("\r\n")
        method, path, _ = [*first.split(" "), "", ""][:3]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        status, media_type, body = 405, "text/plain", b"GET is answered\n"
        if method in ("GET", "HEAD"):
            status, media_type, body = self._answer(path.partition("?")[0], headers)
        head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {media_type}\r\n"
        head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode("latin-1") + (b"" if method == "HEAD" else body))
        async with timeout(_ANSWER_S):
            await writer.drain()
            writer.write_eof()
            self._idle[writer] = None
            while await reader.read(4096):  # until the client has read everything; closing earlier would cut it off
                pass
