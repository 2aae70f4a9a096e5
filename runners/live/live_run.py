"""A network on the frames of sources, its results handed to sinks: from what was asked for to the summary."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from edgecnn.errors import SpecError
from edgecnn.results import LineCount, Result, UInt8Array, ZoneCount
from edgecnn.runners.live.cameras.camera import Camera
from edgecnn.runners.live.cameras.capture_spec import CaptureSpec
from edgecnn.runners.live.cameras.group import open_cameras
from edgecnn.runners.live.cameras.reconnect import Reconnect, StateListener
from edgecnn.runners.live.controls import Controls
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.loop.threads import LoopThreads
from edgecnn.runners.live.outputs import LastState, Outputs, drops, failed, shows_only
from edgecnn.runners.live.run_summary import RunStart, RunSummary, StageSummary
from edgecnn.runners.live.signals import Signalled, Signals
from edgecnn.runners.live.sinks import Annotated, EndOfRun, Sink
from edgecnn.runners.live.sinks.kind import Setting
from edgecnn.runners.live.sinks.table import SINKS
from edgecnn.runners.live.sinks.threaded import SinkGroup, ThreadedSink
from edgecnn.runners.live.tracking.selection import SelectingRunner, Selection
from edgecnn.runners.live.tracking.tracked_runner import TrackedRunner, tracked_runner
from edgecnn.runners.runner import Runner

if TYPE_CHECKING:
    from typing import Self


@dataclass(frozen=True, kw_only=True)
class SourcesAsked:
    """Where frames come from, as for `open_camera`; `names` of the sources, instead of their addresses."""

    sources: Sequence[str | int | Path]
    names: Sequence[str] = ()
    capture: CaptureSpec | None = None
    reconnect: Reconnect | None = None
    on_state: StateListener | None = None


@dataclass(frozen=True, kw_only=True)
class ObjectsAsked:
    """What is done with objects beyond finding them; see `run`."""

    track: bool = False
    count_lines: Sequence[str] = ()
    zones: Sequence[str] = ()
    selection: Selection = field(default_factory=Selection)


@dataclass(frozen=True, kw_only=True)
class SinksAsked:
    """Where results go.

    Attributes:
        asked: the options that ask for sinks, by name; None and False ask for nothing.
        words: further options, that belong to a kind of sink.
        more: sinks, or "NAME=ARGUMENT" of one of the table.
    """

    asked: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, Any] = field(default_factory=dict)
    more: Sequence[Sink | str] = ()

    def paths(self, *what: str) -> dict[str, Path]:
        """By option, what is written: "file", "folder"; stdout is neither."""
        wanted = {name: argument for name, argument in self.asked.items() if argument not in (None, False, "-")}
        return {name: Path(argument) for name, argument in wanted.items() if SINKS.get(name).writes in what}


class LiveRun:
    """A run: entered, its sources and sinks are open; left, they are closed, and `summary` tells what it did.

    Args:
        runner: open; stays the caller's.
        on_fault: told at once, by a thread of the run, what failed while the rest goes on.
        counters: where to count; by default its own.

    Attributes:
        setting: what its sinks know of it; set once it is entered.

    Raises:
        DataError, DeviceError, StorageError, SpecError: on entering, as `open_camera` and the sinks do.
    """

    def __init__(
        self,
        runner: Runner,
        *,
        sources: SourcesAsked,
        objects: ObjectsAsked,
        sinks: SinksAsked,
        on_fault: Callable[[str], None] | None = None,
        counters: LiveCounters | None = None,
    ) -> None:
        self._runner, self._sources, self._objects, self._sinks = runner, sources, objects, sinks
        self._on_fault = on_fault
        self._counters = counters or LiveCounters()
        records = sinks.asked.get("record") is not None
        self._controls = Controls(runner, self._counters, records=records)
        self._loop: LoopThreads | None = None
        self._stopped = threading.Event()
        self._faults: dict[str, BaseException] = {}
        self._remarks: list[str] = []
        self._dropped: dict[str, int] = {}
        self._ended, self._wall_s = "", 0.0

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            states = LastState(self._sources.on_state)
            self._open_sources(opened, states)
            self.setting = self._setting(states)
            self._outputs = Outputs(self._sinks.asked, self._sinks.more, self.setting, on_failure=self._note_fault)
            self._noticed = getattr(self._camera, "notice", None)
            self._remarks += [self._noticed] if self._noticed else []
            self._sink_group = opened.enter_context(SinkGroup(self._outputs.sinks))
            self._opened = opened.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.__exit__(kind, error, trace)

    @property
    def start(self) -> RunStart:
        """What is about to run."""
        return RunStart(
            camera=self._camera,
            runner=self._runner,
            remarks=tuple(self._remarks),
            page_url=self._outputs.first_attribute("url"),
            page_login_url=self._outputs.first_attribute("login_url"),
        )

    def deliver(
        self,
        signals: Signals,
        *,
        max_age_ms: float | None = None,
        limit: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Hand on the results of all frames, until something ends it; arguments are those of `run`."""
        begun = time.perf_counter()
        try:
            self._loop = LoopThreads(
                self._cameras,
                [each or self._selecting for each in self._tracking],
                max_age_ms=max_age_ms,
                counters=self._counters,
                on_error=partial(self._note_fault, "source") if len(self._cameras) > 1 else None,
                on_remark=lambda remark: None,  # the summary has it
                paused=self._controls.paused,
            )
            try:
                if self._stopped.is_set():
                    self._loop.stop()
                self._ended = self._deliver_all(self._loop, limit=limit, progress=progress)
            finally:
                self._loop.stop()
            self._wall_s = time.perf_counter() - begun
            if self._camera.stills:
                self._outputs.hold()
        except EndOfRun as end:
            self._ended, self._wall_s = str(end), time.perf_counter() - begun
        except Signalled as caught:
            self._ended, self._wall_s = caught.name, time.perf_counter() - begun
        finally:
            signals.defer()  # what is open is closed in peace
        self._dropped = {"camera": self._camera.dropped, **self._counters.dropped}

    def stop(self) -> None:
        """End it from another thread: `deliver` returns soon, whatever the camera does."""
        self._stopped.set()
        if self._loop is not None:
            self._loop.stop()

    def summary(self, signal: int | None = None) -> RunSummary:
        """What it did, once it is left; `signal` is the number of the one that ended it."""
        dropped = {**self._dropped, **self._ends_of_sinks()}
        used, runner, counters = self._runner.backend.opened, self._runner, self._counters
        tracked = self._tracking[0]
        return RunSummary(
            source=self._camera.name,
            task=runner.task.name,
            format=runner.format,
            precision=runner.precision,
            device_name=used.device_name,
            runtime=used.runtime,
            provider=used.provider,
            threads=used.threads,
            ran_on=used,
            frames=counters.frames,
            dropped={where: count for where, count in dropped.items() if count},
            faults=tuple(f"{name}: {failure}" for name, failure in self._faults.items()),
            wall_s=self._wall_s,
            fps=counters.frames / self._wall_s if self._wall_s > 0 else 0.0,
            stages={stage: StageSummary.of(durations) for stage, durations in counters.stages.items()},
            age=StageSummary.of(counters.age),
            ended=self._ended,
            signal=signal,
            written=self._outputs.written(),
            remarks=tuple(self._all_remarks()),
            counts=tuple(count.record() for count in tracked.counts) if tracked else (),
            unreadable=tuple(text for each in self._cameras for text in getattr(each, "unreadable", ())),
        )

    def _open_sources(self, opened: contextlib.ExitStack, states: LastState) -> None:
        """Each source, what stands for them all, and what tracks the objects of each."""
        asked, objects = self._sources, self._objects
        if not asked.sources:
            raise SpecError("give at least one source")
        group = opened.enter_context(
            open_cameras(
                asked.sources,
                capture=asked.capture,
                reconnect=asked.reconnect,
                on_state=states,
                names=asked.names,
            )
        )
        self._cameras: tuple[Camera, ...] = group.cameras
        self._camera: Camera = group.cameras[0] if len(asked.sources) == 1 else group
        if len(self._cameras) > 1 and (objects.count_lines or objects.zones):
            raise SpecError("lines and zones lie in the pixels of one camera: count with one source at a time")
        selection = objects.selection
        self._selecting = SelectingRunner(self._runner, selection) if selection else self._runner
        self._tracking: list[TrackedRunner | None] = [
            tracked_runner(
                self._selecting, each, track=objects.track, count_lines=objects.count_lines, zones=objects.zones
            )
            for each in self._cameras
        ]

    def forget(self) -> None:
        """Have its sinks take back, when they are left, what they announced to others: the run will not come again."""
        for sink in self._outputs.having("forget"):
            sink.forget()

    def _setting(self, states: LastState) -> Setting:
        tracked = self._tracking[0] if len(self._cameras) == 1 else None
        counts = tracked.counts if tracked else ()
        return Setting(
            camera=self._camera,
            cameras=self._cameras,
            runner=self._runner,
            counters=self._counters,
            dropped=drops(self._camera, self._counters),
            faults={},
            states={name: partial(self._state, of) for name, of in states.of(self._cameras).items()},
            controls=self._controls if len(self._cameras) == 1 else None,
            tracks=tracked is not None,
            classes=tuple(self._objects.selection.classes),
            zones=tuple(count.name for count in counts if isinstance(count, ZoneCount)),
            lines=tuple(count.name for count in counts if isinstance(count, LineCount)),
            report=self._remarks.append,
            words=self._sinks.words,
        )

    def _state(self, of: Callable[[], tuple[str, str]]) -> tuple[str, str]:
        return ("paused", "is paused, by a switch") if self._controls.paused.is_set() else of()

    def _note_fault(self, name: str, failure: BaseException) -> None:
        self._faults[name] = failure
        if self._on_fault is not None:
            self._on_fault(f"{name}: {failure}")

    def _deliver_all(
        self,
        loop: LoopThreads,
        *,
        limit: int | None,
        progress: Callable[[int, int], None] | None,
    ) -> str:
        """Run the loop; returns why it ended."""
        totals = [count for count in (self._camera.frames_total, limit) if count is not None]
        expected = min(totals) if totals else None
        wanted = [sink for sink in self._sink_group if not shows_only(sink)]
        for frame, result in loop.results():
            if self._stopped.is_set():
                break
            with loop.delivery(frame):
                annotated = Annotated(partial(_draw, self._runner, frame, result))
                for sink in self._sink_group:
                    sink.deliver(frame, result, annotated)
                failures = [sink.failure for sink in failed(wanted) if sink.failure is not None]
                if failures and len(failures) == len(wanted):
                    raise failures[0]  # nobody is left for whom this was done
                done = self._counters.frames
                if progress and expected:
                    progress(done, max(expected, done))
                if limit is not None and done >= limit:
                    return "limit"
        return "stopped" if self._stopped.is_set() else "end of source"

    def _ends_of_sinks(self) -> dict[str, int]:
        """What each sink in a thread of its own dropped; what failed there is a fault, also of one still busy."""
        dropped = {}
        for sink in self._sink_group:
            if isinstance(sink, ThreadedSink):
                dropped[sink.name] = sink.dropped
                if sink.failure is not None:
                    self._faults.setdefault(sink.name, sink.failure)
        return dropped

    def _all_remarks(self) -> list[str]:
        notice = getattr(self._camera, "notice", None)  # of a source that was opened later
        return [
            *self._remarks,
            *([self._camera.remark] if self._camera.remark else []),
            *([notice] if notice and notice != self._noticed else []),
            *(each.remark for each in self._tracking if each and each.remark),
            *self._outputs.remarks(),
        ]


def _draw(runner: Runner, frame: Frame, result: Result) -> UInt8Array:
    task: Any = runner.task  # a task draws the results that it makes: which of them, the types don't say
    picture: UInt8Array = task.draw(frame.image, result)
    return picture
