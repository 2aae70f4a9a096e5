"""Opens what frames come from: a camera, a stream, a video file, pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from edgecnn.errors import SpecError
from edgecnn.runners.live.files import open_file
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.reconnect import Reconnect
from edgecnn.runners.live.streams import StateListener, open_device, open_url

__all__ = ["Camera", "Frame", "Reconnect", "open_camera"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_STREAMS = ("rtsp", "rtsps", "http", "https")


class Camera(Protocol):
    """Where frames come from: a context manager and an iterator of frames.

    Iterating raises DataError where a file can't be read, and DeviceError where a camera or stream was given up; no
    frame is ever invented. Not for two consumers at once.
    """

    @property
    def name(self) -> str:
        """What it is, without credentials: may be printed and logged."""
        ...

    @property
    def live(self) -> bool:
        """Frames come whether or not anyone asks: the newest is kept, older ones are dropped and counted."""
        ...

    @property
    def stills(self) -> bool:
        """Its frames are pictures, each a file of its own."""
        ...

    @property
    def fps(self) -> float | None:
        """Frames per second that the source declares."""
        ...

    @property
    def frames_total(self) -> int | None:
        """How many frames there will be, as far as the source declares it."""
        ...

    @property
    def dropped(self) -> int:
        """How many frames were dropped so far, because a newer one was there."""
        ...

    @property
    def remark(self) -> str | None:
        """What is to be said about the source at the end ("ended after 300 of 795 frames: …")."""
        ...

    def __iter__(self) -> Iterator[Frame]: ...

    def __next__(self) -> Frame: ...

    def close(self) -> None:
        """Give the device or file back; a second call does nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_camera(
    source: str | int | Path, *, reconnect: Reconnect | None = None, on_state: StateListener | None = None
) -> Camera:
    """Open a source of frames.

    A camera or stream that falls silent later (unplugged, its server restarted) is opened again, for as long as
    `reconnect` says; until then no frame comes, and none is invented.

    Args:
        source: a camera's index (0, "0") or path (/dev/videoN); rtsp:// or http(s):// (MJPEG); a video file;
            a picture; a folder of pictures, which come sorted by name. Live ones (cameras, streams) give the
            newest frame only; files give every frame, in order.
        reconnect: when a live source counts as silent, how it is opened again, and when it is given up: never, unless
            this says so.
        on_state: called with a live source's new state ("connecting", "live", "lost") and the reason, by a thread of
            its own.

    Raises:
        DataError: a file or folder that is absent or can't be read.
        DeviceError: a camera or stream that doesn't open.
        SpecError: a URL of another kind, or a negative index.
    """
    if isinstance(source, int) or (isinstance(source, str) and source.isdecimal()):
        if int(source) < 0:
            raise SpecError(f"a camera's index counts from 0, got {source}")
        return open_device(int(source), reconnect=reconnect, on_state=on_state)
    text = str(source)
    if text.startswith("/dev/video"):
        return open_device(text, reconnect=reconnect, on_state=on_state)
    url = _URL.match(text) if isinstance(source, str) else None
    if url is None:
        return open_file(Path(source).expanduser())
    if url[1].lower() not in _STREAMS:
        known = ", ".join(f"{name}://" for name in _STREAMS)
        raise SpecError(f"{url[1]}:// cannot be read; streams are {known}")
    return open_url(text, reconnect=reconnect, on_state=on_state)
