"""The page's events: their list, and the clip and the picture of each."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from edgecnn.json_text import encode_json
from edgecnn.runners.live.sinks.events.kept import MOST_EVENTS, KeptEvents

_TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg"}


def event_routes(events: KeptEvents) -> list[Route]:
    """`/events`, the newest; `/events/NAME/clip.mp4` (also in parts, as players ask) and `/events/NAME/best.jpg`."""

    async def newest(request: Request) -> Response:
        found = await asyncio.to_thread(events.newest)
        content = {"kept": events.kept, "most": MOST_EVENTS, "events": found}
        return Response(encode_json(content), media_type="application/json")

    async def file(request: Request) -> Response:
        path = events.file(request.path_params["event"], request.path_params["name"])
        if path is None:
            return PlainTextResponse("there is no such event: it may have been deleted\n", 404)
        return FileResponse(
            path,
            media_type=_TYPES[path.suffix],
            filename=f"{path.parent.name}{path.suffix}",
            content_disposition_type="inline",
        )

    return [Route("/events", newest), Route("/events/{event}/{name}", file)]
