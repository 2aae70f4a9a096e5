"""What a device needs runs on Python 3.10 (ROS 2 Humble, JetPack 6): nothing of newer ones is asked of it.

Its grammar is held by ruff's `target-version`.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgecnn.errors import MissingDependencyError
from tests.builders.repository import REPOSITORY

BUILDING = ("converters", "demonstration", "flow", "pruning", "sources", "training")  # want 3.11, as their tools do
ASKS_THE_VERSION = REPOSITORY / "edgecnn" / "older_python.py"
NOT_IN_3_10 = frozenset(
    {
        "LiteralString",
        "Never",
        "NotRequired",
        "Required",
        "Self",
        "TypeVarTuple",
        "Unpack",
        "assert_never",
        "assert_type",
    }
    | {"dataclass_transform", "override", "reveal_type"}
)


def device_files() -> list[Path]:
    package = REPOSITORY / "edgecnn"
    found = [path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in (*BUILDING, "runners")]
    ros = (REPOSITORY / "ros" / "edgecnn_ros" / "edgecnn_ros").glob("*.py")  # ROS 2 Humble has 3.10
    return sorted({*found, *ros, *(REPOSITORY / "runners").rglob("*.py")} - {ASKS_THE_VERSION})


def newer_typing(tree: ast.AST) -> Iterator[str]:
    """Names that typing has from 3.11 on, where they are imported for more than the type checker."""
    if isinstance(tree, ast.If) and isinstance(tree.test, ast.Name) and tree.test.id == "TYPE_CHECKING":
        return
    if isinstance(tree, ast.ImportFrom) and tree.module == "typing":
        yield from (each.name for each in tree.names if each.name in NOT_IN_3_10)
    for child in ast.iter_child_nodes(tree):
        yield from newer_typing(child)


def newer(*files: Path) -> str:
    """What vermin finds in files that 3.10 hasn't; names of typing are looked at apart."""
    pytest.importorskip("vermin", reason="needs vermin: pip install vermin")
    excluded = [word for name in sorted(NOT_IN_3_10) for word in ("--exclude", f"typing.{name}")]
    program = [sys.executable, "-c", "import vermin; vermin.main()"]
    command = [*program, "--quiet", "--no-tips", "--target=3.10-", "--violations", *excluded]
    done = subprocess.run([*command, *map(str, files)], capture_output=True, text=True, check=False)
    assert not done.stderr, done.stderr
    return done.stdout if done.returncode else ""


def test_the_devices_path_asks_for_nothing_newer_than_3_10() -> None:
    assert len(device_files()) > 200
    assert newer(*device_files()) == ""


def test_newer_names_of_typing_are_for_the_type_checker_alone() -> None:
    found = {str(path): [*newer_typing(ast.parse(path.read_text(encoding="utf-8")))] for path in device_files()}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import tomllib",
        "from datetime import UTC",
        "import datetime\nx = datetime.UTC",
        "import hashlib\nhashlib.file_digest(f, 'sha256')",
        "from enum import StrEnum",
        "import asyncio\nasync def f():\n    async with asyncio.timeout(1): pass",
        "raise ExceptionGroup('a', [])",
    ],
)
def test_what_is_newer_would_be_found(code: str, tmp_path: Path) -> None:
    (tmp_path / "newer.py").write_text(code, encoding="utf-8")
    assert "3.11" in newer(tmp_path / "newer.py")


def test_names_of_typing_would_be_found() -> None:
    guarded = "from typing import TYPE_CHECKING, Self\nif TYPE_CHECKING:\n    from typing import Unpack"
    assert list(newer_typing(ast.parse(guarded))) == ["Self"]


def test_who_wants_to_build_with_3_10_is_told_what_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Python" not in str(MissingDependencyError("convert", "torch", extra="convert"))
    monkeypatch.setattr("edgecnn.errors.sys.version_info", (3, 10, 13))
    told = str(MissingDependencyError("convert", "torch", extra="convert"))
    assert "pip install 'edgecnn[convert]', with Python 3.11 or newer: this is 3.10" in told
    assert "3.11" not in str(MissingDependencyError("onnx", "onnxruntime", extra="onnx"))


def test_the_package_says_so() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["project"]["requires-python"] == ">=3.10"
    assert project["tool"]["ruff"]["target-version"] == "py310"
