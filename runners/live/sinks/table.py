"""The table of sinks: our own and those of other packages (entry points `edgecnn.sinks`)."""

from __future__ import annotations

from typing import Final

from edgecnn.errors import SpecError
from edgecnn.registry import Table
from edgecnn.runners.live.sinks.kind import SinkKind

_ROOM: Final = "edgecnn.runners.live.sinks"

SHOW: Final = SinkKind(
    name="show", about="Show results in a window; press q to end.", opens=f"{_ROOM}.window:open_window", draws=True
)
RECORD: Final = SinkKind(
    name="record",
    metavar="PATH",
    about="Write annotated video (.mp4, .mkv, .mov, .avi); for pictures, a file or a folder.",
    opens=f"{_ROOM}.recording:open_record",
    checks=f"{_ROOM}:check_folder",
    draws=True,
    per_source=True,
    writes="file",
    words=("rotate", "keep"),
)
JSONL: Final = SinkKind(
    name="jsonl",
    metavar="FILE|-",
    about="Write one JSON object per frame; - is stdout.",
    opens=f"{_ROOM}.jsonl:open_jsonl",
    checks=f"{_ROOM}:check_folder",
    writes="file",
    words=("rotate", "keep"),
)
EVENTS: Final = SinkKind(
    name="events",
    metavar="FOLDER",
    about="Write a clip, the best picture and a JSON record of objects that stay in a zone.",
    opens=f"{_ROOM}.events:open_events",
    checks=f"{_ROOM}.events:check_events",
    draws=True,
    writes="folder",
    words=("event_after", "event_before", "event_apart", "keep_events"),
)
HARD_FRAMES: Final = SinkKind(
    name="hard_frames",
    metavar="FOLDER",
    about="Keep a sample of frames that the network is unsure of, with proposed labels (COCO).",
    opens=f"{_ROOM}.hard_frames:open_hard_frames",
    checks=f"{_ROOM}.hard_frames:check_hard_frames",
    per_source=True,
    writes="folder",
    words=("keep_hard_frames",),
)
DRIFT: Final = SinkKind(
    name="drift",
    metavar="FILE",
    about="Compare pictures and scores with a baseline, which is measured first.",
    opens=f"{_ROOM}.drift:open_drift",
    checks=f"{_ROOM}.drift:check_drift",
    per_source=True,
    writes="file",
    words=("drift_learn",),
)
MQTT: Final = SinkKind(
    name="mqtt",
    metavar="URL",
    about="Publish one JSON object per frame: mqtt://USER:PASSWORD@HOST/TOPIC, or mqtts://.",
    opens=f"{_ROOM}.mqtt:open_mqtt",
    checks=f"{_ROOM}.mqtt:check_mqtt",
    extra="live",
    words=("mqtt_qos", "home_assistant", "mqtt_topic"),
)
METRICS: Final = SinkKind(
    name="metrics",
    metavar="[HOST:]PORT",
    about="Serve Prometheus metrics; HOST is 127.0.0.1 by default.",
    opens=f"{_ROOM}.metrics:open_metrics",
    extra="live",
)
WEB: Final = SinkKind(
    name="web",
    metavar="[[HOST:]PORT]",
    about="Serve a page with the live picture and figures.",
    opens=f"{_ROOM}.web:open_page",
    extra="web",
    draws=True,
    words=("web_token",),
)

SINKS: Final = Table(
    "sink",
    {
        "show": f"{_ROOM}.table:SHOW",
        "record": f"{_ROOM}.table:RECORD",
        "jsonl": f"{_ROOM}.table:JSONL",
        "events": f"{_ROOM}.table:EVENTS",
        "hard_frames": f"{_ROOM}.table:HARD_FRAMES",
        "drift": f"{_ROOM}.table:DRIFT",
        "mqtt": f"{_ROOM}.table:MQTT",
        "metrics": f"{_ROOM}.table:METRICS",
        "web": f"{_ROOM}.table:WEB",
    },
    record=SinkKind,
    group="edgecnn.sinks",
)


def parse_sink(text: str) -> tuple[SinkKind, str]:
    """The kind and the argument of "NAME=ARGUMENT" (`--sink`), or of "NAME" alone.

    Raises:
        UnknownNameError: there is no sink of that name.
        SpecError: an argument is missing.
    """
    name, has_argument, argument = text.partition("=")
    kind = SINKS.get(name)
    if kind.metavar and not kind.metavar.startswith("[[") and not has_argument:
        raise SpecError(f"the sink {name} needs an argument: --sink {name}={kind.metavar}")
    return kind, argument
