"""The data that the page shows of a run, and the settings that it may change."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgecnn.results import Result
from edgecnn.runners.live.loop.counters import LiveCounters, why_stuck
from edgecnn.runners.live.loop.recent import RECENT_S, RecentFigures, RecentGrowth
from edgecnn.runners.live.sinks.web.newest import NewestPictures
from edgecnn.tasks import TASKS

HISTORY_S: Final = 120
READY_S: Final = 5.0
_MOST_LABELS: Final = 8


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A run, as the page sees it.

    Attributes:
        info: constant words about the run, without any login.
        counters: the loop's counters.
        dropped: functions that return, by stage, the number of dropped frames or results so far.
        faults: functions that return, by sink, the number of failures so far.
        sources: functions that return each source's state ("live", "stalled", …) and the reason; neither contains
            a login.
        score: returns a detector's current score threshold for a source, by index; None where the task has none.
        set_score: changes it, for a source by index; raises SpecError.
        events: returns the folders in which events are kept.
    """

    info: Mapping[str, str]
    counters: LiveCounters
    dropped: Mapping[str, Callable[[], int]]
    faults: Mapping[str, Callable[[], int]]
    sources: Mapping[str, Callable[[], tuple[str, str]]]
    score: Callable[[int], float | None]
    set_score: Callable[[float, int], None]
    events: Callable[[], Sequence[Path]] = tuple


class Status:
    """The run in figures: now, over the last minute, and second by second."""

    def __init__(self, watched: Watched, pictures: NewestPictures) -> None:
        self._watched, self._pictures = watched, pictures
        self._started_unix_ms = time.time_ns() // 1_000_000
        self._started_s = time.monotonic()
        self._totals = RecentGrowth(self._dropped)
        self._before = self._dropped()
        self._points: deque[dict[str, Any]] = deque(maxlen=HISTORY_S)
        self._seconds = 0

    def tick(self) -> None:
        """Add the last second to the history; its percentiles are those of the minute before its end."""
        counters, dropped = self._watched.counters, self._dropped()
        last = {stage: durations.newest.figures(1.0) for stage, durations in counters.stages.items()}
        age = counters.age.newest.figures(1.0)
        self._seconds += 1
        self._points.append(
            {
                "second": self._seconds,
                "rate_fps": round(age.rate_hz, 2),
                "longest_age_ms": _rounded(age.longest_ms),
                "age": _figures(counters.age.newest.figures()),
                "infer": _figures(counters.stages["infer"].newest.figures()),
                "stages_ms": {stage: _rounded(recent.median_ms) for stage, recent in last.items()},
                "dropped": {stage: count - self._before.get(stage, 0) for stage, count in dropped.items()},
            }
        )
        self._before = dropped
        self._totals.sample()

    def now(self, *, since: int = 0) -> dict[str, Any]:
        """All data that the page shows; the history after second `since`.

        A second that was not reached yet is from an earlier run: the whole history is new then.
        """
        watched, counters = self._watched, self._watched.counters
        since = since if since <= self._seconds else 0
        return {
            "run": dict(watched.info),
            "started_unix_ms": self._started_unix_ms,
            "sources": [self._of_source(index, name) for index, name in enumerate(watched.sources)],
            "score": watched.score(0),
            "frames": counters.frames,
            "rate_fps": round(counters.age.newest.figures(5.0).rate_hz, 2),
            "window_s": RECENT_S,
            "age": _figures(counters.age.newest.figures()),
            "stages": {stage: _figures(durations.newest.figures()) for stage, durations in counters.stages.items()},
            "dropped": self._dropped(),
            "recently_dropped": self._totals.growth(),
            "faults": {sink: count() for sink, count in watched.faults.items()},
            "history_s": HISTORY_S,
            "history": [point for point in self._points if point["second"] > since],
        }

    def why_not_ready(self) -> str | None:
        """Why a source's results are missing or old now (the first such source); None where all are current."""
        for index, (name, state_of) in enumerate(self._watched.sources.items()):
            newest = self._pictures.newest(index)
            silent_s = math.inf if newest is None else time.monotonic() - newest.at_s
            if silent_s > READY_S:
                state, why = state_of()
                last = f"the last result came {silent_s:.0f} s ago" if newest else "no result has come yet"
                return f"{name} is {state}, and {last}" + (f": {why}" if why else "")
        return None

    def why_not_healthy(self) -> str | None:
        """Why the program should be restarted: frames come, but none gets a result; None where that is not so.

        A silent camera is not a reason: it is being opened again.
        """
        return why_stuck(self._watched.counters, since_s=time.monotonic() - self._started_s)

    def _of_source(self, index: int, name: str) -> dict[str, Any]:
        newest = self._pictures.newest(index)
        state, why = self._watched.sources[name]()
        frame = newest.frame if newest else None
        return {
            "name": name,
            "state": state,
            "why": why,
            "frame": frame.index if frame else None,
            "size_px": [frame.image.shape[1], frame.image.shape[0]] if frame else None,
            "silent_s": round(time.monotonic() - newest.at_s, 1) if newest else None,
            "sees": _words(newest.result) if newest else [],
            "score": self._watched.score(index),
        }

    def _dropped(self) -> dict[str, int]:
        return {stage: count() for stage, count in self._watched.dropped.items()}


def _figures(recent: RecentFigures) -> dict[str, Any]:
    return {
        "count": recent.count,
        "p50_ms": _rounded(recent.p50_ms),
        "p90_ms": _rounded(recent.p90_ms),
        "p99_ms": _rounded(recent.p99_ms),
        "longest_ms": _rounded(recent.longest_ms),
    }


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 3)


def _words(result: Result) -> list[str]:
    """A result in a few words: "3 person", "tabby 0.61", "road 41 %", and the counts of lines and zones."""
    task = TASKS.of(result)
    return [*task.words(result, most=_MOST_LABELS), *(str(count) for count in task.counts(result))]
