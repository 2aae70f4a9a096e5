"""The live page as part of a run."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import cv2
import pytest

from edgecnn._verbs.run import run
from edgecnn.cli import _main
from edgecnn.cli._web_options import with_address
from edgecnn.errors import DeviceError, MissingDependencyError, SpecError
from edgecnn.results import UInt8Array
from edgecnn.runners.live.run_summary import RunStart
from edgecnn.runners.live.sinks import Annotated, EndOfRun

from .conftest import HEIGHT_PX, WIDTH_PX, StreamServer, write_video
from .web_page import TOKEN, Answer

pytestmark = pytest.mark.server


class Visitor:
    """A sink that asks the page once, at one result; from a thread of its own on a live source."""

    def __init__(self, at: int, visit: Callable[[int], None]) -> None:
        self.at, self.visit = at, visit
        self.port = 0
        self.start: RunStart | None = None
        self.seen = 0

    def on_start(self, start: RunStart) -> None:
        self.start = start
        self.port = int(str(start.page_url).rsplit(":", 1)[1].strip("/"))

    def deliver(self, frame: Any, result: Any, annotated: Annotated) -> None:
        self.seen += 1
        if self.seen == self.at:
            self.visit(self.port)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def get(port: int, path: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())


class Broken:
    """A sink that fails."""

    def deliver(self, frame: Any, result: Any, annotated: Annotated) -> None:
        raise RuntimeError("broken")

    def __enter__(self) -> Broken:
        return self

    def __exit__(self, *error: object) -> None:
        pass


def test_a_run_shows_itself_and_no_login(run_squares: Any, stream_server: StreamServer, tmp_path: Path) -> None:
    answers: dict[str, Answer] = {}

    def visit(port: int) -> None:
        for path in ("/status", "/picture", "/readyz"):
            answers[path] = get(port, path)
        raise EndOfRun("seen")

    visitor = Visitor(30, visit)
    summary = run_squares(
        stream_server.url("stream", login="admin:geheim@"),
        web=0,
        jsonl=tmp_path / "out.jsonl",
        sinks=[Broken(), visitor],
        on_start=visitor.on_start,
    )
    status = answers["/status"].json
    assert status["run"]["source"] == f"http://***@127.0.0.1:{stream_server.server_address[1]}/stream"
    (source,) = status["sources"]
    assert (source["name"], source["state"], source["sees"]) == (status["run"]["source"], "live", ["1 square"])
    assert (source["why"], status["run"]["task"]) == (f"frames of {WIDTH_PX}x{HEIGHT_PX} px", "detect")
    assert status["faults"] == {"jsonl": 0, "Broken": 1, "Visitor": 0}  # and the page goes on
    assert set(status["dropped"]) == {"camera", "infer", "deliver", "late", "jsonl", "Broken", "Visitor"}
    assert answers["/picture"].status == answers["/readyz"].status == 200
    for answer in answers.values():
        assert b"geheim" not in answer.body and b"admin" not in answer.body
    assert summary.ended == "seen"
    assert summary.faults == ("Broken: broken",)
    assert visitor.start is not None and visitor.start.page_login_url == visitor.start.page_url
    with pytest.raises(ConnectionRefusedError):
        get(visitor.port, "/healthz")


def test_a_recording_is_shown_too_and_a_stuck_viewer_does_not_slow_it(run_squares: Any, tmp_path: Path) -> None:
    stuck: list[socket.socket] = []

    def visit(port: int) -> None:
        viewer = socket.create_connection(("127.0.0.1", port))
        viewer.sendall(b"GET /video.mjpeg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        stuck.append(viewer)
        assert get(port, "/status").json["sources"][0]["state"] == "file"

    visitor = Visitor(3, visit)
    source = write_video(tmp_path / "in.avi", frames=30)
    summary = run_squares(source, web=0, sinks=[visitor], on_start=visitor.on_start)
    assert (summary.frames, summary.dropped, summary.ended) == (30, {}, "end of source")
    stuck[0].close()


class _Photograph(StreamServer):
    """A stream of one photograph."""

    def __init__(self, folder: Path, picture: UInt8Array) -> None:
        super().__init__(folder)
        jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
        self.parts = [b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(jpeg), jpeg)]


def test_the_score_threshold_changes_what_the_run_answers(tmp_path: Path) -> None:
    from edgecnn.photographs import photographs

    scores: list[list[float]] = []
    changed_at: list[int] = []

    class Reader(Visitor):
        def deliver(self, frame: Any, result: Any, annotated: Annotated) -> None:
            scores.append(result.scores.tolist())
            if len(scores) == 3:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
                body = json.dumps({"score": 0.02})
                connection.request("POST", "/score", body, {"Content-Type": "application/json"})
                assert json.loads(connection.getresponse().read()) == {"score": 0.02}
                connection.close()
                changed_at.append(len(scores))
            if len(scores) >= 8 and len(scores[-1]) != len(scores[0]):
                raise EndOfRun("changed")
            assert len(scores) < 500

    stream = _Photograph(tmp_path, photographs()["cat"])
    stream.start()
    reader = Reader(0, lambda port: None)
    try:
        summary = run(
            "default-detector", stream.url("stream"), score=0.5, web=0, sinks=[reader], on_start=reader.on_start
        )
    finally:
        stream.kill()
    assert len(scores[0]) >= 1 and min(scores[0]) > 0.5
    assert len(scores[-1]) > len(scores[0]) and 0.02 < min(scores[-1]) <= 0.5
    assert "the score threshold was changed on the page, from 0.5 to 0.02" in summary.remarks


def test_a_taken_port_is_a_clear_error(run_squares: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write_video(tmp_path / "in.avi", frames=2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=rf"127\.0\.0\.1:{port}: Address already in use; choose another port"):
            run_squares(source, web=port)
        assert _main.main(["run", "no.edge", str(source), "--web", str(port)]) == 3
    with pytest.raises(DeviceError, match=r"cannot be served on nowhere\.invalid:0"):
        run_squares(source, web="nowhere.invalid:0")
    with pytest.raises(SpecError, match="PORT or HOST:PORT"):
        run_squares(source, web="street.mp4")
    assert "choose another port" in " ".join(capfd.readouterr().err.split())


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_without_the_extra_the_error_names_it(
    package: str, run_squares: Any, tmp_path: Path, without: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("edgecnn.runners.live.sinks.web")]:
        monkeypatch.delitem(sys.modules, name)
    without(package)
    with pytest.raises(MissingDependencyError, match=rf"needs the package '{package}.*edgecnn\[web\]"):
        run_squares(write_video(tmp_path / "in.avi", frames=2), web=0)


def test_web_may_stand_alone() -> None:
    for words, wanted in (
        (["--web"], ["--web", "8088"]),
        (["run", "--web", "--show"], ["run", "--web", "8088", "--show"]),
        (["run", "b.edge", "--web", "street.mp4"], ["run", "b.edge", "--web", "8088", "street.mp4"]),
        (["--web", "/dev/video0"], ["--web", "8088", "/dev/video0"]),
        (["--web", "0"], ["--web", "0"]),
        (["--web", "0.0.0.0:9000", "x"], ["--web", "0.0.0.0:9000", "x"]),
        (["--web", "[::]:9000"], ["--web", "[::]:9000"]),
        (["--web", "http://camera:80"], ["--web", "8088", "http://camera:80"]),
        (["--web=9000", "x"], ["--web=9000", "x"]),
    ):
        assert with_address(words) == wanted


@pytest.mark.parametrize("given", [None, TOKEN])
def test_the_command_line_says_where_the_page_is_and_the_token_once(given: str | None, tmp_path: Path) -> None:
    source = write_video(tmp_path / "in.avi", frames=5)
    environment = {**os.environ} | ({"EDGECNN_WEB_TOKEN": given} if given else {})
    words = [
        "run",
        "default-detector",
        str(source),
        "--web",
        "0.0.0.0:0",
        "--jsonl",
        str(tmp_path / "o.jsonl"),
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "edgecnn", *words], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (shown,) = re.findall(r"^page: http://\S+:\d+/(\S*)$", done.stderr, re.MULTILINE)
    if given:
        assert shown == ""
        token = given
    else:
        token = shown.removeprefix("?token=")
        assert len(token) >= 32
    everywhere = done.stdout + (tmp_path / "o.jsonl").read_text() + done.stderr.replace(shown, "", 1)
    assert token not in everywhere
