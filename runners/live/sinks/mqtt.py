"""Results over MQTT: one message per frame, a reliable status, and Home Assistant's discovery."""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from edgecnn.errors import DeviceError, MissingDependencyError, SpecError
from edgecnn.json_text import encode_json
from edgecnn.results import Result
from edgecnn.runners.live.frame import Frame
from edgecnn.runners.live.sinks import Annotated
from edgecnn.runners.live.sinks.broker import parse_broker
from edgecnn.runners.live.sinks.home_assistant import HomeAssistantDevice
from edgecnn.runners.live.sinks.jsonl import record_of
from edgecnn.runners.live.sinks.kind import Setting
from edgecnn.runners.live.sinks.snapshot import Snapshot

if TYPE_CHECKING:
    from typing import Self

try:
    from paho.mqtt import client as paho
    from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode
except ModuleNotFoundError as missing:
    raise MissingDependencyError("sending results over MQTT", "paho-mqtt", extra="live") from missing

QUEUE_LIMIT: Final = 256  # messages: eight seconds of a camera; limits memory when the broker does not answer
_KEEPALIVE_S: Final = 15
_CONNECT_TIMEOUT_S: Final = 3.0
_RECONNECT_S: Final = (1, 30)  # doubles from the first to the second
_STATE_INTERVAL_S: Final = 1.0
# Disconnecting takes at most a second, whatever the broker does.
_FLUSH_S, _OFFLINE_S, _STOP_S = 0.5, 0.2, 0.3
# These refusals are permanent; any other may be temporary.
_FINAL_REFUSALS: Final = {"Bad user name or password", "Not authorized", "Client identifier not valid", "Banned"}


def check_mqtt(url: str, words: Mapping[str, Any], *, tracks: bool) -> None:
    """Refuse a URL that can't be one of a broker.

    Raises:
        SpecError: as `parse_broker`.
    """
    parse_broker(url)


class _Waiting(NamedTuple):
    """A message that was sent and not confirmed."""

    qos: int
    is_result: bool


