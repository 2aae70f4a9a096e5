"""The live page: what a run sees and how it goes, in a browser."""

from __future__ import annotations

import secrets
import socket
from types import TracebackType
from typing import Final, Self

from edgecnn.errors import DeviceError, MissingDependencyError
from edgecnn.results import Result
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.address import parse_address, url_of

try:
    from edgecnn.runners.live.sinks.web.access import Access, Guard, checked_token, is_loopback
    from edgecnn.runners.live.sinks.web.routes import application, asset
    from edgecnn.runners.live.sinks.web.server import WebServer, listen
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] == "edgecnn":
        raise
    raise MissingDependencyError("the live page", missing.name or "starlette", extra="web") from missing
from edgecnn.runners.live.sinks.web.newest import NewestPictures
from edgecnn.runners.live.sinks.web.watched import Status, Watched

__all__ = ["Watched", "WebSink"]

_WHAT: Final = "the live page"


class WebSink:
    """Shows a run in browsers: annotated video, state, figures as moving charts, snapshot, score threshold.

    Pictures are drawn and encoded only while somebody watches, once for all, in the server's thread; a viewer that is
    slow gets fewer.

    Args:
        address: PORT, on this machine only, or HOST:PORT; port 0 takes a free one.
        watched: the run.
        token: what viewers must show. Without one, a page that others can reach makes its own, and one that only this
            machine can reach asks for none.

    Attributes:
        url: where the page is, while it is; never holds the token.
        login_url: the same, with the token that was made; for whoever started the run, and nobody else.
        shows_only: nobody waits for its results.

    Raises:
        SpecError: `address` is neither a port nor a host with one, or the token can't stand in a URL.
    """

    shows_only = True

    def __init__(self, address: str | int, *, watched: Watched, token: str | None = None) -> None:
        self._host, self._port = parse_address(address, _WHAT)
        self._token = None if token is None else checked_token(token)
        self._watched = watched
        self._pictures = NewestPictures(tuple(watched.sources))
        self._first_score = watched.score()
        self._server: WebServer | None = None
        self.url: str | None = None
        self.login_url: str | None = None

    @property
    def remark(self) -> str | None:
        """What is to be said at the end: that the page changed what the run answers."""
        last = self._watched.score()
        if last == self._first_score:
            return None
        return f"the score threshold was changed on the page, from {self._first_score:g} to {last:g}"

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Keep the newest result.

        Raises:
            DeviceError: the server has ended.
        """
        if self._server is not None and self._server.failure is not None:
            raise DeviceError(f"{_WHAT}'s server has ended: {self._server.failure}") from self._server.failure
        self._pictures.put(frame, result, annotated)

    def __enter__(self) -> Self:
        """Begin to serve.

        Raises:
            DeviceError: the port is taken or not allowed, or the host is not this machine.
        """
        listening = listen(self._host, self._port, _WHAT)
        address, port = listening.getsockname()[:2]
        token, made = self._token, None
        if token is None and not is_loopback(address):
            token = made = secrets.token_urlsafe(24)
        access = Access(host=self._host, address=address, port=port, token=token)
        status = Status(self._watched, self._pictures)
        self._server = WebServer(
            Guard(application(self._watched, status, self._pictures), access, asset("login.html")),
            listening,
            on_start=self._pictures.serve_in,
            each_second=status.tick,
            on_close=self._pictures.close,
        )
        self.url = url_of(_reachable(self._host, address), port)
        self.login_url = f"{self.url}?token={made}" if made else self.url
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the port back, whatever viewers do."""
        if self._server is not None:
            self._server.close()
        self.url = self.login_url = None


def _reachable(host: str, address: str) -> str:
    """What others call this machine: of an address that means all of its own, the one that it has in the network."""
    if address not in ("0.0.0.0", "::"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only asks which way that would go
            mine: str = probe.getsockname()[0]
        except OSError:
            return socket.gethostname()
    return mine
