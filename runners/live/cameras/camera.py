"""Opens a source of frames: a camera, a stream, a video file or pictures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from edgecnn.errors import SpecError
from edgecnn.runners.live.cameras.capture_spec import CaptureSpec, RtspTransport
from edgecnn.runners.live.cameras.kind import Opening
from edgecnn.runners.live.cameras.reconnect import Reconnect, StateListener
from edgecnn.runners.live.cameras.table import source_of
from edgecnn.runners.live.frame import Frame

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Camera", "Frame", "Reconnect", "open_camera"]


class Camera(Protocol):
    """A source of frames: a context manager and an iterator of frames.

    Iterating raises DataError where a file can't be read, and DeviceError where a camera or stream was given up. Frames
    are never repeated or invented. Must not be used by two consumers at once.
    """

    @property
    def name(self) -> str:
        """The source's name without credentials: it may be printed and logged."""
        ...

    @property
    def live(self) -> bool:
        """True if frames come at the source's own rate: the newest is kept, older ones are dropped and counted."""
        ...

    @property
    def stills(self) -> bool:
        """True if its frames are pictures, each from a separate file."""
        ...

    @property
    def fps(self) -> float | None:
        """Frames per second that the source declares."""
        ...

    @property
    def frames_total(self) -> int | None:
        """Number of frames, if the source declares it."""
        ...

    @property
    def dropped(self) -> int:
        """Number of frames dropped so far because a newer one had arrived."""
        ...

    @property
    def remark(self) -> str | None:
        """A remark about the source at the end ("ended after 300 of 795 frames: …")."""
        ...

    def __iter__(self) -> Iterator[Frame]: ...

    def __next__(self) -> Frame: ...

    def close(self) -> None:
        """Release the device or file; a second call does nothing."""
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

    edgecnn waits for a camera or stream that is not available yet, and opens it again when it becomes silent later
    (unplugged, its server restarted), for as long as `reconnect` says; no frames are produced meanwhile. Returns
    when the first attempt to open it has ended. A file that does not exist raises an error at once.

    Args:
        source: a camera's index (0, "0") or path (/dev/videoN); "csi" or "csi:1", a Raspberry Pi's own camera; rtsp://
            or http(s):// (MJPEG); "gst: ELEMENT ! ELEMENT", a GStreamer pipeline without its sink; a video file; a
            picture; a folder of pictures, which are sorted by name; a form that another package adds (entry points
            `edgecnn.cameras`). "env:NAME" and "file:PATH" name where one of these is stored, so that a login is not
            visible. Live sources (cameras, streams) give only the newest frame; files give every frame, in order.
        size_px: width and height requested from a camera; it gives the nearest it has, which is reported (`notice`).
        fps: frames per second requested from a camera.
        pixel_format: format requested from a camera of this machine, as V4L2's four characters: "MJPG" is often the
            only one that is fast at large sizes.
        rtsp_transport: "tcp" (the default) or "udp", with which pictures are smeared when packets are lost.
        name: `Frame.source` of its frames, instead of the address without its login; pictures keep their paths.
        reconnect: when a live source counts as silent, how it is opened again, and when it is given up; by default,
            never.
        on_state: called with a live source's new state ("live", "stalled", "connecting", "lost") and the reason, in a
            separate thread.
            thread of its own.

    Raises:
        DataError: a file or folder that does not exist or can't be read.
        DeviceError: a camera or stream that doesn't open, if `reconnect` gives up at once; always for a refused login.
        SpecError: a URL of an unknown kind, a negative index, or settings that this kind of source does not have.
        MissingDependencyError: a package that this kind of source needs is not installed.
    """
    spec = CaptureSpec(size_px=size_px, fps=fps, pixel_format=pixel_format, rtsp_transport=rtsp_transport)
    meant = source_of(source)
    if useless := spec.asked - meant.words:
        raise SpecError(f"{meant.title} has no setting {', '.join(sorted(useless))}: leave it out")
    return meant.open(
        Opening(name=name or meant.name, spec=spec, reconnect=reconnect or Reconnect(), on_state=on_state)
    )
