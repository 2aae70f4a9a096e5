"""The versions of one bundle on a board: each a folder of its own, and a link that says which one runs.

PLACE/street.edge is a link to PLACE/street.edge.slots/<digest>. A version is written beside the others and appears by
one rename; the link changes by one rename. So at every moment, also after a power cut, it leads to one whole version.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from edgecnn.atomic import storage_error, sync
from edgecnn.bundle import MANIFEST
from edgecnn.bundle.contents import copy_plain, hash_of, plain_files
from edgecnn.bundle.envelope import SIGNATURE
from edgecnn.bundle.signature import stamp_of
from edgecnn.errors import BundleError, SignatureError, SpecError
from edgecnn.locks import changing

KEPT: Final = 3  # versions, besides the one that runs: to go back to
MOST_HISTORY: Final = 200  # lines
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\.edge")
_LONGEST_LINE: Final = 4096


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the history.

    Attributes:
        at_unix_s: when, by the board's clock.
        what: "deployed" or "rolled back".
        slot, before: the version that runs from then on, and the one that ran; "" for none.
        release: of a signed version, as its signature says; else 0.
        why: in words; "" where somebody asked for it.
    """

    at_unix_s: int
    what: str
    slot: str
    before: str = ""
    release: int = 0
    why: str = ""


