"""AVI with JPEG pictures at a constant rate: each flush updates the header; an index follows at the end."""

from __future__ import annotations

import struct

from edgecnn.runners.live.recording import Codec, Packet
from edgecnn.runners.live.recording.file import GrowingFile

_KEY = 0x10
_HAS_INDEX = 0x10


class Avi:
    """Writes one video stream.

    Args:
        file: an empty file.
        codec: JPEG.
    """

    constant_rate = True
    largest_bytes = 1_900_000_000  # sizes are 32 bits, and some readers treat them as signed

    def __init__(self, file: GrowingFile, codec: Codec) -> None:
        self._file = file
        self._codec = codec
        self._kept: list[bytes] = []
        self._index: list[tuple[int, int]] = []
        header = self._header(0, 0)
        self._movie_at = len(header)
        file.append(header)

    def _header(self, file_bytes: int, movie_bytes: int, *, index: bool = False) -> bytes:
        width, height = self._codec.size_px
        count = len(self._index)
        largest = max((size for _, size in self._index), default=0)
        rate, scale = round(self._codec.fps * 1000), 1000
        main = struct.pack(
            "<10I16x",
            self._codec.frame_ns // 1000,
            0,
            0,
            _HAS_INDEX if index else 0,
            count,
            0,
            1,
            largest,
            width,
            height,
        )
        handler = struct.pack("<4s4sIHHI", b"vids", b"MJPG", 0, 0, 0, 0)
        stream = handler + struct.pack("<IIIIIiI4H", scale, rate, 0, count, largest, -1, 0, 0, 0, width, height)
        form = struct.pack("<IiiHH4sIiiII", 40, width, height, 1, 24, b"MJPG", width * height * 3, 0, 0, 0, 0)
        streams = _list(b"strl", _chunk(b"strh", stream) + _chunk(b"strf", form))
        header = _list(b"hdrl", _chunk(b"avih", main) + streams)
        return (
            struct.pack("<4sI4s", b"RIFF", max(file_bytes - 8, 0), b"AVI ")
            + header
            + struct.pack("<4sI4s", b"LIST", movie_bytes + 4, b"movi")
        )

    def add(self, packet: Packet) -> None:
        """Keep a picture until the next flush."""
        self._kept.append(packet.data)

    def flush(self) -> None:
        """Write the pictures and update their number."""
        if not self._kept:
            return
        at = self._file.size_bytes - self._movie_at + 4
        places, chunks = [], []
        for data in self._kept:
            places.append((at, len(data)))
            chunks.append(_chunk(b"00dc", data))
            at += len(chunks[-1])
        self._file.append(*chunks)
        self._index += places
        self._kept.clear()
        size = self._file.size_bytes
        self._file.overwrite(self._header(size, size - self._movie_at), 0)

    def finish(self) -> None:
        """Write the index."""
        self.flush()
        movie_bytes = self._file.size_bytes - self._movie_at
        entries = b"".join(struct.pack("<4sIII", b"00dc", _KEY, at, size) for at, size in self._index)
        self._file.append(_chunk(b"idx1", entries))
        self._file.overwrite(self._header(self._file.size_bytes, movie_bytes, index=True), 0)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(data)) + data + b"\x00" * (len(data) & 1)


def _list(kind: bytes, content: bytes) -> bytes:
    return struct.pack("<4sI4s", b"LIST", 4 + len(content), kind) + content
