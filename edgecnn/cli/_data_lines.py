"""Prints, in every verb, one line about opened pictures: which are used and what looks wrong with them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from edgecnn.cli import _output

_LOGGER = "edgecnn.datasets"


class _Lines(logging.Handler):
    """Prints each line once: a verb may open the same pictures several times."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if line in self._said:
            return
        self._said.add(line)
        if record.levelno > logging.INFO:
            _output.print_note(line)
        else:
            _output.print_remark(f"pictures: {line}")


@contextlib.contextmanager
def data_lines() -> Iterator[None]:
    """Print descriptions of opened data sets on stderr while the block runs."""
    logger, lines = logging.getLogger(_LOGGER), _Lines()
    level, passed_on = logger.level, logger.propagate
    logger.addHandler(lines)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # otherwise a program's own handlers print them again
    try:
        yield
    finally:
        logger.removeHandler(lines)
        logger.setLevel(level)
        logger.propagate = passed_on
