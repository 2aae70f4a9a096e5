"""Files of others, read whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edgecnn.bounded import read_bounded


def test_a_file_is_read_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="larger than") as refused:
        read_bounded(tmp_path / "a", 4)
    assert refused.value.errno == errno.EFBIG


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_that_nobody_writes_to_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file"):
        read_bounded(tmp_path / "pipe", 100)


def test_a_nul_in_a_name_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="null"):
        read_bounded(tmp_path / "a\0b", 100)
