"""Results of long work on disk: after a kill, a power cut or a full disk, the work continues where it stopped.

A journal is a file of JSON lines: the first identifies the work, each other one is an entry, and later entries replace
earlier ones. Lines are only appended, each is on the disk before `put` returns, and an incomplete line is
ignored.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgecnn.atomic import storage_error, write_whole
from edgecnn.errors import SpecError
from edgecnn.json_text import encode_json

_ABOUT = "about"


class Journal:
    """Values by (what, of), each saved as soon as it is known.

    Args:
        path: the file; its folder is created. None keeps everything in memory.
        about: identifies the work (a digest of network, settings, data): a file of other work is started
            again (see `journal_subject`).

    Raises:
        StorageError: disk full, or not writable.
    """

    def __init__(self, path: Path | None = None, *, about: str = "") -> None:
        self._path = path
        self._values: dict[tuple[str, str], Any] = {}
        self._is_whole = True  # whether the file ends with a complete line
        if path is None:
            return
        try:
            if _header_of(path) == about:
                self._read(path)
                return
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as failed:
            raise storage_error(path.parent, failed) from failed
        write_whole(path, _line({_ABOUT: about}))

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._values

    def get(self, what: str, of: str = "") -> Any:
        """The last value for this key; None where there is none, or it is None."""
        return self._values.get((what, of))

    def of(self, what: str) -> Iterator[tuple[str, Any]]:
        """All entries of a kind: (of, value), in order."""
        return ((of, value) for (kind, of), value in list(self._values.items()) if kind == what)

    def put(self, what: str, of: str, value: Any) -> None:
        """Add an entry.

        Args:
            what, of: its key.
            value: a JSON value: infinity and NaN become None.

        Raises:
            StorageError: disk full, or not writable.
        """
        line = _line({"what": what, "of": of, "value": value})
        if self._path is not None:
            try:
                self._add(self._path, line)
            except OSError as failed:
                raise storage_error(self._path.parent, failed) from failed
        self._values[what, of] = value

    def _add(self, path: Path, line: bytes) -> None:
        with path.open("ab", buffering=0) as file:
            line = line if self._is_whole else b"\n" + line  # separates it from an incomplete line
            self._is_whole = False
            written = 0
            while written < len(line):  # one write, unless the disk is almost full
                written += file.write(line[written:]) or 0
            os.fsync(file.fileno())
            self._is_whole = True

    def _read(self, path: Path) -> None:
        content = path.read_bytes()
        self._is_whole = content.endswith(b"\n")
        for line in content.splitlines()[1:]:
            try:
                entry = json.loads(line)
                what, of, value = entry["what"], entry["of"], entry["value"]
            except (ValueError, TypeError, KeyError, RecursionError):  # an incomplete line
                continue
            if isinstance(what, str) and isinstance(of, str):
                self._values[what, of] = value


def journal_subject(path: Path) -> str | None:
    """The identity of a journal's work; None where there is no journal.

    Raises:
        SpecError: the file is not a journal, or its first line is damaged.
        StorageError: not readable.
    """
    try:
        if not path.exists():
            return None
        about = _header_of(path)
    except OSError as failed:
        raise storage_error(path.parent, failed) from failed
    if about is None:
        raise SpecError(f"{path} is damaged: its first line does not say what it is about")
    return about


def _header_of(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline(1 << 16))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    about = header.get(_ABOUT) if isinstance(header, dict) else None
    return about if isinstance(about, str) else None


def _line(value: dict[str, Any]) -> bytes:
    return encode_json(value) + b"\n"
