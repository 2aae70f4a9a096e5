"""What may be changed while a run goes on: pause, recording, the score threshold."""

from __future__ import annotations

import math
import threading
import time

from edgecnn.errors import SpecError
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.runner import Runner


class Controls:
    """The switches of one run; may be used from any thread.

    Args:
        runner: its network's runner.
        counters: its counters: while it is paused, no result is expected.
        records: whether the run records, so that this can be switched off.

    Attributes:
        paused: set while no frame is to be looked at.
        recording: the number of the recording that goes on, from 1; 0 while results aren't recorded.
        records: as given.
    """

    def __init__(self, runner: Runner, counters: LiveCounters, *, records: bool = False) -> None:
        self._runner, self._counters = runner, counters
        self.paused = threading.Event()
        self.records = records
        self.recording = self._recordings = int(records)

    def pause(self, on: bool) -> None:
        """Look at no more frames, or at the newest again; a recording waits where it is."""
        if on:
            self.paused.set()
        else:
            self.paused.clear()
        self._counters.results_expected_since(math.inf if on else time.monotonic())

    def record(self, on: bool) -> None:
        """Record from now on, into the next file, or no more.

        Raises:
            SpecError: the run has no recording.
        """
        if not self.records:
            raise SpecError("this run has no recording to switch: start it with --record")
        if on and not self.recording:
            self._recordings += 1
        self.recording = self._recordings if on else 0

    @property
    def threshold(self) -> float | None:
        """The score threshold; None where the task has none."""
        return self._runner.task.thresholds.get("score")

    def set_threshold(self, score: float) -> None:
        """Change the score threshold.

        Raises:
            SpecError: the task has none, or it is not in 0..1.
        """
        self._runner.set_thresholds(score=score)
