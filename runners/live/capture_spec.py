"""What is asked of a camera: size, rate, pixel format, transport."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final, Literal

from edgecnn.errors import SpecError

RtspTransport = Literal["tcp", "udp"]
TRANSPORTS: Final = ("tcp", "udp")
_LARGEST_PX = 1 << 15


@dataclass(frozen=True, kw_only=True)
class CaptureSpec:
    """What a source is asked for; None leaves it to the source. A camera gives the nearest that it can.

    Attributes:
        size_px: width and height of its pictures.
        fps: pictures per second.
        pixel_format: what the driver sends, as the four characters that V4L2 has for it: "MJPG", "YUYV".
        rtsp_transport: "tcp" loses nothing; "udp" doesn't wait for what was lost, and FFmpeg then fills it in. None is
            tcp.

    Raises:
        SpecError: it can't be.
    """

    size_px: tuple[int, int] | None = None
    fps: float | None = None
    pixel_format: str | None = None
    rtsp_transport: RtspTransport | None = None

    def __post_init__(self) -> None:
        if self.size_px is not None and not all(0 < side < _LARGEST_PX for side in self.size_px):
            raise SpecError(f"a camera's size must be positive px, got {self.size_px[0]}x{self.size_px[1]}")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise SpecError(f"a camera's fps must be positive, got {self.fps}")
        code = self.pixel_format
        if code is not None and not (len(code) == 4 and code.isascii() and code.isprintable()):
            raise SpecError(f"a pixel format has four characters, as MJPG or YUYV, got {code!r}")
        if self.rtsp_transport not in (None, *TRANSPORTS):
            raise SpecError(f"rtsp_transport must be {' or '.join(TRANSPORTS)}, got {self.rtsp_transport!r}")

    @property
    def asked(self) -> frozenset[str]:
        """Names of what is asked for."""
        return frozenset(field.name for field in fields(self) if getattr(self, field.name) is not None)

    def only(self, words: frozenset[str]) -> CaptureSpec:
        """What of it these words name."""
        return CaptureSpec(**{word: getattr(self, word) for word in self.asked & words})


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of "1280x720".

    Raises:
        SpecError: it is something else.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise SpecError(f"a camera's size is WIDTHxHEIGHT in px, as 1280x720, got {text!r}")
    return int(width), int(height)
