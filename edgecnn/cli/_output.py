"""How every verb prints: JSON for machines on stdout, tables for people, remarks and progress on stderr.

Everything goes through `printable`: control characters in labels or a board's answers are escaped.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any, Literal, TextIO

from edgecnn.cli import _table
from edgecnn.cli._progress import ProgressFunction, is_terminal, progress_bar
from edgecnn.printable import printable, printable_json

__all__ = [
    "ProgressFunction",
    "fail",
    "is_terminal",
    "note",
    "print_json",
    "print_table",
    "progress_bar",
    "say",
    "tell",
]

Style = Literal["", "bold", "dim", "red", "yellow"]
_CODES = {"bold": "1", "dim": "2", "red": "31", "yellow": "33"}
_WIDTH = 80  # without a terminal


def say(text: object, style: Style = "") -> None:
    """Print a result to stdout."""
    _write(sys.stdout, text, style)


def tell(text: object, style: Style = "") -> None:
    """Print a remark to stderr, so that stdout stays clean."""
    _write(sys.stderr, text, style)


def note(text: object) -> None:
    """Print a note to stderr."""
    tell(f"note: {text}", "yellow")


def fail(text: object) -> None:
    """Print an error to stderr."""
    tell(text, "red")


def print_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    from edgecnn.json_text import encode_json

    sys.stdout.write(printable_json(encode_json(value, indent=1).decode()) + "\n")
    sys.stdout.flush()


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numeric: Sequence[str] = (),
    keys: int | None = None,
) -> None:
    """Print a table to stdout: plain text, at most as wide as the terminal, or 80 columns without one.

    Args:
        title: printed above it; "" for none.
        columns, rows, numeric, keys: as for `lay_out`.
    """
    for line in _table.wrapped(printable(title), width()) if title else ():
        say(line, "bold")
    for line in _table.lay_out(columns, rows, numeric=numeric, keys=keys, width=width()):
        say(line)


def width() -> int:
    """The number of columns of a line."""
    if os.environ.get("COLUMNS", "").isdecimal() or sys.stdout.isatty():
        return max(shutil.get_terminal_size((_WIDTH, 24)).columns, 20)
    return _WIDTH


def _write(console: TextIO, text: object, style: Style) -> None:
    shown = printable(text)
    if style and is_terminal(console) and "NO_COLOR" not in os.environ:
        shown = f"\x1b[{_CODES[style]}m{shown}\x1b[0m"
    try:
        console.write(f"{shown}\n")
    except UnicodeEncodeError:  # a console that has only ASCII
        encoding = console.encoding or "ascii"
        console.write(f"{shown.encode(encoding, 'replace').decode(encoding)}\n")
    console.flush()
