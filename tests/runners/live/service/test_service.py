"""A file of cameras as a service: the unit is what systemd takes, and a run tells it what it does."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecnn._verbs.service import service, service_unit
from edgecnn.cli import _main
from edgecnn.errors import DeviceError, SpecError, StorageError
from edgecnn.runners.live.service.notify import ServiceNotifier
from edgecnn.runners.live.service.unit import ServiceUnit
from tests.runners.live.conftest import StreamServer

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")

UNIT = ServiceUnit(name="street", config=Path("/etc/edgecnn/street.toml"), python=Path("/usr/bin/python3"))


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that systemd listens at."""
    place = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(place))
    monkeypatch.setenv("WATCHDOG_USEC", "1500000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(place))
        listening.settimeout(60)
        yield listening


def heard(listening: socket.socket, begin: str) -> str:
    """The next message that begins so, after any others."""
    while not (message := listening.recv(4096).decode()).startswith(begin):
        pass
    return message


# --- what a run tells


def test_readiness_life_and_end_are_told(systemd: socket.socket) -> None:
    notifier = ServiceNotifier()
    assert notifier.watchdog_s == 1.5
    notifier.ready("2 cameras:\ndoor, yard")
    assert systemd.recv(4096) == b"READY=1\nSTATUS=2 cameras: door, yard"
    for _ in range(5):
        notifier.alive()
    notifier.stopping()
    assert systemd.recv(4096) == b"WATCHDOG=1"
    assert systemd.recv(4096) == b"STOPPING=1"


def test_without_systemd_nothing_is_told_and_nothing_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for place in ("", str(tmp_path / "nobody"), "@edgecnn-nobody-listens"):
        monkeypatch.setenv("NOTIFY_SOCKET", place)
        monkeypatch.setenv("WATCHDOG_USEC", "soon")
        notifier = ServiceNotifier()
        notifier.ready("x")
        notifier.alive()
        assert notifier.watchdog_s is None
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert ServiceNotifier().watchdog_s is None


def test_an_abstract_socket_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0edgecnn-test-{os.getpid()}")
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@edgecnn-test-{os.getpid()}")
        ServiceNotifier().stopping()
        assert listening.recv(64) == b"STOPPING=1"


@pytest.mark.runtime
@pytest.mark.server
def test_a_run_says_that_it_is_ready_alive_reloaded_and_stopping(
    systemd: socket.socket, tmp_path: Path, stream_server: StreamServer
) -> None:
    file = tmp_path / "street.toml"
    file.write_text(f'bundle = "default-detector"\n[cameras.door]\nsource = "{stream_server.url("stream")}"\n')
    with subprocess.Popen([sys.executable, "-m", "edgecnn", "run", "--config", file]) as program:
        assert heard(systemd, "READY=1") == "READY=1\nSTATUS=1 cameras: door"
        heard(systemd, "WATCHDOG=1")
        program.send_signal(signal.SIGHUP)
        heard(systemd, "RELOADING=1")
        heard(systemd, "READY=1")
        program.terminate()
        heard(systemd, "STOPPING=1")
        assert program.wait(60) == 128 + signal.SIGTERM


# --- the unit


def test_the_unit_gives_no_privileges_restarts_and_watches() -> None:
    lines = UNIT.text().splitlines()
    for line in (
        "ExecStart=/usr/bin/python3 -m edgecnn run --config /etc/edgecnn/street.toml",
        "Type=notify",
        "WatchdogSec=60",
        "Restart=on-failure",
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "CapabilityBoundingSet=",
        "WorkingDirectory=%S/street",
    ):
        assert line in lines
    of_pi = ServiceUnit(
        name="pi",
        config=Path("/home/pi/my cameras/100%.toml"),
        python=Path("/usr/bin/python3"),
        user="pi",
        writable=[Path("/mnt/disk")],
        secrets={"door": Path("/etc/edgecnn/door")},
    ).text()
    assert '--config "/home/pi/my cameras/100%%.toml"' in of_pi
    for line in (
        "User=pi",
        "ProtectHome=read-only",
        "ReadWritePaths=/mnt/disk",
        "LoadCredential=door:/etc/edgecnn/door",
    ):
        assert f"\n{line}\n" in of_pi
    assert "DynamicUser" not in of_pi


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "a/b"},
        {"name": "x\nExecStart=/bin/sh"},
        {"user": "root;x"},
        {"config": Path("street.toml")},
        {"config": Path("/etc/a\nUser=root")},
        {"writable": [Path('/a"b')]},
        {"secrets": {"a:b": Path("/x")}},
    ],
)
def test_what_would_change_the_unit_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(SpecError):
        ServiceUnit(**{"name": "x", "config": Path("/x.toml"), "python": Path("/p"), **wrong})  # type: ignore[arg-type]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze: apt-get install systemd")
