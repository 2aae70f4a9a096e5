"""The table of sources of networks: our own and those of other packages (entry points `edgecnn.sources`)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgecnn.bundle.shipped import DEFAULTS
from edgecnn.errors import SpecError, UnknownNameError
from edgecnn.registry import Part, Table
from edgecnn.sources.kind import SourceKind
from edgecnn.sources.zoo import ZOO

_ROOM: Final = "edgecnn.sources"
_WEIGHTS: Final = frozenset({".pth", ".pt", ".ckpt", ".safetensors"})
_FACTORY: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")

TORCHVISION: Final = SourceKind(
    name="torchvision",
    form="torchvision:NAME",
    prefix="torchvision",
    loads=Part(f"{_ROOM}.torchvision:load", needs=("torchvision",), extra="convert"),
    rebuilds=True,
)
THE_ZOO: Final = SourceKind(
    name="zoo", form="a name of the zoo", names=ZOO.keys, loads=Part(f"{_ROOM}.zoo.load:load"), rebuilds=True
)
SAVED: Final = SourceKind(name="saved", form="a NAME.model folder", suffix=".model", loads=Part(f"{_ROOM}.saved:load"))
EXPORTED: Final = SourceKind(name="exported", form="a .pt2 file", suffix=".pt2", loads=Part(f"{_ROOM}.exported:load"))
FACTORY: Final = SourceKind(
    name="factory",
    form="package.module:factory",
    takes=lambda words: _FACTORY.fullmatch(words) is not None,
    loads=Part(f"{_ROOM}.module:load"),
    rebuilds=True,
    runs_own_code=True,
)


class _Sources(Table[SourceKind]):
    def refuse(self, row: SourceKind) -> str:
        """Refuse a kind that accepts the same words as another."""
        for held in self._held():
            for word in ("prefix", "suffix"):
                if getattr(row, word) and getattr(row, word) == getattr(held, word):
                    return f"its {word}, {getattr(row, word)!r}, already belongs to {held.name}"
        return ""

    def _held(self) -> Iterator[SourceKind]:
        yield from (self.get(name) for name in self.built_in())
        yield from self._loaded.values()


SOURCES: Final[Table[SourceKind]] = _Sources(
    "source",
    {
        "torchvision": f"{_ROOM}.table:TORCHVISION",
        "zoo": f"{_ROOM}.table:THE_ZOO",
        "saved": f"{_ROOM}.table:SAVED",
        "exported": f"{_ROOM}.table:EXPORTED",
        "factory": f"{_ROOM}.table:FACTORY",
    },
    record=SourceKind,
    group="edgecnn.sources",
)


def source_of(words: str) -> SourceKind:
    """The kind of source for these words.

    Raises:
        SpecError: they name weights, not a network.
        UnknownNameError: no kind accepts them.
    """
    if (kind := find_source(words)) is not None:
        return kind
    if Path(words).suffix in _WEIGHTS:
        raise SpecError(
            f"{words} holds weights, not a network: give the network's name and this file with --weights, such as "
            f"`edgecnn convert yolox-nano --weights {words}`"
        )
    raise UnknownNameError("model", words, [*DEFAULTS, *(near for each in SOURCES for near in each.near())])


def find_source(words: str) -> SourceKind | None:
    """The first kind of source that recognises these words; None for none."""
    return next((kind for kind in _in_order() if kind.recognises(words)), None)


def is_named(words: str) -> bool:
    """Whether these words alone build a network, in edgecnn or an installed package, without a file."""
    kind = find_source(words)
    return kind is not None and kind.rebuilds and not kind.runs_own_code


def named_forms() -> list[str]:
    """Forms of networks that are built from a name alone, for messages."""
    return [kind.form for kind in _in_order() if kind.rebuilds and not kind.runs_own_code]


def is_network_path(words: str | Path) -> bool:
    """Whether these words are the path of a network (a file or a folder) instead of a name."""
    return any(kind.takes_path(str(words)) for kind in _in_order())


def forms() -> list[str]:
    """All forms of networks, for help texts."""
    return [kind.form for kind in _in_order()]


def _in_order() -> Iterator[SourceKind]:
    """Our own kinds, then those of other packages, then factories: any text with a colon may be one."""
    built_in = SOURCES.built_in()
    yield from (SOURCES.get(name) for name in built_in if name != FACTORY.name)
    yield from (kind for kind in SOURCES if kind.name not in built_in)
    yield FACTORY
