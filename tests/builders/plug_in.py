"""Packages that add parts, installed as `pip install .` installs them, and the program that finds them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.builders.repository import REPOSITORY

HOW_TO = REPOSITORY / "docs" / "how-to"
TOYS = {
    "edgecnn_toys.py": "add-a-part.md",
    "edgecnn_crowd.py": "add-a-task.md",
    "program.py": "add-a-converter.md",
    "edgecnn_drawn.py": "add-a-camera-or-a-sink.md",
}


def file_in(page: str, name: str) -> str:
    """The file that a how-to has its reader save."""
    text = (HOW_TO / page).read_text(encoding="utf-8")
    found = re.search(rf"<!-- file: {re.escape(name)} -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None, f"{page} has no {name}"
    return found[1]


def project_in(page: str) -> str:
    """The first pyproject.toml in a how-to."""
    found = re.search(r"```toml\n(.*?)```", (HOW_TO / page).read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None, page
    return found[1]


def install(folder: Path, project: str, modules: Mapping[str, str]) -> Path:
    """Install a package with pip, without an index; returns the folder in which Python finds it.

    Args:
        project: its pyproject.toml.
        modules: its files, by name.
    """
    pytest.importorskip("setuptools", reason="needs setuptools")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {"pyproject.toml": project, **modules}.items():
        (folder / name).write_text(text, encoding="utf-8")
    words = ("install", "-q", "--no-deps", "--no-build-isolation", "--no-index", "--target", "site", ".")
    done = subprocess.run(
        [sys.executable, "-m", "pip", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


_MANY = """
import contextlib, dataclasses, io, json, os, sys
from edgecnn.cli._main import main
from edgecnn.measure import int8_speedup
int8_speedup.PROFILE = dataclasses.replace(int8_speedup.PROFILE, samples=8, seconds=0.1, rounds=4, warmup_seconds=0.1)
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print is no answer
for line in sys.stdin:
    words, folder = json.loads(line)
    os.chdir(folder)
    said, told = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
        code = main(words)
    texts = [each.buffer.getvalue().decode() for each in (said, told)]
    print(json.dumps([code, *texts]), file=answers, flush=True)
"""


class Session:
    """A program that runs one command after the other where what is in `site` is installed; torch is imported once."""

    def __init__(self, site: Path, *, columns: int = 200) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MANY],
            env={**os.environ, "PYTHONPATH": _path_with(site), "COLUMNS": str(columns)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def edgecnn(self, *words: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """`edgecnn WORDS` in a folder."""
        assert self._process.stdin and self._process.stdout
        print(json.dumps([words, str(cwd)]), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        assert answer, f"{' '.join(words)} ended the program"
        found, said, told = json.loads(answer)
        assert found == code, f"{' '.join(words)}\n{said}\n{told}"
        return subprocess.CompletedProcess(words, found, said, told)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:  # closes its input, and waits
            pass


def _path_with(site: Path | None) -> str:
    return os.pathsep.join(filter(None, (str(site or ""), os.environ.get("PYTHONPATH", ""))))


def edgecnn_beside(
    site: Path | None, *words: str, cwd: Path, code: int = 0, columns: int = 200
) -> subprocess.CompletedProcess[str]:
    """Run `edgecnn WORDS` where what is in `site` is installed."""
    done = subprocess.run(
        [sys.executable, "-m", "edgecnn", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": _path_with(site), "COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done
