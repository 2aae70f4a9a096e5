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

from edgecnn.bundle import Artifact, Bundle, Manifest, SourceRecord, TensorSpec, commit, staged, store_files
from edgecnn.frame import FrameSpec
from edgecnn.runners.remote.connection import SSH_VARIABLE
from edgecnn.tasks import Classify

from .loopback import LoopbackBoard, find_sshd, make_board, write_client_settings

COLOURS = ("blue", "green", "red")


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
    onnx = pytest.importorskip("onnx", reason="needs onnx to make a tiny network")
    pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("GlobalAveragePool", ["planes"], ["means"]),
            helper.make_node("Flatten", ["means"], ["flat"]),
            helper.make_node("Softmax", ["flat"], ["scores"], axis=1),
        ],
        "mean_colour",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 16, 16, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])],
    )
    folder = tmp_path / "colour.edge"
    with staged(folder) as staging:
        file = staging / "network.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(file))
        artifact = Artifact(format="onnx", precision="fp32", files=store_files(staging, "onnx-fp32", [file]))
        manifest = Manifest(
            name="colour",
            source=SourceRecord(model="tests:mean_colour"),
            frame=FrameSpec(height_px=16, width_px=16, fit="stretch"),
            task=Classify(labels=COLOURS),
            inputs=(TensorSpec(name="frame", dtype="uint8", shape=(1, 16, 16, 3)),),
            outputs=(TensorSpec(name="scores", dtype="float32", shape=(1, 3)),),
            parameters=0,
            macs=0,
            artifacts=(artifact,),
        )
        return commit(staging, folder, manifest)


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
