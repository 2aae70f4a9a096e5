"""Where a run's results go, and what tells how that goes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from edgecnn import __version__
from edgecnn.errors import SpecError
from edgecnn.runners.base import Runner
from edgecnn.runners.live.camera import Camera
from edgecnn.runners.live.camera_group import CameraGroup
from edgecnn.runners.live.loop import LiveCounters
from edgecnn.runners.live.reconnect import CameraState
from edgecnn.runners.live.sinks import Sink
from edgecnn.runners.live.sinks.beside import SinkBeside
from edgecnn.runners.live.sinks.by_source import SinkBySource
from edgecnn.runners.live.sinks.jsonl import JsonLinesSink
from edgecnn.runners.live.sinks.pictures import PictureSink
from edgecnn.runners.live.sinks.video import CODECS, UNKNOWN_FPS, VideoSink
from edgecnn.runners.live.sinks.window import WindowSink
from edgecnn.runners.live.streams import StateListener

if TYPE_CHECKING:
    from edgecnn.runners.live.sinks.web import WebSink


Counts: TypeAlias = dict[str, Callable[[], int]]


_SINK_NAMES = {
    "VideoSink": "record",
    "SinkBySource": "record",
    "PictureSink": "record",
    "JsonLinesSink": "jsonl",
    "MqttSink": "mqtt",
    "MetricsSink": "metrics",
    "WebSink": "web",
}


def beside(camera: Camera, own: Sequence[Sink], others: Sequence[Sink], window: Sink | None) -> list[Sink]:
    """The sinks, each in a thread of its own where frames don't wait; a window belongs to the main thread."""
    sinks = [*own, *others]
    if not camera.live:
        return sinks
    return [sink if sink is window else SinkBeside(sink, _name_of(sink)) for sink in sinks]


def _name_of(sink: Sink) -> str:
    return _SINK_NAMES.get(type(sink).__name__, type(sink).__name__)


def for_its_own_sake(sink: Sink) -> bool:
    """Whether a run is worth going on for this sink: not where it only shows how the run goes."""
    return not getattr(sink, "shows_only", False)


def failed(sinks: Sequence[Sink]) -> list[SinkBeside]:
    return [sink for sink in sinks if isinstance(sink, SinkBeside) and sink.failure is not None]


def open_sinks(
    camera: Camera, *, show: bool, record: str | Path | None, jsonl: str | Path | None
) -> tuple[WindowSink | None, list[Sink], list[str]]:
    """The window, all sinks that the words ask for, and what was decided for want of better."""
    sinks: list[Sink] = []
    remarks: list[str] = []
    group = isinstance(camera, CameraGroup)
    window = WindowSink(by_source=group and not camera.stills) if show else None
    if window:
        sinks.append(window)
    if record is not None:
        path = Path(record)
        if camera.stills and path.suffix.lower() not in CODECS:
            sinks.append(PictureSink(path))
        elif isinstance(camera, CameraGroup) and not camera.stills:
            if any(each.stills for each in camera.cameras):
                raise SpecError("pictures and videos are not recorded together: give them one after the other")
            files = dict(zip(camera.cameras, records_of(path, camera), strict=True))
            sinks.append(SinkBySource({each.name: _video(each, file, remarks) for each, file in files.items()}))
        else:
            sinks.append(_video(camera, path, remarks))
    if jsonl is not None:
        sinks.append(JsonLinesSink(jsonl))
    return window, sinks, remarks


def _video(camera: Camera, path: Path, remarks: list[str]) -> VideoSink:
    if camera.fps is None:
        remarks.append(f"the source declares no frame rate: {path.name} has {UNKNOWN_FPS:g} a second")
    return VideoSink(path, fps=camera.fps or UNKNOWN_FPS, live=camera.live)


