"""What a search has measured, on disk: a search that was killed goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from edgecnn.compression.plan import Plan


class _Entry(msgspec.Struct, frozen=True):
    what: str
    plan: str
    value: float | None  # None is an artifact that could not be made: JSON has no infinity
    minutes: float


class Journal:
    """Measurements by plan; with a file, each is written down as soon as it is there.

    Attributes:
        minutes: that earlier runs took, as far as they were written down.
    """

    def __init__(self, path: Path | None = None, *, about: str = "") -> None:
        """Take up what an earlier run left.

        Args:
            path: a file of JSON lines; made where it isn't there. None keeps everything in memory.
            about: what the measurements are of (hashes of network, frames, data); a file about something else is
                started anew.
        """
        self.minutes = 0.0
        self._path = path
        self._values: dict[tuple[str, str], float | None] = {}
        self._start = time.monotonic()
        if path is None:
            return
        head = json.dumps({"about": about})
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if lines and lines[0] == head:
            self._read(lines[1:])
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(head + "\n", encoding="utf-8")

    @property
    def minutes_now(self) -> float:
        """How long it has taken up to now, earlier runs included."""
        return self.minutes + (time.monotonic() - self._start) / 60

    def value(self, what: str, plan: Plan, measure: Callable[[Plan], float]) -> float:
        """What is known of this plan, else measured now and kept."""
        key = what, _key(plan)
        if key not in self._values:
            measured = measure(plan)
            finite = measured if abs(measured) < float("inf") else None
            self._values[key] = finite
            self._write(_Entry(*key, value=finite, minutes=self.minutes_now))
        return self._as_number(what, self._values[key])

    def known(self, what: str, plan: Plan) -> float | None:
        """What is known of this plan; None where it was not measured."""
        key = what, _key(plan)
        return self._as_number(what, self._values[key]) if key in self._values else None

    def count(self, what: str) -> int:
        """How many plans were measured."""
        return sum(kind == what for kind, _ in self._values)

    @staticmethod
    def _as_number(what: str, value: float | None) -> float:
        if value is not None:
            return value
        return float("-inf") if what == "metric" else float("inf")

    def _read(self, lines: list[str]) -> None:
        for line in lines:
            try:
                entry = msgspec.json.decode(line, type=_Entry)
            except msgspec.DecodeError:  # the line that a kill cut short
                continue
            self._values[entry.what, entry.plan] = entry.value
            self.minutes = max(self.minutes, entry.minutes)
        if self._path is not None and lines:
            whole = [line for line in lines if line.endswith("}")]
            head = self._path.read_text(encoding="utf-8").splitlines()[0]
            self._path.write_text("\n".join([head, *whole]) + "\n", encoding="utf-8")

    def _write(self, entry: _Entry) -> None:
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(msgspec.json.encode(entry).decode() + "\n")


def _key(plan: Plan) -> str:
    text = "\n".join([plan.ranges, str(plan.correct_weights), *sorted(plan.int8_layers)])
    return hashlib.sha256(text.encode()).hexdigest()[:20]
