"""Folders that are written whole or not at all: a kill at any moment leaves the old one or the new one."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from edgecnn.errors import SpecError, StorageError


@contextlib.contextmanager
def staging_folder(folder: Path, *, marker: str, what: str) -> Iterator[Path]:
    """A staging folder beside `folder`, gone at the end whatever happens; disk errors become StorageError.

    Args:
        folder: what is to be written.
        marker: the file that makes a folder one of these.
        what: to call it in an error.

    Raises:
        SpecError: `folder` exists and has no marker.
        StorageError: the disk is full or the place not writable.
    """
    if folder.exists() and not (folder / marker).is_file():
        raise SpecError(f"{folder} exists and is not a {what}: choose another --out, or remove it")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left_over in folder.parent.glob(f".{folder.name}.partial-*"):  # of a run that was killed
            shutil.rmtree(left_over, ignore_errors=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
    except OSError as failed:
        raise storage_error(folder.parent, failed) from failed
    try:
        yield staging
    except OSError as failed:
        raise storage_error(folder.parent, failed) from failed
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def move_into_place(staging: Path, folder: Path, *, marker: str, wanted: Collection[str]) -> None:
    """Make the staged files `folder`; the marker, which names the others, goes last.

    Args:
        staging: from `staging_folder`.
        folder: what was there before is replaced.
        marker: the file that makes a folder one of these.
        wanted: names of the other files that belong to it now.
    """
    staging.chmod(0o755)  # mkdtemp makes it private; what it becomes is there to be copied
    if not folder.exists():
        os.replace(staging, folder)
        return
    for name in wanted:
        if (staging / name).exists():
            os.replace(staging / name, folder / name)
    os.replace(staging / marker, folder / marker)
    for path in folder.iterdir():  # files of the old one; a kill here leaves them unused, not wrong
        if path.is_file() and path.name not in {*wanted, marker}:
            path.unlink()


def write_durably(path: Path, content: bytes) -> None:
    """Write a file, and wait until the disk has it."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        StorageError: disk full, or not writable.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        write_durably(partial, content)
        os.replace(partial, path)
    except OSError as failed:
        raise storage_error(path.parent, failed) from failed
    finally:
        partial.unlink(missing_ok=True)


def storage_error(folder: Path, failed: OSError) -> StorageError:
    """What to tell of a disk that failed."""
    if failed.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageError(f"the disk is full at {folder}: nothing was written; free some space and try again")
    return StorageError(f"{failed.filename or folder} is not writable: {failed.strerror or failed}")
