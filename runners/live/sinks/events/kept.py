"""The events that lie in folders: the newest first, read as what anybody may have put there."""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from edgecnn.printable import shortened

MOST_EVENTS: Final = 60
CLIP, PICTURE, RECORD = "clip.mp4", "best.jpg", "event.json"
_NAME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}Z_[A-Za-z0-9_-]{0,60}")
_LARGEST_RECORD: Final = 256 << 10
_MOST_OBJECTS, _LONGEST_WORD = 20, 60
_TICK_NS: Final = 2_000_000_000  # FAT has the coarsest
_NO_LINK: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # a pipe would be waited for


class KeptObject(msgspec.Struct, frozen=True):
    """An object of an event; as in its record, with short printable words."""

    label: str = ""
    zone: str | None = None
    score: float = 0.0
    seconds: float = 0.0


class KeptEvent(msgspec.Struct, frozen=True):
    """An event for people.

    Attributes:
        event: its folder's name.
        camera: the camera's name.
        began_unix_ns: when its clip's first object had stayed long enough.
        seconds: its length.
        objects: the first 20.
    """

    began_unix_ns: Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]
    event: str = ""
    camera: str = ""
    seconds: float = 0.0
    objects: tuple[KeptObject, ...] = ()


class KeptEvents:
    """Reads the newest events of folders; may be called from several threads.

    Args:
        folders: returns the folders, which may come to be later.
    """

    def __init__(self, folders: Callable[[], Sequence[Path]]) -> None:
        self._folders = folders
        self._reading = threading.Lock()
        self._seen: tuple[object, ...] = ()
        self._newest: tuple[KeptEvent, ...] = ()

    @property
    def kept(self) -> bool:
        """Whether events are kept at all."""
        return bool(self._folders())

    def newest(self) -> tuple[KeptEvent, ...]:
        """The newest events of all folders, at most 60; what cannot be read is left out.

        A folder that has not changed for a while is not read again: events come and go by a rename, which changes its
        time, but not twice within the file system's tick.
        """
        with self._reading:
            folders = list(dict.fromkeys(self._folders()))
            seen = tuple((folder, _changed_ns(folder)) for folder in folders)
            if seen != self._seen:
                places = heapq.nlargest(MOST_EVENTS, _names(folders), key=lambda place: place.name)
                self._newest = tuple(event for place in places if (event := _read(place)) is not None)
                settled = all(time.time_ns() - changed_ns > _TICK_NS for _, changed_ns in seen)
                self._seen = seen if settled else ()
            return self._newest

    def file(self, event: str, name: str) -> Path | None:
        """An event's clip or picture; None where there is none, whatever was asked for."""
        if name not in (CLIP, PICTURE) or not _NAME.fullmatch(event):
            return None
        for folder in self._folders():
            path = folder / event / name
            with contextlib.suppress(OSError):
                if stat.S_ISDIR(os.lstat(path.parent).st_mode) and stat.S_ISREG(os.lstat(path).st_mode):
                    return path
        return None


def _changed_ns(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _names(folders: Sequence[Path]) -> Iterator[Path]:
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in entries if _NAME.fullmatch(entry.name))


def _read(place: Path) -> KeptEvent | None:
    try:
        if not stat.S_ISDIR(os.lstat(place).st_mode):
            return None
        with open(os.open(place / RECORD, os.O_RDONLY | _NO_LINK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            raw = file.read(_LARGEST_RECORD + 1)
        found = msgspec.json.decode(raw, type=KeptEvent)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    objects = tuple(
        KeptObject(_short(each.label), None if each.zone is None else _short(each.zone), each.score, each.seconds)
        for each in found.objects[:_MOST_OBJECTS]
    )
    return KeptEvent(found.began_unix_ns, place.name, _short(found.camera), found.seconds, objects)


def _short(text: str) -> str:
    return shortened(text, length=_LONGEST_WORD)
