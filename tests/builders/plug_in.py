"""Packages that add parts, installed as `pip install .` installs them, and the program that finds them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

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


def edgecnn_beside(
    site: Path | None, *words: str, cwd: Path, code: int = 0, columns: int = 200
) -> subprocess.CompletedProcess[str]:
    """Run `edgecnn WORDS` where what is in `site` is installed."""
    path = os.pathsep.join(filter(None, (str(site or ""), os.environ.get("PYTHONPATH", ""))))
    done = subprocess.run(
        [sys.executable, "-m", "edgecnn", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path, "COLUMNS": str(columns)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done
