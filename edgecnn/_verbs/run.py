"""Run a bundle on a camera, a video or pictures, and deliver what it sees."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgecnn._verbs._run_outputs import (
    Counts,
    LastState,
    beside,
    drops,
    failed,
    for_its_own_sake,
    open_page,
    open_senders,
    open_sinks,
    records_of,
    refuse_overwriting,
    watch_sinks,
)
from edgecnn._verbs._run_signals import Signalled, Signals
from edgecnn.bundle import Bundle
from edgecnn.errors import SpecError
from edgecnn.evidence import Opened
from edgecnn.results import Result, UInt8Array
from edgecnn.runners.base import Runner, open_runner
from edgecnn.runners.live.camera import Camera
from edgecnn.runners.live.camera_group import open_cameras
from edgecnn.runners.live.capture_spec import CaptureSpec
from edgecnn.runners.live.frames import Frame
from edgecnn.runners.live.loop import Durations, LiveCounters, live
from edgecnn.runners.live.reconnect import Reconnect
from edgecnn.runners.live.sinks import Annotated, EndOfRun, Sink
from edgecnn.runners.live.sinks.beside import SinkBeside
from edgecnn.runners.live.sinks.jsonl import records_of_counts
from edgecnn.runners.live.streams import StateListener
from edgecnn.runners.live.tracked_runner import tracked_runner

if TYPE_CHECKING:
    from edgecnn.runners.live.sinks.web import WebSink


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
        camera: the open source; of several, a `CameraGroup`.
        runner: the open runner; its format, precision and device are what really runs.
        remarks: what was decided without being asked for.
        page_url: where the live page is, or None.
        page_login_url: the same, with the token where one had to be made; for whoever started the run, for no log.
    """

    camera: Camera
    runner: Runner
    remarks: tuple[str, ...]
    page_url: str | None = None
    page_login_url: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What a run did.

    Attributes:
        source: where frames came from, without credentials; of several sources, all names.
        task, format, precision, device_name, runtime, provider, threads: what ran.
        ran_on: proof of that.
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
    ran_on: Opened
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
    source: str | int | Path | Sequence[str | int | Path],
    *,
    capture: CaptureSpec | None = None,
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
    web: str | int | None = None,
    web_token: str | None = None,
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
        source: as for `open_camera`. Several share the network, each gets its turn; results say which they are of.
        capture: size, rate, pixel format and transport that are asked of a camera or stream.
        device, format, precision, threads, score, nms_iou: as for `open_runner`.
        track: give objects ids that they keep from frame to frame.
        count_lines, zones: count what crosses a line ("x1,y1,x2,y2" in pixels of the picture) and what is in a
            polygon ("x1,y1,x2,y2,x3,y3,…"), each after "NAME=" or not; both track.
        show: open a window.
        record: write what was seen, with results drawn on it: a video file; for pictures, a file or a folder. Of
            several sources each gets a file, with its number in the name.
        jsonl: write one JSON object a frame to this file; "-" is stdout.
        mqtt: publish the same objects to mqtt://USER:PASSWORD@HOST:PORT/TOPIC, or mqtts://; see `MqttSink`.
        mqtt_qos: MQTT's quality of service, 0, 1 or 2.
        home_assistant: announce the run to Home Assistant, over `mqtt`.
        metrics: serve Prometheus metrics on PORT of this machine, or HOST:PORT; see `MetricsSink`.
        web: serve the live page on PORT of this machine, or HOST:PORT; see `WebSink`.
        web_token: what the page's viewers must show; without one, a page that other machines can reach makes its own.
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
    counters, told = LiveCounters(), LastState(on_state)
    with Signals() as signals, contextlib.ExitStack() as stack:
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
        sources = [source] if isinstance(source, str | int | Path) else list(source)
        refuse_overwriting(sources, record, jsonl)
        camera, cameras = _open_sources(sources, capture, reconnect, told, stack)
        if len(cameras) > 1 and (count_lines or zones):
            raise SpecError("lines and zones lie in the pixels of one camera: count with one source at a time")
        tracking = [tracked_runner(runner, each, track=track, count_lines=count_lines, zones=zones) for each in cameras]
        tracked = tracking[0]
        window, own, remarks = open_sinks(camera, show=show, record=record, jsonl=jsonl)
        counts: Counts = drops(camera, counters)
        faults: Counts = {}
        own += open_senders(
            camera,
            runner,
            counters,
            counts,
            faults,
            mqtt=mqtt,
            mqtt_qos=mqtt_qos,
            home_assistant=home_assistant,
            metrics=metrics,
            report=remarks.append,
        )
        remarks += [notice] if (notice := getattr(camera, "notice", None)) else []
        page: WebSink | None = None
        if web is not None:
            page = open_page(camera, runner, counters, counts, faults, told, address=web, token=web_token)
            own.append(page)
        all_sinks = beside(camera, own, sinks, window)
        watch_sinks(all_sinks, counts, faults)
        takers = [stack.enter_context(sink) for sink in all_sinks]
        if on_start:
            on_start(
                RunStart(
                    camera=camera,
                    runner=runner,
                    remarks=tuple(remarks),
                    page_url=page.url if page else None,
                    page_login_url=page.login_url if page else None,
                )
            )
        signals.catch()
        start = time.perf_counter()
        try:
            results = live(cameras, [each or runner for each in tracking], max_age_ms=max_age_ms, counters=counters)
            ended = _deliver_all(
                results, runner, takers, counters, limit=limit, total=camera.frames_total, progress=progress
            )
            wall_s = time.perf_counter() - start
            if window and camera.stills:
                window.hold()  # else the last picture would be gone before anyone saw it
        except EndOfRun as end:
            ended, wall_s = str(end), time.perf_counter() - start
        except Signalled as caught:
            ended, wall_s = caught.name, time.perf_counter() - start
        finally:
            signals.defer()  # what is open is closed in peace
        dropped = {"camera": camera.dropped, **counters.dropped}
    for taker in takers:
        if isinstance(taker, SinkBeside):
            dropped[taker.name] = taker.dropped
    if camera.remark:
        remarks.append(camera.remark)
    remarks += [each.remark for each in tracking if each and each.remark]
    if page and page.remark:
        remarks.append(page.remark)
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
        ran_on=used,
        frames=counters.frames,
        dropped={where: count for where, count in dropped.items() if count},
        faults=tuple(f"{taker.name}: {taker.failure}" for taker in failed(takers)),
        wall_s=wall_s,
        fps=counters.frames / wall_s if wall_s > 0 else 0.0,
        stages={stage: _summary(durations) for stage, durations in counters.stages.items()},
        age=_summary(counters.age),
        ended=ended,
        signal=signals.first,
        written=tuple(str(path) for path in (*records_of(record, camera), jsonl) if path and Path(path).exists()),
        remarks=tuple(remarks),
        counts=tuple(records_of_counts(tracked.counts)) if tracked else (),
    )


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
    wanted = [sink for sink in sinks if for_its_own_sake(sink)]
    with contextlib.closing(results):
        for frame, result in results:
            annotated = Annotated(partial(_draw, runner, frame, result))
            for sink in sinks:
                sink.deliver(frame, result, annotated)
            failures = [sink.failure for sink in failed(wanted) if sink.failure is not None]
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


def _open_sources(
    sources: Sequence[str | int | Path],
    capture: CaptureSpec | None,
    reconnect: Reconnect | None,
    on_state: StateListener | None,
    stack: contextlib.ExitStack,
) -> tuple[Camera, tuple[Camera, ...]]:
    """What stands for all sources, and each of them."""
    if not sources:
        raise SpecError("give at least one source")
    group = stack.enter_context(open_cameras(sources, capture=capture, reconnect=reconnect, on_state=on_state))
    return (group.cameras[0] if len(sources) == 1 else group), group.cameras


def _summary(durations: Durations) -> StageSummary:
    if durations.count == 0:
        return StageSummary(p50_ms=None, p90_ms=None, mean_ms=None)
    return StageSummary(
        p50_ms=round(durations.percentile_ms(50), 4),
        p90_ms=round(durations.percentile_ms(90), 4),
        mean_ms=round(durations.total_ns / durations.count / 1e6, 4),
    )
