"""`devices` with the runtimes that are installed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from edgecnn import devices
from edgecnn.cli._main import main
from edgecnn.errors import UnknownNameError
from edgecnn.formats import FORMATS, runnable, runtimes
from edgecnn.formats.devices import all_executors
from edgecnn.measure import device_trials

pytestmark = pytest.mark.runtime


def test_every_installed_runtime_works_on_the_processor() -> None:
    report = devices("cpu")
    trials = {trial.word: trial for trial in report.trials}
    installed = [row.runtime for row in FORMATS if row.runs_here]
    for runtime in runtimes():
        trial = trials[f"{runtime.name}:cpu"]
        if runtime in installed and trial.works is None:
            assert "no shipped network has its format" in trial.why
        elif runtime in installed:
            assert trial.works, trial.why
            assert trial.ran_on is not None
            assert trial.ran_on.operators_on_device == trial.ran_on.operators
            assert trial.device_name
        else:
            assert not trial.works
    found = {runtime.name: runtime for runtime in report.runtimes}
    assert all(bool(found[row.name].packages) != bool(found[row.name].install) for row in runtimes())
    assert report.machine.cpu_model


def test_all_devices_of_the_table_are_listed_and_failed_ones_say_what_they_need(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["devices", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    trials = report["trials"]
    assert {trial["word"].partition(".")[0] for trial in trials} >= {
        row.full_name for row in all_executors() if row.kind == "cpu"
    }
    assert len(trials) >= len(all_executors())
    for trial in trials:
        if trial["works"] is False:
            assert trial["why"]
            assert "pip install 'edgecnn[" in trial["needs"]
    assert report["machine"]["cpu_flags"] == [flag for flag in report["machine"]["cpu_flags"] if flag]


def test_people_read_a_table_and_reasons(
    capsys: pytest.CaptureFixture[str], assert_readable: Callable[[str], None]
) -> None:
    assert main(["devices", "onnxruntime:cpu"]) == 0
    out = capsys.readouterr().out
    assert_readable(out)
    assert "Works: a small network ran there" in out
    assert "onnxruntime:cpu" in out


def test_a_device_that_was_asked_for_and_does_not_work_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "onnxruntime:tensorrt"]) == 3
    assert "TensorRT; pip install 'edgecnn[cuda]'" in capsys.readouterr().out


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        devices("gpuu")


def test_a_runtime_that_ends_its_process_is_reported_and_the_others_are_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = (
        "import os, runpy, signal, sys\n"
        "if sys.argv[1] == 'onnx': os.kill(os.getpid(), signal.SIGILL)\n"
        "runpy.run_module('edgecnn.measure._trial_child', run_name='__main__')\n"
    )
    (tmp_path / "dying_child.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(device_trials, "CHILD", "dying_child")
    trials = {trial.word: trial for trial in devices("cpu").trials}
    assert not trials["onnxruntime:cpu"].works
    assert "crashed (SIGILL)" in trials["onnxruntime:cpu"].why
    if "openvino" in runnable():
        assert trials["openvino:cpu"].works


def test_a_runtime_that_answers_nonsense_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_trials, "MAX_DIFFERENCE", -1.0)
    (trial,) = devices("onnxruntime:cpu").trials
    assert trial.works is False
    assert "from the expected one" in trial.why
