"""Reads whole files of other people, with a size limit; reads nothing but regular files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


def read_bounded(path: Path, most_bytes: int) -> bytes:
    """A file's bytes.

    Raises:
        OSError: as when opening it; EINVAL for something other than a file (a pipe without a writer would block for
            ever), EFBIG for a file larger than `most_bytes`.
    """
    with _opened(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise OSError(errno.EFBIG, f"larger than {_in_words(most_bytes)}, the limit for such files", str(path))
        return file.read(size)


def read_beginning(path: Path, most_bytes: int) -> bytes:
    """A file's first bytes, however large it is.

    Raises:
        OSError: as `read_bounded`, without EFBIG.
    """
    with _opened(path) as file:
        return file.read(most_bytes)


def _opened(path: Path) -> BinaryIO:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        return path.open("rb")
    except ValueError as wrong:  # a NUL in the name
        raise OSError(errno.EINVAL, str(wrong), str(path)) from wrong


def _in_words(count: int) -> str:
    return f"{count >> 20} MB" if count >= 1 << 20 else f"{count >> 10} KB"
