"""Run a bundle on a camera, a video or pictures, and deliver its results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

from edgecnn import options
from edgecnn.errors import SpecError
from edgecnn.options import Fields, Option, kinds
from edgecnn.runners.live.cameras.capture_spec import CaptureSpec
from edgecnn.runners.live.cameras.reconnect import Reconnect, StateListener
from edgecnn.runners.live.live_run import LiveRun, ObjectsAsked, SinksAsked, SourcesAsked
from edgecnn.runners.live.outputs import refuse_overwriting
from edgecnn.runners.live.run_summary import RunStart, RunSummary
from edgecnn.runners.live.signals import Signals
from edgecnn.runners.live.sinks import Sink
from edgecnn.runners.live.tracking.selection import Selection
from edgecnn.runners.runner import open_runner

_SHOWN = "What is shown and counted"
_EVENTS = "Events"
_UNKNOWN = "What the network does not know"


def run(
    bundle: options.BundleName,
    source: str | int | Path | Sequence[str | int | Path],
    *,
    capture: Annotated[CaptureSpec | None, Fields("edgecnn.runners.live.cameras.capture_spec:CaptureSpec")] = None,
    reconnect: Annotated[Reconnect | None, Fields("edgecnn.runners.live.cameras.reconnect:Reconnect")] = None,
    max_age_ms: Annotated[float | None, Option(group=options.CAMERA)] = None,
    limit: Annotated[int | None, Option(group=options.CAMERA)] = None,
    device: options.Device = "cpu",
    format: options.Format = None,  # noqa: A002 - the command line's word
    precision: options.Precision = None,
    threads: options.Threads = None,
    score: options.Score = None,
    nms_iou: options.NmsIou = None,
    trusted_keys: options.TrustedKeys = None,
    track: Annotated[bool, Option(group=_SHOWN)] = False,
    count_lines: Annotated[
        str | Sequence[str],
        Option(
            name="count-line",
            help="Count objects that cross this line, in pixels of the picture.",
            metavar="[NAME=]x1,y1,x2,y2",
            repeat=True,
            kind=kinds.TEXT,
            group=_SHOWN,
        ),
    ] = (),
    zones: Annotated[
        str | Sequence[str],
        Option(
            name="zone",
            help="Count objects in this polygon, in pixels of the picture.",
            metavar="[NAME=]x1,y1,x2,y2,…",
            repeat=True,
            kind=kinds.TEXT,
            group=_SHOWN,
        ),
    ] = (),
    classes: Annotated[
        Sequence[str] | None,
        Option(help="Use only objects of these classes.", kind=kinds.WORDS, group=_SHOWN, default="all"),
    ] = None,
    class_scores: Annotated[
        Sequence[str],
        Option(
            name="class-score",
            help="Use only objects of this class with a higher score; --score applies to all.",
            metavar="CLASS=X",
            repeat=True,
            kind=kinds.TEXT,
            group=_SHOWN,
        ),
    ] = (),
    masks: Annotated[
        Sequence[str],
        Option(
            name="mask",
            help="Leave out objects that stand in this polygon, in pixels of the picture.",
            metavar="[NAME=]x1,y1,x2,y2,…",
            repeat=True,
            kind=kinds.TEXT,
            group=_SHOWN,
        ),
    ] = (),
    show: Annotated[bool, Option(help="Show a window; q closes it and ends the run.", group=_SHOWN)] = False,
    record: Annotated[str | Path | None, Option(metavar="FILE", group=options.OUTPUT)] = None,
    jsonl: Annotated[str | Path | None, Option(kind=kinds.TEXT, metavar="FILE|-", group=options.OUTPUT)] = None,
    rotate: Annotated[str | None, Option(metavar="SIZE|TIME", group=options.OUTPUT)] = None,
    keep: Annotated[int | None, Option(group=options.OUTPUT)] = None,
    events: Annotated[str | Path | None, Option(metavar="FOLDER", group=_EVENTS)] = None,
    event_after: Annotated[float, Option(metavar="SECONDS", group=_EVENTS)] = 2.0,
    event_before: Annotated[float, Option(metavar="SECONDS", group=_EVENTS)] = 5.0,
    event_apart: Annotated[float, Option(metavar="SECONDS", group=_EVENTS)] = 0.0,
    keep_events: Annotated[str | None, Option(metavar="AGE,SIZE", group=_EVENTS)] = None,
    hard_frames: Annotated[str | Path | None, Option(metavar="FOLDER", group=_UNKNOWN)] = None,
    keep_hard_frames: Annotated[int | None, Option(default="200", group=_UNKNOWN)] = None,
    drift: Annotated[str | Path | None, Option(metavar="FILE", group=_UNKNOWN)] = None,
    drift_learn: Annotated[str | None, Option(metavar="TIME", default="1d", group=_UNKNOWN)] = None,
    mqtt: Annotated[str | None, Option(metavar="URL", envvar="EDGECNN_MQTT", group=options.OUTPUT)] = None,
    mqtt_qos: Annotated[int, Option(kind=kinds.integer_between(0, 2), group=options.OUTPUT)] = 0,
    home_assistant: Annotated[bool, Option(group=options.OUTPUT)] = False,
    metrics: Annotated[
        str | int | None,
        Option(
            help="Serve Prometheus metrics; HOST is 127.0.0.1 if only PORT is given.",
            kind=kinds.ADDRESS,
            group=options.OUTPUT,
        ),
    ] = None,
    web: Annotated[
        str | int | None,
        Option(
            help="Serve a page with the live picture and figures; default address: 127.0.0.1:8088.",
            kind=kinds.ADDRESS,
            metavar="[[HOST:]PORT]",
            alone="8088",
            group=options.OUTPUT,
        ),
    ] = None,
    web_token: Annotated[str | None, Option(metavar="TOKEN", envvar="EDGECNN_WEB_TOKEN", group=options.OUTPUT)] = None,
    sinks: Annotated[
        Sink | str | Sequence[Sink | str],
        Option(
            name="sink",
            help="Send results to this sink, by name: {sinks}.",
            metavar="NAME[=ARG]",
            repeat=True,
            kind=kinds.TEXT,
            group=options.OUTPUT,
        ),
    ] = (),
    on_state: StateListener | None = None,
    on_fault: Callable[[str], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    on_start: Callable[[RunStart], None] | None = None,
) -> RunSummary:
    """Run a network on every frame of a recording, or on the newest ones of a camera or stream.

    On a live source, each sink runs in its own thread: a slow sink drops results and delays nothing else. A sink that
    fails is listed in the summary's `faults`, and the others continue; if all have failed, the run ends with their
    error.

    SIGINT and SIGTERM end it after the files are closed, and are listed in the summary (in the main thread; the
    previous handlers are restored afterwards).

    Args:
        bundle: a NAME.edge folder.
        source: as for `open_camera`. Several sources share the network in turns; results say which source they are
            from.
        capture: size, rate, pixel format and transport to request from a camera or stream.
        device, format, precision, threads, score, nms_iou, trusted_keys: as for `open_runner`.
        track: give objects ids that stay the same from frame to frame.
        count_lines, zones: count objects that cross a line ("x1,y1,x2,y2" in pixels of the picture) or are in a polygon
            ("x1,y1,x2,y2,x3,y3,…"), each with an optional "NAME=" before it; both switch tracking on.
        classes, class_scores, masks: use only objects of these classes, with a score above this one for a class
            ("person=0.5"), and not those that stand in a polygon ("x1,y1,x2,y2,x3,y3,…"); see `Selection`.
        show: open a window.
        record: write the pictures with results drawn on them: a video (.mp4, .mkv, .mov, .avi); for pictures, a file or
            a folder. With several sources each gets a file with its number in the name. An existing video is kept: the
            next is NAME.2.mp4.
        jsonl: append one JSON object for each frame to this file; - is stdout.
        rotate: start the next file of `record` and `jsonl` at this size or time, such as 100MB, 1h, or 100MB,1h.
        keep: how many files of each to keep, the newest.
        events: write a clip, the best picture and a JSON record of each object that stays in a zone, into a folder.
        event_after: seconds that an object must stay in a zone (without zones: in the picture) to be an event.
        event_before: seconds of the clip before that.
        event_apart: least seconds from one event's end to the next one's begin.
        hard_frames: keep frames in which a score is just above the threshold or an object flickers, with proposed
            labels (COCO), in a folder that only this user can read.
        keep_hard_frames: pictures that stay, a random sample of all that were taken.
        drift: compare pictures' brightness and contrast, scores and classes with a baseline, which is measured first.
        drift_learn: how long the baseline is measured, such as 1d; longer than what changes by itself.
        keep_events: how long events are kept and how much they may take, such as 7d,2GB; the oldest are deleted.
        mqtt: publish one JSON object for each frame to mqtt://USER:PASSWORD@HOST:PORT/TOPIC, or mqtts://.
        mqtt_qos: MQTT's quality of service, 0, 1 or 2.
        home_assistant: announce the run to Home Assistant, over `mqtt`.
        metrics: serve Prometheus metrics on PORT of this machine, or HOST:PORT; see `MetricsSink`.
        web: serve the live page on PORT of this machine, or HOST:PORT; see `WebSink`.
        web_token: what the page's viewers must send; without one, a page that other machines can reach makes its own.
        sinks: additional sinks, which are entered and left here, or "NAME=ARGUMENT" of a sink in the table (entry
            points `edgecnn.sinks` add some).
        limit: stop after this many frames.
        max_age_ms: drop results of a live source that are older, instead of delivering them late.
        reconnect, on_state: as for `open_camera`.
        on_fault: called at once, by a thread of the run, with a fault while the rest continues; it is in `faults`, too.
        progress: called with (frames done, total frames) if the source knows how many.
        on_start: called once, when everything is open.

    Raises:
        DataError, DeviceError, StorageError, BundleError, SpecError: as for `open_camera`, `open_runner` and the sinks.
        Files that were started are closed and kept.
    """
    if limit is not None and limit < 1:
        raise SpecError(f"limit must be at least 1, got {limit}")
    selection = Selection.parse(classes, kinds.one_or_more(class_scores), kinds.one_or_more(masks))
    sources = kinds.one_or_more(source)
    asked = {"show": show, "record": record, "jsonl": jsonl, "mqtt": mqtt, "metrics": metrics, "web": web}
    asked |= {"hard_frames": hard_frames, "drift": drift}
    asked["events"] = events  # left first: the last event is told by the others
    times = {"event_after": event_after, "event_before": event_before, "event_apart": event_apart}
    words: dict[str, Any] = {"mqtt_qos": mqtt_qos, "home_assistant": home_assistant, "web_token": web_token}
    words |= {"keep_hard_frames": keep_hard_frames, "drift_learn": drift_learn}
    words |= {"rotate": rotate, "keep": keep, "keep_events": keep_events, **({} if events is None else times)}
    with (
        Signals() as signals,
        open_runner(
            bundle,
            device=device,
            format=format,
            precision=precision,
            threads=threads,
            score=score,
            nms_iou=nms_iou,
            trusted_keys=trusted_keys,
        ) as runner,
    ):
        refuse_overwriting(sources, record, jsonl)
        with LiveRun(
            runner,
            sources=SourcesAsked(sources=sources, capture=capture, reconnect=reconnect, on_state=on_state),
            objects=ObjectsAsked(
                track=track,
                count_lines=kinds.one_or_more(count_lines),
                zones=kinds.one_or_more(zones),
                selection=selection,
            ),
            sinks=SinksAsked(asked=asked, words=words, more=kinds.one_or_more(sinks)),
            on_fault=on_fault,
        ) as running:
            if on_start:
                on_start(running.start)
            signals.catch()
            running.deliver(signals, max_age_ms=max_age_ms, limit=limit, progress=progress)
    return running.summary(signals.first)