class Slots:
    """The versions of a bundle.

    Args:
        place: the folder of all deployed bundles of the board; made if it is missing.
        name: of the bundle, NAME.edge.

    Attributes:
        link: the path that a run opens.

    Raises:
        SpecError: another kind of name, or something else lies in the link's place.
        StorageError: the folder can't be written.
    """

    def __init__(self, place: Path, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise SpecError(f"a deployed bundle is called NAME.edge, of letters, digits, . _ and -; got {name!r}")
        self.link = place / name
        self._folder = place / f"{name}.slots"
        self._history = self._folder / "history.jsonl"
        if self.link.exists() and not self.link.is_symlink():
            raise SpecError(f"{self.link} was not deployed: move it away, or deploy to another folder (--place)")
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as failed:
            raise storage_error(self._folder, failed) from failed

    @property
    def current(self) -> str:
        """The version that runs; "" for none."""
        with contextlib.suppress(OSError):
            leads_to = Path(os.readlink(self.link))
            if leads_to.parent.name == self._folder.name and (self._folder / leads_to.name).is_dir():
                return leads_to.name
        return ""

    @property
    def previous(self) -> str:
        """The version that ran before the current one and is still there; "" for none."""
        current = self.current
        changes = [change for change in self.history() if change.slot == current]
        for change in reversed(changes):
            if change.before not in ("", current) and self._path(change.before).is_dir():
                return change.before
        if current and not changes:  # a power cut came between the link and the history
            return next((slot for slot in self.all() if slot != current), "")
        return ""

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Nobody else changes them while inside; what a killed process left is removed."""
        with changing(self._folder):
            for left_over in self._folder.glob(".partial-*"):
                shutil.rmtree(left_over, ignore_errors=True)
            for left_over in self.link.parent.glob(f".{self.link.name}.partial-*"):
                left_over.unlink(missing_ok=True)
            yield

    def add(self, bundle: Path) -> str:
        """Write a bundle beside the others, as it is; returns its slot. One that is there and whole stays.

        Raises:
            SignatureError: something lies in it that is no plain file.
            BundleError: it changed while it was read.
            StorageError: the disk is full or can't be written; nothing of it stays.
        """
        try:
            files = {name: hash_of(bundle / name) for name in self._names(bundle)}
            digest = digest_of(files)
            slot, number = digest, 1
            while self._path(slot).exists() and not self._is_whole(slot, files):
                number += 1  # a worn memory card: what is damaged is not written over while it may run
                slot = f"{digest}-{number}"
            if not self._path(slot).exists():
                self._write(bundle, files, self._path(slot))
            return slot
        except OSError as failed:
            raise storage_error(self._folder, failed) from failed

    def switch(self, slot: str, *, what: str, why: str = "") -> None:
        """Let a version run from now on: what opens the link gets it.

        Raises:
            SpecError: there is no such version.
            StorageError: the link can't be written; the old one stays.
        """
        if not self._path(slot).is_dir():
            raise SpecError(f"there is no version {slot!r} of {self.link.name}: {', '.join(self.all()) or 'none'}")
        before, partial = self.current, self.link.with_name(f".{self.link.name}.partial-{os.getpid()}")
        try:
            partial.unlink(missing_ok=True)
            partial.symlink_to(Path(self._folder.name) / slot)
            os.replace(partial, self.link)
            sync(self.link.parent)
            self._note(slot, before, what=what, why=why)
            self._drop_oldest()
        except OSError as failed:
            raise storage_error(self.link.parent, failed) from failed

    def all(self) -> list[str]:
        """The versions that are there, the newest first."""
        slots = [path for path in self._folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
        return [
            path.name for path in sorted(slots, key=lambda path: (path.stat().st_mtime_ns, path.name), reverse=True)
        ]

    def release(self, slot: str) -> int:
        """A version's release as its signature says, unverified; 0 without one."""
        stamp = stamp_of(self._path(slot)) if slot else None
        return stamp.release if stamp is not None else 0

    def history(self) -> list[Change]:
        """What ran when, the oldest first; a line that a power cut halved is left out."""
        try:
            lines = self._history.read_bytes().splitlines()[-MOST_HISTORY:]
        except OSError:
            return []
        found = []
        for line in lines:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
                found.append(msgspec.json.decode(line[:_LONGEST_LINE], type=Change))
        return found

    def _path(self, slot: str) -> Path:
        return self._folder / Path(slot).name if slot else self._folder / ".none"

    def _names(self, bundle: Path) -> list[str]:
        names = plain_files(bundle)
        return [*names, SIGNATURE] if (bundle / SIGNATURE).exists() else names

    def _is_whole(self, slot: str, files: dict[str, str]) -> bool:
        path = self._path(slot)
        try:
            return {name: hash_of(path / name) for name in self._names(path)} == files
        except (OSError, SignatureError):
            return False

    def _write(self, bundle: Path, files: dict[str, str], path: Path) -> None:
        partial = self._folder / f".partial-{path.name}-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            for name, sha256 in files.items():
                copy_plain(bundle / name, partial / name)
                sync(partial / name)
                if hash_of(partial / name) != sha256:
                    raise BundleError(f"{bundle / name} changed while it was copied")
            sync(partial)
            os.replace(partial, path)
            sync(self._folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _note(self, slot: str, before: str, *, what: str, why: str) -> None:
        now = int(time.time())
        change = Change(at_unix_s=now, what=what, slot=slot, before=before, release=self.release(slot), why=why[:500])
        ended = not self._history.exists() or self._history.read_bytes()[-1:] in (b"", b"\n")
        with self._history.open("ab") as file:
            file.write(b"" if ended else b"\n")  # after a power cut
            file.write(msgspec.json.encode(change) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _drop_oldest(self) -> None:
        keep = {self.current, self.previous}
        others = [slot for slot in self.all() if slot not in keep]
        for slot in others[max(0, KEPT - len(keep - {"", self.current})) :]:
            gone = self._folder / f".partial-gone-{slot}"
            with contextlib.suppress(OSError):
                os.replace(self._path(slot), gone)
            shutil.rmtree(gone, ignore_errors=True)


def digest_of(files: dict[str, str]) -> str:
    """The name of a version with these files: the first 16 digits of a hash of their names and hashes.

    Raises:
        BundleError: there is no manifest among them.
    """
    if MANIFEST not in files:
        raise BundleError(f"what was sent is no bundle: there is no {MANIFEST} in it")
    lines = "".join(f"{sha256}  {name}\n" for name, sha256 in sorted(files.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
