"""Options from a TOML file: `--config FILE.toml`, whose keys are the options' names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
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
    said: dict[str, Any] = {}
    for word, value in read_toml(path, "a TOML file of options").items():
        key = word.replace("-", "_")
        if key not in known:
            raise SpecError(f"{path}: no option is called {shortened(word)!r}; {_near(key, known)}")
        if key in said:
            raise SpecError(f"{path}: {word} is given twice, with - and with _")
        said[key] = _value(path, known[key], value)
    return said


def _value(path: Path, setting: Setting, value: Any) -> Any:
    if setting.option.alone and value is True:
        value = setting.option.alone
    several = setting.option.repeat or setting.option.pair
    if not several:
        return _one(path, setting, value)
    values = value if isinstance(value, list) else [value]
    if setting.option.pair and len(values) != 2:
        raise _wrong(path, setting, value, "a list of two")
    return tuple(_one(path, setting, each) for each in values)


def _one(path: Path, setting: Setting, value: Any) -> Any:
    try:
        return setting.kind.from_file(value)
    except ValueError:
        raise _wrong(path, setting, value, setting.kind.expected) from None


def _wrong(path: Path, setting: Setting, value: Any, expected: str) -> SpecError:
    return SpecError(f"{path}: {setting.name} must be {expected}, found {_found(value)}")


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


def _near(key: str, known: Mapping[str, Setting]) -> str:
    near = difflib.get_close_matches(key[:80], known, n=3, cutoff=0.5)
    names = [known[each].name for each in near] or [setting.name for setting in known.values()]
    return f"did you mean {' or '.join(names)}?" if near else f"known: {', '.join(names)}"
