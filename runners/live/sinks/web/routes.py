"""What the page answers, route by route; all of it from memory."""

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

from edgecnn.errors import SpecError
from edgecnn.runners.live.sinks.web.access import body_of
from edgecnn.runners.live.sinks.web.newest import Jpeg, NewestPictures
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


def asset(name: str) -> str:
    """The text of a file that belongs to the page."""
    return resources.files(__package__).joinpath("page", name).read_text(encoding="utf-8")


def application(watched: Watched, status: Status, pictures: NewestPictures) -> Starlette:
    """All routes."""

    async def picture(request: Request) -> Response:
        """The newest picture of source `source`, newer than number `after`; 204 where none came for 10 s."""
        jpeg = await pictures.after(_number(request, "after"), _number(request, "source"), wait_s=WAIT_S)
        if jpeg is None:
            return Response(status_code=204)
        delivered = jpeg.delivered
        headers = {"X-Number": str(delivered.number), "X-Age-Ms": f"{delivered.frame.age_ns / 1e6:.1f}"}
        return Response(jpeg.data, headers=headers, media_type="image/jpeg")

    async def video(request: Request) -> Response:
        """Motion JPEG, for programs that show nothing else."""
        return StreamingResponse(
            _parts(pictures, _number(request, "source")), media_type="multipart/x-mixed-replace; boundary=frame"
        )

    async def snapshot(request: Request) -> Response:
        """The newest picture in full size, as a file."""
        jpeg = pictures.snapshot(_number(request, "source"))
        if jpeg is None:
            return PlainTextResponse("no picture yet\n", 503)
        taken = time.gmtime(jpeg.delivered.frame.captured_unix_ns // 1_000_000_000)
        name = time.strftime("edgecnn-%Y%m%dT%H%M%SZ", taken) + f"-{jpeg.delivered.frame.index}.jpg"
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return Response(jpeg.data, headers=headers, media_type="image/jpeg")

    async def figures(request: Request) -> Response:
        """All figures; of the history, what came after second `since`."""
        return _json(status.now(since=_number(request, "since")))

    async def score(request: Request) -> Response:
        """Change the score threshold, for the whole run."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return PlainTextResponse('JSON is wanted: {"score": 0.5}\n', 415)
        try:
            wanted = msgspec.json.decode(await body_of(request), type=_Score)
            watched.set_score(wanted.score)
        except (msgspec.DecodeError, SpecError) as wrong:
            return PlainTextResponse(f"{wrong}\n", 400)
        return _json({"score": watched.score()})

    async def health(request: Request) -> Response:
        return _verdict(status.why_not_healthy())

    async def readiness(request: Request) -> Response:
        return _verdict(status.why_not_ready())

    served = [Route(path, _static(*named)) for path, named in _ASSETS.items()]
    return Starlette(
        routes=[
            *served,
            Route("/picture", picture),
            Route("/video.mjpeg", video),
            Route("/snapshot.jpg", snapshot),
            Route("/status", figures),
            Route("/score", score, methods=["POST"]),
            Route("/healthz", health),
            Route("/readyz", readiness),
        ]
    )


def _static(name: str, media_type: str) -> _Endpoint:
    text = asset(name)

    async def answer(request: Request) -> Response:
        return Response(text, media_type=media_type)

    return answer


async def _parts(pictures: NewestPictures, source: int) -> AsyncIterator[bytes]:
    """One picture after the other; the next is asked for when the viewer has taken the last."""
    number = 0
    while not pictures.closed:
        jpeg: Jpeg | None = await pictures.after(number, source, wait_s=WAIT_S)
        if jpeg is not None:
            number = jpeg.delivered.number
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg.data)}\r\n\r\n"
            yield head.encode() + jpeg.data + b"\r\n"


def _number(request: Request, name: str) -> int:
    """A number of the query; 0 where it is none."""
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _verdict(why_not: str | None) -> Response:
    return PlainTextResponse("ok\n") if why_not is None else PlainTextResponse(f"{why_not}\n", 503)


def _json(content: object) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
