"""Progress of long work: a bar on a terminal, otherwise one line for each step."""

from __future__ import annotations

import contextlib
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TextIO

from edgecnn.printable import printable

ProgressFunction = Callable[..., None]

_SILENCE_S = 30.0  # after which a step that still runs is printed again
_FASTEST_S = 1.0  # between two lines that differ only in their numbers


def is_terminal(console: TextIO) -> bool:
    """Whether a person sees it."""
    return console.isatty()


@contextlib.contextmanager
def progress_bar(description: str) -> Iterator[ProgressFunction]:
    """Show progress on stderr; call the yielded function with (done, total) and, when it changes, the current step.

    A terminal gets a bar. A log gets a line with the time at each new step, and one every 30 s.
    """
    if not is_terminal(sys.stderr):
        with StepLines(description) as lines:
            yield lines.update
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(description, total=None)

        def update(done: int, total: int, what: str | None = None) -> None:
            progress.update(task, completed=done, total=total, description=printable(what or description, lines=False))

        yield update


class StepLines:
    """Progress as lines of a log: "14:03:07 calibrating (3 of 12)".

    Args:
        description: the first step's name.
        silence_s: at least one line in this time while the work runs.
    """

    def __init__(self, description: str, *, silence_s: float = _SILENCE_S) -> None:
        self._what = description
        self._done, self._total = 0, 0
        self._silence_s = silence_s
        self._printed, self._printed_at = "", 0.0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._timer = threading.Thread(target=self._print_while_silent, name="progress", daemon=True)

    def update(self, done: int, total: int, what: str | None = None) -> None:
        """Update the counts; prints a line when the step changes."""
        with self._lock:
            self._done, self._total = done, total
            if what:
                self._what = printable(what, lines=False)
            silent_s = time.monotonic() - self._printed_at
            if _without_figures(self._what) != _without_figures(self._printed) or (
                self._what != self._printed and silent_s >= _FASTEST_S
            ):
                self._print()

    def __enter__(self) -> StepLines:
        self._printed_at = time.monotonic()
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _print_while_silent(self) -> None:
        while not self._ended.wait(min(self._silence_s / 10, 1.0)):
            with self._lock:
                if time.monotonic() - self._printed_at >= self._silence_s:
                    self._print()

    def _print(self) -> None:
        again = f", for {time.monotonic() - self._began:.0f} s" if self._what == self._printed else ""
        if not again:
            self._began = time.monotonic()
        self._printed, self._printed_at = self._what, time.monotonic()
        counted = f" ({self._done} of {self._total})" if self._total else ""
        with contextlib.suppress(OSError, ValueError):  # the log's reader ended: the work continues
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {self._what}{counted}{again}\n")
            sys.stderr.flush()


def _without_figures(text: str) -> str:
    return re.sub(r"[\d.,e+-]*\d", "#", text)
