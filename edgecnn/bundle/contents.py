"""What lies in a signed bundle's folder, read so that nothing else can be slipped in: plain files, each hashed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from io import BufferedReader
from pathlib import Path

from edgecnn.bundle.envelope import SIGNATURE
from edgecnn.errors import SignatureError
from edgecnn.older_python import sha256_of_open
from edgecnn.printable import printable, shortened

_BLOCK_BYTES = 1 << 20
_MOST_FILES = 10_000
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)


def plain_files(folder: Path) -> list[str]:
    """Names of a bundle's files but its signature, sorted.

    Raises:
        SignatureError: a link, a folder, a pipe or a hidden file lies there, or names that some systems take for one.
        OSError: the folder cannot be read.
    """
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not stat.S_ISREG(entry.stat(follow_symlinks=False).st_mode):
                raise SignatureError(
                    f"{shortened(entry.name)!r} lies in it and is not a plain file: a signed bundle has no links and "
                    "no folders in it"
                )
            names.append(entry.name)
            if len(names) > _MOST_FILES:
                raise SignatureError(f"more than {_MOST_FILES} files lie in it")
    check_names(names)
    return sorted(name for name in names if name != SIGNATURE)


def check_names(names: Iterable[str]) -> None:
    """That names of files mean the same on every system.

    Raises:
        SignatureError: one doesn't.
    """
    seen: dict[str, str] = {}
    for name in names:
        if name.startswith(".") or not name or "/" in name or "\\" in name or printable(name, lines=False) != name:
            raise SignatureError(f"{shortened(name)!r} is not the name of a file that may lie in a signed bundle")
        alike = unicodedata.normalize("NFKC", name).casefold()
        if alike in seen:
            raise SignatureError(
                f"{shortened(seen[alike])!r} and {shortened(name)!r} are one file where capitals don't count"
            )
        seen[alike] = name


def read_plain(path: Path, most_bytes: int) -> bytes:
    """The bytes of a plain file.

    Raises:
        SignatureError: it is a link, no file, or larger than `most_bytes`.
        FileNotFoundError: it is not there.
        OSError: it cannot be read.
    """
    with open_plain(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise SignatureError(f"{path.name} is larger than {most_bytes >> 20} MB")
    return content


def open_plain(path: Path) -> BufferedReader:
    """Open a plain file for reading, whatever somebody puts in its place meanwhile.

    Raises:
        SignatureError: it is a link, or no file.
        OSError: it is not there, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _NO_LINK | _BINARY)
    except OSError as failed:
        if failed.errno == errno.ELOOP:
            raise SignatureError(f"{path.name} is a link: a signed bundle has none") from failed
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SignatureError(f"{path.name} is not a plain file")
    return os.fdopen(descriptor, "rb")


def hash_of(path: Path) -> str:
    """SHA-256 of a plain file, hexadecimal.

    Raises:
        SignatureError, OSError: as `open_plain`.
    """
    with open_plain(path) as file:
        return sha256_of_open(file)


def digest_of(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def copy_plain(source: Path, target: Path) -> None:
    """Copy the bytes of a plain file to a new one.

    Raises:
        SignatureError, OSError: as `open_plain`; or the copy cannot be written.
    """
    with open_plain(source) as file, target.open("xb") as copy:
        while block := file.read(_BLOCK_BYTES):
            copy.write(block)


def compare(folder: Path, signed: Mapping[str, str], *, but: Iterable[str] = ()) -> None:
    """That a folder holds the signed files, all of them and no other, each as it was signed.

    Args:
        folder: of the bundle.
        signed: name → SHA-256.
        but: names of files that are hashed elsewhere; they must be there all the same.

    Raises:
        SignatureError: it doesn't.
        OSError: something cannot be read.
    """
    check_names(signed)
    there = set(plain_files(folder))
    if absent := sorted(set(signed) - there):
        raise SignatureError(f"{shortened(', '.join(absent))} was signed and is not there")
    if added := sorted(there - set(signed)):
        raise SignatureError(f"{shortened(', '.join(added))} lies in it and was not signed")
    for name in sorted(set(signed) - set(but)):
        if hash_of(folder / name) != signed[name]:
            raise SignatureError(f"{shortened(name)} is not as it was signed")
