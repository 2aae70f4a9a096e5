"""Results over a real broker: in order, with a status that is true, whatever becomes of the broker or of us."""

from __future__ import annotations

import contextlib
import gc
import getpass
import json
import re
import shutil
import signal
import socket
import string
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

pytest.importorskip("paho.mqtt", reason="needs paho-mqtt: pip install 'edgecnn[live]'")
pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'edgecnn[live]'")

import numpy as np
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edgecnn.cli import _main
from edgecnn.errors import DeviceError, MissingDependencyError, SpecError
from edgecnn.results import Detections
from edgecnn.runners.live.frame import Frame, frame_now
from edgecnn.runners.live.sinks import Annotated, EndOfRun
from edgecnn.runners.live.sinks.broker import parse_broker
from edgecnn.runners.live.sinks.home_assistant import identity_of
from edgecnn.runners.live.sinks.mqtt import QUEUE_LIMIT, MqttSink

from .conftest import LABELS, SquareRunner, StreamServer, square_at, square_frame, until, write_video

pytestmark = pytest.mark.server

SECRET = "geh:eim@/#"
QUOTED = "geh%3Aeim%40%2F%23"
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")

needs_broker = pytest.mark.skipif(MOSQUITTO is None, reason="needs mosquitto: apt-get install mosquitto")


