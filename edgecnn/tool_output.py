"""Keeps what tools and runtimes print away from the user, and at hand in the debug log."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from typing import Any

logger = logging.getLogger(__name__)


_SILENT = 0

_lock = threading.Lock()
_depth = 0
_level_before = 0


class ToolOutput:
    """What a tool printed.

    Attributes:
        text: all of it, once the block is left.
    """

    text = ""


@contextlib.contextmanager
def quiet(tool: str) -> Iterator[ToolOutput]:
    """Send all that is printed, by Python and below it, to the debug log; warnings and log levels come back after.

    What it yields knows what was printed, when the block is left.
    """
    output = ToolOutput()
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    level = logging.root.manager.disable
    with tempfile.TemporaryFile() as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield output
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, original in zip((1, 2), saved, strict=True):
                os.dup2(original, descriptor)
                os.close(original)
            logging.disable(level)
            file.seek(0)
            output.text = file.read().decode(errors="replace")
            logger.debug("%s said: %s", tool, output.text)


@contextlib.contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's log for a while; the level is the whole process's, so nested uses are counted."""
    global _depth, _level_before
    import cv2

    log: Any = getattr(cv2.utils, "logging", cv2)  # OpenCV 5 moved these functions there
    with _lock:
        if _depth == 0:
            _level_before = log.getLogLevel()
            log.setLogLevel(_SILENT)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                log.setLogLevel(_level_before)