def test_systemd_takes_the_unit_and_finds_it_closed(tmp_path: Path) -> None:
    unit = ServiceUnit(
        name="street", config=Path("/etc/street.toml"), python=Path(sys.executable), writable=[Path("/mnt/a b")]
    )
    path = tmp_path / unit.file_name
    path.write_text(unit.text())
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    security: list[str | Path] = ["systemd-analyze", "security", "--offline=yes", "--threshold=20", path]
    done = subprocess.run(security, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("needs systemd 250 or newer")
    assert done.returncode == 0, done.stdout[-500:]  # exposure of at most 2.0 of 10


# --- installing it


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that writes down how it is called: there may be no init here."""
    programs, calls = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    for name in ("systemctl", "journalctl"):
        (programs / name).write_text(f'#!/bin/sh\necho {name} "$@" >> {calls}\ntest "$FAILS" != "$1" || exit 5\n')
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    return calls


def test_install_status_logs_and_remove(tmp_path: Path, called: Path) -> None:
    file, units = tmp_path / "street.toml", tmp_path / "units"
    units.mkdir()
    file.write_text('bundle = "default-detector"\n[cameras.door]\nsource = 0\n')
    service("install", cameras=file, name="street", units=units)
    assert str(file) in (units / "street.service").read_text()
    assert service("status", name="street") == 0
    assert service("logs", name="street", follow=True) == 0
    service("remove", name="street", units=units)
    assert not list(units.iterdir())
    assert called.read_text().splitlines() == [
        "systemctl daemon-reload",
        "systemctl enable street.service",
        "systemctl restart street.service",
        "systemctl status --no-pager street.service",
        "journalctl -u street.service -n 200 -o cat --follow",
        "systemctl disable --now street.service",
        "systemctl daemon-reload",
    ]
    (units / "other.service").write_text("[Unit]\n")
    with pytest.raises(SpecError, match="was not written by"):
        service("remove", name="other", units=units)
    with pytest.raises(SpecError, match="no service street is installed"):
        service("remove", name="street", units=units)


def test_a_wrong_file_installs_nothing(tmp_path: Path, called: Path) -> None:
    file = tmp_path / "street.toml"
    file.write_text('bundle = "default-detector"\n[cameras.door]\nsorce = 0\n')
    with pytest.raises(SpecError, match="did you mean source"):
        service("install", cameras=file, units=tmp_path)
    with pytest.raises(SpecError, match="give the file of cameras"):
        service("install", units=tmp_path)
    assert not called.exists()


def test_what_systemd_refuses_is_told(tmp_path: Path, called: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "street.toml"
    file.write_text('bundle = "default-detector"\n[cameras.door]\nsource = 0\n')
    monkeypatch.setenv("FAILS", "enable")
    with pytest.raises(DeviceError, match=r"systemctl enable edgecnn.service failed: exit code 5"):
        service("install", cameras=file, units=tmp_path)
    with pytest.raises(StorageError, match="run it as root"):
        service("install", cameras=file, units=tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="this system has no systemd"):
        service("status")


def test_print_shows_the_unit_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "street.toml"
    file.write_text('bundle = "default-detector"\n[cameras.door]\nsource = 0\nrecord = "/mnt/x.mp4"\n')
    assert _main.main(["service", "install", str(file), "--print", "--name", "street"]) == 0
    assert "\n[Service]\nType=notify\n" in (shown := capsys.readouterr().out)
    assert "ReadWritePaths=/mnt\n" in shown


def test_what_each_sink_writes_may_be_written_by_the_service(tmp_path: Path) -> None:
    file = tmp_path / "street.toml"
    table = '[cameras.door]\nsource = 0\ntrack = true\nevents = "/mnt/events"\njsonl = "/media/x.jsonl"\n'
    file.write_text('bundle = "default-detector"\n' + table)
    assert set(service_unit(file, name="street").writable) == {Path("/mnt"), Path("/media")}
