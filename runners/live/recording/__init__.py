"""Writes video files that stay playable however the run ends: encoders and containers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

CodecName = Literal["h264", "mpeg4", "jpeg"]


@dataclass(frozen=True)
class Codec:
    """The codec data that a container stores.

    Attributes:
        name: the codec's name.
        header: data that a decoder needs first: for H.264 the parameter sets, with start codes; for MPEG-4 the object
            layer.
        size_px: width and height.
        fps: nominal frames per second.
    """

    name: CodecName
    header: bytes
    size_px: tuple[int, int]
    fps: float

    @property
    def frame_ns(self) -> int:
        """Nominal duration of a frame."""
        return round(1e9 / self.fps)


@dataclass(frozen=True)
class Packet:
    """One encoded frame.

    Attributes:
        data: in the codec's form; H.264 with start codes.
        at_ns: presentation time, from the recording's beginning.
        key: True if it can be decoded without earlier packets.
    """

    data: bytes
    at_ns: int
    key: bool


class Container(Protocol):
    """The layout of packets in a file. Flushed packets stay playable, whatever happens later.

    Attributes:
        constant_rate: True if it stores no time for each frame: frame n is shown at n / fps.
        largest_bytes: largest size of such a file.
    """

    constant_rate: bool
    largest_bytes: int

    def add(self, packet: Packet) -> None:
        """Keep a packet until the next flush."""
        ...

    def flush(self) -> None:
        """Write the kept packets, all or none; OSError where that fails."""
        ...

    def finish(self) -> None:
        """Write an index for seeking; OSError where that fails, and the file stays playable without it."""
        ...


def units(data: bytes) -> list[bytes]:
    """H.264's NAL units without their start codes (H.264, annex B)."""
    return [unit.rstrip(b"\x00") for unit in data.split(b"\x00\x00\x01") if unit.rstrip(b"\x00")]
