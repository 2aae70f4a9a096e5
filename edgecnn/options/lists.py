"""Lists of names in help texts (formats, precisions, tasks, …), looked up when the help is printed."""

from __future__ import annotations

import re
from typing import Any, Final

from edgecnn.options.signature import load

# "package.module:attribute" of a table of names. Strings, because those modules may not be imported from here.
_HOMES: Final = {
    "formats": "edgecnn.formats:FORMATS",
    "converters": "edgecnn.formats:writable",
    "int8_formats": "edgecnn.formats:writable_in_int8",
    "whole_int8_formats": "edgecnn.formats:with_further_int8",
    "bf16_formats": "edgecnn.formats:running_bf16",
    "precisions": "edgecnn.bundle:PRECISIONS",
    "int8_precisions": "edgecnn.bundle:QUANTIZED",
    "tasks": "edgecnn.tasks:TASKS",
    "sources": "edgecnn.runners.live.cameras.table:LIVE_FORMS",
    "networks": "edgecnn.sources.table:forms",
    "sinks": "edgecnn.runners.live.sinks.table:SINKS",
}


def filled(text: str) -> str:
    """A help text with `{formats}` and the like replaced by the names."""
    return re.sub(r"\{(\w+)\}", lambda found: _listed(found[1]) if found[1] in _HOMES else found[0], text)


def names_of(word: str) -> list[str]:
    """The names for a word of this table."""
    table: Any = load(_HOMES[word])
    if callable(table):
        table = table()
    return list(table.names() if hasattr(table, "names") else table)


def _listed(word: str) -> str:
    *others, last = names_of(word)
    return f"{', '.join(others)} or {last}" if others else last
