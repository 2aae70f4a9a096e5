"""Log lines of a run: time, level, camera, message; as text or as JSON."""

from __future__ import annotations

import logging
import sys
from datetime import datetime, timezone
from typing import Any, Final, TextIO

from edgecnn.json_text import encode_json
from edgecnn.printable import printable, printable_json

LOG: Final = logging.getLogger("edgecnn.run")
FORMS: Final = ("text", "json")


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        camera = getattr(record, "camera", "")
        about = f"{camera}: " if camera else ""
        return f"{_time(record)} {record.levelname} {about}{printable(record.getMessage(), lines=False)}"


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {"time": _time(record), "level": record.levelname.lower()}
        if camera := getattr(record, "camera", ""):
            line["camera"] = camera
        return printable_json(encode_json({**line, "message": record.getMessage()}).decode())


def log_to(form: str, stream: TextIO | None = None) -> None:
    """Write the log of runs to a stream (stderr), in one of `FORMS`; a second call replaces the first."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    for old in list(LOG.handlers):
        LOG.removeHandler(old)
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    LOG.propagate = False


def log(message: str, *, camera: str = "", level: int = logging.INFO) -> None:
    """Write one line; the message must not contain a login."""
    LOG.log(level, "%s", message, extra={"camera": camera})


def _time(record: logging.LogRecord) -> str:
    """UTC, to the millisecond: as journald and Prometheus count."""
    return datetime.fromtimestamp(record.created, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