class MqttSink:
    """Publishes results; never waits for the broker.

    PREFIX/result gets the object that is also a line of `--jsonl`. PREFIX/status is retained: "online" while the
    run is alive and connected, "offline" afterwards, also when the process was killed (the broker's last will).
    After a lost connection, reconnecting is tried after 1 s, 2 s, … 30 s. Meanwhile, results are dropped and counted
    at QoS 0; at QoS 1 and 2, the newest 256 wait and are sent first, in order (QoS 1 may repeat some).

    Args:
        url: mqtt://USER:PASSWORD@HOST:PORT/TOPIC/PREFIX, or mqtts://; without a path, the prefix is "edgecnn".
        qos: quality of service for results, 0, 1 or 2; the status has at least 1.
        topic: added to the URL's topic, for one of several cameras.
        device: makes the device of Home Assistant, from the prefix of the topics: it is announced, its state is
            published once a second, a picture when something changes, and its commands are obeyed.
        report: called with a message at the first failure of each kind, and at the end with a summary; from any
            thread; messages contain no login.

    Attributes:
        delivered: results that the broker has confirmed (QoS 0: that were written to the connection).
        dropped: results that were dropped.
        faults: number of times that the connection was lost, refused, or could not be made at the start.

    Raises:
        SpecError: another kind of URL, or another QoS.
    """

    def __init__(
        self,
        url: str,
        *,
        qos: int = 0,
        device: Callable[[str], HomeAssistantDevice] | None = None,
        topic: str = "",
        report: Callable[[str], None] | None = None,
    ) -> None:
        self.broker = parse_broker(url)
        if topic:
            self.broker = replace(self.broker, prefix=f"{self.broker.prefix}/{topic}")
        if qos not in {0, 1, 2}:
            raise SpecError(f"MQTT's quality of service: expected 0, 1 or 2, got {qos}")
        self.delivered = self.dropped = self.faults = 0
        self._qos = qos
        self._result, self._status, self._state = (f"{self.broker.prefix}/{x}" for x in ("result", "status", "state"))
        self._report = report or (lambda text: None)
        self._reported: set[str] = set()
        self._device = device(self.broker.prefix) if device else None
        self._discovery = self._device.discovery() if self._device else {}
        self._newest: tuple[Frame, Result] | None = None
        self._frames = 0
        self._snapshot = Snapshot()
        self._forgotten = False
        self._fps: float | None = None
        self._ticking = threading.Event()
        self._held: deque[bytes] = deque()  # results not yet given to paho; used by the loop's thread only
        # Guards the attributes below and the counts. Never held while paho is called: paho calls back with its own
        # locks.
        self._changed = threading.Condition()
        self._connected = self._closing = False
        self._refusal: str | None = None
        self._online_id = 0
        self._waiting: dict[int, _Waiting] = {}  # by id, messages that paho has and the broker didn't confirm
        self._early: set[int] = set()  # ids that were confirmed before `publish` returned
        self._client = self._make_client()

    def deliver(self, frame: Frame, result: Result, annotated: Annotated) -> None:
        """Pass one result to the network thread, or drop it."""
        self._frames += 1
        if self._qos or self._room():
            self._held.append(encode_json(record_of(frame, result)))
        else:
            self._drop(1)
        self._send_held()
        if self._device is not None:
            self._newest = (frame, result)
            if self._room() and (jpeg := self._snapshot.jpeg_of(result, annotated)) is not None:
                self._publish(f"{self.broker.prefix}/snapshot", jpeg, qos=0, retain=True)

    def publish_event(self, record: dict[str, Any]) -> None:
        """Publish an event's record to PREFIX/event; from any thread. Without a connection, it is only on the disk."""
        if self._room():
            self._publish(f"{self.broker.prefix}/event", encode_json(record), qos=1)

    def forget(self) -> None:
        """When it is left, take back what was announced: the camera will not come again."""
        self._forgotten = True

    def _tick(self) -> None:
        """The device's state, once a second, also while no results come; in a thread of its own."""
        frames, before_s = 0, time.monotonic()
        while not self._ticking.wait(_STATE_INTERVAL_S):
            now_s = time.monotonic()
            if self._newest is not None:
                self._fps = (self._frames - frames) / (now_s - before_s) if frames else None
            frames, before_s = self._frames, now_s
            self._publish_state()

    def _publish_state(self) -> None:
        if self._device is not None and self._room():
            self._publish(self._state, encode_json(self._device.state(self._newest, fps=self._fps)), qos=0)

    def _room(self) -> bool:
        with self._changed:
            return self._connected and len(self._waiting) < QUEUE_LIMIT

    def _drop(self, count: int) -> None:
        with self._changed:
            self.dropped += count

    def _send_held(self) -> None:
        while self._held and self._room():
            self._publish(self._result, self._held.popleft(), qos=self._qos, is_result=True)
        while len(self._held) > (QUEUE_LIMIT if self._qos else 0):
            self._held.popleft()
            self._drop(1)

    def _publish(self, topic: str, payload: bytes, *, qos: int, retain: bool = False, is_result: bool = False) -> int:
        info = self._client.publish(topic, payload, qos, retain)
        with self._changed:
            if info.mid in self._early:
                self._early.remove(info.mid)
                self.delivered += is_result
            elif qos == 0 and info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
                self.dropped += is_result
            else:
                self._waiting[info.mid] = _Waiting(qos, is_result)
        return info.mid

    def _make_client(self) -> paho.Client:
        broker = self.broker
        client = paho.Client(CallbackAPIVersion.VERSION2)
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.reconnect_delay_set(*_RECONNECT_S)
        client.will_set(self._status, b"offline", qos=1, retain=True)
        if broker.username is not None:
            client.username_pw_set(broker.username, broker.password)
        if broker.encrypted:
            client.tls_set_context(ssl.create_default_context())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    # --- called by paho's thread

    def _on_connect(
        self, client: paho.Client, data: object, flags: object, reason: ReasonCode, more: Properties | None
    ) -> None:
        with self._changed:
            refused = str(reason) if reason.is_failure else None
            self._refusal = refused
            self._forget_lost()
            closing = self._closing
            self._changed.notify_all()
        if closing:
            client.disconnect()
        elif refused is not None:
            self._fault(f"refuses the connection ({refused})")
        else:
            if self._device is not None:
                client.subscribe([(topic, 1) for topic in (self._device.all_configs, *self._device.commands())])
            for topic, config in self._discovery.items():
                self._publish(topic, encode_json(config), qos=1, retain=True)
            # Confirmed after all messages that paho sends again itself: later messages stay in order.
            self._online_id = self._publish(self._status, b"online", qos=1, retain=True)

    def _on_message(self, client: paho.Client, data: object, message: paho.MQTTMessage) -> None:
        """A command; or an entity of an earlier run, which is taken back if there is none of that name now."""
        try:
            topic = message.topic
        except UnicodeDecodeError:
            return
        if self._device is None or "+" in topic or "#" in topic:  # nothing that was asked for
            return
        if paho.topic_matches_sub(self._device.all_configs, topic):
            if message.payload and topic not in self._discovery:
                self._publish(topic, b"", qos=1, retain=True)
        elif not message.retain:  # a retained command would come at each start
            try:
                self._device.obey(topic, bytes(message.payload))
            except SpecError as wrong:
                self._report(str(wrong))
            self._publish_state()

    def _on_disconnect(
        self, client: paho.Client, data: object, flags: object, reason: ReasonCode, more: Properties | None
    ) -> None:
        with self._changed:
            lost, self._connected = self._connected and not self._closing, False
            self._refusal = self._refusal or str(reason)
            self._forget_lost()
            self._changed.notify_all()
        if lost:
            self._fault("closed the connection")

    def _forget_lost(self) -> None:
        """At the end of a connection and at the start of the next: paho forgets messages with QoS 0, and only those."""
        self.dropped += sum(message.is_result for message in self._waiting.values() if message.qos == 0)
        self._waiting = {mid: message for mid, message in self._waiting.items() if message.qos}

    def _on_publish(
        self, client: paho.Client, data: object, mid: int, reason: ReasonCode, more: Properties | None
    ) -> None:
        with self._changed:
            confirmed = self._waiting.pop(mid, None)
            if confirmed is None:
                self._early.add(mid)
            else:
                self.delivered += confirmed.is_result
            self._connected = self._connected or mid == self._online_id
            self._changed.notify_all()

    def _fault(self, what: str) -> None:
        with self._changed:
            self.faults += 1
            known = what in self._reported
            self._reported.add(what)
        if not known:
            self._report(f"the MQTT broker {self.broker.name} {what}; the run continues and tries to reconnect")

    # --- begin and end

    def __enter__(self) -> Self:
        """Connect.

        Raises:
            DeviceError: the broker refuses the login, or its certificate can't be trusted.
        """
        broker = self.broker
        try:
            self._client.connect(broker.host, broker.port, keepalive=_KEEPALIVE_S)
        except ssl.SSLError as failed:
            why = getattr(failed, "verify_message", None) or failed.reason or "TLS failed"
            raise DeviceError(
                f"no encrypted connection to the MQTT broker {broker.name}: {why}; if the certificate is self-signed, "
                "put the file of its authority into $SSL_CERT_FILE; if the broker does not encrypt, use mqtt://"
            ) from None
        except OSError as failed:
            self._fault(f"cannot be reached ({failed.strerror or failed})")
        reached = not self.faults
        try:
            self._client.loop_start()
            if reached:
                self._await_answer()
            if self._device is not None:
                threading.Thread(target=self._tick, name="edgecnn-mqtt state", daemon=True).start()
        except BaseException:
            self._closing = True
            self._stop()
            raise
        return self

    def _await_answer(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._connected or self._refusal, timeout=_CONNECT_TIMEOUT_S)
            connected, refusal = self._connected, self._refusal
        if connected:
            return
        if refusal in _FINAL_REFUSALS:
            raise DeviceError(
                f"the MQTT broker {self.broker.name} refuses the login ({refusal}): check user and password in the "
                "URL, mqtt://USER:PASSWORD@HOST:PORT/TOPIC"
            )
        if not self.faults:
            self._fault(f"does not answer ({refusal or f'nothing came in {_CONNECT_TIMEOUT_S:g} s'})")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Send waiting messages, publish "offline" and disconnect, within a second."""
        self._ticking.set()
        if self._forgotten:
            for topic in (*self._discovery, f"{self.broker.prefix}/snapshot"):
                self._publish(topic, b"", qos=1, retain=True)
            self._discovery = {}
        self._flush(_FLUSH_S)
        with self._changed:
            self._closing = True
            connected = self._connected
        if connected:
            self._publish(self._status, b"offline", qos=1, retain=True)
            self._flush(_OFFLINE_S)
        self._stop()
        with self._changed:
            self.dropped += sum(message.is_result for message in self._waiting.values()) + len(self._held)
            self._waiting.clear()
            self._held.clear()
        if self.faults > 1:
            self._report(f"the MQTT broker {self.broker.name} failed {self.faults} times")
        if self.dropped:
            total = self.dropped + self.delivered
            self._report(f"{self.dropped} of {total} results did not reach the MQTT broker {self.broker.name}")

    def _flush(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left_s := end - time.monotonic()) > 0:
            self._send_held()
            with self._changed:
                if not self._connected or not (self._waiting or self._held):
                    return
                self._changed.wait(min(left_s, 0.02))

    def _stop(self) -> None:
        self._client.disconnect()
        # paho's `loop_stop` would wait for a connection attempt, however long that takes
        stopper = threading.Thread(target=self._client.loop_stop, name="edgecnn-mqtt-stop", daemon=True)
        stopper.start()
        stopper.join(_STOP_S)


def open_mqtt(url: str, setting: Setting) -> MqttSink:
    """The sink for a run, with the run's task and further options."""

    def device(prefix: str) -> HomeAssistantDevice:
        return HomeAssistantDevice(
            prefix,
            setting.runner.task.name,
            classes=setting.classes,
            zones=setting.zones,
            lines=setting.lines,
            state=lambda: setting.states[setting.cameras[0].name]()[0],
            controls=setting.controls,
        )

    sink = MqttSink(
        url,
        qos=setting.words.get("mqtt_qos", 0),
        device=device if setting.words.get("home_assistant") else None,
        topic=setting.words.get("mqtt_topic", ""),
        report=setting.report,
    )
    setting.on_event.append(sink.publish_event)
    return sink
