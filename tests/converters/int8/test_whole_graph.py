"""ONNX graphs with every operator quantized, as NPUs want them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgecnn.converters.int8.onnx.calibration import collect, open_session
from edgecnn.converters.int8.onnx.correction import Corrections
from edgecnn.converters.int8.onnx.graph import Graph
from edgecnn.converters.int8.onnx.whole_graph import layers_with_weights, quantized_whole, tensors_with_ranges
from edgecnn.converters.int8.search.ranges import TensorHistogram
from edgecnn.errors import ConversionError
from edgecnn.results import UInt8Array

pytestmark = pytest.mark.torch

HEIGHT, WIDTH = 12, 16


def constant(name: str, values: Any) -> Any:
    return numpy_helper.from_array(np.asarray(values), name)


@pytest.fixture
def graph() -> Graph:
    """Frame → convolution, ReLU6 → SiLU'd depthwise convolution → two branches and what a detector decodes of them."""
    rng = np.random.default_rng(0)
    weights = {
        "shift": np.array([100, 110, 120], np.float32).reshape(1, 3, 1, 1),
        "w1": rng.normal(0, 0.02, (8, 3, 3, 3)).astype(np.float32),
        "b1": rng.normal(0, 0.1, 8).astype(np.float32),
        "w2": rng.normal(0, 0.3, (8, 1, 3, 3)).astype(np.float32),
        "w3": rng.normal(0, 0.3, (4, 8, 1, 1)).astype(np.float32),
        "b3": np.zeros(4, np.float32),
        "zero": np.float32(0),
        "six": np.float32(6),
        "stride": np.float32(8),
        "rows": np.array([1, 4, -1], np.int64),
    }
    nodes = [
        helper.make_node("Transpose", ["frame"], ["chw"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["chw"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["values", "shift"], ["centred"]),
        helper.make_node("Conv", ["centred", "w1", "b1"], ["c1"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Clip", ["c1", "zero", "six"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1], group=8),
        helper.make_node("Sigmoid", ["c2"], ["gate"]),
        helper.make_node("Mul", ["c2", "gate"], ["silu"]),
        helper.make_node("MaxPool", ["silu"], ["pooled"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["silu", "pooled"], ["both"], axis=1),
        helper.make_node("Add", ["silu", "pooled"], ["sum"]),
        helper.make_node("Conv", ["sum", "w3", "b3"], ["c3"]),
        helper.make_node("Reshape", ["c3", "rows"], ["view"]),
        helper.make_node("Sigmoid", ["view"], ["scores"]),
        helper.make_node("Mul", ["view", "stride"], ["boxes"]),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("boxes", "scores", "both")],
            [constant(name, values) for name, values in weights.items()],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    return Graph(onnx.shape_inference.infer_shapes(model))


@pytest.fixture
def frames() -> list[UInt8Array]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (1, HEIGHT, WIDTH, 3), dtype=np.uint8) for _ in range(6)]


def run(model: Any, frame: UInt8Array) -> list[NDArray[Any]]:
    session = open_session(model.SerializeToString(), threads=1)
    return list(session.run(["boxes", "scores", "both"], {"frame": frame}))


def made(graph: Graph, frames: Sequence[UInt8Array], bits: int) -> Any:
    layers = layers_with_weights(graph)
    corrections = Corrections(graph, layers, frames=len(frames))
    wanted = [*tensors_with_ranges(graph), *(graph.nodes[index].input[0] for index in layers)]
    seen = collect(graph, list(dict.fromkeys(wanted)), frames, threads=1, observe=corrections.observe)

    def range_of(tensor: str, _bits: int) -> tuple[float, float]:
        histogram: TensorHistogram = seen[tensor]
        return histogram.low, histogram.high

    return quantized_whole(graph, activation_bits=bits, range_of=range_of, corrections=corrections)


@pytest.mark.parametrize(("bits", "most"), [(16, 0.02), (8, 0.06)])
def test_a_quantized_graph_answers_almost_as_the_float_one_does(
    graph: Graph, frames: list[UInt8Array], bits: int, most: float
) -> None:
    model = made(graph, frames, bits)
    onnx.checker.check_model(model)
    for frame in frames:
        for answer, right in zip(run(model, frame), run(graph.model, frame), strict=True):
            assert np.abs(answer - right).max() <= most * np.abs(right).max()


def test_sixteen_bits_are_nearer_than_eight(graph: Graph, frames: list[UInt8Array]) -> None:
    right = [run(graph.model, frame)[1] for frame in frames]
    noise = []
    for bits in (8, 16):
        model = made(graph, frames, bits)
        noise.append(np.mean([(run(model, f)[1] - r) ** 2 for f, r in zip(frames, right, strict=True)]))
    assert noise[1] < noise[0] / 4


@pytest.mark.parametrize("bits", [8, 16])
def test_every_operator_reads_and_makes_quantized_values(graph: Graph, frames: list[UInt8Array], bits: int) -> None:
    nodes = list(made(graph, frames, bits).graph.node)
    makers = {name: node.op_type for node in nodes for name in node.output}
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    operators = [n for n in nodes if n.op_type not in ("QuantizeLinear", "DequantizeLinear")]
    assert sorted(n.op_type for n in operators) == sorted(
        node.op_type
        for node in graph.nodes
        if node.op_type not in ("Cast", "Clip")  # the frame's bytes are levels; int8 saturates where the Clip cut
    )
    for node in operators:
        if node.output[0] == "chw":
            continue  # bytes
        assert makers[node.input[0]] == "DequantizeLinear", node.name
        assert {kind for name in node.output for kind in readers[name]} == {"QuantizeLinear"}, node.name


def test_what_follows_the_last_layer_is_never_in_eight_bits(graph: Graph, frames: list[UInt8Array]) -> None:
    model = made(graph, frames, 8)
    types = {c.name: c.data_type for c in model.graph.initializer}
    for name in ("boxes", "scores", "view"):
        assert types[f"{name}.zero"] == TensorProto.UINT16
    for name in ("r1", "silu", "c3"):
        assert types[f"{name}.zero"] == TensorProto.UINT8


def test_what_only_moves_values_has_the_range_of_what_it_moves(graph: Graph, frames: list[UInt8Array]) -> None:
    constants = {c.name: numpy_helper.to_array(c) for c in made(graph, frames, 16).graph.initializer}
    assert constants["pooled.scale"] == constants["silu.scale"]
    assert constants["view.scale"] == constants["c3.scale"]
    assert constants["gate.scale"] == np.float32(2.0**-16)  # probabilities: known without looking
    assert constants["values.scale"] == 1  # a frame's bytes are its levels


def test_a_tensor_that_was_always_zero_gets_a_scale_all_the_same(graph: Graph) -> None:
    model = quantized_whole(graph, activation_bits=16, range_of=lambda tensor, bits: (0.0, 0.0))
    scales = [numpy_helper.to_array(c) for c in model.graph.initializer if c.name.endswith(".scale")]
    assert all((scale > 0).all() and np.isfinite(scale).all() for scale in scales)
    onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_weights_that_are_not_numbers_are_refused(graph: Graph, frames: list[UInt8Array]) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(graph.model)
    for tensor in broken.graph.initializer:
        if tensor.name == "w2":
            tensor.CopyFrom(constant("w2", np.full((8, 1, 3, 3), np.nan, np.float32)))
    with pytest.raises(ConversionError, match="the weights of layer 'c2' hold NaN or infinity"):
        quantized_whole(Graph(broken), activation_bits=8, range_of=lambda tensor, bits: (-1.0, 1.0))


def test_a_gather_that_takes_all_in_order_is_written_as_the_reshape_that_it_is() -> None:
    nodes = [
        helper.make_node("Cast", ["frame"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "axes"], ["mean"], keepdims=1),
        helper.make_node("Reshape", ["mean", "flat"], ["vector"]),
        helper.make_node("Gather", ["vector", "places"], ["averages"]),
        helper.make_node("Gather", ["vector", "turned"], ["others"]),
    ]
    places = np.arange(3).reshape(1, 3, 1, 1)
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "averages",
            [helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, 4, 5, 3])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("averages", "others")],
            [
                constant("axes", np.array([1, 2])),
                constant("flat", np.array([3])),
                constant("places", places),
                constant("turned", places[:, ::-1].copy()),
            ],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    graph = Graph(onnx.shape_inference.infer_shapes(model))
    written = quantized_whole(graph, activation_bits=16, range_of=lambda tensor, bits: (0.0, 255.0))
    assert [n.op_type for n in written.graph.node if n.output[0] in ("averages.exact", "others.exact")] == [
        "Reshape",
        "Gather",  # in another order: no reshape
    ]
    frame = np.random.default_rng(0).integers(0, 256, (1, 4, 5, 3), dtype=np.uint8)
    answers = [
        open_session(m.SerializeToString(), threads=1).run(["averages", "others"], {"frame": frame})
        for m in (written, model)
    ]
    for answer, right in zip(*answers, strict=True):
        assert answer.shape == right.shape
        np.testing.assert_allclose(answer, right, atol=0.02)
