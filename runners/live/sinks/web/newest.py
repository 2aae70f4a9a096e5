"""The newest annotated picture of each source as JPEG: encoded on request, once for all viewers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2

from edgecnn.results import Result, UInt8Array
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated

SHOWN_PX: Final = 1280  # longer side: a larger picture would cost the device time and the network bandwidth
_SHOWN_QUALITY: Final = 80
_SNAPSHOT_QUALITY: Final = 95


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """One delivered result.

    Attributes:
        number: counts results of all sources, from 1.
        at_s: monotonic time of delivery.
    """

    number: int
    at_s: float
    frame: Frame
    result: Result
    annotated: Annotated


@dataclass(frozen=True, kw_only=True)
class Jpeg:
    """A picture for a viewer."""

    delivered: Delivered
    data: bytes


class NewestPictures:
    """One slot for each source, replaced by newer results; viewers wait for it in the server's loop.

    A slow viewer skips pictures: nothing is queued.

    Args:
        sources: names, as in frames; a frame with another name (a picture's path) belongs to the first.
    """

    def __init__(self, sources: Sequence[str]) -> None:
        self._places = {name: index for index, name in enumerate(sources)}
        self._newest: list[Delivered | None] = [None] * len(self._places)
        self._jpegs: list[Jpeg | None] = [None] * len(self._places)
        self._number = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._waking = threading.Lock()
        self._closed = False

    def newest(self, source: int) -> Delivered | None:
        """A source's newest result, by index from 0; None for a source that does not exist."""
        return self._newest[source] if source < len(self._newest) else None

    def serve_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the loop in which viewers wait."""
        self._loop = loop

    def put(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Store the newest result; called from one thread at a time."""
        self._number += 1
        self._newest[self._places.get(frame.source, 0)] = Delivered(
            number=self._number, at_s=time.monotonic(), frame=frame, result=result, annotated=annotated
        )
        with self._waking:
            if self._waiting and self._loop is not None and not self._closed:
                self._loop.call_soon_threadsafe(self._wake)

    async def after(self, number: int, source: int, *, wait_s: float) -> Jpeg | None:
        """A source's newest picture, after waiting for one other than `number` if needed; None if none came.

        A number that was not reached yet is from an earlier run, and any picture is newer.
        """
        end_s = time.monotonic() + wait_s
        while not self._is_newer(number, source) and not self._closed and (left_s := end_s - time.monotonic()) > 0:
            waiting = asyncio.get_running_loop().create_future()
            with self._waking:
                self._waiting.add(waiting)
            try:
                if not self._is_newer(number, source):  # it may have come before the wait began
                    await asyncio.wait([waiting], timeout=left_s)
            finally:
                self._waiting.discard(waiting)
        newest = self.newest(source)
        return self._encoded(newest, source) if newest is not None and newest.number != number else None

    def snapshot(self, source: int) -> Jpeg | None:
        """A source's newest picture in its own size."""
        newest = self.newest(source)
        if newest is None:
            return None
        return Jpeg(delivered=newest, data=_encode(newest.annotated.picture, _SNAPSHOT_QUALITY))

    @property
    def closed(self) -> bool:
        """Whether viewers no longer wait."""
        return self._closed

    def close(self) -> None:
        """Release all waiting viewers; in the server's loop."""
        with self._waking:
            self._closed = True
        self._wake()

    def _is_newer(self, number: int, source: int) -> bool:
        newest = self.newest(source)
        return newest is not None and newest.number != number

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _encoded(self, newest: Delivered, source: int) -> Jpeg:
        """The picture of `newest`; only in the server's thread, so that nothing is encoded twice."""
        jpeg = self._jpegs[source]
        if jpeg is None or jpeg.delivered.number != newest.number:
            picture = _shrunk(newest.annotated.picture)
            jpeg = self._jpegs[source] = Jpeg(delivered=newest, data=_encode(picture, _SHOWN_QUALITY))
        return jpeg


def _shrunk(picture: UInt8Array) -> UInt8Array:
    height, width = picture.shape[:2]
    factor = SHOWN_PX / max(height, width)
    if factor >= 1:
        return picture
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    shrunk: UInt8Array = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    return shrunk


def _encode(picture: UInt8Array, quality: int) -> bytes:
    encoded, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not encoded:
        raise ValueError(f"OpenCV cannot encode a JPEG of shape {picture.shape}")
    return data.tobytes()
