"""Matroska in clusters (RFC 9559): each flush adds a cluster that can be played alone; an index comes at the end."""

from __future__ import annotations

import struct
from typing import Final

from edgecnn.runners.live.recording import Codec, Packet
from edgecnn.runners.live.recording.file import GrowingFile
from edgecnn.runners.live.recording.mp4 import avc_record, with_lengths

_CODEC_IDS: Final = {"h264": b"V_MPEG4/ISO/AVC", "mpeg4": b"V_MPEG4/ISO/ASP", "jpeg": b"V_MJPEG"}
_UNKNOWN_SIZE: Final = b"\x01" + b"\xff" * 7
_LONGEST_CLUSTER_MS = 30_000  # a block's time is a 16-bit offset from its cluster's time
_SEEK_BYTES = 40  # reserved for the index's position
_APP: Final = b"edgecnn"


class Matroska:
    """Writes one video track, times in milliseconds.

    Args:
        file: an empty file.
        codec: any codec.
    """

    constant_rate = False
    largest_bytes = 1 << 55

    def __init__(self, file: GrowingFile, codec: Codec) -> None:
        self._file = file
        self._codec = codec
        self._kept: list[Packet] = []
        self._cues: list[bytes] = []
        self._end_ms = 0.0
        header = _element(
            0x1A45DFA3,
            *(_number(each, value) for each, value in ((0x4286, 1), (0x42F7, 1), (0x42F2, 4), (0x42F3, 8))),
            _element(0x4282, b"matroska"),
            *(_number(each, value) for each, value in ((0x4287, 4), (0x4285, 2))),
        )
        lead = header + _id(0x18538067)
        self._size_at = len(lead)
        self._begin = len(lead) + 8
        seek = _element(0xEC, bytes(_SEEK_BYTES - 2))
        duration = _element(0x4489, struct.pack(">d", 0.0))
        info = _element(
            0x1549A966, duration, _number(0x2AD7B1, 1_000_000), _element(0x4D80, _APP), _element(0x5741, _APP)
        )
        before_info = lead + _UNKNOWN_SIZE + seek
        self._duration_at = len(before_info) + info.index(duration) + len(duration) - 8
        file.append(before_info, info, self._track())

    def _track(self) -> bytes:
        codec = self._codec
        private = avc_record(codec.header) if codec.name == "h264" else codec.header
        video = _element(0xE0, _number(0xB0, codec.size_px[0]), _number(0xBA, codec.size_px[1]))
        entry = [_number(0xD7, 1), _number(0x73C5, 1), _number(0x83, 1), _number(0x9C, 0)]
        entry += [_element(0x86, _CODEC_IDS[codec.name]), _number(0x23E383, codec.frame_ns), video]
        if private:
            entry.append(_element(0x63A2, private))
        return _element(0x1654AE6B, _element(0xAE, *entry))

    def add(self, packet: Packet) -> None:
        """Keep a packet until the next flush."""
        if self._kept and (packet.at_ns - self._kept[0].at_ns) / 1e6 > _LONGEST_CLUSTER_MS:
            self.flush()
        self._kept.append(packet)

    def flush(self) -> None:
        """Write a cluster."""
        if not self._kept:
            return
        begin_ms = self._kept[0].at_ns // 10**6
        blocks = [_number(0xE7, begin_ms)]
        for packet in self._kept:
            data = with_lengths(packet.data) if self._codec.name == "h264" else packet.data
            after_ms = packet.at_ns // 10**6 - begin_ms
            blocks.append(_element(0xA3, struct.pack(">BhB", 0x81, after_ms, 0x80 if packet.key else 0), data))
        at = self._file.size_bytes - self._begin
        self._file.append(_element(0x1F43B675, *blocks))
        if any(packet.key for packet in self._kept):
            first_ms = next(packet.at_ns for packet in self._kept if packet.key) // 10**6
            place = _element(0xB7, _number(0xF7, 1), _number(0xF1, at))
            self._cues.append(_element(0xBB, _number(0xB3, first_ms), place))
        self._end_ms = (self._kept[-1].at_ns + self._codec.frame_ns) / 1e6
        self._kept.clear()

    def finish(self) -> None:
        """Write the index, the duration and the size."""
        self.flush()
        at = self._file.size_bytes - self._begin
        self._file.append(_element(0x1C53BB6B, *self._cues))
        seek = _element(0x114D9B74, _element(0x4DBB, _element(0x53AB, _id(0x1C53BB6B)), _number(0x53AC, at)))
        rest = _SEEK_BYTES - len(seek)
        self._file.to_disk()
        self._file.overwrite(seek + _element(0xEC, bytes(rest - 2)), self._begin)
        self._file.overwrite(struct.pack(">d", self._end_ms), self._duration_at)
        self._file.overwrite(struct.pack(">Q", 1 << 56 | self._file.size_bytes - self._begin), self._size_at)


def _id(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _element(number: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    length = next(length for length in range(1, 9) if size < (1 << 7 * length) - 1)
    return _id(number) + (1 << 7 * length | size).to_bytes(length, "big") + content


def _number(number: int, value: int) -> bytes:
    return _element(number, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))
