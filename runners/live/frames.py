"""One frame, and the name of where it came from that may be printed."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from edgecnn.results import UInt8Array

_OLDEST_NS = 10 * 10**9

_LOGIN = re.compile(r"://.*@")  # greedy: a password may hold "@", "/" and "#"
_QUERY_VALUE = re.compile(r"(?<=[?&])([^=&]*)=[^&]*")
# some cameras take the login in the path: rtsp://host/user=admin&password=secret&channel=1
_SECRET = re.compile(r"(?i)\b(user\w*|login|pass\w*|pwd|token|\w*key|secret|auth\w*|sig\w*)=[^&/;]*")


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture and when it was taken.

    Attributes:
        image: uint8 [height, width, 3] BGR.
        index: how many frames the source gave before this one; a gap means that frames were dropped.
        captured_ns: CLOCK_MONOTONIC when the picture was taken, where the source says so (a camera's driver, a
            GStreamer pipeline); else when it left the decoder or the disk.
        captured_unix_ns: the wall clock at that moment.
        source: where it came from: a picture's path, or the camera's name, without credentials.
    """

    image: UInt8Array = field(repr=False)
    index: int
    captured_ns: int
    captured_unix_ns: int
    source: str

    @property
    def age_ns(self) -> int:
        """How long ago it was captured."""
        return time.monotonic_ns() - self.captured_ns


def frame_now(image: UInt8Array, index: int, source: str) -> Frame:
    """A frame that was captured at this moment."""
    return Frame(image, index, time.monotonic_ns(), time.time_ns(), source)


def frame_of(image: UInt8Array, index: int, source: str, *, captured_ns: int) -> Frame:
    """A frame that was captured a while ago, on CLOCK_MONOTONIC."""
    return Frame(image, index, captured_ns, time.time_ns() - (time.monotonic_ns() - captured_ns), source)


def believable(captured_ns: int) -> int | None:
    """A source's own time of capture, if it lies in CLOCK_MONOTONIC's last seconds; else it is on another clock."""
    return captured_ns if 0 <= time.monotonic_ns() - captured_ns < _OLDEST_NS else None


def redacted(url: str) -> str:
    """The URL without login, and without the values of its query."""
    public = _LOGIN.sub("://***@", url)
    public = _QUERY_VALUE.sub(r"\1=***", public)
    return _SECRET.sub(r"\1=***", public)
