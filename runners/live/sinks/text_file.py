"""A text file of complete lines, to which runs append."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from pathlib import Path
from typing import Final

from edgecnn.runners.live.recording.rotation import Rotation, drop_oldest, family_of

_TO_DISK_S: Final = 1.0
_PIECE: Final = 1 << 16


class LineFile:
    """Appends lines, each completely or not at all, and synchronises them to the disk every second.

    An incomplete last line of a killed run is removed. A full file (see `Rotation`) is renamed to NAME.1.jsonl,
    NAME.2.jsonl and so on, and a new file begins. A pipe or a device is written to directly.

    Args:
        path: the file.
        rotation: when the next file begins.

    Raises:
        OSError: it can't be opened.
    """

    def __init__(self, path: Path, rotation: Rotation | None = None) -> None:
        self.path = path
        self._rotation = rotation or Rotation()
        self._begin()

    def _begin(self) -> None:
        flags = os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        regular = not self.path.exists() or self.path.is_file()
        self._descriptor = os.open(self.path, flags | (os.O_RDWR if regular else os.O_WRONLY), 0o666)
        self._regular = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._size = _close_last_line(self._descriptor) if self._regular else 0
        self._began_s = self._on_disk_s = time.monotonic()

    def write(self, line: bytes | bytearray) -> None:
        """Append one line, including its line break.

        Raises:
            OSError: nothing of it was written.
        """
        if self._regular and self._size and self._is_full(len(line)):
            self._rotate()
        rest = memoryview(line)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            if self._regular and len(rest) < len(line):
                with contextlib.suppress(OSError):
                    os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)
        now_s = time.monotonic()
        if self._regular and now_s - self._on_disk_s >= _TO_DISK_S:
            self._on_disk_s = now_s
            os.fdatasync(self._descriptor)

    def _is_full(self, more: int) -> bool:
        too_large = self._size + more > self._rotation.max_bytes
        return too_large or time.monotonic() - self._began_s >= self._rotation.max_s

    def _rotate(self) -> None:
        self.close()
        older = {number: path for number, path in family_of(self.path).items() if path != self.path}
        number = max(older, default=0) + 1
        older[number] = self.path.with_name(f"{self.path.stem}.{number}{self.path.suffix}")
        os.rename(self.path, older[number])
        if self._rotation.keep is not None:
            drop_oldest(older, self._rotation.keep - 1)
        self._begin()

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _close_last_line(descriptor: int) -> int:
    """Complete the last line: an incomplete record is removed. Returns the file's size."""
    size = os.fstat(descriptor).st_size
    tail, at = b"", size
    while at > 0 and b"\n" not in tail:
        length = min(_PIECE, at)
        at -= length
        tail = os.pread(descriptor, length, at) + tail
    torn = tail.rpartition(b"\n")[2]
    if not torn:
        return size
    try:
        json.loads(torn)
    except (ValueError, RecursionError):
        os.ftruncate(descriptor, size - len(torn))
        return size - len(torn)
    os.write(descriptor, b"\n")
    return size + 1