class Broker:
    """A mosquitto on loopback, with a password if one is given."""

    def __init__(self, folder: Path, *, password: str | None = None, more: Sequence[str] = ()) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        lines = [f"listener {self.port} 127.0.0.1", f"user {getpass.getuser()}", "allow_anonymous true"]
        if password is not None:
            subprocess.run(
                ["mosquitto_passwd", "-c", "-b", folder / "passwords", "camera", password],
                check=True,
                capture_output=True,
            )
            lines[2:] = ["allow_anonymous false", f"password_file {folder / 'passwords'}"]
        self._configuration = folder / "mosquitto.conf"
        self._configuration.write_text("\n".join([*lines, *more]) + "\n")
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, prefix: str = "", *, login: str = "", host: str = "127.0.0.1") -> str:
        return f"mqtt://{login}{host}:{self.port}/{prefix}"

    def start(self) -> None:
        assert MOSQUITTO
        self._process = subprocess.Popen(
            [MOSQUITTO, "-c", self._configuration], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._answers)

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def _answers(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


@dataclass(frozen=True)
class Message:
    """One that came in."""

    topic: str
    payload: bytes
    retained: bool


class Listener:
    """Hears all topics of a broker, and comes back when the broker does."""

    def __init__(self, port: int, *, password: str | None = None) -> None:
        self.messages: list[Message] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        if password is not None:
            self._client.username_pw_set("camera", password)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=2)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda client, data, m: self.messages.append(
            Message(m.topic, bytes(m.payload), m.retain)
        )
        self._client.connect("127.0.0.1", port)

    def of(self, topic: str) -> list[Any]:
        """What came on one topic, JSON read."""
        texts = [message.payload.decode() for message in list(self.messages) if message.topic == topic]
        return [json.loads(text) if text.startswith("{") else text for text in texts]

    def publish(self, topic: str, text: str, *, retain: bool = False) -> None:
        """As another client."""
        self._client.publish(topic, text, 1, retain).wait_for_publish(10)

    def __enter__(self) -> Self:
        self._client.loop_start()
        assert self._subscribed.wait(5)
        return self

    def __exit__(self, *error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class AtCount:
    """A sink that acts at given counts of results."""

    def __init__(self, actions: dict[int, Callable[[], None]], *, until: Callable[[], bool] | None = None) -> None:
        self.actions, self.until = actions, until
        self.seen = 0
        self.slowest_s = 0.0
        self._before = time.monotonic()

    def deliver(self, frame: Frame, result: Any, annotated: Annotated) -> None:
        self.slowest_s = max(self.slowest_s, time.monotonic() - self._before)
        self.seen += 1
        if self.seen in self.actions:
            self.actions[self.seen]()
        elif self.until and self.seen > max(self.actions) and self.until():
            raise EndOfRun("enough")
        self._before = time.monotonic()

    def __enter__(self) -> AtCount:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that lets everyone in."""
    started = Broker(tmp_path)
    yield started
    started.stop()


@pytest.fixture
def locked_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker that wants a password."""
    started = Broker(tmp_path, password=SECRET)
    yield started
    started.stop()


def one_square(index: int) -> tuple[Frame, Detections, Annotated]:
    frame = frame_now(square_frame(index), index, "test")
    return frame, SquareRunner()(frame.image), Annotated(lambda: frame.image)


# --- what arrives


@needs_broker
@pytest.mark.parametrize("qos", [0, 1, 2])
def test_results_arrive_in_order_and_are_the_lines_of_jsonl(
    run_squares: Any, broker: Broker, tmp_path: Path, qos: int
) -> None:
    with Listener(broker.port) as listener:
        source = write_video(tmp_path / "in.avi", frames=60)
        summary = run_squares(source, mqtt=broker.url("hall/door"), mqtt_qos=qos, jsonl=tmp_path / "out.jsonl")
        until(lambda: listener.of("hall/door/status")[-1:] == ["offline"])
        results = listener.of("hall/door/result")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert summary.remarks == ()
    assert [result["frame"] for result in results] == list(range(60))
    assert [{**result, "age_ms": 0} for result in results] == [{**line, "age_ms": 0} for line in lines]
    assert tuple(results[7]["detections"][0]["box"][:2]) == square_at(7)
    assert listener.of("hall/door/status") == ["online", "offline"]


@needs_broker
def test_a_killed_run_is_reported_as_offline(broker: Broker) -> None:
    program = (
        "import sys, time\n"
        "from edgecnn.runners.live.sinks.mqtt import MqttSink\n"
        "with MqttSink(sys.argv[1]) as sink:\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with Listener(broker.port) as listener:
        command = [sys.executable, "-c", program, broker.url("door")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout and process.stdout.readline() == "ready\n"
            until(lambda: listener.of("door/status") == ["online"])
            process.kill()
        until(lambda: listener.of("door/status") == ["online", "offline"])
    with Listener(broker.port) as late:
        until(lambda: late.messages)
        assert late.messages == [Message("door/status", b"offline", True)]


# --- a broker that goes away


@needs_broker
@pytest.mark.parametrize("qos", [0, 1])
def test_a_broker_that_returns_gets_results_again(
    run_squares: Any, stream_server: StreamServer, broker: Broker, qos: int
) -> None:
    url = broker.url("door")
    with Listener(broker.port) as listener:

        def back() -> bool:
            frames = [result["frame"] for result in listener.of("door/result")]
            return listener.of("door/status").count("online") == 2 and frames[-1] > restarted_at[0] + 100

        restarted_at: list[int] = []

        def restart() -> None:
            restarted_at.append(listener.of("door/result")[-1]["frame"])
            broker.start()

        probe = AtCount({20: broker.stop, 60: restart}, until=back)
        summary = run_squares(stream_server.url("stream"), mqtt=url, mqtt_qos=qos, sinks=[probe], limit=5000)
        until(lambda: listener.of("door/status")[-1] == "offline")
        frames = [result["frame"] for result in listener.of("door/result")]
    assert summary.ended == "enough"
    assert probe.slowest_s < 6  # a broker is given up after 15
    assert list(dict.fromkeys(frames)) == sorted(set(frames))  # QoS 1 may repeat
    away, *dropped = summary.remarks
    assert (
        away
        == f"the MQTT broker 127.0.0.1:{broker.port} closed the connection; the run continues and tries to reconnect"
    )
    if qos == 1:
        assert dropped == []  # all waited; the listener may have come back after some of them
    else:
        count = int(dropped[0].partition(" ")[0])
        missing = summary.frames - len(frames)
        assert 0 < count <= missing
        assert dropped[0].partition(" ")[2] == (
            f"of {summary.frames} results did not reach the MQTT broker 127.0.0.1:{broker.port}"
        )


@needs_broker
def test_results_wait_for_a_broker_at_qos_1_and_the_surplus_is_counted(broker: Broker) -> None:
    broker.stop()
    reports: list[str] = []
    with contextlib.ExitStack() as entered:
        sink = entered.enter_context(MqttSink(broker.url("door"), qos=1, report=reports.append))
        (unreachable,) = reports
        assert unreachable.startswith(f"the MQTT broker {sink.broker.name} cannot be reached (Connection refused); ")
        for index in range(QUEUE_LIMIT + 10):
            sink.deliver(*one_square(index))
        assert (sink.delivered, sink.dropped) == (0, 10)
        broker.start()
        with Listener(broker.port) as listener:
            until(lambda: listener.of("door/status"))
            sink.deliver(*one_square(QUEUE_LIMIT + 10))
            until(
                lambda: sink.delivered >= QUEUE_LIMIT
            )  # one more may be sent at the end, which does not wait for long
            entered.close()
            until(lambda: listener.of("door/status")[-1] == "offline")
            frames = [result["frame"] for result in listener.of("door/result")]
    assert frames == list(range(10, QUEUE_LIMIT + 11))
    assert (sink.delivered, sink.dropped, sink.faults) == (QUEUE_LIMIT + 1, 10, 1)
    assert reports[1:] == [f"10 of {QUEUE_LIMIT + 11} results did not reach the MQTT broker {sink.broker.name}"]


@needs_broker
@pytest.mark.parametrize("qos", [0, 1])
def test_a_broker_that_hangs_neither_holds_the_loop_nor_the_end(broker: Broker, qos: int) -> None:
    many = np.full(800, 0.5, np.float32)
    crowd = Detections(np.ones((800, 4), np.float32), many, np.zeros(800, np.int64), LABELS)  # fills the socket soon
    frame, _, annotated = one_square(0)
    with MqttSink(broker.url("door"), qos=qos) as sink:
        broker.freeze()
        slowest_s = 0.0
        for _ in range(2 * QUEUE_LIMIT + 40):
            begin = time.monotonic()
            sink.deliver(frame, crowd, annotated)
            slowest_s = max(slowest_s, time.monotonic() - begin)
        assert sink.dropped > 0
        begin = time.monotonic()
    assert time.monotonic() - begin < 12
    assert slowest_s < 6  # a broker is given up after 15
    assert sink.delivered + sink.dropped == 2 * QUEUE_LIMIT + 40


def test_no_broker_at_all_is_reported_and_left_at_once(run_squares: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"mqtt://camera:{QUOTED}@127.0.0.1:{port}/door"
    begin = time.monotonic()
    summary = run_squares(write_video(tmp_path / "in.avi", frames=5), mqtt=url)
    assert time.monotonic() - begin < 12
    assert summary.frames == 5
    assert [remark.partition(f"127.0.0.1:{port}")[0] for remark in summary.remarks] == [
        "the MQTT broker ",
        "5 of 5 results did not reach the MQTT broker ",
    ]
    assert "geh" not in repr(summary)


def test_anything_but_a_broker_is_reported_and_the_run_goes_on(
    run_squares: Any, stream_server: StreamServer, tmp_path: Path
) -> None:
    url = f"mqtt://127.0.0.1:{stream_server.server_address[1]}/door"
    summary = run_squares(write_video(tmp_path / "in.avi", frames=3), mqtt=url)
    assert summary.frames == 3
    assert "does not answer" in summary.remarks[0]
    assert "3 of 3 results" in summary.remarks[-1]


# --- logins


@needs_broker
def test_a_login_opens_the_broker_and_is_never_shown(
    run_squares: Any,
    locked_broker: Broker,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = write_video(tmp_path / "in.avi", frames=5)
    with Listener(locked_broker.port, password=SECRET) as listener:
        summary = run_squares(
            source, mqtt=locked_broker.url("door", login=f"camera:{QUOTED}@"), mqtt_qos=1, home_assistant=True
        )
        until(lambda: listener.of("door/status")[-1:] == ["offline"])
    assert len(listener.of("door/result")) == 5
    out, err = capfd.readouterr()
    everything = f"{summary}{listener.messages}{out}{err}{caplog.text}"
    assert "geh" not in everything and "camera" not in everything


@needs_broker
@pytest.mark.parametrize("login", ["", "camera:falsch@"])
def test_a_refused_login_is_an_error_at_once(
    run_squares: Any,
    locked_broker: Broker,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    login: str,
) -> None:
    source = write_video(tmp_path / "in.avi", frames=5)
    url = locked_broker.url("door", login=login)
    with pytest.raises(DeviceError, match=r"127\.0\.0\.1:\d+ refuses the login \(Not authorized\)"):
        run_squares(source, mqtt=url)
    assert _main.main(["run", "no.edge", str(source), "--mqtt", url]) == 3
    assert "falsch" not in "".join(capfd.readouterr())
    until(lambda: not [thread for thread in threading.enumerate() if "mqtt" in thread.name])


@needs_broker
@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl, which makes the broker's certificate")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # paho leaves a refused socket open
def test_an_encrypted_broker_must_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*make, "-keyout", key, "-out", certificate, *names], check=True, capture_output=True)
    broker = Broker(tmp_path, more=[f"certfile {certificate}", f"keyfile {key}"])
    url = broker.url("door", login=f"camera:{QUOTED}@").replace("mqtt://", "mqtts://")
    try:
        with pytest.raises(DeviceError) as caught, MqttSink(url):
            pass
        said = str(caught.value)
        assert re.search(r"no encrypted connection .*self.signed.*SSL_CERT_FILE", said) and "geh" not in said
        del caught
        gc.collect()  # while the warning is ignored
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with MqttSink(url, qos=1) as sink:
            sink.deliver(*one_square(0))
        assert (sink.delivered, sink.dropped, sink.faults) == (1, 0, 0)
    finally:
        broker.stop()


def test_anything_but_a_broker_is_refused_without_its_login(run_squares: Any, tmp_path: Path) -> None:
    broker = parse_broker(f"mqtts://camera:{QUOTED}@[::1]/a/b/")
    assert (broker.host, broker.port, broker.encrypted, broker.prefix) == ("::1", 8883, True, "a/b")
    assert (broker.username, broker.password) == ("camera", SECRET)
    assert "geh" not in repr(broker)
    assert parse_broker("mqtt://host").prefix == "edgecnn"
    for wrong in (
        "http://u:geheim@host/a",
        "mqtt://",
        "host:1883",
        "mqtt://u:geh/eim@host/a",
        "mqtt://u/geheim@host/a",
        "mqtt://u:geheim@host/a/+/b",
        "mqtt://u:geheim@host/a#b",
        "mqtt://u:geheim@host/a?b=c",
        "mqtt://u:geheim@host/$SYS",
        "mqtt://u:geheim@host:99999/a",
    ):
        with pytest.raises(SpecError) as caught:
            parse_broker(wrong)
        assert "geh" not in str(caught.value) and "mqtt://USER" in str(caught.value)
    with pytest.raises(SpecError, match="0, 1 or 2, got 3"):
        MqttSink("mqtt://host", qos=3)
    with pytest.raises(SpecError, match="give --mqtt URL"):
        run_squares(write_video(tmp_path / "in.avi", frames=2), home_assistant=True)


def test_without_the_package_the_extra_is_named(
    run_squares: Any, tmp_path: Path, without: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    without("paho", "prometheus_client")
    for name in ("mqtt", "metrics"):
        monkeypatch.delitem(sys.modules, f"edgecnn.runners.live.sinks.{name}", raising=False)
    source = write_video(tmp_path / "in.avi", frames=2)
    with pytest.raises(MissingDependencyError, match=r"'paho-mqtt'.*edgecnn\[live\]"):
        run_squares(source, mqtt="mqtt://127.0.0.1/a")
    with pytest.raises(MissingDependencyError, match=r"'prometheus-client'.*edgecnn\[live\]"):
        run_squares(source, metrics=0)
    assert run_squares(source).frames == 2


# --- Home Assistant


def test_topics_that_differ_are_different_devices() -> None:
    topics = ["кухня", "двери", "a/b", "a_b", "a-b", "a b", "a//b", "Cam", "cam", "é", "e\u0301", "edgecnn", "a"]
    topics += ["a/b/0123abcd", f"a_b_{identity_of('a_b')[-8:]}", f"a/b/{identity_of('a_b')[-8:]}", "_", "-", "/"]
    ids = {topic: identity_of(topic) for topic in topics}
    assert len(set(ids.values())) == len(topics)
    assert all(set(name) <= set(string.ascii_letters + string.digits + "_-") for name in ids.values())
    assert (ids["edgecnn"], ids["a/b"]) == ("edgecnn", "a_b")
