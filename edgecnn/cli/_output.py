"""What every verb prints with: JSON for machines on stdout, tables for people, progress on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

ProgressFunction = Callable[..., None]

people = Console(stderr=True, highlight=False)  # progress and remarks: never in the way of stdout
stdout = Console(highlight=False)


def print_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=1).decode() + "\n")
    sys.stdout.flush()


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, numeric: Sequence[str] = ()
) -> None:
    """Print a table to stdout; columns named in `numeric` are flush right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for column in columns:
        is_number = column in numeric
        table.add_column(column, justify="right" if is_number else "left", no_wrap=is_number, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    stdout.print(table)


@contextlib.contextmanager
def progress_bar(description: str) -> Iterator[ProgressFunction]:
    """A progress bar on stderr; call what it yields with (done, total) and, where it changes, what is being done."""
    if not people.is_terminal:  # a log wants no bars, and no empty lines where they were
        yield lambda done, total, what=None: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=people, transient=True) as progress:
        task = progress.add_task(description, total=None)

        def update(done: int, total: int, what: str | None = None) -> None:
            progress.update(task, completed=done, total=total, description=what or description)

        yield update
