"""Writes folders completely or not at all: a kill at any moment leaves the old one or the new one."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from pathlib import Path

from edgecnn.errors import SpecError, StorageError
from edgecnn.locks import changing, hold_folder

_SURELY_ABANDONED_S = 86400.0  # where it is unknown whether the owner is alive
_READERS_S = 2.0


@contextlib.contextmanager
def staging_folder(folder: Path, *, marker: str, what: str) -> Iterator[Path]:
    """A staging folder next to `folder`, removed at the end in any case; disk errors become StorageError.

    Several processes may have one for the same folder; those of killed processes are removed.

    Args:
        folder: the folder to be written.
        marker: the file that identifies such a folder.
        what: name of the folder's kind in an error.

    Raises:
        SpecError: `folder` exists and has no marker.
        StorageError: the disk is full or the place not writable.
    """
    if folder.exists() and not (folder / marker).is_file():
        raise SpecError(f"{folder} exists and is not a {what}: choose another --out, or remove it")
    folder = Path(os.path.realpath(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with changing(folder):
            _remove_abandoned(folder)
            staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
            held = hold_folder(staging, shared=True)  # shows others that its owner is alive
    except OSError as failed:
        raise storage_error(folder.parent, failed) from failed
    try:
        yield staging
    except OSError as failed:
        raise storage_error(folder.parent, failed) from failed
    finally:
        if held is not None:
            held.close()
        shutil.rmtree(staging, ignore_errors=True)


def _remove_abandoned(folder: Path) -> None:
    """Staging folders of processes that have ended."""
    for left_over in folder.parent.glob(f".{glob.escape(folder.name)}.partial-*"):
        with contextlib.suppress(OSError):
            held = hold_folder(left_over)
            if held is None:
                continue
            if held.locked or time.time() - left_over.stat().st_mtime > _SURELY_ABANDONED_S:
                shutil.rmtree(left_over, ignore_errors=True)
            held.close()


def move_into_place(
    staging: Path, folder: Path, *, marker: str, wanted: Collection[str], unwanted: Collection[str]
) -> None:
    """Move the staged files into `folder`; the marker, which names the others, goes last. Call it inside `changing`.

    When it returns, all data is on the disk; a power cut before leaves the old version or the new one.

    Args:
        staging: from `staging_folder`.
        folder: its other files are left alone.
        marker: the file that identifies such a folder.
        wanted: names of the other files that belong to it now.
        unwanted: names of files that belonged to it before; a file that another process is reading may stay.
    """
    folder = Path(os.path.realpath(folder))
    for path in staging.rglob("*"):
        if path.is_file():
            sync(path)
    sync(staging)
    staging.chmod(0o755)  # mkdtemp makes it private; the result must be copyable by others
    if not folder.exists():
        os.replace(staging, folder)
        sync(folder.parent)
        return
    for name in wanted:
        if (staging / name).exists():
            os.replace(staging / name, folder / name)
    sync(folder)  # the marker must not exist before the files that it names
    os.replace(staging / marker, folder / marker)
    sync(folder)
    _remove_when_unread(folder, set(unwanted) - {*wanted, marker})  # a kill here leaves them unused, which is harmless


def _remove_when_unread(folder: Path, names: Collection[str]) -> None:
    if not any((folder / name).is_file() for name in names):
        return
    held = hold_folder(folder, wait_s=_READERS_S)
    if held is None:
        return
    try:
        for name in names:
            (folder / name).unlink(missing_ok=True)
    finally:
        held.close()


def remove_partial_files(folder: Path) -> None:
    """Remove what killed writers of single files left. Call it inside `changing`: whoever writes now holds the lock."""
    for left_over in folder.glob(".*.partial-*"):
        if not left_over.is_dir():
            left_over.unlink(missing_ok=True)


def replace_inside(folder: Path, name: str, content: bytes) -> None:
    """Replace one file of a folder, and wait until it is on the disk. Call it inside `changing`."""
    prefix = f".{name}.partial-"
    for left_over in folder.glob(f"{glob.escape(prefix)}*"):  # their writer held the lock and was killed
        left_over.unlink(missing_ok=True)
    partial = folder / f"{prefix}{os.getpid()}"
    try:
        write_durably(partial, content)
        os.replace(partial, folder / name)
        sync(folder)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's list of names, is on the disk."""
    if os.name == "nt" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as failed:
        if failed.errno not in {errno.EINVAL, errno.EROFS, errno.ENOTSUP}:  # file systems without support for it
            raise
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file, and wait until it is on the disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file completely or not at all.

    Raises:
        StorageError: disk full, or not writable.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        write_durably(partial, content)
        os.replace(partial, path)
        sync(path.parent)
    except OSError as failed:
        raise storage_error(path.parent, failed) from failed
    finally:
        partial.unlink(missing_ok=True)


def storage_error(folder: Path, failed: OSError) -> StorageError:
    """The error for a disk failure."""
    if failed.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageError(f"the disk is full at {folder}: nothing was written; free some space and try again")
    return StorageError(f"{failed.filename or folder} is not writable: {failed.strerror or failed}")
