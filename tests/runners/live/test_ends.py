"""A signal ends a run in time, whatever hangs: cameras, brokers, sinks, pipes. In processes of their own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.repository import REPOSITORY

from .conftest import StreamServer, until, write_video

pytestmark = pytest.mark.server

ENDS_S = 2.0
# this machine may be busy with other tests: what is promised is promised of a quiet one; what hangs, hangs for good
SLACK_S = 6.0
PROGRAM = """
import sys, threading, time
from tests.runners.live.conftest import OpenRunner
from edgecnn._verbs import run as verb
from edgecnn.cli import _main
verb.open_runner = lambda *_, **__: OpenRunner()
class Hangs:
    def __init__(self, where): self.where = where
    def __enter__(self): return self
    def say(self): print("hangs:", self.where, file=sys.stderr, flush=True)
    def deliver(self, *_):
        if self.where == "deliver": self.say(); threading.Event().wait()
    def __exit__(self, *_):
        if self.where == "exit": self.say(); threading.Event().wait()
        if self.where == "sleep": self.say(); time.sleep(60)
plain = verb.run
HANG = {hang!r}
if HANG:
    import functools
    @functools.wraps(plain)
    def hanging(*args, sinks=(), **words): return plain(*args, sinks=[*sinks, *(Hangs(h) for h in HANG)], **words)
    verb.run = hanging
sys.argv = ["edgecnn", "run", "no.edge", *sys.argv[1:]]
print("ready", file=sys.stderr, flush=True)
_main.entry_point()
"""


@contextlib.contextmanager
def running(
    *words: str, hang: tuple[str, ...] = (), stdout: int = subprocess.DEVNULL
) -> Iterator[subprocess.Popen[str]]:
    """`edgecnn run` with a network that finds squares."""
    home = REPOSITORY
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(hang=hang), *words],
        cwd=home,
        env={**os.environ, "PYTHONPATH": str(home), "PYTHONFAULTHANDLER": "1"},
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None and process.stderr.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def wait_until_it_says(process: subprocess.Popen[str], words: str) -> None:
    """As a sink that hangs does: "hangs: exit"."""
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if words in line:
            return
    pytest.fail(f"it never said {words!r}: {said}")


def wait_until_full(pipe: int) -> None:
    """Until a pipe, made small, takes no more: what is in it has been the same for two seconds."""
    with contextlib.suppress(OSError):  # it holds more already
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, 4096)
    held, before, since_s = bytearray(4), 0, 0.0

    def is_full() -> bool:
        nonlocal before, since_s
        fcntl.ioctl(pipe, termios.FIONREAD, held)
        if (now := int.from_bytes(held, sys.byteorder)) != before:
            before, since_s = now, time.monotonic()
        return before > 0 and time.monotonic() - since_s > 2

    until(is_full)


def ended(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> tuple[int, float]:
    """Signal it; its exit code, and how long it took."""
    start_s = time.monotonic()
    process.send_signal(number)
    code = process.wait(30)
    return code, time.monotonic() - start_s


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """Takes connections and says nothing; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listening:
        yield listening.getsockname()[1]


def cameras(port: int, count: int) -> list[str]:
    return [word for number in range(count) for word in ("--camera", f"rtsp://u:p@127.0.0.1:{port}/{number}")]


@pytest.mark.parametrize("wait_s", [0.5, 4.0])
def test_sixty_four_cameras_that_answer_nothing_do_not_hold_the_end(wait_s: float) -> None:
    with silent_server() as port, running(*cameras(port, 64)) as process:
        time.sleep(wait_s)
        assert process.poll() is None, "absent cameras are waited for"
        code, seconds = ended(process)
    assert code == 128 + signal.SIGTERM
    assert seconds < ENDS_S + SLACK_S


def test_a_stuck_camera_among_good_ones(stream_server: StreamServer) -> None:
    with silent_server() as port:
        words = [*cameras(port, 2), "--camera", stream_server.url("stream"), "--camera", stream_server.url("silent")]
        with running(*words) as process:
            wait_until_it_says(process, "stalled")
            code, seconds = ended(process)
    assert code == 143
    assert seconds < ENDS_S + SLACK_S


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_broker_that_hangs_and_sinks_that_hang(stream_server: StreamServer, number: int) -> None:
    with silent_server() as port:
        words = ["--camera", stream_server.url("stream"), "--mqtt", f"mqtt://127.0.0.1:{port}/t", "--metrics", "0"]
        with running(*words, hang=("deliver", "exit", "sleep")) as process:
            wait_until_it_says(process, "hangs: deliver")
            code, seconds = ended(process, number)
    assert code == 128 + number
    assert seconds < ENDS_S + SLACK_S


@pytest.mark.parametrize("hang", ["deliver", "exit", "sleep"])
def test_a_recordings_sink_that_hangs(hang: str, tmp_path: Path) -> None:
    with running(str(write_video(tmp_path / "a.avi", frames=2000)), hang=(hang,)) as process:
        wait_until_it_says(process, f"hangs: {hang}")
        code, seconds = ended(process)
    assert code == 143
    assert seconds < ENDS_S + SLACK_S


def test_lines_into_a_pipe_without_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    words = (str(write_video(tmp_path / "a.avi", frames=5000)), "--jsonl", str(tmp_path / "pipe"))
    with running(*words) as process:
        wait_until_full(reader)
        assert process.poll() is None, "the pipe is full"
        code, seconds = ended(process)
    os.close(reader)
    assert code == 143
    assert seconds < ENDS_S + SLACK_S


def test_a_summary_without_a_reader(stream_server: StreamServer) -> None:
    stream_server.fps = 500.0  # so that the pipe is full soon
    words = ("--camera", stream_server.url("stream"), "--jsonl", "-")
    with running(*words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        wait_until_full(process.stdout.fileno())
        code, seconds = ended(process)
    assert code == 143
    assert seconds < ENDS_S + SLACK_S


def test_a_missing_camera_is_reported_and_given_up_on_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with running("--camera", f"rtsp://me:geheim@127.0.0.1:{port}/1", "--give-up-after", "1") as process:
        assert process.wait(30) == 3
        assert process.stderr is not None
        printed = process.stderr.read()
    assert "source connecting: does not open: 127.0.0.1" in printed and "refuses the connection" in printed
    assert "given up" in printed and "geheim" not in printed
