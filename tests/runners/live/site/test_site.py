"""Several cameras of one file: checked before anything opens, each for itself, reloaded while the others go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("prometheus_client", reason="needs prometheus-client: pip install 'edgecnn[live]'")
pytest.importorskip("starlette", reason="needs starlette: pip install 'edgecnn[web]'")

from edgecnn._verbs.run_site import read_plan, run_site
from edgecnn.cli import _main
from edgecnn.errors import DataError
from edgecnn.runners.live.site.plan import NetworkPlan
from edgecnn.runners.live.site.site import PlanError, Site, SiteSummary
from edgecnn.runners.runner import Runner, open_runner
from tests.runners.live.conftest import StreamServer, until, write_video

TOP = 'bundle = "default-detector"\nthreads = 1\n'


def site_file(folder: Path, text: str, *, top: str = TOP) -> Path:
    path = folder / "street.toml"
    path.write_text(top + text)
    return path


def camera(name: str, source: object, *more: str) -> str:
    return "\n".join([f"[cameras.{name}]", f'source = "{source}"', *more, ""])


def lines_of(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Running:
    """A site that runs in a thread."""

    def __init__(self, file: Path) -> None:
        self.site: Site | None = None
        self.summary: SiteSummary | None = None
        self._thread = threading.Thread(target=self._run, args=(file,), daemon=True)
        self._thread.start()
        until(lambda: self.site is not None and self.site.cameras)

    def _run(self, file: Path) -> None:
        def started(site: Site) -> None:
            self.site = site

        self.summary = run_site(file, on_start=started)

    def ended(self) -> SiteSummary:
        self._thread.join(60)
        assert self.summary is not None
        return self.summary


# --- the file


def test_every_error_is_told_at_once_with_its_key_and_what_is_near(tmp_path: Path) -> None:
    file = site_file(
        tmp_path,
        camera("door", tmp_path / "none.mp4", 'clases = ["person"]')
        + camera("yard", 0, 'classes = ["persn"]', "zones = { gate = [1, 2, 3] }", "metrics = 9109")
        + camera("roof", "env:NO_SUCH_VARIABLE", "score = 7", 'mqtt = "http://x"')
        + "[cameras.hall]\nlimit = true\n",
        top='bundel = "default-detector"\n' + TOP,
    )
    with pytest.raises(PlanError) as wrong:
        read_plan(file)
    assert "has 5 errors:" in str(wrong.value), wrong.value
    told = str(wrong.value)
    assert f"{file} has 5 errors:" in told
    assert "no option is called 'bundel'; did you mean bundle?" in told
    assert "[cameras.door] no option is called 'clases'; did you mean classes" in told
    assert "[cameras.yard] no option is called 'metrics' in a camera's table: it is for all cameras" in told
    assert "[cameras.hall] limit must be a whole number, found true" in told
    assert "[cameras.hall] source is missing" in told
    file.write_text(file.read_text().replace("bundel", "#").replace("clases", "classes").replace("metrics", "#"))
    file.write_text(file.read_text().replace("limit = true", f'source = "{tmp_path}/none.mp4"'))
    faults = read_plan(file).faults()
    assert len(faults) == 7, faults
    for part in (
        "[cameras.door] source: ",
        "[cameras.yard] classes, scores: no class is called 'persn'; did you mean person?",
        "[cameras.yard] zones, lines: zone: expected x1,y1,x2,y2,x3,y3,…",
        "[cameras.roof] source: env:NO_SUCH_VARIABLE: the environment variable",
        "[cameras.roof] score: ",
        "[cameras.roof] sinks: ",
        "[cameras.hall] source: ",
    ):
        assert any(fault.startswith(part) for fault in faults), (part, faults)


def test_events_without_tracked_objects_are_told_before_anything_opens(tmp_path: Path) -> None:
    video = tmp_path / "street.mp4"
    video.touch()
    file = site_file(tmp_path, camera("a", video, 'events = "kept"'))
    (fault,) = read_plan(file).faults()
    assert fault.startswith("[cameras.a] sinks: --events needs objects that are tracked: give --zone, or --track"), (
        fault
    )
    file = site_file(tmp_path, camera("a", video, 'events = "kept"', "track = true", "event-after = -1"))
    (fault,) = read_plan(file).faults()
    assert "--event-after: expected 0 or more seconds" in fault
    assert not (tmp_path / "kept").exists()


def test_two_cameras_never_write_the_same_file_or_topic(tmp_path: Path) -> None:
    same = ('jsonl = "x.jsonl"', 'mqtt = "mqtt://h/a"')
    file = site_file(tmp_path, camera("a", 0, *same) + camera("b", 1, *same))
    assert read_plan(file).faults() == ["2 cameras have the same jsonl", "2 cameras have the same mqtt"]
    file = site_file(tmp_path, camera("a", 0) + camera("b", 1), top=TOP + "\n".join(same) + "\n")
    plan = read_plan(file)
    assert plan.faults() == []
    assert [c.sinks.asked["jsonl"] for c in plan.cameras] == ["x-a.jsonl", "x-b.jsonl"]
    assert [c.sinks.words["mqtt_topic"] for c in plan.cameras] == ["a", "b"]


def test_a_bundle_that_is_missing_is_told_once_with_those_who_use_it(tmp_path: Path) -> None:
    file = site_file(tmp_path, camera("a", 0) + camera("b", 1), top='bundle = "no.edge"\n')
    (fault,) = read_plan(file).faults()
    assert fault.startswith("bundle (of a, b): no.edge")


@pytest.mark.parametrize("text", ["cameras = 3", "[cameras]", "[cameras]\ndoor = 3", '[cameras."a/b"]\nsource = "0"'])
def test_strange_tables_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(PlanError):
        read_plan(site_file(tmp_path, text))


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not TOML"):
        read_plan(site_file(tmp_path, "[cameras"))


def test_another_secret_or_another_bundle_is_another_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = site_file(tmp_path, camera("door", "env:DOOR"))
    monkeypatch.setenv("DOOR", "rtsp://u:first@127.0.0.1/1")
    before = read_plan(file)
    assert read_plan(file) == before
    assert "first" not in repr(before)
    monkeypatch.setenv("DOOR", "rtsp://u:second@127.0.0.1/1")
    assert read_plan(file) != before


def test_check_prints_what_would_run_and_opens_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NetworkPlan, "open", lambda self: pytest.fail("opened"))
    monkeypatch.setenv("ROOF", "rtsp://watcher:geheim@127.0.0.1:1/1")
    file = site_file(tmp_path, camera("roof", "env:ROOF", 'classes = ["person"]', "lines = { door = [1, 2, 3, 4] }"))
    assert _main.main(["run", "--config", str(file), "--check"]) == 0
    shown = capsys.readouterr().out
    assert "geheim" not in shown
    assert "roof" in shown and "door" in shown and "1 camera, 1 network; nothing was opened" in shown
    file.write_text(file.read_text().replace("classes", "clases"))
    assert _main.main(["run", "--config", str(file), "--check"]) == 2
    assert "did you mean classes" in capsys.readouterr().err


def test_a_source_beside_a_file_of_cameras_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = site_file(tmp_path, camera("roof", 0))
    assert _main.main(["run", "--config", str(file), "--camera", "1"]) == 2
    assert "each camera's source is in its table" in capsys.readouterr().err
    assert _main.main(["run", "default-detector", "x.mp4", "--check"]) == 2


# --- running

runs = pytest.mark.runtime


@runs
def test_cameras_share_a_network_and_keep_their_thresholds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Runner] = []

    def open_and_count(plan: NetworkPlan) -> Runner:
        opened.append(open_runner(plan.bundle, **dict(plan.options)))
        return opened[-1]

    monkeypatch.setattr(NetworkPlan, "open", open_and_count)
    video = write_video(tmp_path / "squares.avi", frames=6)
    low, high = tmp_path / "low.jsonl", tmp_path / "high.jsonl"
    file = site_file(
        tmp_path,
        camera("low", video, "score = 0.001", f'jsonl = "{low}"') + camera("high", video, f'jsonl = "{high}"'),
        top=TOP + "score = 0.99\n",
    )
    summary = run_site(file)
    assert len(opened) == 1
    assert [each.frames for each in summary.cameras.values() if each] == [6, 6]
    found = [sum(len(line["detections"]) for line in lines_of(path)) for path in (low, high)]  # type: ignore[arg-type,misc]
    assert found[0] > 0
    assert found[1] == 0
    assert {line["source"] for line in lines_of(low)} == {"low"}


@runs
def test_a_reload_touches_only_what_changed_and_loses_no_frame_of_the_others(tmp_path: Path) -> None:
    long, short = write_video(tmp_path / "long.avi", frames=90), write_video(tmp_path / "short.avi", frames=5)
    kept, other = tmp_path / "kept.jsonl", tmp_path / "other.jsonl"
    stays = camera("stays", long, f'jsonl = "{kept}"')
    file = site_file(tmp_path, stays + camera("goes", long))
    running = Running(file)
    assert running.site
    first = running.site.cameras["stays"]
    until(lambda: len(lines_of(kept)) > 3)
    file.write_text(file.read_text().replace("goes", "go es"))  # an error changes nothing
    assert not running.site.reload()
    assert list(running.site.cameras) == ["stays", "goes"]
    site_file(tmp_path, camera("new", short, f'jsonl = "{other}"') + stays)
    assert running.site.reload()
    assert len(lines_of(kept)) < 90
    assert list(running.site.cameras) == ["new", "stays"]
    assert running.site.cameras["stays"] is first
    summary = running.ended()
    assert summary.reloads == 1
    assert [line["frame"] for line in lines_of(kept)] == list(range(90))
    assert [line["frame"] for line in lines_of(other)] == list(range(5))
    assert summary.cameras["goes"] is not None
    assert summary.cameras["goes"].ended == "stopped"


@runs
@pytest.mark.server
def test_page_and_metrics_are_of_all_cameras(tmp_path: Path, stream_server: StreamServer) -> None:
    source = stream_server.url("stream")
    file = site_file(
        tmp_path, camera("a", source) + camera("b", source), top=TOP + "score = 0.3\nweb = 0\nmetrics = 0\n"
    )
    running = Running(file)
    site = running.site
    assert site
    until(lambda: all(each.counters.frames > 3 for each in site.cameras.values()))
    assert site.page_url and site.metrics_url
    status = json.loads(urllib.request.urlopen(f"{site.page_url}status", timeout=30).read())
    assert [(of["name"], of["state"]) for of in status["sources"]] == [("a", "live"), ("b", "live")]
    asked = urllib.request.Request(
        f"{site.page_url}score", b'{"score": 0.77, "source": 1}', {"Content-Type": "application/json"}
    )
    urllib.request.urlopen(asked, timeout=30).close()
    assert [each.runner.task.thresholds["score"] for each in site.cameras.values()] == [0.3, 0.77]
    metrics = urllib.request.urlopen(site.metrics_url, timeout=30).read().decode()
    for name in ("a", "b"):
        assert f'edgecnn_source_state{{camera="{name}",source="{name}",state="live"}} 1.0' in metrics
        assert f'edgecnn_frames_total{{camera="{name}"}}' in metrics
    assert metrics.count("# TYPE edgecnn_frames_total counter") == 1
    for each in site.cameras.values():
        each.stop()
    assert running.ended().faults == {}


@runs
@pytest.mark.server
def test_a_camera_that_fails_is_tried_again_and_the_others_go_on(tmp_path: Path, stream_server: StreamServer) -> None:
    pytest.importorskip("paho.mqtt", reason="needs paho-mqtt: pip install 'edgecnn[live]'")
    folder = tmp_path / "gone"
    folder.mkdir()
    fails = camera("fails", stream_server.url("stream"), f'jsonl = "{folder}/x.jsonl"')
    file = site_file(tmp_path, fails + camera("goes", stream_server.url("stream")))
    plan_was_right = read_plan(file).faults() == []
    assert plan_was_right
    folder.rmdir()
    running = Running.__new__(Running)
    running.site, running.summary = Site(read_plan(file)), None
    thread = threading.Thread(target=lambda: setattr(running, "summary", running.site.run()))  # type: ignore[union-attr]
    thread.start()
    until(lambda: running.site and running.site.cameras and running.site.cameras["fails"].failure is not None)
    folder.mkdir()
    until(lambda: len(lines_of(folder / "x.jsonl")) > 2)
    assert running.site
    assert running.site.cameras["goes"].counters.frames > 0
    for each in running.site.cameras.values():
        each.stop()
    thread.join(60)


@runs
@pytest.mark.server
@pytest.mark.skipif(os.name != "posix", reason="needs SIGHUP")
def test_the_program_reloads_on_sighup_logs_in_json_and_ends_on_sigterm(
    tmp_path: Path, stream_server: StreamServer
) -> None:
    file = site_file(tmp_path, camera("door", stream_server.url("stream")))
    with subprocess.Popen(
        [sys.executable, "-m", "edgecnn", "run", "--config", file, "--log", "json", "--json"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stderr and program.stdout
        logged: list[dict[str, str]] = []
        _log_until(program.stderr.readline, logged, "runs ")
        site_file(tmp_path, camera("door", stream_server.url("stream")) + camera("yard", stream_server.url("stream")))
        program.send_signal(signal.SIGHUP)
        _log_until(program.stderr.readline, logged, "reloaded: 2 cameras")
        program.terminate()
        summary = json.loads(program.stdout.read())
        assert program.wait(60) == 128 + signal.SIGTERM
    assert summary["reloads"] == 1
    assert set(summary["cameras"]) == {"door", "yard"}
    assert all({"time", "level", "message"} <= set(line) for line in logged)
    assert any(line.get("camera") == "door" and line["level"] == "info" for line in logged)


def _log_until(readline: Callable[[], str], logged: list[dict[str, str]], begin: str) -> None:
    while line := readline():
        logged.append(json.loads(line))
        if logged[-1]["message"].startswith(begin):
            return
    pytest.fail(f"never logged {begin!r}: {logged}")
