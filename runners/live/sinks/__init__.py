"""Where results go: one file a kind, all behind `Sink`."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from edgecnn.errors import StorageError
from edgecnn.results import Result, UInt8Array
from edgecnn.runners.live.frames import Frame

__all__ = ["Annotated", "EndOfRun", "Sink", "storage_error"]


class EndOfRun(Exception):
    """No error: a sink wants the run to end (the window was closed), and says why in a few words."""


class Annotated:
    """A frame with its result drawn on it: drawn when first asked for, and once, however many sinks ask."""

    def __init__(self, draw: Callable[[], UInt8Array]) -> None:
        self._draw = draw
        self._picture: UInt8Array | None = None
        self._drawing = threading.Lock()

    @property
    def picture(self) -> UInt8Array:
        """Uint8 [height, width, 3] BGR; read only, because all sinks share it."""
        with self._drawing:
            if self._picture is None:
                self._picture = self._draw()
            return self._picture


class Sink(Protocol):
    """Takes results. A context manager: what it writes is complete and closed whenever its block is left."""

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Take one result; the arrays may be kept, and must not be changed.

        Raises:
            EndOfRun: nobody wants more.
            StorageError: it can't be written.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def storage_error(path: Path, failed: OSError) -> StorageError:
    """What to say when `path` can't be written."""
    if failed.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StorageError(f"the disk is full: {path} could not be written any further")
    return StorageError(f"{path} cannot be written: {failed.strerror or failed}")
