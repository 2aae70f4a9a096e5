"""Reads TOML files of users (options, recipes, devices), with a size limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from edgecnn.bounded import read_bounded
from edgecnn.errors import DataError, near_path
from edgecnn.printable import shortened

_LARGEST_BYTES = 1 << 18  # such files usually have a few hundred
_MOST_BITS = 63


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """The tables of a TOML file.

    Args:
        path: the file.
        what: what the file should be, for messages: "a recipe".

    Raises:
        DataError: missing, not a file, larger than any such file should be, or not TOML.
    """
    try:
        table: dict[str, Any] = msgspec.toml.decode(read_bounded(path, _LARGEST_BYTES))
        _require_small_integers(table)
        return table
    except FileNotFoundError:
        raise DataError(f"{path} does not exist: expected {what}{near_path(path)}") from None
    except OSError as failed:
        raise DataError(f"{path} cannot be read: {failed.strerror}; expected {what}") from failed
    except (msgspec.DecodeError, ValueError, RecursionError) as wrong:  # not UTF-8, long numbers, deep nesting
        raise DataError(f"{path} is not TOML: {shortened(wrong)}") from wrong


def _require_small_integers(value: object) -> None:
    """TOML's integers have 64 bits; Python's reader also takes longer ones, which can't even be printed.

    Raises:
        ValueError: one has more.
    """
    if isinstance(value, dict):
        for each in value.values():
            _require_small_integers(each)
    elif isinstance(value, list):
        for each in value:
            _require_small_integers(each)
    elif isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise ValueError(f"an integer has {value.bit_length()} bits, and TOML's have at most 64")
