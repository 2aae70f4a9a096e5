"""Tests go through public doors, so that a helper may move without them; each exception has its reason here."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.builders.repository import REPOSITORY

TESTS = REPOSITORY / "tests"
# The program itself, and what a verb is: doors of their own, whose modules are private to keep `edgecnn.<verb>` free.
DOORS = ("edgecnn.cli", "edgecnn._verbs", "edgecnn._version")
SOMEBODY_ELSES = {"os", "sys", "signal", "self", "cls"}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("_")


def private_names(tree: ast.AST) -> Iterator[str]:
    """What is reached into: names imported, attributes of others, and what `setattr` puts something in the place of."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgecnn"):
            assert node.module is not None
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in whole if not name.startswith(DOORS) and any(map(is_private, name.split("."))))
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = node.value.id if isinstance(node.value, ast.Name) else ""
            if owner not in SOMEBODY_ELSES:
                yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setattr":
            words = [word.value for word in node.args[:2] if isinstance(word, ast.Constant)]
            yield from (word for word in words if isinstance(word, str) and is_private(word.rpartition(".")[2]))


EXCEPTIONS = {
    "converters/int8/test_onnx.py": "a damaged weight between two steps of one writing",
    "converters/int8/test_openvino.py": "the graph between two steps of one writing",
    "converters/int8/test_tflite.py": "the moments that a correction is made of",
    "device/test_npu.py": "the graph between two steps of one writing",
    "fuzz/worker.py": "a process that was killed cannot clean up",
    "runners/live/test_counting.py": "memory that must stay bounded, which nobody else is told",
    "runners/live/test_recent.py": "memory that must stay bounded, which nobody else is told",
    "runners/live/test_track.py": "memory that must stay bounded, which nobody else is told",
    "runners/live/test_recordings.py": "a disk or an encoder that fails in the middle of a file",
    "runners/live/test_web_answers.py": "viewers of a page that are behind, which the page itself does not tell",
    "runners/live/test_web_viewers.py": "connections that are open, as the server sees them",
    "sources/test_own_code.py": "a new process's memory of what was allowed",
    "test_public_api.py": "the table that the public names come from",
    "training/test_distill.py": "hooks that must be gone, which torch tells nowhere else",
    "verbs/test_accelerators_answers.py": "the child that times, in this process",
}


def test_tests_reach_into_nothing_private_but_for_these() -> None:
    found: dict[str, set[str]] = {}
    for file in sorted(TESTS.rglob("*.py")):
        names = set(private_names(ast.parse(file.read_text(encoding="utf-8"))))
        if names:
            found[file.relative_to(TESTS).as_posix()] = names
    more = {file: sorted(names) for file, names in found.items() if file not in EXCEPTIONS}
    assert not more, "go through a public door, or make what is needed public"
    assert not EXCEPTIONS.keys() - found.keys(), "no longer needed"


def test_what_is_private_is_recognised() -> None:
    program = """
from edgecnn.tasks import Detect, _hidden
from edgecnn.cli._main import main
from edgecnn.sources import __all__
monkeypatch.setattr("edgecnn.tasks._secret", 1)
monkeypatch.setattr(module, "_seam", 1)
runner._backend.close()
self._own = os._exit
"""
    assert set(private_names(ast.parse(program))) == {
        "edgecnn.tasks._hidden", "edgecnn.tasks._secret", "_seam", "_backend",
    }  # fmt: skip
