"""A network that says which of three colours a frame has most of, written with onnx alone: no torch, no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from edgecnn.bundle import Artifact, Bundle, Manifest, SourceRecord, TensorSpec, commit, staged, store_files
from edgecnn.frame import FrameSpec
from edgecnn.tasks import Classify

COLOURS = ("blue", "green", "red")
SIDE_PX = 16


def write_colour_network(path: Path, gains: Sequence[float] = (1.0, 1.0, 1.0)) -> None:
    """The mean of each channel times its gain, as three probabilities; skips where onnx is not installed."""
    onnx = pytest.importorskip("onnx", reason="needs onnx to make a tiny network")
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
            helper.make_node("GlobalAveragePool", ["planes"], ["means"]),
            helper.make_node("Flatten", ["means"], ["flat"]),
            helper.make_node("Mul", ["flat", "gains"], ["amplified"]),
            helper.make_node("Softmax", ["amplified"], ["scores"], axis=1),
        ],
        "mean_colour",
        [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, SIDE_PX, SIDE_PX, 3])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])],
        [helper.make_tensor("gains", TensorProto.FLOAT, [3], list(gains))],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def write_colour_bundle(folder: Path, networks: Mapping[str, Sequence[float]]) -> Bundle:
    """A bundle of such networks in ONNX.

    Args:
        folder: becomes the bundle.
        networks: precision's name → gains; what runs is float, whatever the name.
    """
    with staged(folder) as staging:
        artifacts = []
        for precision, gains in networks.items():
            write_colour_network(staging / "network.onnx", gains)
            files = store_files(staging, f"onnx-{precision}", [staging / "network.onnx"])
            artifacts.append(Artifact(format="onnx", precision=precision, files=files))
        manifest = Manifest(
            name=folder.stem,
            source=SourceRecord(model="tests:mean_colour", weights="gains.pth"),
            frame=FrameSpec(height_px=SIDE_PX, width_px=SIDE_PX, fit="stretch"),
            task=Classify(labels=COLOURS),
            inputs=(TensorSpec(name="frame", dtype="uint8", shape=(1, SIDE_PX, SIDE_PX, 3)),),
            outputs=(TensorSpec(name="scores", dtype="float32", shape=(1, 3)),),
            parameters=3,
            macs=3,
            artifacts=tuple(artifacts),
        )
        return commit(staging, folder, manifest)
