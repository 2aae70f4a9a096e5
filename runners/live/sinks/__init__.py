"""Sinks for results: one file for each kind, all with the interface `Sink`."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from edgecnn.errors import SpecError, StorageError
from edgecnn.printable import distinct_name
from edgecnn.results import Result, UInt8Array
from edgecnn.runners.live.frame import Frame

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Annotated", "EndOfRun", "Sink", "camera_in_files", "check_folder", "storage_error"]


class EndOfRun(Exception):
    """Not an error: a sink asks the run to end (the window was closed), with the reason in a few words."""


class Annotated:
    """A frame with its result drawn on it: drawn on the first request, once for all sinks."""

    def __init__(self, draw: Callable[[], UInt8Array]) -> None:
        self._draw = draw
        self._picture: UInt8Array | None = None
        self._drawing = threading.Lock()

    @property
    def picture(self) -> UInt8Array:
        """Uint8 [height, width, 3] BGR; read-only, because all sinks share it."""
        with self._drawing:
            if self._picture is None:
                self._picture = self._draw()
            return self._picture


class Sink(Protocol):
    """Takes results. A context manager: when its block is left, everything that it writes is complete and closed."""

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Take one result; the arrays may be kept, and must not be changed.

        Raises:
            EndOfRun: the sink wants no more results.
            StorageError: it can't be written.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def camera_in_files(name: str) -> str:
    """A camera's name in the names of files, at most 60 characters; different cameras have different ones."""
    return distinct_name(name, r"[A-Za-z0-9_-]+", longest=60)


def storage_error(path: Path, failed: OSError) -> StorageError:
    """The error for a `path` that can't be written."""
    if failed.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageError(f"the disk is full: {path} could not be written any further")
    return StorageError(f"{path} cannot be written: {failed.strerror or failed}")


def check_folder(path: str | Path, words: Mapping[str, Any], *, tracks: bool) -> None:
    """Refuse a file whose folder is missing; "-" is stdout.

    Raises:
        SpecError: there is no such folder.
    """
    if path != "-" and not Path(path).parent.is_dir():
        raise SpecError(f"{path}: the folder {Path(path).parent} does not exist")
