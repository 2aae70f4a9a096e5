"""Chooses the part of a data set, with one rule for every form and every verb.

The data set's own file comes first (a data.yaml, the lists of Pascal VOC, a COCO file's name), then folder
names. "valid" and "validation" mean "val". To measure, "test" is used, otherwise "val", otherwise an undivided data
set; to learn from, "train", otherwise an undivided one. If that gives no part, or two, it is an
error with the names: a metric on training pictures means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edgecnn.datasets.base import Dataset, beginning
from edgecnn.errors import DataError

TRAIN, VAL, TEST = "train", "val", "test"
_SAME = {"training": TRAIN, "valid": VAL, "validation": VAL, "testing": TEST}

Use = Literal["measure", "learn"]
_ORDER: dict[Use, tuple[str | None, ...]] = {"measure": (TEST, VAL, None), "learn": (TRAIN, "trainval", None)}


@dataclass(frozen=True)
class Part:
    """One part of a data set.

    Attributes:
        split: "train", "val", "test" or another name; None for an undivided data set.
        defined_by: where it is defined: "data.yaml", "the folder valid/".
        open: called with the network's labels; returns None where it has no labels for the task.
        names: other names that `--split` accepts.
        place: its file or folder, for messages.
    """

    split: str | None
    defined_by: str
    open: Callable[[Sequence[str]], Dataset | None] = field(repr=False)
    names: tuple[str, ...] = ()
    place: Path = Path()

    @property
    def title(self) -> str:
        """The name in messages."""
        return "the whole" if self.split is None else self.split


def split_by_name(name: str) -> str:
    """The split of a name: "valid" gives "val"; other names give themselves."""
    return _SAME.get(name.lower(), name.lower() if name.lower() in {TRAIN, VAL, TEST} else name)


def is_split_name(name: str) -> bool:
    """Whether a folder or list of this name is a part of a data set."""
    return split_by_name(name) in {TRAIN, VAL, TEST}


def split_in(stem: str) -> str | None:
    """The split in a file's name: instances_val2017 gives "val"; None for none, or several."""
    words = [word for word in re.findall(r"[a-z]+", stem.lower()) if is_split_name(word) or word == "trainval"]
    found = {split_by_name(word) for word in words}
    return found.pop() if len(found) == 1 else None


def choose(parts: Sequence[Part], split: str | None, use: Use) -> list[Part]:
    """The requested parts, best first; empty where there are none.

    Raises:
        DataError: two parts of the same name.
    """
    if split is None:
        return [part for name in _ORDER[use] for part in _only([p for p in parts if p.split == name])]
    exact = [part for part in parts if split in (part.split, *part.names)]
    return _only(exact or [part for part in parts if part.split == split_by_name(split)])


def known(parts: Sequence[Part]) -> str:
    """The parts' names, for a message."""
    return beginning(sorted({part.title for part in parts}), 10)


def _only(parts: list[Part]) -> list[Part]:
    if len(parts) > 1:
        places = "; ".join(f"{part.place} ({part.defined_by})" for part in parts)
        raise DataError(
            f"{len(parts)} places are both {parts[0].title}: {places}. Give one of them as DATA, or with --split"
        )
    return parts
