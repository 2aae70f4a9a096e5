"""Layers with SiLU are equalised in ONNX: the float graph answers as before, and int8 loses much less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

import onnx

from edgecnn.bundle import LayerRecord
from edgecnn.converters.int8.onnx.calibration import open_session, run
from edgecnn.converters.int8.onnx.graph import Graph
from edgecnn.converters.int8.onnx.units import equalised_graph, find_units
from edgecnn.converters.int8.onnx.writer import OnnxInt8Writer
from edgecnn.converters.int8.search.plan import Plan
from edgecnn.converters.layers import weights_fingerprint
from edgecnn.errors import ConversionError
from edgecnn.results import UInt8Array

pytestmark = pytest.mark.torch

SIZE_PX, CHANNELS = 16, 8
UNLIKE = np.geomspace(0.02, 20, CHANNELS).astype(np.float32)  # sizes of the channels before SiLU


class Network:
    """An ONNX graph made node by node, with the records that a converter would make of its layers."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.records: list[LayerRecord] = []
        self._random = np.random.default_rng(0)
        self.node("Cast", ["frame"], "cast", to=onnx.TensorProto.FLOAT)
        self.node("Transpose", ["cast"], "frame.transposed", perm=[0, 3, 1, 2])
        self.picture = self.node("Mul", ["frame.transposed", self.constant("scale", np.float32(1 / 64))], "picture")

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(onnx.helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def layer(self, x: str, name: str, inputs: int, *, sizes: Any = 1.0, groups: int = 1, reads: Any = 1.0) -> str:
        """A 3 x 3 convolution; its output channels have these sizes, its input channels are multiplied by `reads`."""
        shape = (CHANNELS, inputs // groups, 3, 3)
        plain = self._random.normal(0, 1 / np.sqrt(9 * inputs / groups), shape)
        outputs_by, inputs_by = np.resize(sizes, CHANNELS), np.resize(reads, shape[1])
        weights = (plain * outputs_by.reshape(-1, 1, 1, 1) * inputs_by.reshape(1, -1, 1, 1)).astype(np.float32)
        mark = weights_fingerprint(weights)
        self.records.append(LayerRecord(name=name, kind="convolution", macs=1, weights=mark))
        constants = [self.constant(f"{name}.w", weights), self.constant(f"{name}.b", np.zeros(CHANNELS, np.float32))]
        return self.node("Conv", [x, *constants], name, pads=[1, 1, 1, 1], group=groups)

    def silu(self, x: str) -> str:
        gate = self.node("Sigmoid", [x], f"{x}.gate")
        return self.node("Mul", [x, gate], f"{x}.silu")

    def save(self, path: Path, *outputs: str) -> Path:
        make = onnx.helper.make_tensor_value_info
        frame = make("frame", onnx.TensorProto.UINT8, [1, SIZE_PX, SIZE_PX, 3])
        ends = [make(name, onnx.TensorProto.FLOAT, None) for name in outputs]
        graph = onnx.helper.make_graph(self.nodes, "made up", [frame], ends, self.constants)
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        return path


def frames(count: int = 6) -> list[UInt8Array]:
    """Smooth random pictures."""
    coarse = np.random.default_rng(1).integers(0, 256, (count, 1, 4, 4, 3), dtype=np.uint8)
    return [np.ascontiguousarray(frame.repeat(4, axis=1).repeat(4, axis=2)) for frame in coarse]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, OnnxInt8Writer]:
    """Layers to equalise, of which two are concatenated and one pooled; and two that are added."""
    network = Network()
    first = network.silu(network.layer(network.picture, "first", 3, sizes=UNLIKE))
    mixed = network.layer(first, "mixed", CHANNELS, reads=1 / np.maximum(UNLIKE, 0.1))
    deep = network.silu(network.layer(mixed, "deep", CHANNELS, groups=CHANNELS))
    second = network.silu(network.layer(network.picture, "second", 3, sizes=UNLIKE))
    pooled = network.node("MaxPool", [second], "pooled", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    joined = network.node("Concat", [pooled, deep], "joined", axis=1)
    added = network.silu(network.layer(joined, "reads both", 2 * CHANNELS))
    other = network.silu(network.layer(network.picture, "added", 3))
    last = network.layer(network.node("Add", [added, other], "sum"), "last", CHANNELS)
    file = network.save(tmp_path_factory.mktemp("uneven") / "float.onnx", last)
    writer = OnnxInt8Writer(file, network.records, threads=1)
    writer.calibrate(frames())
    return file, writer


def answers(model: bytes) -> list[NDArray[Any]]:
    session = open_session(model, threads=1)
    return [run(session, ["last"], frame)[0] for frame in frames()]


def test_layers_whose_output_is_added_or_has_no_silu_are_left_out(made: tuple[Path, OnnxInt8Writer]) -> None:
    assert set(made[1].equalisable) == {"first", "second", "deep"}


def test_the_equalised_float_graph_answers_as_before(made: tuple[Path, OnnxInt8Writer]) -> None:
    graph = Graph(onnx.load(made[0]))
    before = made[0].read_bytes()
    units = find_units(graph, range(len(graph.nodes)))
    assert len(units) == 3
    rng = np.random.default_rng(3)
    equalised = equalised_graph(graph, {unit: rng.uniform(0.01, 9, CHANNELS).astype(np.float32) for unit in units})
    for found, exact in zip(answers(equalised.model.SerializeToString()), answers(before), strict=True):
        assert np.abs(found - exact).max() < 1e-4 * np.abs(exact).max()


def test_int8_loses_much_less_where_channels_are_unlike(made: tuple[Path, OnnxInt8Writer], tmp_path: Path) -> None:
    """Of the layer that reads it, whose weights are large where the channels are small."""
    file, writer = made
    exact = [writer.layer_outputs(file, frame)["mixed"] for frame in frames()]
    lost = {}
    for name, chosen in (("plain", frozenset[str]()), ("equalised", frozenset({"first"}))):
        (tmp_path / name).mkdir()
        plan = Plan(int8_layers=frozenset({"first", "mixed", "deep"}), ranges="least-error", equalised=chosen)
        written = writer.write(plan, tmp_path / name).files[0]
        assert writer.int8_layers(written) == {"first", "mixed", "deep"}
        found = [writer.layer_outputs(written, frame)["mixed"] for frame in frames()]
        lost[name] = np.mean([np.square(a - b).mean() for a, b in zip(found, exact, strict=True)])
    assert lost["equalised"] < 0.2 * lost["plain"], lost


def test_all_of_it_is_int8_with_all_that_can_be_equalised(made: tuple[Path, OnnxInt8Writer], tmp_path: Path) -> None:
    file, writer = made
    everything, equalisable = frozenset(writer.layers), frozenset(writer.equalisable)
    plan = Plan(int8_layers=everything, ranges="least-error", correct_weights=True, equalised=equalisable)
    written = writer.write(plan, tmp_path).files[0]
    assert writer.int8_layers(written) == everything
    for found, exact in zip(answers(written.read_bytes()), answers(file.read_bytes()), strict=True):
        assert np.square(found - exact).mean() < 0.01 * np.square(exact).mean()


def test_an_equalised_layers_output_is_compared_in_its_own_units(
    made: tuple[Path, OnnxInt8Writer], tmp_path: Path
) -> None:
    file, writer = made
    plan = Plan(int8_layers=frozenset(writer.layers), ranges="least-error", equalised=frozenset({"first"}))
    written = writer.write(plan, tmp_path).files[0]
    exact, found = (np.maximum(writer.layer_outputs(each, frames(1)[0])["first"], 0) for each in (file, written))
    largest = exact.max(axis=(0, 2, 3))  # large negative values, of which SiLU leaves nothing, are cut off
    assert (np.abs(found - exact).mean(axis=(0, 2, 3)) < 0.1 * largest).all()
    assert found.max(axis=(0, 2, 3)) == pytest.approx(largest, rel=0.5)


def test_a_plan_that_equalises_what_cannot_be_is_an_error(made: tuple[Path, OnnxInt8Writer], tmp_path: Path) -> None:
    plan = Plan(int8_layers=frozenset({"added"}), equalised=frozenset({"added"}))
    with pytest.raises(ConversionError, match="cannot be equalised here: added"):
        made[1].write(plan, tmp_path)
