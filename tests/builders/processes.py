"""Programs in processes of their own, which a test may kill."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.builders.repository import REPOSITORY


def start_edgecnn(words: list[str], folder: Path) -> subprocess.Popen[str]:
    """Begin `edgecnn WORDS` in a folder, whose modules it finds."""
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "edgecnn", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_python(program: str, *words: str) -> subprocess.Popen[str]:
    """Begin a Python program that may import edgecnn; a fork would inherit the locks of other libraries' threads."""
    paths = os.pathsep.join([str(REPOSITORY), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", program, *words],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )
