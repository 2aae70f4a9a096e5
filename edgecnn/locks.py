"""Locks between processes, held by the system: they end with their process, however it ends.

A folder is locked by its own entry in the file system (flock on the open folder), so that no lock file remains,
and copies contain none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecnn.errors import StorageError

fcntl: Any
try:
    import fcntl
except ModuleNotFoundError:  # Windows; a folder cannot be opened there either
    fcntl = None

_PATIENCE_S = 60.0  # others hold a lock only for some renames
_PAUSE_S = 0.02
# File systems without locks (some network ones, FUSE): there, replacing whole files is the only protection.
_CANNOT = frozenset({errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})


class HeldFolder:
    """An open folder with a lock on it; `close` releases both.

    Attributes:
        locked: False where the file system, or the operating system, has no such locks.
    """

    def __init__(self, descriptor: int | None, *, locked: bool) -> None:
        self._descriptor = descriptor
        self.locked = locked

    def close(self) -> None:
        """Release the lock."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def hold_folder(folder: Path, *, shared: bool = False, wait_s: float = 0.0) -> HeldFolder | None:
    """Lock an existing folder; None where another process holds the lock during all of `wait_s`.

    Args:
        folder: the lock is on the folder, not on its content.
        shared: True to share the lock with others who share it.
        wait_s: how long to try.

    Raises:
        OSError: the folder cannot be opened.
    """
    if fcntl is None:
        return HeldFolder(None, locked=False)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    way = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    end = time.monotonic() + wait_s
    try:
        while True:
            try:
                fcntl.flock(descriptor, way)
            except BlockingIOError:
                if time.monotonic() >= end:
                    os.close(descriptor)
                    return None
                time.sleep(_PAUSE_S)
            except OSError as failed:
                if failed.errno in _CANNOT:
                    return HeldFolder(descriptor, locked=False)
                raise
            else:
                return HeldFolder(descriptor, locked=True)
    except BaseException:
        with contextlib.suppress(OSError):
            os.close(descriptor)
        raise


@contextlib.contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Context in which no other process creates, changes or replaces `folder`; held for moments only.

    The lock is on its parent folder, because `folder` may not exist yet.

    Raises:
        StorageError: another process held the lock for a minute.
    """
    held = hold_folder(folder.parent, wait_s=_PATIENCE_S)
    if held is None:
        raise StorageError(f"another program has kept {folder.parent} locked for {_PATIENCE_S:.0f} s: is one stopped?")
    try:
        yield
    finally:
        held.close()


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Context in which replaced files of `folder` are not removed; others may read it too."""
    try:
        held = hold_folder(folder, shared=True, wait_s=_PATIENCE_S)
    except OSError:  # missing or not readable: the next read gives the error
        held = None
    try:
        yield
    finally:
        if held is not None:
            held.close()
