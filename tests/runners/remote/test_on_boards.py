"""`--on`: bench and eval on a board, and each way in which a board can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import edgecnn
from edgecnn.bundle import Bundle
from edgecnn.cli._main import main
from edgecnn.errors import BoardError, BundleError, DataError
from edgecnn.runners.remote import board as board_module

from .loopback import LoopbackBoard

pytestmark = pytest.mark.server

FEW: dict[str, Any] = {"iterations": 2, "picture_size_px": (32, 32)}


def status_of(lines: list[str]) -> Callable[[str, str], None]:
    return lambda address, text: lines.append(text)


def wait_until(happened: Callable[[], object]) -> None:
    """Until it has; five minutes are more than the busiest machine takes."""
    give_up = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < give_up, "did not happen"
        time.sleep(0.02)


def test_bench_brings_home_evidence_of_the_machine_that_it_ran_on(board: LoopbackBoard, colour_bundle: Bundle) -> None:
    (outcome,) = edgecnn.bench_on(colour_bundle, board.url, **FEW)
    assert outcome.error is None
    assert outcome.on == board.url
    assert outcome.result is not None
    (result,) = outcome.result.results
    assert (result.format, result.n, result.pictures) == ("onnx", 2, "photographs, 32x32")
    assert len(result.samples.total_ns) == 2
    (evidence,) = Bundle.open(colour_bundle.folder).manifest.artifacts[0].evidence.latency
    assert evidence.machine["cpu_model"] == outcome.result.machine.cpu_model
    assert evidence.figures["n"] == 2


def test_layers_are_timed_there(board: LoopbackBoard, colour_bundle: Bundle) -> None:
    (outcome,) = edgecnn.bench_on(colour_bundle, board.url, layers=True, record=False, **FEW)
    assert outcome.result is not None
    (result,) = outcome.result.results
    assert any(layer.time_ms > 0 for layer in result.layers)


def test_what_is_temporary_is_gone_and_what_is_there_is_not_sent_again(
    board: LoopbackBoard, colour_bundle: Bundle
) -> None:
    first: list[str] = []
    edgecnn.bench_on(colour_bundle, board.url, status=status_of(first), **FEW)
    kept = board.left()
    assert board.jobs() == []
    assert "making its environment" in first
    again: list[str] = []
    (outcome,) = edgecnn.bench_on(colour_bundle, board.url, record=False, status=status_of(again), **FEW)
    assert outcome.error is None
    assert "making its environment" not in again
    # The manifest alone has changed: the first run's evidence is in it.
    (sent,) = [line for line in again if line.startswith("sending")]
    assert sent.startswith("sending 0.0 MB")
    stored = [name for name in board.left() if "/files/" in name and name not in kept]
    assert len(stored) == 1


def test_a_file_that_was_changed_on_the_board_is_sent_again(board: LoopbackBoard, colour_bundle: Bundle) -> None:
    edgecnn.bench_on(colour_bundle, board.url, record=False, **FEW)
    stored = board.boards / "files" / colour_bundle.manifest.artifacts[0].sha256
    good = stored.read_bytes()
    stored.unlink()
    stored.write_bytes(b"X" + good[1:])
    (outcome,) = edgecnn.bench_on(colour_bundle, board.url, record=False, **FEW)
    assert outcome.error is None
    assert stored.read_bytes() == good


def test_a_file_that_was_changed_here_is_refused_before_it_is_sent(board: LoopbackBoard, colour_bundle: Bundle) -> None:
    file = colour_bundle.folder / colour_bundle.manifest.artifacts[0].path
    file.write_bytes(file.read_bytes() + b"\x32\x00")
    with pytest.raises(edgecnn.EdgeCnnError, match="not the file that was verified"):
        edgecnn.bench_on(colour_bundle, board.url, **FEW)
    assert board.left() == []


def test_several_boards_work_at_once_and_give_one_table(
    make_boards: Callable[..., LoopbackBoard], colour_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, off = make_boards(), make_boards(), make_boards()
    off.stop()
    where = [word for board in (one, two, off) for word in ("--on", board.url)]
    words = ["bench", str(colour_bundle.folder), "--iterations", "2", "--picture-size", "32x32", *where]
    assert main([*words, "--json"]) == 3
    rows = json.loads(capsys.readouterr().out)
    assert [row["on"] for row in rows] == [one.url, two.url, off.url]
    assert [row["error"] for row in rows] == [None, None, "BoardError"]
    assert [row.get("n") for row in rows] == [2, 2, None]
    assert main(words) == 3
    printed = capsys.readouterr()
    assert printed.out.count("colour: p50 / p90 in ms") == 1
    table = printed.out.partition("colour: p50")[2]
    assert all(board.url.removeprefix("ssh://") in table for board in (one, two))
    assert f"{off.url}: cannot be reached" in printed.err


def test_eval_measures_there_what_it_measures_here(
    board: LoopbackBoard, colour_bundle: Bundle, colour_pictures: Path
) -> None:
    (outcome,) = edgecnn.evaluate_on(colour_bundle, colour_pictures, board.url)
    assert outcome.error is None
    here = edgecnn.evaluate(colour_bundle, colour_pictures, format="onnx")
    assert here.value == pytest.approx(2 / 3)
    assert outcome.result == here


def test_eval_sends_only_the_pictures_that_take_part(
    board: LoopbackBoard, colour_bundle: Bundle, colour_pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", str(colour_bundle.folder), "--data", str(colour_pictures), "--limit", "3", "--json"]
    assert main([*words, "--on", board.url]) == 0
    (there,) = json.loads(capsys.readouterr().out)
    assert main([*words, "--format", "onnx"]) == 0
    here = json.loads(capsys.readouterr().out)
    assert there["on"] == board.url
    assert {name: there[name] for name in here} == here
    pictures = [path for path in (board.boards / "files").iterdir() if path.read_bytes()[1:4] == b"PNG"]
    assert len(pictures) == here["n"] == 3


def test_what_edgecnn_refuses_there_has_its_exit_code_here(board: LoopbackBoard, colour_bundle: Bundle) -> None:
    (outcome,) = edgecnn.bench_on(colour_bundle, board.url, precision="int8", **FEW)
    assert isinstance(outcome.error, BundleError)
    assert str(outcome.error).startswith(f"on {board.url}: ")
    assert "holds no int8" in str(outcome.error)
    assert board.jobs() == []


# ---------------------------------------------------------------------- what stands in the way
def refused(board: LoopbackBoard, bundle: Bundle) -> str:
    """Why a board gave nothing; that leaves nothing on it."""
    (outcome,) = edgecnn.bench_on(bundle, board.url, **FEW)
    assert outcome.result is None
    assert isinstance(outcome.error, BoardError)
    assert outcome.error.exit_code == 3
    assert board.left() == []
    return str(outcome.error)


def test_an_unknown_host_key_is_refused(board: LoopbackBoard, colour_bundle: Bundle) -> None:
    board.known_hosts.write_text("")
    why = refused(board, colour_bundle)
    assert "its host key is not known here" in why
    assert f"ssh -p {board.port} " in why
    assert board.known_hosts.read_text() == ""


def test_another_host_key_than_the_known_one_is_refused(board: LoopbackBoard, colour_bundle: Bundle) -> None:
    kind, key, *_ = (board.folder / "id.pub").read_text().split()
    board.known_hosts.write_text(f"[127.0.0.1]:{board.port} {kind} {key}\n")
    assert "its host key differs from the one in known_hosts" in refused(board, colour_bundle)


def test_a_login_without_a_key_that_fits_is_refused(board: LoopbackBoard, colour_bundle: Bundle) -> None:
    (board.folder / "authorized_keys").write_text("")
    why = refused(board, colour_bundle)
    assert "it refuses the login" in why
    assert "ssh-copy-id" in why


def test_a_board_that_is_off_is_named(board: LoopbackBoard, colour_bundle: Bundle) -> None:
    board.stop()
    assert f"{board.url}: cannot be reached" in refused(board, colour_bundle)


def test_an_old_python_is_refused(
    make_boards: Callable[..., LoopbackBoard], colour_bundle: Bundle, tmp_path: Path
) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "python3").write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.2\nexit 1\n')
    (programs / "python3").chmod(0o755)
    (programs / "sh").symlink_to("/bin/sh")
    why = refused(make_boards(python_path=str(programs)), colour_bundle)
    assert "no Python 3.11 or newer there (Python 3.9.2)" in why


def test_a_32_bit_system_is_refused(make_boards: Callable[..., LoopbackBoard], colour_bundle: Bundle) -> None:
    # What Python there says of a 32-bit Raspberry Pi OS, by the variable that cross-builds set.
    board = make_boards(_PYTHON_HOST_PLATFORM="linux-armv7l")
    assert "its system is 32-bit (armv7l)" in refused(board, colour_bundle)


@pytest.mark.slow
def test_a_machine_without_wheels_is_refused(make_boards: Callable[..., LoopbackBoard], colour_bundle: Bundle) -> None:
    if not Path("/usr/bin/python3").exists():
        pytest.skip("needs a Python without packages in /usr/bin")
    board = make_boards(python_path="/usr/bin:/bin", _PYTHON_HOST_PLATFORM="linux-riscv64")
    why = refused(board, colour_bundle)
    assert "no wheel of " in why and "riscv64" in why


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_reported_and_what_was_sent_is_removed(
    make_boards: Callable[..., LoopbackBoard], colour_bundle: Bundle, small_disk: Path
) -> None:
    why = refused(make_boards(XDG_CACHE_HOME=str(small_disk)), colour_bundle)
    assert "its disk is full" in why
    assert str(small_disk) in why


# ---------------------------------------------------------------------- lost in the middle
def drop_while_it_runs(board: LoopbackBoard, drop: Callable[[], object]) -> threading.Thread:
    """Drops the connection once the measurement has begun on the board."""

    def wait_and_drop() -> None:
        wait_until(lambda: any(board.boards.glob("jobs/*/run/pid")))
        drop()

    thread = threading.Thread(target=wait_and_drop, daemon=True)
    thread.start()
    return thread


def test_a_lost_connection_is_taken_up_again(board: LoopbackBoard, colour_bundle: Bundle) -> None:
    lines: list[str] = []
    dropping = drop_while_it_runs(board, board.drop_connections)
    (outcome,) = edgecnn.bench_on(colour_bundle, board.url, status=status_of(lines), **FEW)
    dropping.join()
    assert outcome.error is None
    assert outcome.result is not None and outcome.result.results[0].n == 2
    assert "the connection was lost: reconnecting" in lines
    assert lines.count("running edgecnn bench") == 1
    assert board.jobs() == []


def test_at_whatever_step_the_connection_is_lost_it_goes_on(board: LoopbackBoard, colour_bundle: Bundle) -> None:
    lines: list[str] = []

    def drop(address: str, text: str) -> None:
        lines.append(text)
        if text.startswith(("sending", "making", "running")):
            assert board.drop_connections()

    (outcome,) = edgecnn.bench_on(colour_bundle, board.url, status=drop, **FEW)
    assert outcome.error is None
    assert lines.count("the connection was lost: reconnecting") == 3
    assert lines.count("making its environment") == 1
    assert board.jobs() == []


def test_a_connection_that_does_not_come_back_leaves_nothing(
    board: LoopbackBoard, colour_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_module, "LEASE_S", 4.0)
    before = colour_bundle.manifest
    dropping = drop_while_it_runs(board, board.stop)
    (outcome,) = edgecnn.bench_on(colour_bundle, board.url, iterations=1_000_000)
    dropping.join()
    assert isinstance(outcome.error, BoardError)
    assert "the connection was lost during the job" in str(outcome.error)
    assert Bundle.open(colour_bundle.folder).manifest == before
    wait_until(lambda: board.left() == [])
    assert processes_of(board) == []


def test_a_killed_edgecnn_leaves_nothing_on_the_board(
    board: LoopbackBoard, colour_bundle: Bundle, tmp_path: Path
) -> None:
    home = str(Path(edgecnn.__file__).parents[1])
    program = (
        "import edgecnn, edgecnn.runners.remote.board as board; board.LEASE_S = 4.0; "
        f"edgecnn.bench_on({str(colour_bundle.folder)!r}, {board.url!r}, iterations=1_000_000)"
    )
    host = subprocess.Popen([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": home}, cwd=tmp_path)
    wait_until(lambda: any(board.boards.glob("jobs/*/run/pid")))
    host.kill()
    host.wait()
    wait_until(lambda: board.left() == [])
    assert processes_of(board) == []


def test_ctrl_c_cleans_the_board_up_at_once(board: LoopbackBoard, colour_bundle: Bundle, tmp_path: Path) -> None:
    home = str(Path(edgecnn.__file__).parents[1])
    words = ["bench", str(colour_bundle.folder), "--iterations", "1000000", "--on", board.url]
    host = subprocess.Popen(
        [sys.executable, "-m", "edgecnn", *words],
        env={**os.environ, "PYTHONPATH": home},
        cwd=tmp_path,
    )
    wait_until(lambda: any(board.boards.glob("jobs/*/run/pid")))
    host.send_signal(2)
    assert host.wait() == 130
    assert board.left() == []


def processes_of(board: LoopbackBoard) -> list[int]:
    """Those that still work for the board's jobs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(board.cache).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def test_pictures_to_look_at_are_sent_along(board: LoopbackBoard, colour_bundle: Bundle, colour_pictures: Path) -> None:
    (outcome,) = edgecnn.bench_on(colour_bundle, board.url, data=colour_pictures, iterations=2)
    assert outcome.result is not None
    assert outcome.result.results[0].pictures == "pictures, 8x8"
    with pytest.raises(DataError, match="does not exist"):
        edgecnn.bench_on(colour_bundle, board.url, data="nowhere", iterations=2)