def records_of(record: str | Path | None, camera: Camera) -> list[Path]:
    """The files or the folder that a recording becomes: out-1.mp4, out-2.mp4 of two videos or streams."""
    if record is None:
        return []
    path = Path(record)
    if not isinstance(camera, CameraGroup) or camera.stills:
        return [path]
    return [path.with_stem(f"{path.stem}-{number}") for number in range(1, len(camera.cameras) + 1)]


def open_senders(
    camera: Camera,
    runner: Runner,
    counters: LiveCounters,
    dropped: Counts,
    faults: Counts,
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
        dropped["mqtt"] = lambda: sender.dropped
        faults["mqtt"] = lambda: sender.faults
    if metrics is not None:
        from edgecnn.runners.live.sinks.metrics import MetricsSink

        info = _info(camera, runner)
        senders.append(MetricsSink(metrics, counters=counters, dropped=dropped, faults=faults, info=info))
    return senders


def open_page(
    camera: Camera,
    runner: Runner,
    counters: LiveCounters,
    dropped: Counts,
    faults: Counts,
    told: LastState,
    *,
    address: str | int,
    token: str | None,
) -> WebSink:
    from edgecnn.runners.live.sinks.web import Watched, WebSink

    cameras: Sequence[Camera] = getattr(camera, "cameras", (camera,))

    watched = Watched(
        info=_info(camera, runner),
        counters=counters,
        dropped=dropped,
        faults=faults,
        sources={each.name: partial(told.state_of, each, alone=len(cameras) == 1) for each in cameras},
        score=lambda: getattr(runner.task, "score_threshold", None),
        set_score=lambda score: runner.set_thresholds(score=score),
    )
    return WebSink(address, watched=watched, token=token)


def _info(camera: Camera, runner: Runner) -> dict[str, str]:
    """What runs, in words for metrics and the page."""
    used = runner.backend.opened
    return {
        "source": camera.name,
        "task": runner.task.name,
        "format": runner.format,
        "precision": runner.precision,
        "device": used.device_name,
        "runtime": used.runtime,
        "version": __version__,
    }


def drops(camera: Camera, counters: LiveCounters) -> Counts:
    """What tells how many frames were dropped so far, by stage."""
    return {"camera": lambda: camera.dropped} | {
        stage: partial(counters.dropped.__getitem__, stage) for stage in counters.dropped
    }


def watch_sinks(sinks: Sequence[Sink], dropped: Counts, faults: Counts) -> None:
    """Add what the sinks drop for want of time, and which of them failed, as far as somebody could want to know."""
    for sink in sinks:
        if isinstance(sink, SinkBeside) and for_its_own_sake(sink):
            dropped.setdefault(sink.name, partial(getattr, sink, "dropped"))
            faults.setdefault(sink.name, partial(_has_failed, sink))


def _has_failed(sink: SinkBeside) -> int:
    return int(sink.failure is not None)


class LastState:
    """Why live sources are in their state; told on to whoever wants to know."""

    def __init__(self, listener: StateListener | None) -> None:
        self._listener = listener
        self._told: deque[str] = deque(maxlen=256)

    def __call__(self, state: CameraState, why: str) -> None:
        self._told.append(why)
        if self._listener is not None:
            self._listener(state, why)

    def state_of(self, camera: Camera, *, alone: bool) -> tuple[str, str]:
        """What a source does, and why; where there are several, a reason begins with its source's name."""
        state: str | None = getattr(camera, "state", None)
        if state is None:
            return "recording", ""
        begin = "" if alone else f"{camera.name}: "
        mine = [why for why in tuple(self._told) if why.startswith(begin)]
        return state, mine[-1].removeprefix(begin) if mine else ""


def refuse_overwriting(sources: Sequence[str | int | Path], *outputs: str | Path | None) -> None:
    """Raise SpecError where what would be written is a file that is read."""
    for source in sources:
        if isinstance(source, int) or not Path(source).is_file():
            continue
        for output in outputs:
            if output is not None and Path(output).exists() and Path(output).samefile(source):
                raise SpecError(f"{output} is the source itself: choose another name for what is written")
