"""JSON as edgecnn writes it: a name that is no UTF-8 (a file's, on most systems any bytes) ends no run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


def encode_json(value: Any, *, indent: int | None = None, enc_hook: Callable[[Any], Any] | None = None) -> bytes:
    r"""A value as UTF-8 JSON; bytes of names that are no text stand there as in Python: "\udcff".

    Args:
        value: what msgspec encodes.
        indent: spaces a level; without it, all in one line.
        enc_hook: makes something plain of other objects.
    """
    try:
        encoded = msgspec.json.encode(value, enc_hook=enc_hook)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_encodable(msgspec.to_builtins(value, enc_hook=enc_hook)))
    return encoded if indent is None else msgspec.json.format(encoded, indent=indent)


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(name): _encodable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(one) for one in value]
    return value
