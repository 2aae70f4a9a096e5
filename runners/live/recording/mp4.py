"""MP4 and MOV in fragments, which become an ordinary file at the end (ISO 14496-12).

Each flush adds a fragment that can be played alone. At the end, an index of all frames is appended, and the file's
header is changed in one place, so that the fragments become the data that the index refers to.
"""

from __future__ import annotations

import itertools
import struct
from array import array
from typing import Final

from edgecnn.runners.live.recording import Codec, Packet, units
from edgecnn.runners.live.recording.file import GrowingFile

_TICKS = 90_000  # per second
_KEY, _NOT_KEY = 0x02000000, 0x01010000  # sample flags (8.8.3.1)
_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_PLACEHOLDER: Final = struct.pack(">I4sQ", 16, b"free", 0)
_PAGE = 4096
_HIGH = frozenset({100, 110, 122, 144})


class Mp4:
    """Writes one video track.

    Args:
        file: an empty file.
        codec: H.264 or MPEG-4.
        quicktime: True for a .mov.
    """

    constant_rate = False
    largest_bytes = 1 << 62

    def __init__(self, file: GrowingFile, codec: Codec, *, quicktime: bool = False) -> None:
        self._file = file
        self._codec = codec
        self._kept: list[tuple[bytes, int, bool]] = []
        self._sequence = 0
        self._times = array("Q")
        self._sizes = array("L")
        self._keys = array("L")
        self._chunks = array("Q")  # offset and number of frames, alternating
        brands = b"qt  \x00\x00\x02\x00qt  " if quicktime else b"isom\x00\x00\x02\x00isomiso5iso6mp41"
        header = _box(b"ftyp", brands)
        self._placeholder_at = len(header)
        extends = _box(b"mvex", _full(b"trex", 0, 0, _words(1, 1, 0, 0, 0)))
        file.append(header, _PLACEHOLDER, self._movie(b"", extends, 0))

    def add(self, packet: Packet) -> None:
        """Keep a packet until the next flush."""
        data = with_lengths(packet.data) if self._codec.name == "h264" else packet.data
        self._kept.append((data, packet.at_ns * _TICKS // 10**9, packet.key))

    def flush(self) -> None:
        """Write a fragment."""
        if not self._kept:
            return
        nominal = round(_TICKS / self._codec.fps)
        times = [time for _, time, _ in self._kept]
        durations = [max(after - before, 0) for before, after in itertools.pairwise(times)] + [nominal]
        rows = b"".join(
            _words(duration, len(data), _KEY if key else _NOT_KEY)
            for duration, (data, _, key) in zip(durations, self._kept, strict=True)
        )
        # 0x20000: offsets count from this box; 0x701: each frame has its duration, size and flags
        length = 8 + 16 + 8 + 16 + 20 + 20 + len(rows)
        track = _box(
            b"traf",
            _full(b"tfhd", 0, 0x20000, _words(1)),
            _full(b"tfdt", 1, 0, struct.pack(">Q", times[0])),
            _full(b"trun", 0, 0x701, _words(len(self._kept), length + 8), rows),
        )
        header = _box(b"moof", _full(b"mfhd", 0, 0, _words(self._sequence + 1)), track)
        assert len(header) == length
        data = b"".join(data for data, _, _ in self._kept)
        gap = _gap(self._file.size_bytes, length)
        at = self._file.size_bytes + len(gap)
        # players give up on a file with a truncated last "moof": the box gets its name when all its data is written
        unnamed = header[:4] + b"free" + header[8:]
        self._file.append(gap, unnamed, struct.pack(">I4s", 8 + len(data), b"mdat"), data)
        self._file.overwrite(b"moof", at + 4)
        begin = at + length + 8
        self._sequence += 1
        self._chunks.extend((begin, len(self._kept)))
        for data, time, key in self._kept:
            if key:
                self._keys.append(len(self._times) + 1)
            self._times.append(time)
            self._sizes.append(len(data))
        self._kept.clear()

    def finish(self) -> None:
        """Write the index of all frames."""
        self.flush()
        if not self._times:
            return
        nominal = round(_TICKS / self._codec.fps)
        durations = [after - before for before, after in itertools.pairwise(self._times)] + [nominal]
        end = self._file.size_bytes
        self._file.append(self._movie(self._tables(durations), b"", self._times[-1] - self._times[0] + nominal))
        self._file.to_disk()
        # all between here and the index becomes data: first its size, then its type is written
        self._file.overwrite(struct.pack(">Q", end - self._placeholder_at), self._placeholder_at + 8)
        self._file.overwrite(struct.pack(">I4s", 1, b"mdat"), self._placeholder_at)

    def _tables(self, durations: list[int]) -> bytes:
        runs = [(len(list(group)), duration) for duration, group in itertools.groupby(durations)]
        counts = self._chunks[1::2]
        chunks = [(at + 1, count) for at, count in enumerate(counts) if at == 0 or count != counts[at - 1]]
        return b"".join(
            (
                _table(b"stts", [_words(*run) for run in runs]),
                _table(b"stss", [_words(*self._keys)], len(self._keys)),
                _table(b"stsc", [_words(at, count, 1) for at, count in chunks]),
                _full(b"stsz", 0, 0, _words(0, len(self._sizes), *self._sizes)),
                _table(b"co64", [struct.pack(f">{len(counts)}Q", *self._chunks[0::2])], len(counts)),
            )
        )

    def _movie(self, tables: bytes, extends: bytes, ticks: int) -> bytes:
        width, height = self._codec.size_px
        empty = b"".join(_table(kind, []) for kind in (b"stts", b"stsc", b"stco")) + _full(b"stsz", 0, 0, _words(0, 0))
        sample_table = _box(b"stbl", _table(b"stsd", [self._sample_entry()]), tables or empty)
        reference = _box(b"dinf", _table(b"dref", [_full(b"url ", 0, 1)]))
        media = _box(
            b"mdia",
            _full(b"mdhd", 1, 0, struct.pack(">QQIQHH", 0, 0, _TICKS, ticks, 0x55C4, 0)),
            _full(b"hdlr", 0, 0, _words(0), b"vide", bytes(12), b"video\x00"),
            _box(b"minf", _full(b"vmhd", 0, 1, bytes(8)), reference, sample_table),
        )
        track = _full(
            b"tkhd",
            1,
            3,
            struct.pack(">QQIIQ", 0, 0, 1, 0, ticks),
            bytes(16),
            _MATRIX,
            _words(width << 16, height << 16),
        )
        movie = struct.pack(">QQIQIH", 0, 0, _TICKS, ticks, 0x10000, 0x100)
        header = _full(b"mvhd", 1, 0, movie, bytes(10), _MATRIX, bytes(24), _words(2))
        return _box(b"moov", header, _box(b"trak", track, media), extends)

    def _sample_entry(self) -> bytes:
        if self._codec.name == "h264":
            kind, own = b"avc1", _box(b"avcC", avc_record(self._codec.header))
        else:
            kind, own = b"mp4v", _mpeg4_record(self._codec.header)
        width, height = self._codec.size_px
        visual = struct.pack(">6xH16xHHIIIH32xHh", 1, width, height, 0x480000, 0x480000, 0, 1, 24, -1)
        return _box(kind, visual, own)


def _gap(at: int, length: int) -> bytes:
    """Padding so that a box of this length doesn't cross a page border: a power cut loses whole pages."""
    left = -at % _PAGE
    if left >= length or length > _PAGE or left == 0:
        return b""
    return _box(b"free", bytes(max(left - 8, 0)))


def _mpeg4_record(header: bytes) -> bytes:
    """MP4's record for MPEG-4 part 2 (ISO 14496-1, 7.2.6)."""
    decoder = struct.pack(">BBBHII", 0x20, 0x11, 0, 0, 0, 0) + _descriptor(5, header)
    elementary = struct.pack(">HB", 1, 0) + _descriptor(4, decoder) + _descriptor(6, b"\x02")
    return _full(b"esds", 0, 0, _descriptor(3, elementary))


def _descriptor(tag: int, content: bytes) -> bytes:
    size = len(content)
    return bytes((tag, 0x80 | size >> 21 & 127, 0x80 | size >> 14 & 127, 0x80 | size >> 7 & 127, size & 127)) + content


def avc_record(header: bytes) -> bytes:
    """H.264's parameter sets in the form of MP4 and Matroska (ISO 14496-15, 5.3.3.1)."""
    sequence = [unit for unit in units(header) if unit[0] & 31 == 7][:1]
    pictures = [unit for unit in units(header) if unit[0] & 31 == 8]
    lead = sequence[0]
    record = bytes((1, lead[1], lead[2], lead[3], 0xFF, 0xE0 | len(sequence)))
    record += b"".join(struct.pack(">H", len(unit)) + unit for unit in sequence)
    record += bytes((len(pictures),)) + b"".join(struct.pack(">H", len(unit)) + unit for unit in pictures)
    return record + (b"\xfd\xf8\xf8\x00" if lead[1] in _HIGH else b"")  # 4:2:0, eight bits


def with_lengths(data: bytes) -> bytes:
    """H.264's NAL units with their lengths instead of start codes; without units that are in the header."""
    kept = [unit for unit in units(data) if unit[0] & 31 not in (7, 8, 9)]
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in kept)


def _box(kind: bytes, *parts: bytes) -> bytes:
    content = b"".join(parts)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *parts)


def _table(kind: bytes, rows: list[bytes], count: int | None = None) -> bytes:
    return _full(kind, 0, 0, _words(len(rows) if count is None else count), *rows)


def _words(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)
