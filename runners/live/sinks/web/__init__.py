"""The live page: shows a run's pictures and figures in a browser."""

from __future__ import annotations

import secrets
import socket
from types import TracebackType
from typing import TYPE_CHECKING, Final

from edgecnn.errors import DeviceError, MissingDependencyError
from edgecnn.results import Result
from edgecnn.runners.live.cameras.urls import resolved_secret
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.address import listen, parse_address, url_of
from edgecnn.runners.live.sinks.kind import Setting

if TYPE_CHECKING:
    from typing import Self

try:
    from edgecnn.runners.live.sinks.web.access import Access, Guard, checked_token, is_loopback
    from edgecnn.runners.live.sinks.web.routes import application, asset
    from edgecnn.runners.live.sinks.web.server import WebServer
except ModuleNotFoundError as missing:
    if (missing.name or "").partition(".")[0] == "edgecnn":
        raise
    raise MissingDependencyError("the live page", missing.name or "starlette", extra="web") from missing
from edgecnn.runners.live.sinks.web.newest import NewestPictures
from edgecnn.runners.live.sinks.web.watched import Status, Watched

__all__ = ["DEFAULT_PORT", "Watched", "WebSink"]

_WHAT: Final = "the live page"
DEFAULT_PORT: Final = 8088


class WebSink:
    """Shows a run in browsers: annotated video, state, live charts, snapshot, score threshold.

    Pictures are drawn and encoded only while somebody watches, once for all viewers, in the server's thread; a slow
    viewer gets fewer.

    Args:
        address: PORT, on this machine only, or HOST:PORT; port 0 takes a free one.
        watched: the run.
        token: the token that viewers must give. By default, a page that other machines can reach makes its own, and a
            page for this machine only needs none.

    Attributes:
        url: the page's address while it is served, without the token.
        login_url: the same with the token that was made; only for the person who started the run.
        shows_only: True: the run does not continue for this sink alone.

    Raises:
        SpecError: `address` is neither a port nor a host with one, or the token is not allowed in a URL.
    """

    shows_only = True

    def __init__(self, address: str | int, *, watched: Watched, token: str | None = None) -> None:
        self._host, self._port = parse_address(address, _WHAT)
        self._token = None if token is None else checked_token(resolved_secret(token, holds="a token"))
        self._watched = watched
        self._pictures = NewestPictures(tuple(watched.sources))
        self._first_score = watched.score(0)
        self._server: WebServer | None = None
        self.url: str | None = None
        self.login_url: str | None = None

    @property
    def remark(self) -> str | None:
        """A remark for the end of the run: the page changed the score threshold."""
        last = self._watched.score(0)
        if last == self._first_score:
            return None
        return f"the score threshold was changed on the page, from {self._first_score:g} to {last:g}"

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Keep the newest result.

        Raises:
            DeviceError: the server has ended.
        """
        if self._server is not None and self._server.failure is not None:
            raise DeviceError(f"the server of {_WHAT} has ended: {self._server.failure}") from self._server.failure
        self._pictures.put(frame, result, annotated)

    def __enter__(self) -> Self:
        """Begin to serve.

        Raises:
            DeviceError: the port is in use or not allowed, or the host is not this machine.
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
        """Release the port, whatever viewers do."""
        if self._server is not None:
            self._server.close()
        self.url = self.login_url = None


def open_page(address: str | int, setting: Setting) -> WebSink:
    """The sink for a run's page: the run that it shows, and its address."""
    runner = setting.runner
    watched = Watched(
        info=setting.info,
        counters=setting.counters,
        dropped=setting.dropped,
        faults=setting.faults,
        sources=setting.states,
        score=lambda source: runner.task.thresholds.get("score"),
        set_score=lambda score, source: runner.set_thresholds(score=score),
        events=lambda: setting.event_folders,
    )
    return WebSink(DEFAULT_PORT if address == "" else address, watched=watched, token=setting.words.get("web_token"))


def _reachable(host: str, address: str) -> str:
    """This machine's address for others: for an address that means all of its own, the one in the network."""
    if address not in ("0.0.0.0", "::"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it only selects the network interface
            mine: str = probe.getsockname()[0]
        except OSError:
            return socket.gethostname()
    return mine
