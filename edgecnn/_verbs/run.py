"""Run a bundle on a camera, a video or pictures, and deliver what it sees."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from edgecnn import __version__
from edgecnn.bundle import Bundle
from edgecnn.errors import SpecError
from edgecnn.results import Result, UInt8Array
from edgecnn.runners.base import Runner, open_runner
from edgecnn.runners.live.camera import Camera, open_camera
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.loop import Durations, LiveCounters, live
from edgecnn.runners.live.reconnect import Reconnect
from edgecnn.runners.live.sinks import Annotated, EndOfRun, Sink
from edgecnn.runners.live.sinks.beside import SinkBeside
from edgecnn.runners.live.sinks.jsonl import JsonLinesSink, records_of_counts
from edgecnn.runners.live.sinks.pictures import PictureSink
from edgecnn.runners.live.sinks.video import CODECS, UNKNOWN_FPS, VideoSink
from edgecnn.runners.live.sinks.window import WindowSink
from edgecnn.runners.live.streams import StateListener
from edgecnn.runners.live.tracked_runner import tracked_runner

_SINK_NAMES = {
    "VideoSink": "record",
    "PictureSink": "record",
    "JsonLinesSink": "jsonl",
    "MqttSink": "mqtt",
    "MetricsSink": "metrics",
}


@dataclass(frozen=True, kw_only=True)
class StageSummary:
    """Percentiles and mean of one stage, in milliseconds; None where nothing was measured."""

    p50_ms: float | None
    p90_ms: float | None
    mean_ms: float | None


@dataclass(frozen=True, kw_only=True)
class RunStart:
    """What is about to run.

    Attributes:
        camera: the open source.
        runner: the open runner; its format, precision and device are what really runs.
        remarks: what was decided without being asked for.
    """

    camera: Camera
    runner: Runner
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run did.

    Attributes:
        source: where frames came from, without credentials.
        task, format, precision, device_name, runtime, provider, threads: what ran.
        frames: results that were delivered.
        dropped: frames of a live source that were passed over, by where: "camera", "infer" and "deliver" because a
            newer one was there, "late" because they were too old, and each sink's name where it was too slow.
        faults: what failed on the way while the rest went on, once each.
        wall_s: from the first wait for a frame to the end.
        fps: frames per second of wall time.
        stages: by name: capture (wait for a frame), fit, infer, finish (and tracking), deliver (drawing and all sinks).
        age: from capture to the result being handed over.
        ended: why: "end of source", "limit", a sink's reason, or the name of a signal.
        signal: number of the signal that ended it, or None.
        written: files and folders that hold results.
        remarks: what else is to be said ("… ended after 300 of 795 frames").
        counts: what lines and zones counted, as in the JSON lines.
    """

    source: str
    task: str
    format: str
    precision: str
    device_name: str
    runtime: str
    provider: str
    threads: int
    frames: int
    dropped: dict[str, int]
    faults: tuple[str, ...]
    wall_s: float
    fps: float
    stages: dict[str, StageSummary]
    age: StageSummary
    ended: str
    signal: int | None
    written: tuple[str, ...]
    remarks: tuple[str, ...]
    counts: tuple[dict[str, Any], ...] = ()


