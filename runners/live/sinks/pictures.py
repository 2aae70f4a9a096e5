"""Annotated pictures: one file for each picture of the source."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2

from edgecnn.errors import DataError, SpecError
from edgecnn.results import Result
from edgecnn.runners.live.files import PICTURE_SUFFIXES
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.sinks import Annotated, storage_error


class PictureSink:
    """Writes annotated pictures, each complete or not at all.

    Args:
        path: a file, where it has a picture's suffix and is no folder; else a folder, made if absent, where
            each picture gets its source's name.

    Raises:
        StorageError: the folder can't be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._single = path.suffix.lower() in PICTURE_SUFFIXES and not path.is_dir()
        self._written: set[Path] = set()
        folder = path.parent if self._single else path
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as failed:
            raise storage_error(folder, failed) from failed

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Write one picture."""
        target = self.path if self._single else self.path / Path(frame.source).name
        if target.exists() and target.samefile(frame.source):
            raise SpecError(f"{target} is the picture that is read: choose another place to write to")
        if target in self._written:
            raise SpecError(f"{target} is one picture, the source has several: give a folder instead")
        try:
            encoded, data = cv2.imencode(target.suffix, annotated.picture)
        except cv2.error as failed:
            raise DataError(f"OpenCV cannot write {target.suffix} pictures: use .jpg or .png") from failed
        if not encoded:
            raise DataError(f"{target} could not be encoded: use .jpg or .png")
        partial = target.with_name(f".{target.stem}.partial-{os.getpid()}{target.suffix}")
        try:
            partial.write_bytes(data.tobytes())
            os.replace(partial, target)
        except OSError as failed:
            raise storage_error(target, failed) from failed
        finally:
            partial.unlink(missing_ok=True)
        self._written.add(target)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing is open between pictures."""
