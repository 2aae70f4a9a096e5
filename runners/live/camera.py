"""Opens what frames come from: a camera, a stream, a video file, pictures."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from edgecnn.errors import SpecError
from edgecnn.runners.live.capture_spec import CaptureSpec, RtspTransport
from edgecnn.runners.live.csi import open_csi
from edgecnn.runners.live.devices import open_device
from edgecnn.runners.live.files import open_file
from edgecnn.runners.live.frames import Frame, redacted
from edgecnn.runners.live.gstreamer import PREFIX as PIPELINE
from edgecnn.runners.live.gstreamer import open_pipeline, pipeline_name
from edgecnn.runners.live.reconnect import Reconnect
from edgecnn.runners.live.streams import StateListener
from edgecnn.runners.live.urls import open_url

__all__ = ["Camera", "Frame", "Reconnect", "open_camera"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NOTHING: frozenset[str] = frozenset()
_STREAMS = {"rtsp": frozenset({"rtsp_transport"}), "rtsps": _NOTHING, "http": _NOTHING, "https": _NOTHING}
_CSI = re.compile(r"csi(?::(\d+))?")


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
    source: str | int | Path,
    *,
    size_px: tuple[int, int] | None = None,
    fps: float | None = None,
    pixel_format: str | None = None,
    rtsp_transport: RtspTransport | None = None,
    name: str | None = None,
    reconnect: Reconnect | None = None,
    on_state: StateListener | None = None,
) -> Camera:
    """Open a source of frames.

    A camera or stream that falls silent later (unplugged, its server restarted) is opened again, for as long as
    `reconnect` says; until then no frame comes, and none is invented.

    Args:
        source: a camera's index (0, "0") or path (/dev/videoN); "csi" or "csi:1", a Raspberry Pi's own camera;
            rtsp:// or http(s):// (MJPEG); "gst: ELEMENT ! ELEMENT", a GStreamer pipeline without its sink; a video
            file; a picture; a folder of pictures, which come sorted by name. Live ones (cameras, streams) give the
            newest frame only; files give every frame, in order.
        size_px: width and height that are asked of a camera; it gives the nearest it has, and says so (`notice`).
        fps: frames per second that are asked of a camera.
        pixel_format: what is asked of a camera of this machine, in V4L2's four characters: "MJPG" is often the only
            one that is fast at large sizes.
        rtsp_transport: "tcp" (None is the same) or "udp", over which pictures are smeared when packets are lost.
        name: `Frame.source` of its frames, in place of the address without its login; pictures keep their paths.
        reconnect: when a live source counts as silent, how it is opened again, and when it is given up: never, unless
            this says so.
        on_state: called with a live source's new state ("live", "stalled", "connecting", "lost") and the reason, by a
            thread of its own.

    Raises:
        DataError: a file or folder that is absent or can't be read.
        DeviceError: a camera or stream that doesn't open.
        SpecError: a URL of another kind, a negative index, or words that this kind of source has no use for.
        MissingDependencyError: what this kind of source needs is not installed.
    """
    spec = CaptureSpec(size_px=size_px, fps=fps, pixel_format=pixel_format, rtsp_transport=rtsp_transport)
    kind = _kind_of(source)
    if useless := spec.asked - kind.words:
        raise SpecError(f"{kind.title} can't be asked for {', '.join(sorted(useless))}")
    return kind.open(spec, name or kind.name, reconnect, on_state)


def name_of(source: str | int | Path) -> str:
    """What its frames will say that they are from, without credentials; SpecError where it is no source."""
    return _kind_of(source).name


def words_of(source: str | int | Path) -> frozenset[str]:
    """What this source can be asked for: names of `CaptureSpec`; SpecError where it is no source."""
    return _kind_of(source).words


@dataclass(frozen=True)
class _Kind:
    """What a source is.

    Attributes:
        name: its own, without credentials.
        title: of its kind, for people.
        words: what it can be asked for.
        open: opens it.
    """

    name: str
    title: str
    words: frozenset[str]
    open: Callable[[CaptureSpec, str, Reconnect | None, StateListener | None], Camera]


def _kind_of(source: str | int | Path) -> _Kind:
    text = str(source)
    if isinstance(source, int) or (isinstance(source, str) and source.isdecimal()):
        if int(source) < 0:
            raise SpecError(f"a camera's index counts from 0, got {source}")
        return _device(int(source), f"camera {source}")
    if text.startswith("/dev/video"):
        return _device(text, text)
    if isinstance(source, Path):
        return _file(source)
    if csi := _CSI.fullmatch(source):
        return _csi(int(csi[1] or 0), source)
    if source.startswith(PIPELINE):
        return _pipeline(source)
    url = _URL.match(source)
    if url is None:
        return _file(Path(source))
    if url[1].lower() not in _STREAMS:
        known = ", ".join(f"{name}://" for name in _STREAMS)
        raise SpecError(f"{url[1]}:// cannot be read; streams are {known}")
    return _stream(source, url[1].lower())


def _device(source: int | str, name: str) -> _Kind:
    return _Kind(
        name,
        "a camera of this machine",
        frozenset({"size_px", "fps", "pixel_format"}),
        lambda spec, name, reconnect, on_state: open_device(
            source, spec=spec, name=name, reconnect=reconnect, on_state=on_state
        ),
    )


def _csi(index: int, name: str) -> _Kind:
    return _Kind(
        name,
        "csi",
        frozenset({"size_px", "fps"}),
        lambda spec, name, reconnect, on_state: open_csi(
            index, spec=spec, name=name, reconnect=reconnect, on_state=on_state
        ),
    )


def _pipeline(source: str) -> _Kind:
    return _Kind(
        pipeline_name(source),
        "a pipeline, which says itself what it wants,",
        _NOTHING,
        lambda _, name, reconnect, on_state: open_pipeline(source, name=name, reconnect=reconnect, on_state=on_state),
    )


def _stream(url: str, protocol: str) -> _Kind:
    return _Kind(
        redacted(url),
        f"a stream ({protocol}), which comes as the server sends it,",
        _STREAMS[protocol],
        lambda spec, name, reconnect, on_state: open_url(
            url, spec=spec, name=name, reconnect=reconnect, on_state=on_state
        ),
    )


def _file(path: Path) -> _Kind:
    there = path.expanduser()
    return _Kind(str(there), "a file", _NOTHING, lambda _, name, reconnect, on_state: open_file(there, name=name))
