"""`devices` with the runtimes that are installed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgecnn import devices
from edgecnn._devices import EXECUTORS, RUNTIMES
from edgecnn._verbs import devices as verb
from edgecnn.cli._main import main
from edgecnn.errors import UnknownNameError
from edgecnn.registry import BACKENDS


def test_every_installed_runtime_works_on_the_processor() -> None:
    report = devices("cpu")
    formats = BACKENDS.installed()
    trials = {trial.word: trial for trial in report.trials}
    for runtime, format_name in RUNTIMES.items():
        trial = trials[f"{runtime}:cpu"]
        if format_name in formats:
            assert trial.works, trial.why
            assert trial.ran_on is not None
            assert trial.ran_on.operators_on_device == trial.ran_on.operators
            assert trial.device_name
        else:
            assert not trial.works
    found = {runtime.name: runtime for runtime in report.runtimes}
    assert all(bool(found[name].packages) != bool(found[name].install) for name in RUNTIMES)
    assert report.machine.cpu_model


def test_all_devices_of_the_table_are_told_and_those_that_fail_say_what_they_need(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["devices", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    trials = report["trials"]
    assert {trial["word"].partition(".")[0] for trial in trials} >= {
        row.word_in_full for row in EXECUTORS if row.kind == "cpu"
    }
    assert len(trials) >= len(EXECUTORS)
    for trial in trials:
        if trial["works"] is False:
            assert trial["why"]
            assert "pip install 'edgecnn[" in trial["needs"]
    assert report["machine"]["cpu_flags"] == [flag for flag in report["machine"]["cpu_flags"] if flag]


def test_people_read_a_table_and_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "onnxruntime:cpu"]) == 0
    out = capsys.readouterr().out
    assert "Works: a small network was run there" in out
    assert "onnxruntime:cpu" in out


def test_a_device_that_was_asked_for_and_does_not_work_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["devices", "onnxruntime:tensorrt"]) == 3
    assert "TensorRT; pip install 'edgecnn[cuda]'" in capsys.readouterr().out


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="did you mean"):
        devices("gpuu")


def test_a_runtime_that_ends_its_process_is_told_and_the_others_are_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = (
        "import os, runpy, signal, sys\n"
        "if sys.argv[1] == 'onnx': os.kill(os.getpid(), signal.SIGILL)\n"
        "runpy.run_module('edgecnn.measure._trial_child', run_name='__main__')\n"
    )
    (tmp_path / "dying_child.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(verb, "_CHILD", "dying_child")
    trials = {trial.word: trial for trial in devices("cpu").trials}
    assert not trials["onnxruntime:cpu"].works
    assert "ended its process (SIGILL)" in trials["onnxruntime:cpu"].why
    if "openvino" in BACKENDS.installed():
        assert trials["openvino:cpu"].works


def test_a_runtime_that_answers_nonsense_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verb, "_MAX_DIFFERENCE", -1.0)
    (trial,) = devices("onnxruntime:cpu").trials
    assert trial.works is False
    assert "off what it must" in trial.why
