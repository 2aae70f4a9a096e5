"""Checks the ids in a data set's masks against its classes.

A mask of 0 and 255, where 255 is void, has no foreground, and every metric on it is silently wrong; the same holds for
masks whose ids count from 1, and for instance ids. Certain mistakes are refused, the rest is reported with its share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from edgecnn.datasets.base import beginning, evenly_spaced
from edgecnn.datasets.mask_files import read_class_ids
from edgecnn.errors import DataError

_NEVER_A_CLASS = 255  # the void of Pascal VOC, Cityscapes and most others
_LOOKED_AT = 200  # masks, which take a second
_HALF = 0.5  # of the pixels outside class 0
_MOST = 0.75
_HUNDREDTH = 0.01
_AT_ONCE = 4_000_000  # pixels counted at a time: 32 MB


@dataclass(frozen=True)
class IdCheck:
    """Result of the check: ids that no class has, and remarks, in sentences."""

    unnamed_ids: frozenset[int]
    remarks: tuple[str, ...]


def void_id(class_count: int) -> int | None:
    """The id that is never a class: 255, unless there are that many classes."""
    return _NEVER_A_CLASS if class_count <= _NEVER_A_CLASS else None


def count_ids(masks: Sequence[Path], *, limit: int = _LOOKED_AT) -> Counter[int]:
    """Number of pixels of each id in at most `limit` masks, evenly spaced.

    Raises:
        DataError: a file cannot be read, or isn't a mask.
    """
    total: Counter[int] = Counter()
    for index in evenly_spaced(len(masks), limit):
        path = masks[index]
        try:
            changed = path.stat().st_mtime_ns
        except OSError as failed:
            raise DataError(f"{path} cannot be read: {failed.strerror}") from failed
        total.update(dict(_ids_of(path, changed)))
    return total


@lru_cache(maxsize=2048)
def _ids_of(path: Path, changed_ns: int) -> tuple[tuple[int, int], ...]:
    del changed_ns  # part of the cache key: the file's time of change
    ids = read_class_ids(path).ravel()
    counts = np.zeros(np.iinfo(ids.dtype).max + 1, np.int64)
    for start in range(0, len(ids), _AT_ONCE):
        counts += np.bincount(ids[start : start + _AT_ONCE], minlength=len(counts))
    return tuple((int(i), int(counts[i])) for i in np.flatnonzero(counts))


def check_ids(pixels: Counter[int], names: Sequence[str], *, where: Path) -> IdCheck:
    """Check the ids of masks.

    Args:
        pixels: number of pixels of each id.
        names: class names, by id.
        where: the folder of the masks.

    Raises:
        DataError: ids that are certainly a mistake.
    """
    total, count, void = pixels.total(), len(names), void_id(len(names))
    unnamed = {i: n for i, n in pixels.items() if i >= count and i != void}
    foreground = {i: n for i, n in pixels.items() if i != 0}
    named = sum(n for i, n in foreground.items() if i < count)
    of_foreground = max(sum(foreground.values()), 1)
    lost = sum(unnamed.values())
    void_pixels = pixels.get(void, 0) if void is not None else 0
    absent = [name for i, name in enumerate(names) if not pixels.get(i)]

    fix = f"ids count from 0 in the order of the {count} class names; {_NEVER_A_CLASS} is void"
    ids = beginning([f"{i} ({n / total:.1%})" for i, n in sorted(pixels.items())], 8)
    if foreground and not named:
        binary = " Divide binary masks by 255" if set(foreground) == {_NEVER_A_CLASS} else ""
        raise DataError(f"{where}: only class 0 and ids without a class; ids: {ids}. {fix.capitalize()}.{binary}")
    if not pixels.get(0) and pixels.get(count) and count != void:
        raise DataError(f"{where}: id 0 does not occur, but {count} does: the ids count from 1. {fix.capitalize()}")
    if lost > _HALF * of_foreground:
        raise DataError(
            f"{where}: {lost / of_foreground:.0%} of the pixels outside class 0 have ids that no class has; ids: "
            f"{ids}. They may be instance ids, or grey levels of colours. {fix.capitalize()}"
        )
    if void_pixels > _MOST * of_foreground and absent and count > 1:
        raise DataError(
            f"{where}: {void_pixels / of_foreground:.0%} of the pixels outside class 0 are void ({_NEVER_A_CLASS}), "
            f"and no pixel has {beginning(absent)}: {_NEVER_A_CLASS} may be a class. {fix.capitalize()}"
        )
    return IdCheck(frozenset(unnamed), tuple(_remarks(pixels, unnamed, absent, names)))


def _remarks(pixels: Counter[int], unnamed: dict[int, int], absent: Sequence[str], names: Sequence[str]) -> list[str]:
    total, remarks = pixels.total(), []
    if unnamed:
        which = beginning([f"{i} ({n / total:.1%})" for i, n in sorted(unnamed.items())], 8)
        remarks.append(f"pixels with ids that no class has are ignored, as shares of all: {which}")
        if set(unnamed) == {len(names)} and not absent:
            remarks.append(
                f"the ids are 0 to {len(names)} for {len(names)} classes: if 0 means unlabelled and classes count from "
                "1, every class is off by one"
            )
    if (void := pixels.get(_NEVER_A_CLASS, 0)) > _HUNDREDTH * total and len(names) <= _NEVER_A_CLASS:
        remarks.append(f"void ({_NEVER_A_CLASS}): {void / total:.1%} of the pixels")
    if absent:
        remarks.append(f"{len(absent)} of {len(names)} classes occur in no mask: {beginning(absent)}")
    return remarks
