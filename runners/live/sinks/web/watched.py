"""What the page shows of a run, and what it may change."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgecnn.results import Classification, Instances, Result, SegmentationMap
from edgecnn.runners.live.loop import LiveCounters
from edgecnn.runners.live.sinks.figures import figures_of
from edgecnn.runners.live.sinks.web.newest import NewestPictures
from edgecnn.runners.live.window import WINDOW_S, Recent, SlidingTotals

HISTORY_S: Final = 120
READY_S: Final = 5.0
STUCK_S: Final = 30.0
_MOST_LABELS: Final = 8


@dataclass(frozen=True, kw_only=True)
class Watched:
    """A run, as far as the page knows it.

    Attributes:
        info: words about it that don't change, without any login.
        counters: what the loop fills.
        dropped: what tells, by stage, how many frames or results were dropped so far.
        faults: what tells, by sink, how many faults it had so far.
        sources: what tells of each source what it does ("live", "stalled", …), and why; no name and no reason holds a
            login.
        score: the score threshold that a detector has now; None where the task has none.
        set_score: changes it; raises SpecError.
    """

    info: Mapping[str, str]
    counters: LiveCounters
    dropped: Mapping[str, Callable[[], int]]
    faults: Mapping[str, Callable[[], int]]
    sources: Mapping[str, Callable[[], tuple[str, str]]]
    score: Callable[[], float | None]
    set_score: Callable[[float], None]


class Status:
    """The run in figures: as of now, over the last minute, and second by second."""

    def __init__(self, watched: Watched, pictures: NewestPictures) -> None:
        self._watched, self._pictures = watched, pictures
        self._started_unix_ms = time.time_ns() // 1_000_000
        self._started_s = time.monotonic()
        self._totals = SlidingTotals(self._dropped)
        self._before = self._dropped()
        self._points: deque[dict[str, Any]] = deque(maxlen=HISTORY_S)
        self._seconds = 0

    def tick(self) -> None:
        """Add the second that has just passed to the history; percentiles are those of the minute before its end."""
        counters, dropped = self._watched.counters, self._dropped()
        last = {stage: durations.window.recent(1.0) for stage, durations in counters.stages.items()}
        age = counters.age.window.recent(1.0)
        self._seconds += 1
        self._points.append(
            {
                "second": self._seconds,
                "rate_fps": round(age.rate_hz, 2),
                "longest_age_ms": _rounded(age.longest_ms),
                "age": _figures(counters.age.window.recent()),
                "infer": _figures(counters.stages["infer"].window.recent()),
                "stages_ms": {stage: _rounded(recent.median_ms) for stage, recent in last.items()},
                "dropped": {stage: count - self._before.get(stage, 0) for stage, count in dropped.items()},
            }
        )
        self._before = dropped
        self._totals.sample()

    def now(self, *, since: int = 0) -> dict[str, Any]:
        """All that the page shows; of the history, what came after second `since`.

        A second that was not reached yet is of another run: all of the history is new then.
        """
        watched, counters = self._watched, self._watched.counters
        since = since if since <= self._seconds else 0
        return {
            "run": dict(watched.info),
            "started_unix_ms": self._started_unix_ms,
            "sources": [self._of_source(index, name) for index, name in enumerate(watched.sources)],
            "score": watched.score(),
            "frames": counters.frames,
            "rate_fps": round(counters.age.window.recent(5.0).rate_hz, 2),
            "window_s": WINDOW_S,
            "age": _figures(counters.age.window.recent()),
            "stages": {stage: _figures(durations.window.recent()) for stage, durations in counters.stages.items()},
            "dropped": self._dropped(),
            "recently_dropped": self._totals.recent(),
            "faults": {sink: count() for sink, count in watched.faults.items()},
            "history_s": HISTORY_S,
            "history": [point for point in self._points if point["second"] > since],
        }

    def why_not_ready(self) -> str | None:
        """Why a source's results are not to be relied on just now, of the first such; None where all come."""
        for index, (name, tell) in enumerate(self._watched.sources.items()):
            newest = self._pictures.newest(index)
            silent_s = math.inf if newest is None else time.monotonic() - newest.at_s
            if silent_s > READY_S:
                state, why = tell()
                last = f"the last result came {silent_s:.0f} s ago" if newest else "no result has come yet"
                return f"{name} is {state}, and {last}" + (f": {why}" if why else "")
        return None

    def why_not_healthy(self) -> str | None:
        """Why the program should be started again: frames come and none is answered; None where that is not so.

        A camera that is silent is no reason: it is being opened again.
        """
        stages = self._watched.counters.stages
        capture, infer = stages["capture"].window, stages["infer"].window
        waiting = capture.recent(STUCK_S).count - capture.recent(STUCK_S - READY_S).count
        if waiting and not infer.recent(STUCK_S).count and time.monotonic() - self._started_s > STUCK_S:
            return f"frames come, and the network has answered none for {STUCK_S:g} s"
        return None

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
        }

    def _dropped(self) -> dict[str, int]:
        return {stage: count() for stage, count in self._watched.dropped.items()}


def _figures(recent: Recent) -> dict[str, Any]:
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
    """A result in a few words: "3 person", "tabby 0.61", "road 41 %", and what lines and zones counted."""
    figures = sorted(figures_of(result).items(), key=lambda figure: -figure[1])[:_MOST_LABELS]
    if isinstance(result, Classification):
        return [f"{label} {score:.2f}" for label, score in figures]
    if isinstance(result, SegmentationMap):
        return [f"{label} {100 * share:.0f} %" for label, share in figures]
    found = result.detections if isinstance(result, Instances) else result
    return [*(f"{count:.0f} {label}" for label, count in figures), *(str(count) for count in found.counts)]
