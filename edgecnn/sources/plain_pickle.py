"""Loads what torch.save has written, tensors and plain values only, in a time that its size bounds."""

from __future__ import annotations

import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator
from typing import IO, Any, Final

import torch

_ZIP: Final = b"PK\x03\x04"
_PICKLES: Final = 5  # of torch's old files: a magic number, the version, the machine, the object, the storages' keys
_LONGEST_NAME: Final = 1 << 10  # of a class or a function
_LONGEST_WORD: Final = 1 << 14  # characters without a space, in any text


def load_plain(file: IO[bytes]) -> Any:
    """What was saved, with tensors on the CPU; nothing in it is executed.

    torch puts what it refuses into a message and searches that with patterns whose time grows with the square of a
    word's length: a file of a few hundred kilobytes would keep it busy for an hour. So words have a limit.

    Raises:
        pickle.UnpicklingError: it holds other objects, or words that are too long.
        Exception: anything that torch raises for what is damaged.
    """
    _require_short_words(file)
    file.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the errors report the same
        return torch.load(file, map_location="cpu", weights_only=True)


def is_whole_pickle(file: IO[bytes]) -> bool:
    """Whether a file consists of complete pickles, instead of a truncated or another file; nothing is executed."""
    if _is_archive(file):
        return zipfile.is_zipfile(file)
    try:
        for _ in _words_in_old_file(file):
            pass
    except Exception:
        return False
    return True


def _is_archive(file: IO[bytes]) -> bool:
    """Whether torch reads it as an archive; the file is at its beginning afterwards."""
    file.seek(0)
    start = file.read(len(_ZIP))
    file.seek(0)
    return start == _ZIP


def _require_short_words(file: IO[bytes]) -> None:
    if not _is_archive(file):
        for code, word in _words_in_old_file(file):
            _require_short(code, word)
        return
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            if member.filename.lower().endswith(".pkl"):  # torch finds data.pkl in any case
                with archive.open(member) as pickled:
                    for code, word in _words(pickled):
                        _require_short(code, word)


def _words_in_old_file(file: IO[bytes]) -> Iterator[tuple[str, object]]:
    for _ in range(_PICKLES):
        yield from _words(file)
        place = file.tell()
        if not file.read(1):
            return
        file.seek(place)


def _words(file: IO[bytes]) -> Iterator[tuple[str, object]]:
    """The name of each operation of one pickle, with its argument."""
    return ((operation.name, argument) for operation, argument, _ in pickletools.genops(file))


def _require_short(code: str, word: object) -> None:
    if not isinstance(word, str | bytes | bytearray) or len(word) <= _LONGEST_NAME:
        return
    limit = _LONGEST_NAME if code in ("GLOBAL", "INST") else _LONGEST_WORD
    if max(map(len, repr(word).split()), default=0) > limit:
        raise pickle.UnpicklingError(f"a text in it ({code}) has more than {limit} characters without a space")
