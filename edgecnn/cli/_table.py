"""Plain-text tables that fit: names are never dropped, numbers never cut, at any width."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Sequence

from edgecnn.printable import printable

_GAP = "  "
_NARROWEST_TEXT = 10  # columns of a wrapped text
# Names are preferably wrapped after one of these.
_JOINTS = re.compile(r"(?<=[./:_,@-])")

Cell = list[str]  # its lines


def lay_out(
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    numeric: Sequence[str] = (),
    keys: int | None = None,
    width: int = 80,
) -> list[str]:
    """The lines of a table, not wider than `width` if its names and numbers allow.

    If it is too wide, headings and texts are wrapped first, but not numbers. If it is still too wide, it becomes
    several tables below each other, each of which begins with the columns that name a row.

    Args:
        columns: headings; all empty for a table without headings.
        rows: cells as text; a line feed begins a new line in the cell; None is empty.
        numeric: headings of right-aligned columns.
        keys: how many columns name a row; default: those before the first numeric one.
        width: in characters.
    """
    shown = [i for i in range(len(columns)) if any(_text(row[i]).strip() for row in rows)] or list(range(len(columns)))
    headings = [columns[i] for i in shown]
    cells = [[_text(row[i]).split("\n") for i in shown] for row in rows]
    right = [columns[i] in numeric for i in shown]
    named = keys if keys is not None else next((i for i, column in enumerate(columns) if column in numeric), 1)
    first = max(sum(1 for i in shown if i < named), 1)
    lines: list[str] = []
    for part in _parts(headings, cells, right, first, width):
        if lines:
            lines.append("")
        picked = [[row[i] for i in part] for row in cells]
        lines += _table([headings[i] for i in part], picked, [right[i] for i in part], width)
    return lines


def _parts(headings: list[str], cells: list[list[Cell]], right: list[bool], first: int, width: int) -> list[list[int]]:
    """Columns that fit next to each other: all, or the columns that name a row with as many others as possible."""
    narrowest = [_narrowest(headings[i], [row[i] for row in cells], right[i]) for i in range(len(headings))]
    key_columns = list(range(first))
    parts: list[list[int]] = [[]]
    for i in range(first, len(headings)):
        taken = sum(narrowest[j] + len(_GAP) for j in (*key_columns, *parts[-1], i)) - len(_GAP)
        if parts[-1] and taken > width:
            parts.append([])
        parts[-1].append(i)
    return [[*key_columns, *part] for part in parts]


def _table(headings: list[str], cells: list[list[Cell]], right: list[bool], width: int) -> list[str]:
    widths = _widths(headings, cells, right, width)
    rows = [[_folded(cell, w) for cell, w in zip(row, widths, strict=True)] for row in cells]
    lines: list[str] = []
    if any(headings):
        folded = [_folded([heading], w) for heading, w in zip(headings, widths, strict=True)]
        lines += _lines(folded, widths, right, at_bottom=True)
        lines.append(_GAP.join("-" * w for w in widths))
    for row in rows:
        lines += _lines(row, widths, right)
    return lines


def _widths(headings: list[str], cells: list[list[Cell]], right: list[bool], width: int) -> list[int]:
    """The width of each column: its content's, or less for columns that can be wrapped."""
    columns = [[row[i] for row in cells] for i in range(len(headings))]
    content = [_widest(column) for column in columns]
    widths = [max(inner, length(heading)) for inner, heading in zip(content, headings, strict=True)]
    narrowest = [_narrowest(h, c, r) for h, c, r in zip(headings, columns, right, strict=True)]
    spare = width - len(_GAP) * (len(widths) - 1)
    while sum(widths) > spare:  # the widest column that can be wrapped gets narrower first
        foldable = [i for i in range(len(widths)) if widths[i] > narrowest[i]]
        if not foldable:
            break
        widest = max(foldable, key=lambda i: widths[i])
        widths[widest] -= 1
    return widths


def _narrowest(heading: str, column: list[Cell], is_right: bool) -> int:
    inner = _widest(column)
    word = max((length(part) for part in heading.split()), default=0)
    return max(inner if is_right else min(inner, _NARROWEST_TEXT), word)


def _widest(column: list[Cell]) -> int:
    return max((length(line) for cell in column for line in cell), default=0)


def _folded(cell: Cell, width: int) -> Cell:
    return [piece for line in cell for piece in fold(line, width)]


def fold(line: str, width: int) -> list[str]:
    """A line as several, wrapped at blanks, otherwise after the joints of a name, otherwise anywhere."""
    if length(line) <= width:
        return [line]
    folded, current = [], ""
    for word in re.findall(r"\S+\s*|\s+", line):
        for piece in [word] if length(word.rstrip()) <= width else _JOINTS.split(word):
            for part in _cut(piece, width):
                if current and length((current + part).rstrip()) > width:
                    folded.append(current.rstrip())
                    current = ""
                current += part
    return [*folded, current.rstrip()] if current.strip() or not folded else folded


def _cut(text: str, width: int) -> list[str]:
    parts, current = [], ""
    for character in text:
        if current and length((current + character).rstrip()) > width:
            parts.append(current)
            current = ""
        current += character
    return [*parts, current]


def _lines(cells: list[Cell], widths: list[int], right: list[bool], *, at_bottom: bool = False) -> list[str]:
    height = max((len(cell) for cell in cells), default=0)
    lines = []
    for y in range(height):
        pieces = []
        for cell, width, is_right in zip(cells, widths, right, strict=True):
            at = y - (height - len(cell)) if at_bottom else y
            text = cell[at] if 0 <= at < len(cell) else ""
            blank = " " * (width - length(text))
            pieces.append(blank + text if is_right else text + blank)
        lines.append(_GAP.join(pieces).rstrip())
    return lines


def length(text: str) -> int:
    """Columns that a terminal needs for it: two for a wide character, none for an accent."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) != 0 for character in text)


def wrapped(text: str, width: int) -> list[str]:
    """A sentence over several lines; words stay whole."""
    return textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) or [""]


def _text(cell: object) -> str:
    return "" if cell is None else printable(cell)
