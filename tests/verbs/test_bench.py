"""`bench` with real processes: what it prints, and what it does when they die."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgecnn
from edgecnn._verbs.bench import bench
from edgecnn.bundle import Bundle
from edgecnn.errors import BundleError, SpecError, StorageError, UnknownNameError
from edgecnn.measure.jobs import Job
from edgecnn.measure.timed_pictures import default_pictures
from tests.builders.colour_network import write_colour_bundle

pytestmark = pytest.mark.runtime

pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")

ROW = {
    "format",
    "precision",
    "device",
    "device_name",
    "threads",
    "n",
    "p50_ms",
    "p90_ms",
    "p99_ms",
    "stages",
    "cold_ms",
    "peak_rss_mb",
}


@pytest.fixture
def two_artifacts(tmp_path: Path) -> Bundle:
    """A bundle of one tiny network in ONNX, under two precisions' names."""
    return write_colour_bundle(tmp_path / "tiny.edge", {"fp32": (1.0, 1.0, 1.0), "fp16": (1.0, 1.0, 1.001)})


def run_bench(*words: str, **options: Any) -> subprocess.Popen[str]:
    # The folder that edgecnn was imported from, so that an installed one is tested where it is installed.
    home = str(Path(edgecnn.__file__).parents[1])
    return subprocess.Popen(
        [sys.executable, "-m", "edgecnn", "bench", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": home},
        **options,
    )


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_each_artifact_is_timed_in_its_own_process(two_artifacts: Bundle) -> None:
    spawned: dict[str, int] = {}
    said: list[str] = []
    report = bench(
        two_artifacts,
        iterations=64,
        threads=1,
        on_spawn=lambda job, pid: spawned.update({job.precision: pid}),
        progress=lambda done, total, what: said.append(what),
    )
    assert not report.failures
    assert len({*spawned.values(), os.getpid()}) == 3
    assert not any(is_running(pid) for pid in spawned.values())
    rounds = [what for what in said if "round" in what]
    assert rounds[:3] == ["onnx fp32: round 1 of 5", "onnx fp16: round 1 of 5", "onnx fp32: round 2 of 5"]
    for result in report.results:
        assert result.n == len(result.samples.total_ns) == len(result.samples.infer_ns) == 64
        assert result.p90_ms is not None
        assert result.p99_ms is None
        assert result.cold_ms == pytest.approx(
            result.cold.runtime_import_ms + result.cold.open_ms + result.cold.first_ms
        )
        assert 0 < sum(result.stages.values()) < result.max_ms
        assert result.peak_rss_mb > result.pictures_mb > 0


def test_every_format_is_timed(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "tiny.edge"))
    report = bench(bundle, iterations=2, threads=1)
    assert not report.failures
    held = [(artifact.format, artifact.precision) for artifact in bundle.manifest.artifacts]
    assert [(result.format, result.precision) for result in report.results] == held
    assert all(result.runtime and result.device_name and result.threads == 1 for result in report.results)


