"""Boards on loopback, and a network so small that its measurement takes a moment."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgecnn.bundle import Bundle
from edgecnn.runners.remote.connection import SSH_VARIABLE
from tests.builders.colour_network import COLOURS, write_colour_bundle

from .loopback import LoopbackBoard, find_sshd, make_board, write_client_settings


@pytest.fixture
def make_boards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., LoopbackBoard]]:
    """Makes boards, and lets ssh know those that were made; all end with the test."""
    if shutil.which("ssh") is None or find_sshd() is None:
        pytest.skip("needs ssh and sshd: apt-get install openssh-client openssh-server")
    settings = tmp_path / "ssh_config"
    monkeypatch.setenv(SSH_VARIABLE, f"ssh -F {settings}")
    number = itertools.count()
    with contextlib.ExitStack() as boards:
        made: list[LoopbackBoard] = []

        def make(**options: str) -> LoopbackBoard:
            made.append(make_board(tmp_path / f"board{next(number)}", **options))
            boards.callback(made[-1].stop)
            write_client_settings(settings, *made)
            return made[-1]

        yield make


@pytest.fixture
def board(make_boards: Callable[..., LoopbackBoard]) -> LoopbackBoard:
    """One board."""
    return make_boards()


@pytest.fixture
def colour_bundle(tmp_path: Path) -> Bundle:
    """A bundle of a network that says which of three colours a picture has most of."""
    pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
    return write_colour_bundle(tmp_path / "colour.edge", {"fp32": (1.0, 1.0, 1.0)})


@pytest.fixture
def colour_pictures(tmp_path: Path) -> Path:
    """Nine labelled pictures, of which one of each class shows another colour: two in three are right."""
    folder = tmp_path / "pictures"
    for index, name in enumerate(COLOURS):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            picture = np.full((8, 8, 3), 10 + number, np.uint8)
            picture[..., (index + (number == 0)) % 3] = 200
            cv2.imwrite(str(folder / name / f"{name}{number}.png"), picture)
    return folder
