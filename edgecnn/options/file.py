"""Options from a TOML file: `--config FILE.toml`, whose keys are the options' names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgecnn.errors import SpecError
from edgecnn.options.signature import Setting
from edgecnn.options.toml import read_toml
from edgecnn.printable import shortened


def read_options(path: Path, settings: Sequence[Setting]) -> dict[str, Any]:
    """The values in a file, by the settings' keys.

    Args:
        path: a TOML file; a key is an option's name, with "-" or "_".
        settings: the verb's options.

    Raises:
        DataError: the file cannot be read.
        SpecError: a key that is not an option, with the nearest one; or a value of the wrong type.
    """
    known = {setting.key: setting for setting in settings}
    values: dict[str, Any] = {}
    for word, value in read_toml(path, "a TOML file of options").items():
        key = word.replace("-", "_")
        if key not in known:
            raise SpecError(f"{path}: no option is called {shortened(word)!r}; {near_names(key, known)}")
        if key in values:
            raise SpecError(f"{path}: {word} is given twice, with - and with _")
        try:
            values[key] = value_from_file(known[key], value)
        except SpecError as wrong:
            raise SpecError(f"{path}: {wrong}") from None
    return values


def value_from_file(setting: Setting, value: Any) -> Any:
    """An option's value for one from a TOML file.

    Raises:
        SpecError: it has the wrong type.
    """
    if setting.option.alone and value is True:
        value = setting.option.alone
    several = setting.option.repeat or setting.option.pair
    if not several:
        return _one(setting, value)
    values = value if isinstance(value, list) else [value]
    if setting.option.pair and len(values) != 2:
        raise _wrong(setting, value, "a list of two")
    return tuple(_one(setting, each) for each in values)


def _one(setting: Setting, value: Any) -> Any:
    try:
        return setting.kind.from_file(value)
    except ValueError:
        raise _wrong(setting, value, setting.kind.expected) from None


def _wrong(setting: Setting, value: Any, expected: str) -> SpecError:
    return SpecError(f"{setting.name} must be {expected}, found {_found(value)}")


def _found(value: Any) -> str:
    """A value from a file with the word for its type, for a message."""
    if isinstance(value, bool):
        return f"{value}".lower()
    if isinstance(value, str):
        return f"the text {shortened(value, length=60)!r}"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return shortened(value, length=60)


def near_names(key: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown key: the nearest names, or all of them."""
    names = {each: each.replace("_", "-") for each in known}
    near = [names[each] for each in difflib.get_close_matches(key[:80], names, n=3, cutoff=0.5)]
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names.values())}"
