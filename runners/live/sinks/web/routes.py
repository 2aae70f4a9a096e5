"""The page's routes; all answers come from memory, but those about events."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import resources
from typing import Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from edgecnn.errors import SpecError
from edgecnn.json_text import encode_json
from edgecnn.runners.live.sinks.events.kept import KeptEvents
from edgecnn.runners.live.sinks.web.access import body_of
from edgecnn.runners.live.sinks.web.events import event_routes
from edgecnn.runners.live.sinks.web.newest import Jpeg, NewestPictures
from edgecnn.runners.live.sinks.web.server import MOST_VIEWERS
from edgecnn.runners.live.sinks.web.watched import Status, Watched

WAIT_S: Final = 10.0
_ASSETS: Final = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}

_Endpoint = Callable[[Request], Awaitable[Response]]


class _Score(msgspec.Struct, forbid_unknown_fields=True):
    score: float
    source: int = 0


def asset(name: str) -> str:
    """The text of a file that belongs to the page."""
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def application(watched: Watched, status: Status, pictures: NewestPictures) -> Starlette:
    """All routes."""
    answers = _Answers(watched, status, pictures)
    return Starlette(
        routes=[
            *(Route(path, _static(*named)) for path, named in _ASSETS.items()),
            Route("/picture", answers.picture),
            Route("/video.mjpeg", answers.video),
            Route("/snapshot.jpg", answers.snapshot),
            Route("/status", answers.figures),
            Route("/score", answers.score, methods=["POST"]),
            Route("/healthz", answers.health),
            Route("/readyz", answers.readiness),
            *event_routes(KeptEvents(watched.events)),
        ]
    )


class _Answers:
    """What each route answers."""

    def __init__(self, watched: Watched, status: Status, pictures: NewestPictures) -> None:
        self._watched, self._status, self._pictures = watched, status, pictures
        self._viewers = _Viewers()

    async def picture(self, request: Request) -> Response:
        """The newest picture of source `source`, newer than number `after`; 204 if none came for 10 s."""
        if self._viewers.full:
            return _too_many()
        with self._viewers:
            return await self._next_picture(request)

    async def _next_picture(self, request: Request) -> Response:
        jpeg = await self._pictures.after(_number(request, "after"), _number(request, "source"), wait_s=WAIT_S)
        if jpeg is None:
            return Response(status_code=204)
        delivered = jpeg.delivered
        headers = {"X-Number": str(delivered.number), "X-Age-Ms": f"{delivered.frame.age_ns / 1e6:.1f}"}
        return Response(jpeg.data, headers=headers, media_type="image/jpeg")

    async def video(self, request: Request) -> Response:
        """Motion JPEG, for programs that show only that."""
        if self._viewers.full:
            return _too_many()
        return _Video(self._viewers, _parts(self._pictures, _number(request, "source")))

    async def snapshot(self, request: Request) -> Response:
        """The newest picture in full size, as a file."""
        jpeg = self._pictures.snapshot(_number(request, "source"))
        if jpeg is None:
            return PlainTextResponse("no picture yet\n", 503)
        taken = time.gmtime(jpeg.delivered.frame.captured_unix_ns // 1_000_000_000)
        name = time.strftime("edgecnn-%Y%m%dT%H%M%SZ", taken) + f"-{jpeg.delivered.frame.index}.jpg"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(jpeg.data, headers=headers, media_type="image/jpeg")

    async def figures(self, request: Request) -> Response:
        """All figures; the history after second `since`."""
        return _json(self._status.now(since=_number(request, "since")))

    async def score(self, request: Request) -> Response:
        """Change the score threshold, for the whole run."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return PlainTextResponse('expected JSON: {"score": 0.5}\n', 415)
        try:
            wanted = msgspec.json.decode(await body_of(request), type=_Score)
            if not 0 <= wanted.source < len(self._watched.sources):
                raise SpecError(f"there is no source {wanted.source}")
            self._watched.set_score(wanted.score, wanted.source)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, SpecError) as wrong:
            return PlainTextResponse(f"{wrong}\n", 400)
        return _json({"score": self._watched.score(wanted.source)})

    async def health(self, request: Request) -> Response:
        return _verdict(self._status.why_not_healthy())

    async def readiness(self, request: Request) -> Response:
        return _verdict(self._status.why_not_ready())


def _static(name: str, media_type: str) -> _Endpoint:
    text = asset(name)

    async def answer(request: Request) -> Response:
        return Response(text, media_type=media_type)

    return answer


class _Viewers:
    """Counts the viewers that wait for pictures."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def full(self) -> bool:
        return bool(self._count >= MOST_VIEWERS)

    def __enter__(self) -> None:
        self._count += 1

    def __exit__(self, *error: object) -> None:
        self._count -= 1


def _too_many() -> Response:
    return PlainTextResponse(f"there are already {MOST_VIEWERS} viewers\n", 503, headers={"Retry-After": "10"})


class _Video(StreamingResponse):
    """A stream of pictures that counts its viewer."""

    def __init__(self, viewers: _Viewers, parts: AsyncIterator[bytes]) -> None:
        super().__init__(parts, media_type="multipart/x-mixed-replace; boundary=frame")
        self._viewers = viewers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._viewers:
            await super().__call__(scope, receive, send)


async def _parts(pictures: NewestPictures, source: int) -> AsyncIterator[bytes]:
    """One picture after the other; the next is encoded when the viewer has received the last."""
    number = 0
    while not pictures.closed:
        jpeg: Jpeg | None = await pictures.after(number, source, wait_s=WAIT_S)
        if jpeg is not None:
            number = jpeg.delivered.number
            header = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg.data)}\r\n\r\n"
            yield header.encode() + jpeg.data + b"\r\n"


def _number(request: Request, name: str) -> int:
    """A number from the query; 0 where it is missing or invalid."""
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _verdict(why_not: str | None) -> Response:
    return PlainTextResponse("ok\n") if why_not is None else PlainTextResponse(f"{why_not}\n", 503)


def _json(content: object) -> Response:
    return Response(encode_json(content), media_type="application/json")