def run(
    bundle: str | Path | Bundle,
    source: str | int | Path,
    *,
    device: str = "cpu",
    format: str | None = None,  # noqa: A002 - the command line's word
    precision: str | None = None,
    threads: int | None = None,
    score: float | None = None,
    nms_iou: float | None = None,
    track: bool = False,
    count_lines: Sequence[str] = (),
    zones: Sequence[str] = (),
    show: bool = False,
    record: str | Path | None = None,
    jsonl: str | Path | None = None,
    mqtt: str | None = None,
    mqtt_qos: int = 0,
    home_assistant: bool = False,
    metrics: str | int | None = None,
    sinks: Sequence[Sink] = (),
    limit: int | None = None,
    max_age_ms: float | None = None,
    reconnect: Reconnect | None = None,
    on_state: StateListener | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_start: Callable[[RunStart], None] | None = None,
) -> RunSummary:
    """Run a network on every frame of a recording, or on the newest ones of a camera or stream.

    On a live source, each sink works in a thread of its own: a slow one drops results and holds nobody back, one that
    fails is told in the summary's `faults`, and the others go on; when all have failed, the run ends with their error.

    SIGINT and SIGTERM end it after the files are closed, and are told in the summary (in the main thread;
    their handlers are as before afterwards).

    Args:
        bundle: a NAME.edge folder.
        source: as for `open_camera`.
        device, format, precision, threads, score, nms_iou: as for `open_runner`.
        track: give objects ids that they keep from frame to frame.
        count_lines, zones: count what crosses a line ("x1,y1,x2,y2" in pixels of the picture) and what is in a
            polygon ("x1,y1,x2,y2,x3,y3,…"), each after "NAME=" or not; both track.
        show: open a window.
        record: write what was seen, with results drawn on it: a video file; for pictures, a file or a folder.
        jsonl: write one JSON object a frame to this file; "-" is stdout.
        mqtt: publish the same objects to mqtt://USER:PASSWORD@HOST:PORT/TOPIC, or mqtts://; see `MqttSink`.
        mqtt_qos: MQTT's quality of service, 0, 1 or 2.
        home_assistant: announce the run to Home Assistant, over `mqtt`.
        metrics: serve Prometheus metrics on PORT of this machine, or HOST:PORT; see `MetricsSink`.
        sinks: where results go besides; they are entered and left here.
        limit: stop after so many frames.
        max_age_ms: as for `live`.
        reconnect, on_state: as for `open_camera`.
        progress: called with (frames done, frames there are) where the source knows how many.
        on_start: called once, when everything is open.

    Raises:
        DataError, DeviceError, StorageError, BundleError, SpecError: as `open_camera`, `open_runner` and the
            sinks do. Files that were begun are closed and kept.
    """
    if limit is not None and limit < 1:
        raise SpecError(f"limit must be at least 1, got {limit}")
    counters = LiveCounters()
    with _Signals() as signals, contextlib.ExitStack() as stack:
        opened = open_runner(
            bundle,
            device=device,
            format=format,
            precision=precision,
            threads=threads,
            score=score,
            nms_iou=nms_iou,
        )
        runner = stack.enter_context(opened)
        _refuse_overwriting(source, record, jsonl)
        camera = stack.enter_context(open_camera(source, reconnect=reconnect, on_state=on_state))
        tracked = tracked_runner(runner, camera, track=track, count_lines=count_lines, zones=zones)
        window, own, remarks = _open_sinks(camera, show=show, record=record, jsonl=jsonl)
        tallies = _Tallies(camera, counters)
        own += _open_senders(
            camera,
            runner,
            counters,
            tallies,
            mqtt=mqtt,
            mqtt_qos=mqtt_qos,
            home_assistant=home_assistant,
            metrics=metrics,
            report=remarks.append,
        )
        takers = _beside(camera, own, sinks, window)
        tallies.add_sinks(takers)
        for taker in takers:
            stack.enter_context(taker)
        if on_start:
            on_start(RunStart(camera=camera, runner=runner, remarks=tuple(remarks)))
        signals.catch()
        start = time.perf_counter()
        try:
            results = live(camera, tracked or runner, max_age_ms=max_age_ms, counters=counters)
            ended = _deliver_all(
                results, runner, takers, counters, limit=limit, total=camera.frames_total, progress=progress
            )
            wall_s = time.perf_counter() - start
            if window and camera.stills:
                window.hold()  # else the last picture would be gone before anyone saw it
        except EndOfRun as end:
            ended, wall_s = str(end), time.perf_counter() - start
        except _Signalled as caught:
            ended, wall_s = caught.name, time.perf_counter() - start
        finally:
            signals.defer()  # what is open is closed in peace
        dropped = {"camera": camera.dropped, **counters.dropped}
    for taker in takers:
        if isinstance(taker, SinkBeside):
            dropped[taker.name] = taker.dropped
    if camera.remark:
        remarks.append(camera.remark)
    if tracked and tracked.remark:
        remarks.append(tracked.remark)
    used = runner.backend.opened
    return RunSummary(
        source=camera.name,
        task=runner.task.name,
        format=runner.format,
        precision=runner.precision,
        device_name=used.device_name,
        runtime=used.runtime,
        provider=used.provider,
        threads=used.threads,
        frames=counters.frames,
        dropped={where: count for where, count in dropped.items() if count},
        faults=tuple(f"{taker.name}: {taker.failure}" for taker in _failed(takers)),
        wall_s=wall_s,
        fps=counters.frames / wall_s if wall_s > 0 else 0.0,
        stages={stage: _summary(durations) for stage, durations in counters.stages.items()},
        age=_summary(counters.age),
        ended=ended,
        signal=signals.first,
        written=tuple(str(path) for path in (record, jsonl) if path is not None and Path(path).exists()),
        remarks=tuple(remarks),
        counts=tuple(records_of_counts(tracked.counts)) if tracked else (),
    )


