"""How every verb prints: JSON for machines on stdout, tables for people, remarks and progress on stderr.

Everything goes through `printable`: control characters in labels or a board's answers are escaped. Sentences are
wrapped to the width of a terminal; without a terminal, a sentence stays on one line for the program that reads it.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Literal, TextIO

from edgecnn.cli import _table
from edgecnn.cli._progress import ProgressFunction, is_terminal, progress_bar
from edgecnn.printable import printable, printable_json

__all__ = [
    "ProgressFunction",
    "is_terminal",
    "print_document",
    "print_error",
    "print_json",
    "print_line",
    "print_note",
    "print_remark",
    "print_table",
    "progress_bar",
]

Style = Literal["", "bold", "dim", "red", "yellow"]
_CODES = {"bold": "1", "dim": "2", "red": "31", "yellow": "33"}
_WIDTH = 80  # without a terminal
_NARROWEST = 20


def print_line(text: object, style: Style = "") -> None:
    """Print a result to stdout."""
    _write(sys.stdout, _wrapped(sys.stdout, text), style)


def print_document(text: str) -> None:
    """Print the text of a file to stdout; its lines are not wrapped."""
    _write(sys.stdout, printable(text))


def print_remark(text: object, style: Style = "") -> None:
    """Print a remark to stderr, so that stdout stays clean."""
    _write(sys.stderr, _wrapped(sys.stderr, text), style)


def print_note(text: object) -> None:
    """Print a note to stderr."""
    print_remark(f"note: {text}", "yellow")


def print_error(text: object) -> None:
    """Print an error to stderr."""
    print_remark(text, "red")


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
    columns_wide = _columns(sys.stdout)
    for line in _table.wrapped(printable(title), columns_wide) if title else ():
        _write(sys.stdout, line, "bold")
    for line in _table.lay_out(columns, rows, numeric=numeric, keys=keys, width=columns_wide):
        _write(sys.stdout, line)


def _columns(console: TextIO) -> int:
    """The number of columns of a line: the user's, otherwise the terminal's."""
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdecimal() and int(wanted):
        return max(int(wanted), _NARROWEST)
    with contextlib.suppress(OSError, ValueError):  # a file, or closed
        return max(os.get_terminal_size(console.fileno()).columns or _WIDTH, _NARROWEST)
    return _WIDTH


def _wrapped(console: TextIO, text: object) -> str:
    """The text's lines, wrapped if a person reads them on a terminal."""
    shown = printable(text)
    if not is_terminal(console):
        return shown
    columns = _columns(console)
    return "\n".join(line for sentence in shown.split("\n") for line in _table.wrapped(sentence, columns))


def _write(console: TextIO, shown: str, style: Style = "") -> None:
    if style and is_terminal(console) and "NO_COLOR" not in os.environ:
        shown = f"\x1b[{_CODES[style]}m{shown}\x1b[0m"
    try:
        console.write(f"{shown}\n")
    except UnicodeEncodeError:  # a console that has only ASCII
        encoding = console.encoding or "ascii"
        console.write(f"{shown.encode(encoding, 'replace').decode(encoding)}\n")
    console.flush()
