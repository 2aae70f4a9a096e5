"""Home Assistant over a real broker: entities in its own form, a state that is true, commands that are obeyed."""

from __future__ import annotations

import itertools
import json
import math
import re
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("paho.mqtt", reason="needs paho-mqtt: pip install 'edgecnn[live]'")
pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'edgecnn[live]'")

from edgecnn._verbs import run as verb
from edgecnn.errors import SpecError
from edgecnn.results import Classification, SegmentationMap
from edgecnn.runners.live.controls import Controls
from edgecnn.runners.live.frame import frame_now
from edgecnn.runners.live.loop.counters import LiveCounters
from edgecnn.runners.live.run_summary import RunSummary
from edgecnn.runners.live.sinks import Annotated, EndOfRun
from edgecnn.runners.live.sinks.home_assistant import HomeAssistantDevice
from edgecnn.tasks import TASKS

from .conftest import LABELS, OpenRunner, StreamServer, square_frame, until
from .test_mqtt import Broker, Listener, broker, needs_broker

__all__ = ["broker"]
pytestmark = pytest.mark.server

# What the discovery of each component takes, by the schemas of Home Assistant 2026.11 (`components/mqtt`). It drops
# keys that it does not know without a word, so an unknown one is an error here.
_EVERY = {
    "name", "unique_id", "default_entity_id", "device", "origin", "availability_topic", "payload_available",
    "payload_not_available", "icon", "entity_category", "json_attributes_topic", "json_attributes_template",
}  # fmt: skip
_TAKEN = {
    "sensor": {
        "state_topic", "value_template", "expire_after", "state_class", "unit_of_measurement", "device_class",
        "options",
    },
    "binary_sensor": {"state_topic", "value_template", "expire_after", "payload_on", "payload_off", "device_class"},
    "image": {"image_topic", "content_type"},
    "switch": {
        "state_topic", "command_topic", "value_template", "payload_on", "payload_off", "state_on", "state_off",
    },
    "number": {"state_topic", "command_topic", "value_template", "min", "max", "step", "mode"},
}  # fmt: skip
_NEEDED = {
    "sensor": {"state_topic"},
    "binary_sensor": {"state_topic"},
    "image": {"image_topic"},
    "switch": {"command_topic"},
    "number": {"command_topic"},
}
_DEVICE = {"identifiers", "name", "manufacturer", "model", "sw_version"}
_UNITS = {"duration": {"d", "h", "min", "s", "ms", "µs"}}  # of a device class; "enum" has none
_STATE_CLASSES = {"measurement", "measurement_angle", "total", "total_increasing"}
_DISCOVERY_TOPIC = re.compile(r"homeassistant/(\w+)/([a-zA-Z0-9_-]+)/([a-zA-Z0-9_-]+)/config")


def check_taken(topic: str, config: dict[str, Any]) -> None:
    """Fail where Home Assistant would refuse a configuration, or pass over a part of it."""
    matched = _DISCOVERY_TOPIC.fullmatch(topic)
    assert matched, topic
    component = matched[1]
    assert config.keys() <= _EVERY | _TAKEN[component], topic
    assert config.keys() >= _NEEDED[component] | {"unique_id", "name", "availability_topic", "device"}
    assert config["device"].keys() <= _DEVICE and config["device"]["identifiers"]
    assert config["origin"].keys() <= {"name", "sw_version", "support_url"} and config["origin"]["name"]
    assert config["default_entity_id"].partition(".")[0] == component
    assert ":" in config.get("icon", "mdi:eye")
    assert config.get("entity_category") in (None, "diagnostic", *(["config"] if "command_topic" in config else []))
    for key, value in config.items():
        if key.endswith("_topic"):
            assert isinstance(value, str) and not set("#+\0") & set(value) and 0 < len(value.encode()) < 65536
        elif isinstance(value, str):
            assert value.count("{{") == value.count("}}")
    if component == "sensor":
        _check_sensor(config)
    if component == "number":
        assert config["min"] <= config["max"] and config["step"] >= 1e-3 and config["mode"] in ("auto", "box", "slider")


def _check_sensor(config: dict[str, Any]) -> None:
    kind, unit = config.get("device_class"), config.get("unit_of_measurement")
    assert config.get("state_class") in (None, *_STATE_CLASSES)
    assert type(config.get("expire_after", 1)) is int and config.get("expire_after", 1) >= 0
    if "options" in config:
        assert config["options"] and kind == "enum" and unit is None and "state_class" not in config
    else:
        assert kind != "enum"
        assert kind is None or unit in _UNITS[kind]


class SharedThresholds(OpenRunner):
    """The square's runner with thresholds that can be changed."""

    def set_thresholds(self, *, score: float | None = None, nms_iou: float | None = None) -> None:
        self.task = self.task.with_thresholds(score=score, nms_iou=nms_iou)