def _beside(camera: Camera, own: Sequence[Sink], others: Sequence[Sink], window: Sink | None) -> list[Sink]:
    """The sinks, each in a thread of its own where frames don't wait; a window belongs to the main thread."""
    sinks = [*own, *others]
    if not camera.live:
        return sinks
    return [sink if sink is window else SinkBeside(sink, _name_of(sink)) for sink in sinks]


def _name_of(sink: Sink) -> str:
    return _SINK_NAMES.get(type(sink).__name__, type(sink).__name__)


def _for_its_own_sake(sink: Sink) -> bool:
    """Whether a run is worth going on for this sink: not where it only shows how the run goes."""
    return not getattr(sink, "shows_only", False)


def _failed(sinks: Sequence[Sink]) -> list[SinkBeside]:
    return [sink for sink in sinks if isinstance(sink, SinkBeside) and sink.failure is not None]


def _deliver_all(
    results: Generator[tuple[Frame, Result], None, None],
    runner: Runner,
    sinks: Sequence[Sink],
    counters: LiveCounters,
    *,
    limit: int | None,
    total: int | None,
    progress: Callable[[int, int], None] | None,
) -> str:
    """Run the loop; returns why it ended."""
    totals = [count for count in (total, limit) if count is not None]
    expected = min(totals) if totals else None
    wanted = [sink for sink in sinks if _for_its_own_sake(sink)]
    with contextlib.closing(results):
        for frame, result in results:
            annotated = Annotated(partial(_draw, runner, frame, result))
            for sink in sinks:
                sink.deliver(frame, result, annotated)
            failures = [sink.failure for sink in _failed(wanted) if sink.failure is not None]
            if failures and len(failures) == len(wanted):
                raise failures[0]  # nobody is left for whom this was done
            if progress and expected:
                progress(counters.frames, max(expected, counters.frames))
            if limit is not None and counters.frames >= limit:
                return "limit"
    return "end of source"


def _draw(runner: Runner, frame: Frame, result: Result) -> UInt8Array:
    task: Any = runner.task  # a task draws the results that it makes: which of them, the types don't say
    picture: UInt8Array = task.draw(frame.image, result)
    return picture


def _open_sinks(
    camera: Camera, *, show: bool, record: str | Path | None, jsonl: str | Path | None
) -> tuple[WindowSink | None, list[Sink], list[str]]:
    """The window, all sinks that the words ask for, and what was decided for want of better."""
    sinks: list[Sink] = []
    remarks: list[str] = []
    window = WindowSink() if show else None
    if window:
        sinks.append(window)
    if record is not None:
        path = Path(record)
        if camera.stills and path.suffix.lower() not in CODECS:
            sinks.append(PictureSink(path))
        else:
            if camera.fps is None:
                remarks.append(f"the source declares no frame rate: {path.name} has {UNKNOWN_FPS:g} a second")
            sinks.append(VideoSink(path, fps=camera.fps or UNKNOWN_FPS, live=camera.live))
    if jsonl is not None:
        sinks.append(JsonLinesSink(jsonl))
    return window, sinks, remarks


