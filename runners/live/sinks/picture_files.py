"""Annotated pictures: one file for each of the source's pictures."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import cv2

from edgecnn.errors import DataError, SpecError
from edgecnn.pictures import PICTURE_SUFFIXES
from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.recording.rotation import remove_leftovers
from edgecnn.runners.live.sinks import Annotated, storage_error

if TYPE_CHECKING:
    from typing import Self


class PictureSink:
    """Writes annotated pictures, each completely or not at all.

    Args:
        path: a file, if it has a picture's suffix and is not a folder; otherwise a folder, created if needed, where
            each picture gets its source's name.

    Attributes:
        written: the file or the folder.

    Raises:
        StorageError: the folder can't be created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._single = path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir()
        self._written: set[Path] = set()
        self.written = [path]
        folder = path.parent if self._single else path
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as failed:
            raise storage_error(folder, failed) from failed
        remove_leftovers(folder, path if self._single else None)

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Write one picture."""
        path = self.path if self._single else self.path / Path(frame.source).name
        if path.exists() and path.samefile(frame.source):
            raise SpecError(f"{path} is also the input picture: choose another output")
        if path in self._written:
            raise SpecError(f"{path} is one picture, but the source has several: give a folder instead")
        try:
            encoded, data = cv2.imencode(path.suffix, annotated.picture)
        except cv2.error as failed:
            raise DataError(f"OpenCV cannot write {path.suffix} pictures: use .jpg or .png") from failed
        if not encoded:
            raise DataError(f"{path} could not be encoded: use .jpg or .png")
        partial = path.with_name(f".{path.stem}.partial-{os.getpid()}{path.suffix}")
        try:
            with partial.open("wb") as file:
                file.write(data.tobytes())
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as failed:
            raise storage_error(path, failed) from failed
        finally:
            partial.unlink(missing_ok=True)
        self._written.add(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open between pictures."""
