"""A file that grows by whole pieces: a piece that can't be written completely is removed again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class GrowingFile:
    """A new file, written piece by piece; a file that already exists at the path is never changed.

    Where the file system allows it, the file has no name until `appear`, when its first pieces are complete.

    Args:
        path: a path where no file exists.

    Attributes:
        size_bytes: number of bytes written.

    Raises:
        OSError: it can't be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        self._named = False
        try:
            self._descriptor = os.open(path.parent, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o666)
        except (OSError, AttributeError):  # FAT, some network file systems, other systems than Linux
            self._descriptor = os.open(path, _NEW, 0o666)
            self._named = True

    def appear(self, path: Path) -> None:
        """Give the file its name, once.

        Raises:
            FileExistsError: a file of this name exists.
        """
        if self._named:
            return
        try:  # src_dir_fd is given only to make Python follow the link
            os.link(f"/proc/self/fd/{self._descriptor}", path, src_dir_fd=self._descriptor, follow_symlinks=True)
        except FileExistsError:
            raise
        except OSError:  # no /proc, or a file system that can't name its unnamed files
            self._copy_to(path)
        self.path, self._named = path, True

    def _copy_to(self, path: Path) -> None:
        named = os.open(path, _NEW, 0o666)
        os.pwrite(named, os.pread(self._descriptor, self.size_bytes, 0), 0)
        os.close(self._descriptor)
        self._descriptor = named

    def append(self, *pieces: bytes) -> None:
        """Append the pieces, all or none.

        Raises:
            OSError: none was appended: the disk is full.
        """
        at = self.size_bytes
        try:
            for piece in pieces:
                at = self._write(piece, at)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.size_bytes)
            raise
        self.size_bytes = at

    def overwrite(self, piece: bytes, at: int) -> None:
        """Overwrite a few existing bytes."""
        self._write(piece, at)

    def _write(self, piece: bytes, at: int) -> int:
        rest = memoryview(piece)
        while rest:
            count = os.pwrite(self._descriptor, rest, at)
            rest, at = rest[count:], at + count
        return at

    def to_disk(self) -> None:
        """Return when the written data would survive a power cut."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close it; a second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
