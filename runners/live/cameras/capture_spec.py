"""Settings requested from a camera: size, rate, pixel format, transport."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Final, Literal

from edgecnn.errors import SpecError
from edgecnn.options import CAMERA, Option, kinds

RtspTransport = Literal["tcp", "udp"]
TRANSPORTS: Final = ("tcp", "udp")
_LARGEST_PX = 1 << 15


@dataclass(frozen=True, kw_only=True)
class CaptureSpec:
    """Settings requested from a source; None leaves them to the source. A camera gives the nearest that it can.

    Attributes:
        size_px: width and height of its pictures.
        fps: pictures per second.
        pixel_format: what the driver sends, as V4L2's four characters: "MJPG", "YUYV".
        rtsp_transport: "tcp" loses nothing; "udp" doesn't wait for lost packets, and FFmpeg then fills the gaps. None
            means tcp.

    Raises:
        SpecError: a value is not possible.
    """

    size_px: Annotated[
        tuple[int, int] | None,
        Option(name="camera-size", help="Frame size to request from cameras.", kind=kinds.PICTURE_SIZE, group=CAMERA),
    ] = None
    fps: Annotated[
        float | None, Option(name="camera-fps", help="Frames per second to request from cameras.", group=CAMERA)
    ] = None
    pixel_format: Annotated[
        str | None,
        Option(
            name="camera-format",
            help="Pixel format to request from cameras: MJPG, YUYV.",
            metavar="FOURCC",
            group=CAMERA,
        ),
    ] = None
    rtsp_transport: Annotated[
        RtspTransport | None,
        Option(
            help="Transport for RTSP: tcp loses nothing; udp doesn't wait for lost packets.",
            kind=kinds.one_of(*TRANSPORTS),
            default="tcp",
            group=CAMERA,
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.size_px is not None and not all(0 < side < _LARGEST_PX for side in self.size_px):
            raise SpecError(f"expected a camera size of positive px, got {self.size_px[0]}x{self.size_px[1]}")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise SpecError(f"expected a camera rate of positive fps, got {self.fps}")
        code = self.pixel_format
        if code is not None and not (len(code) == 4 and code.isascii() and code.isprintable()):
            raise SpecError(f"expected a pixel format of four characters, such as MJPG or YUYV, got {code!r}")
        if self.rtsp_transport not in (None, *TRANSPORTS):
            raise SpecError(f"rtsp_transport must be {' or '.join(TRANSPORTS)}, got {self.rtsp_transport!r}")

    @property
    def asked(self) -> frozenset[str]:
        """Names of the settings that are requested."""
        return frozenset(field.name for field in fields(self) if getattr(self, field.name) is not None)

    def only(self, words: frozenset[str]) -> CaptureSpec:
        """Only the settings with these names."""
        return CaptureSpec(**{word: getattr(self, word) for word in self.asked & words})
