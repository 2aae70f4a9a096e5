"""One frame: a picture, the time it was taken, and its source."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from edgecnn.results import UInt8Array

_OLDEST_NS = 10 * 10**9


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture and the time it was taken.

    Attributes:
        image: uint8 [height, width, 3] BGR.
        index: number of frames of the source before this one; a gap means that frames were dropped.
        captured_ns: CLOCK_MONOTONIC time at which the picture was taken, if the source reports it (a camera's driver, a
            GStreamer pipeline); otherwise the time at which it left the decoder or the disk.
        captured_unix_ns: the wall clock at that moment.
        source: a picture's path, or the camera's name, without credentials.
        media_ns: its time within the recording, from the beginning; None for a live source, for pictures, and where the
            file doesn't say.
    """

    image: UInt8Array = field(repr=False, compare=False)  # whose time and source are the same is the same frame
    index: int
    captured_ns: int
    captured_unix_ns: int
    source: str
    media_ns: int | None = None

    @property
    def age_ns(self) -> int:
        """Time since it was captured."""
        return time.monotonic_ns() - self.captured_ns

    def at_ns(self, *, live: bool) -> int:
        """When it was: by its capture for a live source, else within the recording, where that is known."""
        return self.captured_ns if live or self.media_ns is None else self.media_ns


def image_of(picture: UInt8Array | Frame) -> UInt8Array:
    """The picture of a frame; a picture is returned as it is."""
    return picture.image if isinstance(picture, Frame) else picture


def frame_now(image: UInt8Array, index: int, source: str, *, media_ns: int | None = None) -> Frame:
    """A frame that was captured at this moment."""
    return Frame(image, index, time.monotonic_ns(), time.time_ns(), source, media_ns)


def frame_of(image: UInt8Array, index: int, source: str, *, captured_ns: int) -> Frame:
    """A frame that was captured earlier, at a CLOCK_MONOTONIC time."""
    return Frame(image, index, captured_ns, time.time_ns() - (time.monotonic_ns() - captured_ns), source)


def plausible_capture_time(captured_ns: int) -> int | None:
    """A source's own capture time if it lies in CLOCK_MONOTONIC's last seconds; otherwise None: another clock."""
    return captured_ns if 0 <= time.monotonic_ns() - captured_ns < _OLDEST_NS else None