def test_bf16_is_timed_only_where_it_is_asked_for(tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs the extra [openvino]")
    bundle = shutil.copytree(tiny_bundle, tmp_path / "tiny.edge")
    report = bench(bundle, iterations=2, threads=1, precision="bf16")
    if any("cannot compute in bf16" in failure.reason for failure in report.failures):
        pytest.skip("needs a processor that computes in bf16")
    (result,) = report.results
    assert (result.format, result.precision) == ("openvino", "bf16")


def test_the_latest_figures_are_kept_in_the_bundle(two_artifacts: Bundle) -> None:
    for _ in range(2):
        bench(two_artifacts, iterations=2, threads=1, precision="fp32")
    bench(two_artifacts, iterations=3, threads=2, precision="fp32")
    fp32, fp16 = Bundle.open(two_artifacts.folder).manifest.artifacts
    assert [(e.figures["threads"], e.figures["n"]) for e in fp32.evidence.latency] == [(1, 2), (2, 3)]
    assert "samples" not in fp32.evidence.latency[0].figures
    assert fp32.evidence.latency[0].machine["cpu_model"]
    assert fp16.evidence.latency == ()


def test_without_record_the_bundle_stays_as_it_is(two_artifacts: Bundle) -> None:
    before = (two_artifacts.folder / "manifest.json").read_bytes()
    bench(two_artifacts, iterations=1, threads=1, record=False)
    assert (two_artifacts.folder / "manifest.json").read_bytes() == before


def test_a_bundle_that_cannot_be_written_gives_a_note(two_artifacts: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(bundle: Bundle, evidence: object) -> Bundle:
        raise StorageError(f"{bundle.folder} is not writable: Permission denied")

    monkeypatch.setattr(
        "edgecnn.measure.latency_evidence.record_evidence", refuse
    )  # in earnest, root may write anywhere
    report = bench(two_artifacts, iterations=1, threads=1, precision="fp32")
    assert len(report.results) == 1
    (note,) = report.notes
    assert "not writable" in note


def test_a_process_that_is_killed_is_a_failure_and_the_others_go_on(two_artifacts: Bundle) -> None:
    spawned: dict[str, int] = {}

    def kill_fp16(done: int, total: int, what: str) -> None:
        if what == "onnx fp16: round 2 of 5":
            os.kill(spawned["fp16"], signal.SIGKILL)

    def note(job: Job, pid: int) -> None:
        spawned[job.precision] = pid

    report = bench(two_artifacts, iterations=20, threads=1, on_spawn=note, progress=kill_fp16)
    assert [(result.precision, result.n) for result in report.results] == [("fp32", 20)]
    (failure,) = report.failures
    assert (failure.precision, failure.error, failure.exit_code) == ("fp16", "DeviceError", 3)
    assert "SIGKILL" in failure.reason


def test_a_process_that_hangs_is_given_up(two_artifacts: Bundle) -> None:
    spawned: dict[str, int] = {}

    def stop_fp16(done: int, total: int, what: str) -> None:
        if what == "onnx fp16: warm-up":
            os.kill(spawned["fp16"], signal.SIGSTOP)

    report = bench(
        two_artifacts,
        duration_s=0.2,
        threads=1,
        timeout_s=3.0,
        on_spawn=lambda job, pid: spawned.update({job.precision: pid}),
        progress=stop_fp16,
    )
    assert [result.precision for result in report.results] == ["fp32"]
    assert "no answer" in report.failures[0].reason
    assert not is_running(spawned["fp16"])


def test_a_device_that_is_not_there_keeps_its_message(two_artifacts: Bundle) -> None:
    report = bench(two_artifacts, device="onnxruntime:tensorrt", iterations=1, precision="fp32")
    (failure,) = report.failures
    assert failure.error == "DeviceError"
    assert "onnxruntime:tensorrt" in failure.reason


def test_an_impossible_request_is_refused_before_anything_runs(two_artifacts: Bundle) -> None:
    with pytest.raises(UnknownNameError, match="did you mean quick"):
        bench(two_artifacts, profile="quik")
    with pytest.raises(UnknownNameError, match="onnx"):
        bench(two_artifacts, format="onx")
    with pytest.raises(SpecError, match="threads"):
        bench(two_artifacts, threads=0)
    with pytest.raises(SpecError, match="iterations"):
        bench(two_artifacts, iterations=0)
    with pytest.raises(BundleError, match="int8"):
        bench(two_artifacts, precision="int8")


def test_pictures_are_eight_and_all_different() -> None:
    pictures = default_pictures((64, 48))
    assert {picture.shape for picture in pictures} == {(48, 64, 3)}
    assert len({picture.tobytes() for picture in pictures}) == len(pictures) == 8
    assert all(picture.flags.c_contiguous and picture.dtype == np.uint8 for picture in pictures)


def test_the_command_prints_a_list_and_only_json(two_artifacts: Bundle, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    process = run_bench(
        str(two_artifacts.folder), "--json", "--iterations", "4", "--threads", "1", "--report", str(report)
    )
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    rows = json.loads(stdout)
    assert [(row["format"], row["precision"], row["n"]) for row in rows] == [("onnx", "fp32", 4), ("onnx", "fp16", 4)]
    for row in rows:
        assert set(row) >= ROW
        assert set(row["stages"]) == {"fit", "infer", "finish"}
        assert row["p99_ms"] is None
        assert row["machine"]["versions"]["onnxruntime"]
    assert len(json.loads(report.read_bytes())["results"][0]["samples"]["total_ns"]) == 4


def test_the_command_says_what_failed_and_exits_with_3(two_artifacts: Bundle) -> None:
    process = run_bench(str(two_artifacts.folder), "--json", "--device", "onnxruntime:tensorrt", "--iterations", "1")
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 3
    assert {row["error"] for row in json.loads(stdout)} == {"DeviceError"}
    assert "onnxruntime:tensorrt" in stderr


def test_the_plot_is_a_picture(two_artifacts: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra [eval]")
    import cv2

    from edgecnn.report.latency import plot_report

    plot_report(bench(two_artifacts, iterations=12, threads=1, record=False), tmp_path / "plot.png")
    picture = cv2.imread(str(tmp_path / "plot.png"))
    assert picture is not None
    assert picture.std() > 0
    assert [path.name for path in tmp_path.glob(".plot*")] == []


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_it_leaves_no_process(two_artifacts: Bundle, signal_number: signal.Signals) -> None:
    process = run_bench(str(two_artifacts.folder), "--duration", "60", "--threads", "1", start_new_session=True)
    children = wait_for_children(process.pid, 2)
    os.kill(process.pid, signal_number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal_number
    # A signal while a child is being started finds it in nobody's list: it ends because its input has ended.
    assert all_ended(children)


def test_killing_it_leaves_no_process(two_artifacts: Bundle) -> None:
    process = run_bench(str(two_artifacts.folder), "--duration", "5", "--threads", "1", start_new_session=True)
    children = wait_for_children(process.pid, 2)
    process.kill()
    process.communicate(timeout=30)
    assert all_ended(children)


def all_ended(pids: list[int]) -> bool:
    """Whether these processes have ended, once they had time for it."""
    deadline = time.monotonic() + 20
    while any(is_running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(is_running(pid) for pid in pids)


def wait_for_children(pid: int, count: int) -> list[int]:
    """Ids of a process's children, once there are so many."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid:
                found.append(int(stat.parent.name))
        if len(found) >= count:
            return found
        time.sleep(0.1)
    raise AssertionError(f"{count} processes were to be started within a minute")
