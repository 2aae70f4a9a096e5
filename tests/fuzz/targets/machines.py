"""What other machines and programs say: a board, a child, a browser, a scraper, a broker."""

from __future__ import annotations

import logging
import os
import shlex
import socket
import threading
from pathlib import Path

from tests.fuzz.target import Attempt, Target
from tests.fuzz.targets.streams import OneAnswer

_ANSWER_WORDS = (b'"bytes":', b'"packages"', b'"code": null', b'"refused"', b"\n", b"--index-url=x", b"../", b'"path"')
_HTTP_WORDS = (
    *(b"GET / HTTP/1.1\r\n", b"POST /score HTTP/1.1\r\n", b"Host: localhost\r\n", b"Content-Length: ", b"\r\n\r\n"),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Cookie: ",
        b"Authorization: Bearer ",
        b"Origin: http://x",
        b"?after=",
        b"%00",
    ),
)
_OWN, _OWN_BRIEF = b"OWNWHEEL", b"OWNBRIEF"  # in a board's answers: the digest of this edgecnn


def _board() -> Attempt:
    """All answers of a board that is asked for its devices, or to bench (its first line says which)."""
    import hashlib

    from edgecnn._verbs import on_boards
    from edgecnn.bundle.shipped import ASSETS
    from edgecnn.runners.remote import answers, board
    from edgecnn.runners.remote.connection import SSH_VARIABLE
    from edgecnn.runners.remote.wheel import own_wheel

    digest = hashlib.sha256(own_wheel()).hexdigest().encode()
    setattr(board, "fetch_wheels", lambda *words, **more: [])  # noqa: B010 - pip is not asked
    setattr(board, "LEASE_S", 0.2)  # noqa: B010 - a board that is lost is not waited for
    setattr(answers, "LONGEST_REQUEST_S", 3.0)  # noqa: B010 - nor one that promises more bytes than it sends

    def attempt(content: bytes, folder: Path) -> None:
        what, _, said = content.partition(b"\n")
        said = said.replace(_OWN_BRIEF, digest[:16]).replace(_OWN, digest)
        (folder / "said").write_bytes(said)
        os.environ[SSH_VARIABLE] = f"sh -c {shlex.quote(f'cat {folder}/said; cat > /dev/null')} --"
        if what == b"bench":
            bench = on_boards.bench_on(ASSETS / "probe.edge", "ssh://board", format="onnx", record=False)
            error = bench[0].error
        else:
            error = on_boards.devices_on("ssh://board")[0].error
        if error is not None:
            raise error

    return attempt


def _child() -> Attempt:
    """What a child writes instead of its answer."""
    from edgecnn.child import Child
    from edgecnn.errors import DeviceError, InternalError

    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")])

    def attempt(content: bytes, folder: Path) -> None:
        (folder / "said").write_bytes(content)
        with Child("tests.fuzz.strange_child", str(folder / "said"), timeout_s=5) as child:
            try:
                answer = child.ask("answer")
            except InternalError as strange:  # what it means that a child's fault is of no known form
                raise DeviceError(str(strange)) from strange
            assert isinstance(answer, dict)

    return attempt


class _Heard(logging.Handler):
    """Remembers that something was logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.said = record.getMessage()

    def check(self) -> None:
        said, self.said = self.said, ""
        if said:
            raise RuntimeError(said)


def _exchange(port: int, content: bytes) -> bytes:
    """Send a request, and take the beginning of the answer."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(0.5)
            while len(answer) < 1 << 16 and (more := connection.recv(1 << 14)):
                answer += more
        except OSError:  # it waits for a picture, or has closed
            pass
    return answer


def _refuse(answer: bytes) -> None:
    """Raises what an answer's status means."""
    from edgecnn.errors import SpecError

    status = answer[9:12]
    if status == b"500":
        raise RuntimeError(answer.decode(errors="replace"))
    if not status.startswith((b"2", b"3")):
        raise SpecError(f"HTTP {status!r}")


