"""Marks are true: what isn't marked passes where PyTorch, the runtimes or a network are not there.

Beside this, a test that binds or connects in its own thread without its mark fails at once: see tests/needs.py.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.builders.bare_environment import extra, make_without
from tests.builders.repository import REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.torch]

RUNTIMES = extra("onnx") | extra("openvino") | extra("tflite") | extra("ncnn")
# PyTorch and the converters, but for `onnx`, with which tests write small files.
TORCH = (extra("train") | extra("demo")) - extra("eval") - RUNTIMES - {"onnx"}
OTHERS = "not server and not slow and not device"
# In the reason of a test that is skipped because of what is not there.
_NOT_THERE = re.compile(
    r"edgecnn\[(convert|train|demo|onnx|openvino|tflite|ncnn)\]|torch|onnx|openvino|litert|ncnn", re.IGNORECASE
)
# Notes what becomes of each test, one a line.
_NOTES = """
import json, os, pytest

def note(name, outcome, why=""):
    why = why[2] if isinstance(why, tuple) else str(why or "")  # of a skip: where, the line, the reason
    with open(os.environ["EDGECNN_OUTCOMES"], "a", encoding="utf-8") as file:
        file.write(json.dumps([name, outcome, why]) + "\\n")

def pytest_collection_finish(session):
    if session.config.option.collectonly:
        for item in session.items:
            note(item.nodeid, "collected", " ".join(mark.name for mark in item.iter_markers()))

def pytest_collectreport(report):
    if report.outcome != "passed":
        note(report.nodeid, report.outcome, report.longrepr)

def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        note(report.nodeid, report.outcome, report.longrepr)
"""


def run_pytest(python: str | Path, folder: Path, *words: str, found_there: bool = False) -> list[list[str]]:
    """Run tests of this repository with another Python: (name, outcome, why) of each.

    Args:
        folder: for what is noted, and what notes it.
        found_there: whether that Python finds modules in the folder by itself.
    """
    outcomes = folder / "outcomes.jsonl"
    (folder / "noting_outcomes.py").write_text(_NOTES)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "EDGECNN_"))}
    if not found_there:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    options = ("-q", "-p", "noting_outcomes", "-p", "no:cacheprovider", "--continue-on-collection-errors")
    done = subprocess.run(
        [str(python), "-m", "pytest", *options, *words],
        cwd=REPOSITORY,
        env={**environment, "EDGECNN_OUTCOMES": str(outcomes)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
    return [json.loads(line) for line in outcomes.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every test and its marks, where all is installed."""
    found = run_pytest(sys.executable, tmp_path_factory.mktemp("all"), "--collect-only", "-m", OTHERS)
    return {name: set(marks.split()) for name, outcome, marks in found if outcome == "collected"}


@pytest.mark.parametrize(
    ("missing", "marks"),
    [(TORCH, {"runtime"}), (TORCH | RUNTIMES, set[str]())],
    ids=["a device", "a machine without runtimes"],
)
def test_what_is_not_marked_passes_without_it(
    missing: set[str], marks: set[str], marked: dict[str, set[str]], tmp_path: Path
) -> None:
    wanted = {name for name, found in marked.items() if found & {"torch", "runtime"} == marks}
    assert len(wanted) > 100
    python = make_without(tmp_path / "environment", missing, network=False)
    words = f"not torch and {'runtime' if marks else 'not runtime'} and {OTHERS}"
    outcomes: dict[str, Any] = {}
    (site,) = (tmp_path / "environment").glob("lib/python*/site-packages")
    for name, outcome, why in run_pytest(python, site, "-m", words, found_there=True):
        if outcomes.get(name, ("passed",))[0] == "passed":  # what failed in its teardown too
            outcomes[name] = outcome, why
    wrong = []
    for name in sorted(wanted):
        outcome, why = outcomes.get(name) or outcomes.get(name.partition("::")[0]) or ("failed", "was not collected")
        if outcome == "failed" or (outcome == "skipped" and _NOT_THERE.search(why)):
            wrong.append(f"{name}: {why[-300:]}")
    assert wrong == []
