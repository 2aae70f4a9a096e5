"""JSON lines: one object per frame, flushed at once, so that other programs can read along."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias

from edgecnn.json_text import encode_json
from edgecnn.printable import printable_json
from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.recording.rotation import Rotation
from edgecnn.runners.live.sinks import Annotated, EndOfRun, storage_error
from edgecnn.runners.live.sinks.kind import Setting
from edgecnn.runners.live.sinks.text_file import LineFile
from edgecnn.tasks import TASKS

if TYPE_CHECKING:
    from typing import Self

Record: TypeAlias = dict[str, Any]


class JsonLinesSink:
    """Writes records to a file, or to stdout.

    Args:
        path: a file, to which lines are appended (see `LineFile`), or a pipe; "-" is stdout.
        rotation: when the next file begins.

    Attributes:
        written: the file.

    Raises:
        StorageError: it can't be opened.
    """

    def __init__(self, path: str | Path, *, rotation: Rotation | None = None) -> None:
        self._path = Path("stdout" if str(path) == "-" else path)
        self.written: list[Path] = []
        self._file: LineFile | None = None
        if str(path) == "-":
            return
        try:
            self._file = LineFile(self._path, rotation)
        except OSError as failed:
            raise storage_error(self._path, failed) from failed
        self.written.append(self._path)

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Write one line."""
        # Of the same meaning, and fit for a terminal: a label may hold what commands one.
        line = printable_json(encode_json(record_of(frame, result)).decode()).encode() + b"\n"
        try:
            if self._file is not None:
                self._file.write(line)
            else:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
        except BrokenPipeError:
            if self._file is None:  # Python flushes stdout again at exit, and would report an error
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise EndOfRun("the reader closed the pipe") from None
        except OSError as failed:
            raise storage_error(self._path, failed) from failed

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def open_jsonl(path: str | Path, setting: Setting) -> JsonLinesSink:
    """The sink that writes lines into a file or to stdout."""
    return JsonLinesSink(path, rotation=Rotation.parse(setting.words.get("rotate"), setting.words.get("keep")))


def record_of(frame: Frame, result: Result) -> Record:
    """The record of one frame: the frame's fields, the task's name, and the task's record of the result."""
    return {
        "frame": frame.index,
        "captured_ns": frame.captured_ns,
        "captured_unix_ns": frame.captured_unix_ns,
        "age_ms": round(frame.age_ns / 1e6, 3),
        "source": frame.source,
        **({} if frame.media_ns is None else {"media_s": round(frame.media_ns * 1e-9, 6)}),
        "size": [frame.image.shape[1], frame.image.shape[0]],
        **TASKS.of(result).document(result),
    }