def _page() -> Attempt:
    """A request to the live page; afterwards it still answers."""
    from tests.runners.live.web_page import served

    heard = _Heard()
    for name in ("edgecnn", "asyncio", "uvicorn"):
        logging.getLogger(name).addHandler(heard)
    context = served(token="fuzzing")
    page = context.__enter__()
    page.deliver()

    def attempt(content: bytes, folder: Path) -> None:
        answer = _exchange(page.port, content)
        heard.check()
        alive = _exchange(
            page.port, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer fuzzing\r\n\r\n"
        )
        if not alive.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the page has ended: {alive[:200]!r}")
        _refuse(answer)

    attempt.context = context  # type: ignore[attr-defined] # kept alive with it
    return attempt


def _metrics() -> Attempt:
    """A request to the metrics' server; afterwards it still answers."""
    from edgecnn.runners.live.loop.counters import LiveCounters
    from edgecnn.runners.live.sinks.metrics import MetricsSink

    heard = _Heard()
    for name in ("edgecnn", "asyncio"):
        logging.getLogger(name).addHandler(heard)
    sink = MetricsSink(0, counters=LiveCounters(), dropped={}, faults={}, info={"source": "test"})
    sink.__enter__()
    assert sink.url is not None
    port = int(sink.url.rpartition(":")[2].partition("/")[0])

    def attempt(content: bytes, folder: Path) -> None:
        answer = _exchange(port, content)
        heard.check()
        alive = _exchange(port, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
        if not alive.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"the server has ended: {alive[:200]!r}")
        _refuse(answer)

    attempt.sink = sink  # type: ignore[attr-defined] # kept alive with it
    return attempt


def _broker() -> Attempt:
    """What a broker answers."""
    from edgecnn.errors import DeviceError
    from edgecnn.runners.live.sinks.mqtt import MqttSink

    server = OneAnswer(open_s=0.2)
    thrown: list[threading.ExceptHookArgs] = []
    threading.excepthook = thrown.append

    def attempt(content: bytes, folder: Path) -> None:
        server.content = content
        with MqttSink(f"mqtt://127.0.0.1:{server.port}/test") as sink:
            pass
        if thrown:
            error = thrown.pop().exc_value
            assert error is not None
            raise error
        if sink.faults:
            raise DeviceError("the broker was of no use")

    return attempt


def _address() -> Attempt:
    """The address of a camera or a broker, as it is shown and as it is checked."""
    from edgecnn.errors import SpecError
    from edgecnn.runners.live.cameras.urls import check_address, redacted
    from edgecnn.runners.live.sinks.broker import parse_broker
    from edgecnn.runners.remote.address import BoardAddress

    def attempt(content: bytes, folder: Path) -> None:
        text = content.decode("utf-8", "surrogateescape")
        if text.startswith(("env:", "file:")):
            raise SpecError("looks elsewhere")
        redacted(text)
        refused = []
        for read in (check_address, parse_broker, BoardAddress.parse):
            try:
                read(text)
            except SpecError as wrong:
                refused.append(wrong)
        if len(refused) == 3:
            raise refused[0]

    return attempt


_MQTT_WORDS = (b"\x20\x02\x00\x00", b"\x40\x02\x00\x01", b"\x30\x0a", b"\xff\xff\xff\x7f", b"\xd0\x00")

TARGETS = (
    Target(name="board", title="a board's answers", prepare=_board, words=_ANSWER_WORDS, heavy=True, guided=False),
    Target(
        name="child",
        title="a child's answers",
        prepare=_child,
        words=(b"\x00\xffedgeCNN", b'{"answer": {}}'),
        heavy=True,
        guided=False,
    ),
    Target(name="page", title="requests to the live page", prepare=_page, needs=("server",), words=_HTTP_WORDS),
    Target(name="metrics", title="requests for metrics", prepare=_metrics, needs=("server",), words=_HTTP_WORDS),
    Target(name="broker", title="a broker's answers", prepare=_broker, words=_MQTT_WORDS, heavy=True, guided=False),
    Target(
        name="address",
        title="addresses",
        prepare=_address,
        words=(b"rtsp://", b"@", b":", b"[::1]", b"%40", b"#", b"?"),
    ),
)
