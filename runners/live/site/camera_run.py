"""One camera of several: runs in a thread, and is run again when it failed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from edgecnn.errors import EdgeCnnError, SpecError
from edgecnn.runners.live.cameras.reconnect import CameraState, Reconnect
from edgecnn.runners.live.live_run import LiveRun
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.run_summary import RunSummary
from edgecnn.runners.live.signals import Signals
from edgecnn.runners.live.sinks import Sink
from edgecnn.runners.live.sinks.kind import Setting
from edgecnn.runners.live.site.log_lines import log
from edgecnn.runners.live.site.plan import CameraPlan
from edgecnn.runners.runner import Runner

# A camera that failed for good (a login, a full disk) is tried again, so that it recovers without a person.
_AGAIN: Final = Reconnect(first_wait_s=1.0, longest_wait_s=60.0)


class CameraRun:
    """A camera that runs until its source ends, or until it is stopped.

    Args:
        plan: what it is to do.
        runner: its network's runner, with its own thresholds; closed here.
        sinks: those that cameras share, in addition to the plan's; entered and left elsewhere.
        counters: its counters.

    Attributes:
        plan: as given.
        runner: as given.
        summary: what its last run did; None before.
        failure: why its last run failed; None where it didn't.
        gave_up: whether it failed for the last time.
    """

    def __init__(
        self, plan: CameraPlan, runner: Runner, *, sinks: Sequence[Sink] = (), counters: LiveCounters | None = None
    ) -> None:
        self.plan, self.runner = plan, runner
        self.counters = counters or LiveCounters()
        self.summary: RunSummary | None = None
        self.failure: BaseException | None = None
        self.gave_up = False
        self._started_s = time.monotonic()
        self._sinks = sinks
        self._running: LiveRun | None = None
        self._live = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"camera {plan.name}", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether it still runs, or will be tried again."""
        return self._thread.is_alive()

    @property
    def since_s(self) -> float:
        """Time since it began."""
        return time.monotonic() - self._started_s

    @property
    def setting(self) -> Setting | None:
        """What its sinks know of it; None while its source is being opened."""
        return getattr(self._running, "setting", None)

    def state(self) -> tuple[str, str]:
        """Its source's state and the reason, as on the page."""
        setting = self.setting
        if setting is not None and self.alive:
            return setting.states[self.plan.name]()
        if self.failure is not None:
            return "lost", str(self.failure)
        return ("connecting", "") if self.alive else ("ended", "")

    def start(self) -> None:
        """Run it, in its thread."""
        self._thread.start()

    def stop(self, *, forget: bool = False) -> None:
        """Ask it to end; doesn't wait. `forget`: its sinks take back what they announced, as it will not come again."""
        self._stopping.set()
        if self._running is not None:
            if forget:
                self._running.forget()
            self._running.stop()

    def join(self, timeout_s: float | None = None) -> None:
        """Wait for its end."""
        self._thread.join(timeout_s)

    def _work(self) -> None:
        attempts = 0
        while not self._stopping.is_set():
            frames = self.counters.frames
            try:
                self._run()
                break
            except EdgeCnnError as failed:
                self.failure = failed
            except Exception as failed:  # a bug, or a library's: the other cameras go on
                self.failure = failed
            attempts = 1 if self.counters.frames > frames else attempts + 1
            self.gave_up = not self._again
            wait_s = 0.0 if self.gave_up else _AGAIN.wait_s(attempts)
            then = "it is given up" if self.gave_up else f"trying again in {wait_s:.0f} s"
            self._log(f"failed: {type(self.failure).__name__}: {self.failure}; {then}", logging.ERROR)
            if self.gave_up or self._stopping.wait(wait_s):
                break
        self.runner.close()

    @property
    def _again(self) -> bool:
        """A recording that fails fails again; so do what can't be meant, and what was told to give up."""
        if isinstance(self.failure, SpecError):
            return False
        reconnect = self.plan.sources.reconnect
        return self._live and (reconnect is None or reconnect.give_up_s is None)

    def _run(self) -> None:
        plan = self.plan
        running = LiveRun(
            self.runner,
            sources=replace(plan.sources, names=(plan.name,), on_state=self._report),
            objects=plan.objects,
            sinks=replace(plan.sinks, more=(*plan.sinks.more, *self._sinks)),
            on_fault=lambda fault: self._log(f"failed: {fault}", logging.ERROR),
            counters=self.counters,
        )
        self._live = True  # until it is open: what cannot be opened may come
        with running:
            self._live = running.setting.camera.live
            self._running = running
            if self._stopping.is_set():
                return
            self._log(f"runs {self.runner.format} {self.runner.precision} on {self.runner.backend.opened.summary}")
            for remark in (*([self.runner.why_chosen] if self.runner.why_chosen else []), *running.start.remarks):
                self._log(remark)
            self.failure = None
            running.deliver(Signals(), max_age_ms=plan.max_age_ms, limit=plan.limit)
        self.summary = running.summary()
        for remark in self.summary.remarks:
            self._log(remark)
        self._log(f"ended: {self.summary.ended}, {self.summary.frames} frames")

    def _report(self, state: CameraState, why: str) -> None:
        self._log(f"source {state}: {why}" if why else f"source {state}", self._level(state))

    def _level(self, state: CameraState) -> int:
        return logging.INFO if state == "live" else logging.WARNING

    def _log(self, message: str, level: int = logging.INFO) -> None:
        log(message, camera=self.plan.name, level=level)
