"""Files of others, read whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgecnn.bounded import read_beginning, read_bounded
from edgecnn.bundle.certificates import chain_of
from edgecnn.bundle.keys import private_key, trusted_keys
from edgecnn.datasets.data_yaml import description_of
from edgecnn.datasets.untrusted_documents import read_yaml
from edgecnn.errors import EdgeCnnError
from edgecnn.measure.speed_difference import read_measured
from edgecnn.runners.litert.file import read_file
from edgecnn.runners.ncnn.param import read_layers
from edgecnn.sources.user_options import read_labels


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


def test_of_a_large_file_only_the_beginning_is_read(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as large:
        large.write(b"12345")
        large.truncate(1 << 40)  # sparse; more than the memory
    assert read_beginning(tmp_path / "large", 5) == b"12345"


@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_measured(path),
        lambda path: trusted_keys(path),
        lambda path: private_key(path),
        lambda path: chain_of(path, None),  # type: ignore[arg-type]
        lambda path: read_labels(path),
        lambda path: read_file(path),
        lambda path: read_layers(path),
        lambda path: read_yaml(path),
    ],
    ids=["measurement", "public key", "private key", "certificates", "class names", "TFLite", "ncnn", "YAML"],
)
@pytest.mark.parametrize("what", ["endless", "pipe", "folder", "absent", "impossible name", "large"])
def test_every_reader_of_small_files_refuses_what_is_none(
    tmp_path: Path, what: str, read: Callable[[Path], Any]
) -> None:
    path = {"endless": Path("/dev/zero"), "folder": tmp_path, "impossible name": Path("a\0b")}.get(
        what, tmp_path / what
    )
    if what in ("pipe", "endless") and not hasattr(os, "mkfifo"):
        pytest.skip("needs named pipes and devices")
    if what == "pipe":
        os.mkfifo(path)
    if what == "large":
        with path.open("wb") as large:
            large.truncate(1 << 40)
    with pytest.raises(EdgeCnnError) as refused:
        read(path)
    assert len(str(refused.value)) < 400


def test_a_pipe_among_a_data_sets_files_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("names: [cat, dog]\ntrain: .\n")
    (tmp_path / "folder.yaml").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.yaml")
    described = description_of(tmp_path)
    assert described is not None
    assert described.names == ("cat", "dog")
