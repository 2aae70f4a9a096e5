"""The newest annotated picture as JPEG: made when somebody asks for it, and once, however many ask."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from typing import Final

import cv2

from edgecnn.results import Result, UInt8Array
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.sinks import Annotated

SHOWN_PX: Final = 1280  # of the longer side: more than a page shows costs a device time and a network its air
_SHOWN_QUALITY: Final = 80
_SNAPSHOT_QUALITY: Final = 95


@dataclass(frozen=True, kw_only=True)
class Delivered:
    """One result as it came.

    Attributes:
        number: counts results, from 1.
        at_s: monotonic, when it came.
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


class NewestPicture:
    """One place, which a newer result takes over; viewers wait for it in the server's loop.

    What a viewer has no time for, it never gets: nothing is kept for anybody.
    """

    def __init__(self) -> None:
        self._newest: Delivered | None = None
        self._jpeg: Jpeg | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        self._waking = threading.Lock()
        self._closed = False

    @property
    def newest(self) -> Delivered | None:
        """What came last."""
        return self._newest

    def serve_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Viewers wait in this loop."""
        self._loop = loop

    def put(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Take the newest result; from any one thread."""
        number = self._newest.number + 1 if self._newest else 1
        self._newest = Delivered(number=number, at_s=time.monotonic(), frame=frame, result=result, annotated=annotated)
        with self._waking:
            if self._waiting and self._loop is not None and not self._closed:
                self._loop.call_soon_threadsafe(self._wake)

    async def after(self, number: int, *, wait_s: float) -> Jpeg | None:
        """The newest picture, if need be after waiting for one that is newer than `number`; None if none came.

        A number that was not reached yet is of another run, and any picture is newer.
        """
        if not self._is_newer(number) and not self._closed:
            waiting = asyncio.get_running_loop().create_future()
            with self._waking:
                self._waiting.add(waiting)
            try:
                if not self._is_newer(number):  # it may have come before anyone waited
                    await asyncio.wait([waiting], timeout=wait_s)
            finally:
                self._waiting.discard(waiting)
        newest = self._newest
        return self._encoded(newest) if newest is not None and self._is_newer(number) else None

    def snapshot(self) -> Jpeg | None:
        """The newest picture in its own size."""
        newest = self._newest
        if newest is None:
            return None
        return Jpeg(delivered=newest, data=_encode(newest.annotated.picture, _SNAPSHOT_QUALITY))

    @property
    def closed(self) -> bool:
        """Nobody waits any more."""
        return self._closed

    def close(self) -> None:
        """Let all who wait go; in the server's loop."""
        with self._waking:
            self._closed = True
        self._wake()

    def _is_newer(self, number: int) -> bool:
        return self._newest is not None and self._newest.number != number

    def _wake(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def _encoded(self, newest: Delivered) -> Jpeg:
        """The picture of `newest`; in the server's thread alone, so that nothing is made twice."""
        if self._jpeg is None or self._jpeg.delivered.number != newest.number:
            picture = _shrunk(newest.annotated.picture)
            self._jpeg = Jpeg(delivered=newest, data=_encode(picture, _SHOWN_QUALITY))
        return self._jpeg


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
        raise ValueError(f"OpenCV makes no JPEG of {picture.shape}")
    return data.tobytes()