def _open_senders(
    camera: Camera,
    runner: Runner,
    counters: LiveCounters,
    tallies: _Tallies,
    *,
    mqtt: str | None,
    mqtt_qos: int,
    home_assistant: bool,
    metrics: str | int | None,
    report: Callable[[str], None],
) -> list[Sink]:
    """The sinks that send over the network; what they stand on is imported only where it is asked for."""
    if mqtt is None and (mqtt_qos or home_assistant):
        raise SpecError("an MQTT quality of service, or Home Assistant, needs a broker: give --mqtt URL")
    senders: list[Sink] = []
    if mqtt is not None:
        from edgecnn.runners.live.sinks.mqtt import MqttSink

        sender = MqttSink(mqtt, qos=mqtt_qos, task=runner.task.name, home_assistant=home_assistant, report=report)
        senders.append(sender)
        tallies.dropped["mqtt"] = lambda: sender.dropped
        tallies.faults["mqtt"] = lambda: sender.faults
    if metrics is not None:
        from edgecnn.runners.live.sinks.metrics import MetricsSink

        used = runner.backend.opened
        info = {
            "source": camera.name,
            "task": runner.task.name,
            "format": runner.format,
            "precision": runner.precision,
            "device": used.device_name,
            "runtime": used.runtime,
            "version": __version__,
        }
        told = {"dropped": tallies.dropped, "faults": tallies.faults}
        senders.append(MetricsSink(metrics, counters=counters, info=info, **told))
    return senders


class _Tallies:
    """What tells, while a run goes on, how much was dropped and how often something failed.

    Attributes:
        dropped: by stage or sink.
        faults: by sink.
    """

    def __init__(self, camera: Camera, counters: LiveCounters) -> None:
        self.dropped: dict[str, Callable[[], int]] = {"camera": lambda: camera.dropped}
        self.dropped |= {stage: partial(counters.dropped.__getitem__, stage) for stage in counters.dropped}
        self.faults: dict[str, Callable[[], int]] = {}

    def add_sinks(self, sinks: Sequence[Sink]) -> None:
        """What works beside the loop: added to what a sink of that name tells itself."""
        for sink in sinks:
            if isinstance(sink, SinkBeside) and _for_its_own_sake(sink):
                dropped, faults = (told.get(sink.name, _none) for told in (self.dropped, self.faults))
                self.dropped[sink.name] = partial(_sum, dropped, partial(getattr, sink, "dropped"))
                self.faults[sink.name] = partial(_sum, faults, partial(_has_failed, sink))


def _none() -> int:
    return 0


def _sum(one: Callable[[], int], other: Callable[[], int]) -> int:
    return one() + other()


def _has_failed(sink: SinkBeside) -> int:
    return int(sink.failure is not None)


def _refuse_overwriting(source: str | int | Path, *outputs: str | Path | None) -> None:
    """Raise SpecError where what would be written is the file that is read."""
    if isinstance(source, int) or not Path(source).is_file():
        return
    for output in outputs:
        if output is not None and Path(output).exists() and Path(output).samefile(source):
            raise SpecError(f"{output} is the source itself: choose another name for what is written")


def _summary(durations: Durations) -> StageSummary:
    if durations.count == 0:
        return StageSummary(p50_ms=None, p90_ms=None, mean_ms=None)
    return StageSummary(
        p50_ms=round(durations.percentile_ms(50), 4),
        p90_ms=round(durations.percentile_ms(90), 4),
        mean_ms=round(durations.total_ns / durations.count / 1e6, 4),
    )


class _Signalled(BaseException):
    """A signal asks the run to end."""

    def __init__(self, number: int) -> None:
        self.name = signal.Signals(number).name
        super().__init__(self.name)


class _Signals:
    """SIGINT and SIGTERM during a run: the first ends the loop; while files are closed, none interrupts.

    Attributes:
        first: number of the signal that came first, or None.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self._raises = False
        self._before: dict[int, Any] = {}

    def catch(self) -> None:
        """From here on, a signal raises _Signalled; only the main thread can have handlers."""
        if threading.current_thread() is threading.main_thread():
            self._raises = True
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)

    def defer(self) -> None:
        """From here on, a signal is only noted."""
        self._raises = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.first is None:
            self.first = number
        if self._raises:
            self._raises = False
            raise _Signalled(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
