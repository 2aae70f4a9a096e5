"""Reads what OpenCV ignores in the header of an MP4 or MOV file: mirrored pictures, and an edit list."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_LARGEST_HEADER = 64 << 20
_FIRST_BOXES = frozenset({b"ftyp", b"moov", b"free", b"skip", b"wide", b"mdat", b"pnot"})
_MATRIX_AT = {0: 40, 1: 52}  # offset by the header's version (ISO 14496-12, 8.3.2)


@dataclass(frozen=True)
class Mp4Header:
    """Properties of a file's tracks.

    Attributes:
        mirrored: True if a track's pictures are to be shown mirrored.
        shown_share: share of the video's data that is shown: an edit list may leave some out.
    """

    mirrored: bool = False
    shown_share: float = 1.0


def read_mp4_header(path: Path) -> Mp4Header:
    """Read a file's header; files of other kinds give default values."""
    with path.open("rb") as file:
        header = _movie_header(file)
    return Mp4Header(
        mirrored=any(_mirrors(box) for box in _boxes(header, b"tkhd")),
        shown_share=_shown_share(header),
    )


def _movie_header(file: BinaryIO) -> bytes:
    """The content of the box "moov"; empty where there is none."""
    left = file.seek(0, 2)
    file.seek(0)
    first = True
    while len(header := file.read(8)) == 8:
        size, kind = int.from_bytes(header[:4], "big"), header[4:]
        length = size - 8
        if size == 1:
            length = int.from_bytes(file.read(8), "big") - 16
        if not 0 <= length <= left or (first and kind not in _FIRST_BOXES):
            return b""
        first = False
        if kind == b"moov":
            return file.read(min(length, _LARGEST_HEADER))
        file.seek(length, 1)
    return b""


def _boxes(header: bytes, kind: bytes) -> list[bytes]:
    """Content of every box of this kind, each with its version and flags."""
    found, at = [], header.find(kind)
    while at >= 4:
        size = int.from_bytes(header[at - 4 : at], "big")
        found.append(header[at + 4 : at - 4 + size])
        at = header.find(kind, at + 4)
    return found


def _mirrors(track: bytes) -> bool:
    at = _MATRIX_AT.get(track[0] if track else 0, 40)
    a, b, c, d = (int.from_bytes(track[at + i : at + i + 4], "big", signed=True) for i in (0, 4, 12, 16))
    return a * d - b * c < 0


def _shown_share(movie: bytes) -> float:
    """Share of the video track's data that its edit list shows; 1 without one."""
    for track in _boxes(movie, b"trak"):
        lists, media = _boxes(track, b"elst"), _boxes(track, b"mdhd")
        if b"vide" not in track or not lists or not media:
            continue
        (header, *_), wide = _boxes(movie, b"mvhd") or [b""], lists[0][:1] == b"\x01"
        held_s = _seconds(media[0])
        shown_s = sum(_edits(lists[0], wide=wide)) / max(_ticks(header)[0], 1)
        return min(shown_s / held_s, 1.0) if held_s > 0 and shown_s > 0 else 1.0
    return 1.0


def _edits(edits: bytes, *, wide: bool) -> list[int]:
    """Duration of each shown part of the data; empty parts are left out."""
    step, size = (20, 8) if wide else (12, 4)
    rows = [edits[8 + step * row : 8 + step * (row + 1)] for row in range(min(int.from_bytes(edits[4:8], "big"), 1000))]
    shown = [row for row in rows if int.from_bytes(row[size : 2 * size], "big", signed=True) >= 0]
    return [int.from_bytes(row[:size], "big") for row in shown]


def _ticks(header: bytes) -> tuple[int, int]:
    """Ticks per second, and length in ticks, from a movie's or a media's header."""
    at, size = (20, 8) if header[:1] == b"\x01" else (12, 4)
    return int.from_bytes(header[at : at + 4], "big"), int.from_bytes(header[at + 4 : at + 4 + size], "big")


def _seconds(header: bytes) -> float:
    rate, length = _ticks(header)
    return length / rate if rate else 0.0