class InThread:
    """A run that goes on until the test ends it."""

    def __init__(self, source: str, **words: Any) -> None:
        self.summary: RunSummary | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(source, words), daemon=True)
        self._thread.start()

    def _run(self, source: str, words: dict[str, Any]) -> None:
        self.summary = verb.run("no.edge", source, sinks=[self], **words)

    def deliver(self, frame: Any, result: Any, annotated: Annotated) -> None:
        if self._over.is_set():
            raise EndOfRun("enough")

    def __enter__(self) -> InThread:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def end(self) -> RunSummary:
        self._over.set()
        self._thread.join(60)
        assert self.summary is not None
        return self.summary


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> SharedThresholds:
    """The network of every run here."""
    one = SharedThresholds()
    monkeypatch.setattr(verb, "open_runner", lambda *_, **__: one)
    return one


def device(**words: Any) -> HomeAssistantDevice:
    return HomeAssistantDevice("hall/door", "detect", **words)


def configs_of(listener: Listener) -> dict[str, dict[str, Any]]:
    """The newest configuration of each entity that there is."""
    newest = {m.topic: m.payload for m in list(listener.messages) if m.topic.endswith("/config")}
    return {topic: json.loads(payload) for topic, payload in newest.items() if payload}


PLACES: dict[str, Any] = {
    "classes": ["square", "circle"],
    "zones": ["yard=0,0,160,0,160,120,0,120"],
    "count_lines": ["door=80,0,80,120"],
}


def test_every_entity_is_in_home_assistants_form() -> None:
    controls = Controls(SharedThresholds(), LiveCounters(), records=True)  # type: ignore[arg-type]
    configs = device(classes=LABELS, zones=["yard", "a.b"], lines=["door"], controls=controls).discovery()
    for topic, config in configs.items():
        check_taken(topic, config)
        assert topic.split("/")[2] == "edgecnn_hall_door"
    assert len({config["unique_id"] for config in configs.values()}) == len(configs) == 19
    assert {topic.split("/")[1] for topic in configs} == set(_TAKEN)


@pytest.mark.parametrize("task", [task.name for task in TASKS])
@pytest.mark.parametrize("prefix", ["door", "Кухня/двери", "a b/{{ c }}/x", "-"])
def test_entities_of_every_task_are_taken_whatever_the_names(task: str, prefix: str) -> None:
    names = ["yard", "Двор", "a.b{{ states }}", "'\"", " "]
    controls = Controls(SharedThresholds(), LiveCounters(), records=True)  # type: ignore[arg-type]
    configs = HomeAssistantDevice(prefix, task, classes=names, zones=names, lines=names, controls=controls).discovery()
    for topic, config in configs.items():
        check_taken(topic, json.loads(json.dumps(config)))
        assert config.get("value_template", "{{").count("{{") == 1  # a name is no template
    assert len({config["default_entity_id"] for config in configs.values()}) == len(configs)


def test_names_that_look_alike_never_share_an_id() -> None:
    names = ["a", "a/inside", "a_inside", "a inside", "A", "ä", "a-inside", "in", "a.b", "a_b"]
    for one, other in itertools.combinations(names, 2):
        configs = device(classes=[one, other], zones=[one, other], lines=[one, other]).discovery()
        assert len({config["unique_id"] for config in configs.values()}) == len(configs) == 2 * 6 + 6


def test_the_state_of_each_task_and_of_an_old_result() -> None:
    frame = frame_now(square_frame(0), 0, "test")
    best = Classification(np.array([1, 0]), np.array([0.75, 0.25], np.float32), LABELS)
    state = HomeAssistantDevice("a", "classify").state((frame, best), fps=12.34)
    assert (state["label"], state["shares"], state["fps"]) == ("circle", {"circle": 0.75, "square": 0.25}, 12.3)
    ground = SegmentationMap(np.zeros((4, 4), np.uint8), LABELS)
    assert HomeAssistantDevice("a", "segment").state((frame, ground), fps=None)["label"] == "square"
    assert "homeassistant/sensor/edgecnn_a_b/label/config" in HomeAssistantDevice("a/b", "classify").discovery()
    seen = OpenRunner()(square_frame(0))
    now = device(classes=["square", "circle"]).state((frame, seen), fps=1.0)
    assert (now["objects"], now["by_class"], now["occupancy"]) == (1, {"square": 1}, True)
    assert now["classes"] == {"square": 1, "circle": 0}
    long_ago = type(frame)(frame.image, 0, frame.captured_ns - 9 * 10**9, frame.captured_unix_ns, "test")
    assert not {"objects", "by_class", "occupancy"} & device().state((long_ago, seen), fps=1.0).keys()


