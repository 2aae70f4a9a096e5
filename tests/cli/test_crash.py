"""A crash of native code in the program itself: it cannot be caught, and is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.torch
def test_a_crash_while_a_network_is_built_says_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text("import ctypes\n\n\ndef factory():\n    ctypes.string_at(0)\n")
    done = subprocess.run(
        [sys.executable, "-m", "edgecnn", "convert", "crashing:factory", "--out", "net.edge"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[2])])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGSEGV
    assert "Segmentation fault" in done.stderr and 'crashing.py", line 5 in factory' in done.stderr
    assert not (tmp_path / "net.edge").exists()
