"""`deploy`: a bundle is tried on the board, then it runs there, or the one before runs on."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgecnn
from edgecnn.bundle import Bundle
from edgecnn.cli._main import main
from edgecnn.errors import BoardError, BundleError, EdgeCnnError, ParityError, SpecError, SpeedError
from edgecnn.flow.boards import OnBoard
from edgecnn.flow.fleet import read_fleet
from edgecnn.runners.deployed.health import check_health, reference_answers
from edgecnn.runners.deployed.order import Deployed, Place
from edgecnn.runners.runner import open_runner
from tests.builders.colour_network import write_colour_bundle
from tests.runners.live.conftest import StreamServer, stream_server

from .loopback import PATH, LoopbackBoard

__all__ = ["stream_server"]

pytestmark = pytest.mark.server


def bundle_of(folder: Path, gain: float) -> Bundle:
    """A version of the bundle: its network answers otherwise than one with another gain."""
    return write_colour_bundle(folder / "colour.edge", {"fp32": (1.0, 1.0, gain)})


def deployed(outcome: OnBoard[Deployed]) -> Deployed:
    assert outcome.error is None, outcome.error
    assert outcome.result is not None
    return outcome.result


def answers_there(link: Path, wanted: Bundle) -> bool:
    """Whether what the link leads to answers as a bundle here does."""
    with open_runner(wanted) as here, open_runner(link) as there:
        try:
            check_health(there, reference_answers(here), most_latency_ms=None)
        except ParityError:
            return False
        return True


def test_a_bundle_runs_there_and_the_next_and_the_one_before(board: LoopbackBoard, tmp_path: Path) -> None:
    first, second = bundle_of(tmp_path / "1", 1.0), bundle_of(tmp_path / "2", 3.0)
    place = str(tmp_path / "there")
    link = tmp_path / "there" / "colour.edge"
    (one,) = map(deployed, edgecnn.deploy(first, board.url, place=place).values())
    assert (one.outcome, one.previous, one.release) == ("deployed", "", 0)
    assert one.health is not None
    assert one.health.runs.startswith("onnx fp32 on ") and one.health.latency_ms > 0
    assert set(one.health.agreement) == {f"{name}/scores" for name in ("astronaut", "cat", "coffee", "rocket")}
    assert answers_there(link, first)
    (two,) = map(deployed, edgecnn.deploy(second, board.url, place=place).values())
    assert (two.outcome, two.previous) == ("deployed", one.slot)
    assert answers_there(link, second)
    assert not answers_there(link, first)
    (back,) = map(deployed, edgecnn.fleet("rollback", "colour.edge", board.url, place=place).values())
    assert (back.outcome, back.slot, back.previous) == ("rolled back", one.slot, two.slot)
    assert answers_there(link, first)
    assert [change.what for change in back.history] == ["deployed", "deployed", "rolled back"]
    assert board.jobs() == []


@pytest.mark.slow
def test_a_bundle_that_answers_otherwise_there_or_too_slowly_does_not_run(
    board: LoopbackBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = bundle_of(tmp_path / "1", 1.0), bundle_of(tmp_path / "2", 3.0)
    place, link = str(tmp_path / "there"), tmp_path / "there" / "colour.edge"
    edgecnn.deploy(first, board.url, place=place)
    (slow,) = edgecnn.deploy(second, board.url, place=place, most_latency_ms=1e-6).values()
    assert isinstance(slow.error, SpeedError)
    assert "more than 1e-06 ms" in str(slow.error)
    with open_runner(first) as other:
        wrong = reference_answers(other)
    monkeypatch.setattr("edgecnn.flow.fleet.reference_answers", lambda runner: wrong)
    (differs,) = edgecnn.deploy(second, board.url, place=place).values()
    assert isinstance(differs.error, ParityError)
    assert "differs by" in str(differs.error)
    assert answers_there(link, first)
    (state,) = map(deployed, edgecnn.fleet("status", "colour.edge", board.url, place=place).values())
    assert len(state.history) == 1


@pytest.mark.slow
def test_a_board_that_refuses_ends_the_deployment_and_one_that_is_away_does_not(
    make_boards: Callable[..., LoopbackBoard], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = make_boards(), make_boards(), make_boards()
    fleet = tmp_path / "fleet.toml"
    places = [tmp_path / name for name in ("one", "two", "three")]
    fleet.write_text(
        "wave = 1\n"
        + "".join(
            f'[boards.{place.name}]\naddress = "{each.url}"\nplace = "{place}"\n'
            for each, place in zip((first, second, third), places, strict=True)
        )
    )
    bundle = bundle_of(tmp_path / "1", 1.0)
    second.stop()
    found = edgecnn.deploy(bundle, fleet)
    assert isinstance(found["two"].error, BoardError)
    assert [deployed(found[name]).outcome for name in ("one", "three")] == ["deployed"] * 2
    second.start()
    assert main(["deploy", str(bundle.folder), "--to", str(fleet)]) == 0  # taken up
    table = capsys.readouterr().out
    assert [table.count(word) for word in ("unchanged", "deployed")] == [2, 1], table
    (places[0] / "colour.edge.slots").chmod(0o700)
    (places[0] / "colour.edge").unlink()
    (places[0] / "colour.edge").mkdir()  # what was not deployed
    found = edgecnn.deploy(bundle_of(tmp_path / "2", 3.0), fleet)
    assert isinstance(found["one"].error, SpecError)
    assert all(isinstance(found[name].error, BundleError) for name in ("two", "three"))
    assert "not deployed: one refused the bundle" in str(found["three"].error)
    assert answers_there(places[1] / "colour.edge", bundle)
    words = ["fleet", "history", "colour.edge", "--to", second.url, "--place", str(places[1])]
    assert main(words) == 0
    assert capsys.readouterr().out.count("deployed") == 1
    assert main([*words, "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert [change["what"] for change in told["history"]] == ["deployed"]


@pytest.mark.slow
def test_a_lost_link_and_a_stopped_deployment_leave_one_whole_version(board: LoopbackBoard, tmp_path: Path) -> None:
    first, second = bundle_of(tmp_path / "1", 1.0), bundle_of(tmp_path / "2", 3.0)
    place, link = str(tmp_path / "there"), tmp_path / "there" / "colour.edge"
    edgecnn.deploy(first, board.url, place=place)
    over = threading.Event()

    def cut() -> None:
        while not over.wait(0.4):
            board.drop_connections()

    cutting = threading.Thread(target=cut)
    cutting.start()
    try:
        (outcome,) = edgecnn.deploy(second, board.url, place=place).values()
    finally:
        over.set()
        cutting.join()
    if outcome.error is None:
        assert answers_there(link, second)
    else:
        assert isinstance(outcome.error, BoardError)
        assert answers_there(link, first) or answers_there(link, second)
    (again,) = map(deployed, edgecnn.deploy(second, board.url, place=place).values())
    assert again.outcome in ("deployed", "unchanged")
    assert answers_there(link, second)


def test_the_file_of_boards_is_checked_before_anything_is_sent(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    board = '[boards.door]\naddress = "ssh://pi@door"\n'
    for text, told in {
        "": "boards",
        "[boards]\n": "has no board",
        '[boards.door]\naddres = "ssh://pi@door"\n': "addres",
        '[boards.door]\naddress = "http://door"\n': "expected a board such as",
        board + board.replace("door]", "yard]"): "named twice",
        board + 'place = "there"\n': r"\[boards.door\] place must be an absolute path",
        board + 'service = "a b; reboot"\n': "must be the name of a systemd service",
        board + 'page = "http://elsewhere:80"\n': "on the board itself",
        "wave = 0\n" + board: "wave must be 1 or more",
    }.items():
        file.write_text(text)
        with pytest.raises(EdgeCnnError, match=told):
            read_fleet(file, Place())
    file.write_text(
        'service = "street"\nwave = 2\n' + board + '[boards.yard]\naddress = "ssh://yard"\nplace = "/srv"\n'
    )
    fleet = read_fleet(file, Place(page="http://127.0.0.1:8088"))
    assert list(fleet.waves()) == [["door"], ["yard"]]
    assert fleet.places["yard"] == Place(place="/srv", service="street", page="http://127.0.0.1:8088")
    with pytest.raises(SpecError, match="expected 1 board or more"):
        read_fleet("ssh://pi@door", Place(), wave=0)


def wait_until(happened: Callable[[], object]) -> None:
    """Until it has; five minutes are more than the busiest machine takes."""
    give_up = time.monotonic() + 300
    while not happened():
        assert time.monotonic() < give_up, "did not happen"
        time.sleep(0.02)


class RunningSite:
    """A site in a process, and on its board a `systemctl` that tells it to read its file again."""

    def __init__(self, folder: Path, bundle: Path, source: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.page = f"http://127.0.0.1:{free.getsockname()[1]}"
        self.lines, file, programs = folder / "door.jsonl", folder / "street.toml", folder / "programs"
        file.write_text(
            f'bundle = "{bundle}"\nthreads = 1\nweb = {self.page.rpartition(":")[2]}\n'
            f'[cameras.door]\nsource = "{source}"\njsonl = "{self.lines}"\nprecision = "fp32"\n'
        )
        words = [sys.executable, "-m", "edgecnn", "run", "--config", str(file)]
        self.process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        programs.mkdir()
        (programs / "systemctl").write_text(
            f'#!/bin/sh\n[ "$*" = "reload street.service" ] && kill -HUP {self.process.pid}\n'
        )
        (programs / "systemctl").chmod(0o755)
        self.path = f"{programs}:{PATH}"

    def results(self) -> list[dict[str, Any]]:
        whole = self.lines.read_bytes().split(b"\n")[:-1] if self.lines.exists() else []
        return [json.loads(line) for line in whole]

    def end(self) -> str:
        self.process.terminate()
        return str(self.process.communicate(timeout=60)[1])


@pytest.mark.slow
def test_a_run_takes_the_new_version_without_a_gap_and_goes_on_with_the_old_where_it_cannot(
    make_boards: Callable[..., LoopbackBoard], stream_server: StreamServer, tmp_path: Path
) -> None:
    stream_server.fps = 20
    place, link = str(tmp_path / "there"), tmp_path / "there" / "colour.edge"
    first, second = bundle_of(tmp_path / "1", 1.0), bundle_of(tmp_path / "2", 3.0)
    third = write_colour_bundle(tmp_path / "3" / "colour.edge", {"fp16": (1.0, 1.0, 5.0)})
    edgecnn.deploy(first, make_boards().url, place=place)  # before there is a run
    site = RunningSite(tmp_path, link, stream_server.url("stream"))
    try:
        wait_until(lambda: len(site.results()) > 5)
        board = make_boards(python_path=site.path)
        words: dict[str, Any] = {"place": place, "service": "street", "page": site.page}
        (good,) = map(deployed, edgecnn.deploy(second, board.url, **words).values())
        assert (good.outcome, good.why, good.state) == ("deployed", "", "live")
        count = len(site.results())
        wait_until(lambda: len(site.results()) > count + 5)
        # It has no artifact of the precision that the site asks for, which goes on with what it has.
        (bad,) = map(deployed, edgecnn.deploy(third, board.url, **words, wait_s=3.0).values())
        assert (bad.outcome, bad.slot, bad.state) == ("rolled back", good.slot, "live")
        assert "the run still has colour.edge" in bad.why
        assert answers_there(link, second)
        count = len(site.results())
        wait_until(lambda: len(site.results()) > count + 5)
    finally:
        log = site.end()
    assert log.count("reloaded: 1 cameras") == 2, log  # the new one, and the way back
    assert "not reloaded: " in log