@needs_broker
def test_counts_state_picture_and_availability_arrive(
    runner: SharedThresholds, stream_server: StreamServer, broker: Broker
) -> None:
    pytest.importorskip("edgefirst.tracker", reason="needs edgefirst-tracker: pip install 'edgecnn[track]'")
    stream_server.fps = 25
    with Listener(broker.port) as listener:
        url = broker.url("hall/door")
        running = InThread(stream_server.url("stream?key=geheim"), mqtt=url, home_assistant=True, **PLACES)
        until(lambda: any(of["lines"]["door"]["out"] for of in listener.of("hall/door/state") if "lines" in of))
        until(lambda: any(state.get("fps") for state in listener.of("hall/door/state")))
        until(lambda: any(m.topic == "hall/door/snapshot" for m in listener.messages))
        running.end()
        until(lambda: listener.of("hall/door/status")[-1:] == ["offline"])
        state = [state for state in listener.of("hall/door/state") if "zones" in state][-1]
        picture = next(m.payload for m in listener.messages if m.topic == "hall/door/snapshot")
    assert (state["state"], state["objects"], state["classes"]) == ("live", 1, {"square": 1, "circle": 0})
    assert state["zones"]["yard"]["occupancy"] is True
    assert 0 < state["fps"] < 100
    image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (120, 160, 3)
    with Listener(broker.port) as late:
        until(lambda: len(configs_of(late)) == 15)
        assert late.of("hall/door/status") == ["offline"]
        assert "geheim" not in str(late.messages)


@needs_broker
def test_switches_and_the_number_do_what_they_say(
    runner: SharedThresholds, stream_server: StreamServer, broker: Broker, tmp_path: Path
) -> None:
    video = tmp_path / "door.mkv"
    with Listener(broker.port) as listener:
        send = listener.publish
        running = InThread(stream_server.url("stream"), mqtt=broker.url("d"), home_assistant=True, record=video)
        until(lambda: len(listener.of("d/result")) > 3 and listener.of("d/state"))
        send("d/paused/set", "ON")
        until(lambda: listener.of("d/state")[-1]["paused"])
        until(lambda: listener.of("d/state")[-1]["state"] == "paused")
        count = _settled(listener)
        send("d/paused/set", "OFF")
        until(lambda: len(listener.of("d/result")) > count + 3 and video.exists())
        send("d/recording/set", "OFF")
        send("d/recording/set", "ON")  # both may come between two results
        until(lambda: (tmp_path / "door.2.mkv").exists())
        send("d/threshold/set", "0.55")
        until(lambda: listener.of("d/state")[-1]["threshold"] == 0.55)
        send("d/recording/set", "OFF")
        until(lambda: listener.of("d/state")[-1]["recording"] is False)
        for topic, wrong in (("threshold", "high"), ("threshold", "7"), ("paused", "maybe"), ("recording", "\x00")):
            send(f"d/{topic}/set", wrong)
        before = len(listener.of("d/state"))
        until(lambda: len(listener.of("d/state")) > before + 4)
        assert listener.of("d/state")[-1]["threshold"] == 0.55
        summary = running.end()
    assert runner.task.score_threshold == 0.55
    assert sum("/set: " in remark or "must be" in remark for remark in summary.remarks) == 4, summary.remarks
    assert [Path(path).name for path in summary.written] == ["door.mkv", "door.2.mkv"]


def _settled(listener: Listener) -> int:
    """How many results have come, when no more come."""
    states = len(listener.of("d/state"))
    until(lambda: len(listener.of("d/state")) > states + 1)
    count, states = len(listener.of("d/result")), len(listener.of("d/state"))
    until(lambda: len(listener.of("d/state")) > states + 1)
    assert len(listener.of("d/result")) == count
    return count


@needs_broker
def test_entities_that_are_no_longer_there_are_taken_back(
    runner: SharedThresholds, stream_server: StreamServer, broker: Broker
) -> None:
    pytest.importorskip("edgefirst.tracker", reason="needs edgefirst-tracker: pip install 'edgecnn[track]'")
    source, url = stream_server.url("stream"), broker.url("d")
    with Listener(broker.port) as listener:
        listener.publish("homeassistant/sensor/edgecnn_other/x/config", "{}", retain=True)
        first = InThread(source, mqtt=url, home_assistant=True, **PLACES)
        until(lambda: len(configs_of(listener)) == 16)
        first.end()
        second = InThread(source, mqtt=url, home_assistant=True)
        until(lambda: len(configs_of(listener)) == 9)
        second.end()
        left = configs_of(listener)
    assert "homeassistant/sensor/edgecnn_other/x/config" in left
    assert not [topic for topic in left if "zone" in topic or "line" in topic or "class" in topic]


def test_controls_refuse_what_cannot_be() -> None:
    counters = LiveCounters()
    controls = Controls(SharedThresholds(), counters)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="no recording"):
        controls.record(True)
    controls.pause(True)
    assert counters.expected_since_s == math.inf
    with pytest.raises(SpecError, match="is no command"):
        device(controls=controls).obey("hall/door/recording/set", b"ON")
