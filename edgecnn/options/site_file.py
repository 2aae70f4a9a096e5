"""Options of several cameras from one TOML file: those of all at the top, those of one in [cameras.NAME]."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from edgecnn.errors import SpecError
from edgecnn.options.file import near_names, value_from_file
from edgecnn.options.signature import Setting
from edgecnn.options.toml import read_toml
from edgecnn.printable import shortened

CAMERAS: Final = "cameras"
OF_ALL_ONLY: Final = ("web", "web_token", "metrics")
OF_ONE_ONLY: Final = ("source",)
_NOT_HERE: Final = ("camera", "show", "json", "check", "log")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")
# A table by name, for an option that is repeated as NAME=VALUE.
TABLES: Final = {"zones": "zone", "lines": "count_line", "masks": "mask", "scores": "class_score"}


@dataclass
class SiteTables:
    """What a file says, by the settings' keys.

    Attributes:
        of_all: at the top.
        of_each: for each camera, what its own table says.
        faults: what is wrong, each with its key.
    """

    of_all: dict[str, Any] = field(default_factory=dict)
    of_each: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


def read_site(path: Path, settings: Sequence[Setting]) -> SiteTables:
    """The values in a file of cameras; what is wrong is collected.

    Args:
        path: a TOML file; a key is an option's name, with "-" or "_".
        settings: the options that a run of one camera has.

    Raises:
        DataError: the file can't be read.
    """
    document = read_toml(path, "a TOML file of cameras")
    known = {setting.key: setting for setting in settings if setting.key not in _NOT_HERE}
    tables = SiteTables()
    cameras = document.pop(CAMERAS)
    at_top = {key: setting for key, setting in known.items() if key not in OF_ONE_ONLY}
    tables.of_all = _values(document, at_top, "", tables.faults)
    if not isinstance(cameras, dict) or not cameras:
        tables.faults.append("[cameras]: expected a table for each camera, such as [cameras.door]")
        return tables
    of_one = {key: setting for key, setting in known.items() if key not in OF_ALL_ONLY}
    for name, table in cameras.items():
        place = f"[cameras.{shortened(name)}]"
        if not _NAME.fullmatch(name):
            tables.faults.append(f"{place}: a camera's name has letters, digits, - and _ only, at most 63")
        elif not isinstance(table, dict):
            tables.faults.append(f"{place}: expected a table")
        else:
            tables.of_each[name] = _values(table, of_one, f"{place} ", tables.faults)
    return tables


def _values(table: Mapping[str, Any], known: Mapping[str, Setting], place: str, faults: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for word, value in table.items():
        key = word.replace("-", "_")
        try:
            if key in TABLES and TABLES[key] in known and isinstance(value, dict):
                key, value = TABLES[key], list(_named(word, value))
            if key not in known:
                more = [*known, *TABLES]
                raise SpecError(
                    f"no option is called {shortened(word)!r}{_where_instead(key)}; {near_names(key, more)}"
                )
            if key in values:
                raise SpecError(f"{word} is given twice")
            values[key] = value_from_file(known[key], value)
        except SpecError as wrong:
            faults.append(f"{place}{wrong}")
    return values


def _where_instead(key: str) -> str:
    if key in OF_ALL_ONLY:
        return " in a camera's table: it is for all cameras, at the top of the file"
    return " at the top: it is one camera's, in its table" if key in OF_ONE_ONLY else ""


def _named(word: str, table: Mapping[str, Any]) -> Iterator[str]:
    """NAME=VALUE of each entry; a place may be "x,y,…", a list of numbers, or a list of [x, y]."""
    for name, value in table.items():
        if "=" in name:
            raise SpecError(f"{word}: a name must not contain =, found {shortened(name)!r}")
        values = value if isinstance(value, list) else [value]
        flat = [each for part in values for each in (part if isinstance(part, list) else [part])]
        if not flat or any(isinstance(each, bool | dict | list) for each in flat):
            raise SpecError(f"{word}.{shortened(name)}: expected numbers, such as [20, 20, 300, 20]")
        yield f"{name}={','.join(map(str, flat))}"
