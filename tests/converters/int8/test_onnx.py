"""Int8 ONNX files: what the plan says is what ONNX Runtime computes in int8, and no more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="needs onnx: pip install 'edgecnn[convert]'")
pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")

import onnx
import onnxruntime
import torch

from edgecnn.bundle import LayerRecord, TensorSpec
from edgecnn.converters.int8.onnx import rules
from edgecnn.converters.int8.onnx.calibration import collect
from edgecnn.converters.int8.onnx.graph import Graph
from edgecnn.converters.int8.onnx.writer import OnnxInt8Writer
from edgecnn.converters.int8.search.plan import Plan, RangeMethod
from edgecnn.converters.layers import weights_fingerprint
from edgecnn.errors import ConversionError
from edgecnn.formats.devices import parse_device
from edgecnn.runners.onnxruntime.backend import OnnxRuntimeBackend, session_options

pytestmark = pytest.mark.torch

SIZE_PX = 16
KERNEL = {"strides": [1, 1], "dilations": [1, 1], "pads": [1, 1]}  # the defaults of a 3 × 3 convolution
METHODS: list[RangeMethod] = ["percentile", "least-error", "min-max"]


class Network:
    """An ONNX graph made node by node, on a frame as the converters make it: "picture" is float, about -1 to 1."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.records: list[LayerRecord] = []
        self.add("Transpose", ["frame"], "planes", perm=[0, 3, 1, 2])
        self.add("Cast", ["planes"], "levels", to=onnx.TensorProto.FLOAT)
        self.add("Sub", ["levels", self.constant("shift", np.full((1, 3, 1, 1), 128, np.float32))], "shifted")
        self.add("Mul", ["shifted", self.constant("factor", np.float32(1 / 128))], "picture")

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        outputs = output.split()
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), outputs, f"node_{outputs[0]}", **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        self.constants.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def conv(
        self,
        source: str,
        name: str,
        shape: tuple[int, int, int, int],
        *,
        weights: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        **attributes: Any,
    ) -> str:
        """A convolution as large in its answer as in its input; its layer is called as its output is."""
        if weights is None:
            weights = self.rng.normal(0, (1.5 / np.prod(shape[1:])) ** 0.5, shape)
        bias = self.rng.normal(0, 0.1, shape[0]) if bias is None else bias
        weights, bias = weights.astype(np.float32), bias.astype(np.float32)
        inputs = [source, self.constant(f"{name}.w", weights), self.constant(f"{name}.b", bias)]
        self.record(name, weights)
        return self.add("Conv", inputs, name, **{"kernel_shape": shape[2:], "pads": [shape[2] // 2] * 4} | attributes)

    def linear(self, source: str, name: str, inputs: int, outputs: int) -> str:
        weights = self.rng.normal(0, inputs**-0.5, (outputs, inputs)).astype(np.float32)
        self.record(name, weights)
        names = [self.constant(f"{name}.w", weights), self.constant(f"{name}.b", np.zeros(outputs, np.float32))]
        return self.add("Gemm", [source, *names], name, transB=1)

    def record(self, name: str, weights: np.ndarray) -> None:
        mark = weights_fingerprint(weights)
        self.records.append(LayerRecord(name=name, kind="convolution", macs=1, weights=mark))

    def model(self, *outputs: str) -> Any:
        info = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            self.nodes,
            "network",
            [info("frame", onnx.TensorProto.UINT8, [1, SIZE_PX, SIZE_PX, 3])],
            [info(output, onnx.TensorProto.FLOAT, None) for output in outputs],
            self.constants,
        )
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def frames(count: int = 8, seed: int = 5) -> list[np.ndarray]:
    """Smooth coloured blobs, uint8 [1, height, width, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 1, 4, 4, 3), dtype=np.uint8)
    return list(coarse.repeat(SIZE_PX // 4, axis=2).repeat(SIZE_PX // 4, axis=3))


def writer_of(network: Network, folder: Path, *outputs: str, calibrated: bool = True) -> OnnxInt8Writer:
    path = folder / "float.onnx"
    onnx.save(network.model(*outputs), path)
    writer = OnnxInt8Writer(path, network.records, threads=1)
    if calibrated:
        writer.calibrate(frames())
    return writer


def written(
    writer: OnnxInt8Writer,
    folder: Path,
    layers: Sequence[str] | None = None,
    *,
    ranges: RangeMethod = "min-max",
    correct_weights: bool = False,
) -> Path:
    chosen = frozenset(writer.layers if layers is None else layers)
    target = folder / f"int8-{len(list(folder.iterdir()))}"
    target.mkdir()
    return writer.write(Plan(int8_layers=chosen, ranges=ranges, correct_weights=correct_weights), target).files[0]


def answers(path: Path, given: Sequence[np.ndarray] | None = None) -> np.ndarray:
    """The first output for each frame; without frames, for some that took no part in calibration."""
    session = onnxruntime.InferenceSession(path, session_options(1), providers=["CPUExecutionProvider"])
    return np.stack([session.run(None, {"frame": frame})[0] for frame in given or frames(4, seed=9)])


def signal_to_noise_db(found: np.ndarray, right: np.ndarray) -> float:
    return float(10 * np.log10((right**2).sum() / ((found - right) ** 2).sum()))


def runtime_operators(path: Path) -> Counter[str]:
    """What ONNX Runtime makes of a file."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path.with_name("optimized.onnx"))
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def small() -> Network:
    """Three convolutions, Relu between them, and a classifier behind an average."""
    network = Network()
    network.conv("picture", "stem", (8, 3, 3, 3), strides=[2, 2])
    network.add("Relu", ["stem"], "stem_active")
    network.conv("stem_active", "depthwise", (8, 1, 3, 3), group=8)
    network.add(
        "Clip", ["depthwise", network.constant("low", np.float32(0)), network.constant("high", np.float32(6))], "cut"
    )
    network.conv("cut", "pointwise", (16, 8, 1, 1))
    network.add("Relu", ["pointwise"], "pointwise_active")
    network.add("ReduceMean", ["pointwise_active", network.constant("axes", np.array([2, 3]))], "mean", keepdims=0)
    network.linear("mean", "classifier", 16, 5)
    network.add("Softmax", ["classifier"], "scores")
    return network


def gated() -> Network:
    """SiLU, a residual sum, a concatenation, pooling and resizing between convolutions; a sigmoid at the end."""
    network = Network(1)

    def silu(name: str) -> str:
        network.add("Sigmoid", [name], f"{name}_gate")
        return network.add("Mul", [name, f"{name}_gate"], f"{name}_active")

    first = silu(network.conv("picture", "first", (16, 3, 3, 3)))
    second = silu(network.conv(first, "second", (16, 16, 3, 3)))
    network.add("Add", [first, second], "sum")
    network.add("MaxPool", ["sum"], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    third = silu(network.conv("pooled", "third", (16, 16, 1, 1)))
    sizes = network.constant("twice", np.array([1, 1, 2, 2], np.float32))
    network.add("Resize", [third, "", sizes], "large", mode="nearest")
    network.add("Concat", ["large", "sum"], "both", axis=1)
    network.conv("both", "head", (4, 32, 1, 1))
    network.add("Sigmoid", ["head"], "answer")
    return network


def test_layers_are_found_by_their_weights_in_the_order_of_execution(tmp_path: Path) -> None:
    network = small()
    network.records.reverse()
    network.record("of another network", np.ones(4, np.float32))
    writer = writer_of(network, tmp_path, "scores", calibrated=False)
    assert list(writer.layers) == ["stem", "depthwise", "pointwise", "classifier"]


@pytest.mark.parametrize("ranges", METHODS)
@pytest.mark.parametrize("make", [small, gated])
def test_every_layer_of_the_plan_really_runs_in_int8(
    make: Callable[[], Network], ranges: RangeMethod, tmp_path: Path
) -> None:
    writer = writer_of(make(), tmp_path, "classifier" if make is small else "head")
    path = written(writer, tmp_path, ranges=ranges)
    assert writer.int8_layers(path) == set(writer.layers)
    assert writer.int8_layers(tmp_path / "float.onnx") == frozenset()
    onnx.checker.check_model(onnx.load(path), full_check=True)
    assert signal_to_noise_db(answers(path), answers(tmp_path / "float.onnx")) > 17


def test_the_back_end_runs_what_was_written(tmp_path: Path) -> None:
    writer = writer_of(small(), tmp_path, "scores")
    path = written(writer, tmp_path)
    spec = TensorSpec(name="scores", dtype="float32", shape=(1, 5))
    backend = OnnxRuntimeBackend(path, outputs=[spec], device=parse_device("cpu"), precision="int8", threads=1)
    scores = backend.infer(frames(1)[0])["scores"]
    assert scores.sum() == pytest.approx(1, abs=1e-4)


def test_layers_outside_the_plan_stay_float(tmp_path: Path) -> None:
    writer = writer_of(small(), tmp_path, "scores")
    for layer in writer.layers:
        assert writer.int8_layers(written(writer, tmp_path, [layer])) == {layer}
    nothing = written(writer, tmp_path, [])
    assert writer.int8_layers(nothing) == frozenset()
    np.testing.assert_array_equal(answers(nothing), answers(tmp_path / "float.onnx"))


def test_a_float_layer_next_to_an_int8_one_reads_exact_values(tmp_path: Path) -> None:
    network = Network()
    network.conv("picture", "int8", (4, 3, 3, 3))
    network.conv("picture", "float", (4, 3, 3, 3))
    network.add("Concat", ["int8", "float"], "answer", axis=1)
    writer = writer_of(network, tmp_path, "answer")
    difference = answers(written(writer, tmp_path, ["int8"])) - answers(tmp_path / "float.onnx")
    assert np.abs(difference[:, :, :4]).max() > 1e-3
    assert np.abs(difference[:, :, 4:]).max() < 1e-5  # the runtime's own, of another order of sums


def test_a_float_layer_between_int8_ones_computes_in_float(tmp_path: Path) -> None:
    writer = writer_of(small(), tmp_path, "scores")
    assert runtime_operators(written(writer, tmp_path))["QLinearConv"] == 3
    for layer in ("depthwise", "pointwise"):
        path = written(writer, tmp_path, sorted(set(writer.layers) - {layer}))
        assert runtime_operators(path)["QLinearConv"] == 2
        options = session_options(1)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        as_written = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        expected = np.stack([as_written.run(None, {"frame": frame})[0] for frame in frames(4, seed=9)])
        np.testing.assert_allclose(answers(path), expected, atol=2e-3)


def test_operators_between_int8_layers_are_int8_and_none_after_the_last(tmp_path: Path) -> None:
    writer = writer_of(gated(), tmp_path, "answer")
    operators = runtime_operators(written(writer, tmp_path))
    counts = {name: operators[name] for name in ("QLinearAdd", "QLinearConcat", "QLinearSigmoid", "QLinearMul")}
    assert counts == {"QLinearAdd": 1, "QLinearConcat": 1, "QLinearSigmoid": 3, "QLinearMul": 3}
    assert operators["Sigmoid"] == 1  # the network's answer
    assert operators["QuantizeLinear"] == 1  # of the picture: nothing goes to float and back


def test_operators_are_float_where_a_float_layer_feeds_them(tmp_path: Path) -> None:
    writer = writer_of(gated(), tmp_path, "answer")
    operators = runtime_operators(written(writer, tmp_path, ["first", "third", "head"]))
    assert operators["QLinearAdd"] == 0  # `second` is float
    assert operators["QLinearConcat"] == 0
    assert runtime_operators(written(writer, tmp_path, ["first"]))["QLinearMul"] == 0  # nothing reads it in int8


def test_relu_and_clip_disappear_into_the_convolution(tmp_path: Path) -> None:
    writer = writer_of(small(), tmp_path, "scores")
    assert not {"Relu", "Clip"} & set(runtime_operators(written(writer, tmp_path)))
    nodes = onnx.load(written(writer, tmp_path, ["stem"])).graph.node
    assert [node.op_type for node in nodes].count("Relu") == 1  # that of the float layer


def test_hard_swish_and_its_gate_are_int8(tmp_path: Path) -> None:
    network = Network(2)
    network.conv("picture", "first", (16, 3, 3, 3), weights=network.rng.normal(0, 1, (16, 3, 3, 3)))
    network.add("HardSwish", ["first"], "swish")
    network.conv("swish", "second", (16, 16, 1, 1))
    network.add("HardSigmoid", ["second"], "gate", alpha=1 / 6)
    network.add("Mul", ["swish", "gate"], "gated")
    network.conv("gated", "third", (16, 16, 1, 1))
    network.add("HardSigmoid", ["third"], "steep", alpha=0.4)  # not the usual one
    network.conv("steep", "last", (4, 16, 1, 1))
    writer = writer_of(network, tmp_path, "last")
    path = written(writer, tmp_path)
    operators = runtime_operators(path)
    assert (operators["QLinearAdd"], operators["QLinearMul"], operators["HardSigmoid"]) == (2, 2, 1)
    assert signal_to_noise_db(answers(path), answers(tmp_path / "float.onnx")) > 25
    found = writer.layer_outputs(path, frames(1)[0])
    assert signal_to_noise_db(found["third"], writer.layer_outputs(tmp_path / "float.onnx", frames(1)[0])["third"]) > 25


def test_constants_of_the_frames_channels_are_spread_over_a_row(tmp_path: Path) -> None:
    writer = writer_of(small(), tmp_path, "scores")
    constants = {tensor.name: tensor.dims for tensor in onnx.load(written(writer, tmp_path)).graph.initializer}
    assert constants["shift.row"] == [1, 3, 1, SIZE_PX]
    assert "shift" not in constants


def test_a_clip_above_zero_does_its_own_work(tmp_path: Path) -> None:
    network = Network()
    network.conv("picture", "conv", (4, 3, 3, 3))
    network.add("Clip", ["conv", network.constant("low", np.float32(0.5))], "cut")
    network.conv("cut", "last", (4, 4, 1, 1))
    writer = writer_of(network, tmp_path, "last")
    path = written(writer, tmp_path)
    assert "Clip" in runtime_operators(path)
    assert writer.int8_layers(path) == {"conv", "last"}
    assert signal_to_noise_db(answers(path), answers(tmp_path / "float.onnx")) > 25


def test_values_are_moved_in_int8_without_another_rounding(tmp_path: Path) -> None:
    network = Network()
    network.conv("picture", "conv", (16, 3, 3, 3))
    network.add("Split", ["conv"], "left right", axis=1, num_outputs=2)
    network.add("MaxPool", ["left"], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    network.add("MaxPool", ["right"], "other", kernel_shape=[2, 2], strides=[2, 2])
    network.add("Concat", ["pooled", "other"], "both", axis=1)
    network.conv("both", "last", (4, 16, 1, 1))
    writer = writer_of(network, tmp_path, "last")
    path = written(writer, tmp_path)
    assert writer.int8_layers(path) == {"conv", "last"}
    scales = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    names = ("conv", "left", "right", "pooled", "other")
    assert len({onnx.numpy_helper.to_array(scales[f"{name}.scale"]).item() for name in names}) == 1
    assert runtime_operators(path)["QuantizeLinear"] == 1
    assert signal_to_noise_db(answers(path), answers(tmp_path / "float.onnx")) > 25


def test_a_layer_that_makes_an_output_of_the_network_is_int8_too(tmp_path: Path) -> None:
    network = Network()
    network.conv("picture", "first", (4, 3, 3, 3))
    network.conv("first", "second", (4, 4, 3, 3))
    writer = writer_of(network, tmp_path, "first", "second")
    path = written(writer, tmp_path)
    assert writer.int8_layers(path) == {"first", "second"}
    assert [output.name for output in onnx.load(path).graph.output] == ["first", "second"]


def test_a_layer_that_runs_twice_stands_once_and_is_stored_once(tmp_path: Path) -> None:
    network = Network()
    weights = network.rng.normal(0, 0.3, (32, 32, 3, 3)).astype(np.float32)
    network.conv("picture", "stem", (32, 3, 3, 3))
    network.conv("stem", "shared", weights.shape, weights=weights)
    network.add("Conv", ["shared", "shared.w", "shared.b"], "again", kernel_shape=[3, 3], pads=[1] * 4)
    writer = writer_of(network, tmp_path, "again")
    assert list(writer.layers) == ["stem", "shared"]
    path = written(writer, tmp_path)
    assert writer.int8_layers(path) == {"stem", "shared"}
    assert path.stat().st_size < 1.7 * weights.size


def test_a_layer_is_int8_only_where_all_its_runs_are(tmp_path: Path) -> None:
    network = Network()
    network.conv("picture", "shared", (3, 3, 3, 3))
    network.add("Conv", ["shared", "shared.w", "shared.b"], "again", kernel_shape=[3, 3], pads=[1] * 4)
    writer = writer_of(network, tmp_path, "again")
    path = written(writer, tmp_path)
    assert writer.int8_layers(path) == {"shared"}
    model = onnx.load(path)
    second = next(node for node in model.graph.node if node.output[0] == "again.exact")
    second.input[1] = "float weights"
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "float weights"))
    onnx.save(model, path)
    assert writer.int8_layers(path) == frozenset()


def test_ranges_know_the_activation_that_follows(tmp_path: Path) -> None:
    """SiLU is all but zero below -10, so no level is spent there."""
    network = Network()
    network.conv("picture", "low", (4, 3, 1, 1), bias=np.array([-60.0, -30.0, 0.0, 5.0]))
    network.add("Sigmoid", ["low"], "gate")
    network.add("Mul", ["low", "gate"], "active")
    network.conv("active", "last", (4, 4, 1, 1))
    writer = writer_of(network, tmp_path, "last")
    lows = {}
    for method in METHODS:
        stored = {
            tensor.name: tensor for tensor in onnx.load(written(writer, tmp_path, ranges=method)).graph.initializer
        }
        scale, zero = (onnx.numpy_helper.to_array(stored[f"low.{what}"]).item() for what in ("scale", "zero"))
        lows[method] = -scale * zero
    assert lows["min-max"] < -58
    assert lows["percentile"] < -58
    assert -15 < lows["least-error"] < -1


def test_layers_with_equal_weights_are_distinguished_by_their_order(tmp_path: Path) -> None:
    network = Network()
    weights = network.rng.normal(0, 0.3, (3, 3, 3, 3))
    network.conv("picture", "first", weights.shape, weights=weights)
    network.conv("first", "second", weights.shape, weights=weights)
    writer = writer_of(network, tmp_path, "second")
    assert list(writer.layers) == ["first", "second"]
    assert writer.int8_layers(written(writer, tmp_path, ["second"])) == {"second"}


def test_narrow_groups_stay_float(tmp_path: Path) -> None:
    network = Network()
    network.conv("picture", "stem", (8, 3, 3, 3))
    network.conv("stem", "grouped", (8, 4, 3, 3), group=2)
    network.conv("grouped", "depthwise", (8, 1, 3, 3), group=8)
    assert list(writer_of(network, tmp_path, "depthwise", calibrated=False).layers) == ["stem", "depthwise"]


def test_matrix_products_write_float(tmp_path: Path) -> None:
    network = Network()
    network.conv("picture", "stem", (8, 3, 3, 3))
    network.add("Transpose", ["stem"], "rows", perm=[0, 2, 3, 1])
    weights = network.rng.normal(0, 0.3, (8, 6)).astype(np.float32)
    network.record("product", weights)
    network.add("MatMul", ["rows", network.constant("product.w", weights)], "product")
    network.add("Flatten", ["product"], "flat")
    network.linear("flat", "classifier", 6 * SIZE_PX**2, 5)
    writer = writer_of(network, tmp_path, "classifier")
    path = written(writer, tmp_path, correct_weights=True)
    assert writer.int8_layers(path) == {"stem", "product", "classifier"}
    assert {"MatMulIntegerToFloat", "QGemm"} <= set(runtime_operators(path))
    assert signal_to_noise_db(answers(path), answers(tmp_path / "float.onnx")) > 20
    scales = {tensor.name: tensor.dims for tensor in onnx.load(path).graph.initializer}
    assert scales["product.weight.scale"] == [6]
    assert scales["classifier.weight.scale"] == [5]
    assert "product.scale" not in scales


def test_bias_correction_takes_away_the_mean_error_of_the_weights(tmp_path: Path) -> None:
    """One large weight a channel makes the others round the same way; a bright picture makes them add up."""
    network = Network()
    weights = np.full((4, 3, 3, 3), 0.0117)
    weights[:, 0, 1, 1] = [3.0, -3.0, 2.0, 4.0]
    network.conv("picture", "grouped", (6, 1, 1, 1), weights=np.ones((6, 1, 1, 1)), group=3, pads=[0] * 4)
    network.add(
        "Slice",
        ["grouped", *(network.constant(k, np.array([v])) for k, v in zip("abc", (0, 3, 1), strict=True))],
        "bright",
    )
    network.conv("bright", "coarse", weights.shape, weights=weights, pads=[0] * 4)
    writer = writer_of(network, tmp_path, "coarse", calibrated=False)
    bright = [np.clip(frame.astype(int) + 150, 0, 255).astype(np.uint8) for frame in frames()]
    writer.calibrate(bright)
    right = answers(tmp_path / "float.onnx", bright)
    errors = [
        np.abs((answers(written(writer, tmp_path, correct_weights=on), bright) - right).mean(axis=(0, 1, 3, 4))).mean()
        for on in (False, True)
    ]
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("attributes", [{}, {"strides": [2, 2]}, {"dilations": [2, 2], "pads": [2] * 4}])
@pytest.mark.parametrize("groups", [1, 32])
def test_weights_are_rounded_together(groups: int, attributes: dict[str, Any], tmp_path: Path) -> None:
    """What is read is smooth: neighbouring weights can make up for each other."""
    network = Network()
    network.conv("picture", "wide", (32, 3, 1, 1), pads=[0] * 4)
    network.conv("wide", "conv", (32, 32 // groups, 3, 3), group=groups, **attributes)
    writer = writer_of(network, tmp_path, "conv", calibrated=False)
    writer.calibrate(frames(64))
    path = written(writer, tmp_path, ["conv"], correct_weights=True)
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    scale = constants["conv.weight.scale"].reshape(-1, 1, 1, 1)
    together, weights = constants["conv.w.int8"] * scale, writer._graph.array("conv.w")
    nearest = np.round(weights / scale) * scale
    inputs = torch.from_numpy(np.concatenate([writer.layer_outputs(path, frame)["wide"] for frame in frames(8, 9)]))
    stride, dilation, padding = (attributes.get(key, usual)[0] for key, usual in KERNEL.items())
    noise = [
        torch.nn.functional.conv2d(inputs, torch.from_numpy(error), None, stride, padding, dilation, groups)
        .var((0, 2, 3))
        .sum()
        for error in (together - weights, nearest - weights)
    ]
    assert noise[0] < 0.85 * noise[1]


def test_a_channel_whose_weights_are_zero_keeps_its_bias(tmp_path: Path) -> None:
    network = Network()
    weights, bias = network.rng.normal(0, 0.003, (4, 3, 1, 1)), np.array([0.1, 2.345, 0.0, -1.0])
    weights[1:3] = 0
    network.conv("shifted", "conv", weights.shape, weights=weights, bias=bias)  # one level of its input is one
    writer = writer_of(network, tmp_path, "conv")
    path = written(writer, tmp_path)
    assert writer.int8_layers(path) == {"conv"}
    found = answers(path)[0, 0]
    step = 5 / 255
    assert np.abs(found[1] - 2.345).max() < step
    assert np.abs(found[2]).max() < step


def test_outputs_of_layers_can_be_compared_between_files(tmp_path: Path) -> None:
    writer = writer_of(small(), tmp_path, "scores")
    path, frame = written(writer, tmp_path), frames(1)[0]
    right = writer.layer_outputs(tmp_path / "float.onnx", frame)
    found = writer.layer_outputs(path, frame)
    assert list(right) == list(found) == list(writer.layers)
    for layer in writer.layers:
        assert found[layer].shape == right[layer].shape
        assert found[layer].dtype == np.float32
        assert signal_to_noise_db(found[layer], right[layer]) > 15
    assert len(np.unique(found["stem"])) <= 256
    assert (right["stem"] >= 0).all()  # its Relu is part of it, everywhere


def test_what_is_written_depends_on_nothing_but_the_plan(tmp_path: Path) -> None:
    writer = writer_of(gated(), tmp_path, "answer")
    first = written(writer, tmp_path, ranges="least-error").read_bytes()
    written(writer, tmp_path, ["second"], ranges="percentile", correct_weights=True)
    assert written(writer, tmp_path, ranges="least-error").read_bytes() == first


def test_activations_after_a_tensor_are_known() -> None:
    network = gated()
    network.conv("picture", "swished", (4, 3, 1, 1))
    network.add("HardSwish", ["swished"], "swish")
    network.conv("picture", "gated", (4, 3, 1, 1))
    network.add("HardSigmoid", ["gated"], "gate", alpha=1 / 6)
    network.add("Mul", ["gate", "gated"], "product")
    network.conv("picture", "attention", (4, 3, 1, 1))
    network.add("Sigmoid", ["attention"], "weight")
    network.add("Mul", ["attention", "product"], "weighted")
    graph = Graph(network.model("answer"))
    names = ("first", "head", "swished", "gated", "attention", "sum")
    found = {name: rules.activation_after(graph, name) for name in names}
    assert found == {
        "first": "silu",
        "head": "sigmoid",
        "swished": "hard_swish",
        "gated": "hard_swish",
        "attention": None,
        "sum": None,
    }


def test_calibration_in_parts_sees_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = Graph(small().model("scores"))
    tensors, calls = ["picture", "stem_active", "cut"], list[tuple[int, int]]()
    whole = collect(graph, tensors, frames(), threads=1)
    monkeypatch.setattr("edgecnn.converters.int8.onnx.calibration.VALUES_AT_ONCE", 100)
    seen: list[str] = []
    parts = collect(
        graph,
        tensors,
        frames(),
        threads=1,
        observe=lambda tensor, values: seen.append(tensor),
        progress=lambda *done: calls.append(done),
    )
    assert calls[-1] == (24, 24)
    for tensor in tensors:
        np.testing.assert_array_equal(parts[tensor].counts, whole[tensor].counts)
    assert Counter(seen) == dict.fromkeys(tensors, 8)


def test_a_plan_before_calibration_is_refused(tmp_path: Path) -> None:
    writer = writer_of(small(), tmp_path, "scores", calibrated=False)
    with pytest.raises(ConversionError, match="call calibrate"):
        written(writer, tmp_path)


def test_layers_that_are_not_there_are_refused(tmp_path: Path) -> None:
    writer = writer_of(small(), tmp_path, "scores")
    with pytest.raises(ConversionError, match=r"not in the ONNX file.*: trunk"):
        written(writer, tmp_path, ["stem", "trunk"])


def test_calibration_without_frames_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="at least one frame"):
        writer_of(small(), tmp_path, "scores", calibrated=False).calibrate([])


def test_frames_of_another_size_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"uint8 \[1, 8, 8, 3\].*\[1, 16, 16, 3\]"):
        writer_of(small(), tmp_path, "scores", calibrated=False).calibrate([np.zeros((1, 8, 8, 3), np.uint8)])


def test_activations_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    network = Network()
    network.conv("picture", "huge", (4, 3, 1, 1), weights=np.full((4, 3, 1, 1), 3e38))
    network.conv("huge", "last", (4, 4, 1, 1))
    with pytest.raises(ConversionError, match=r"'huge'.*NaN or infinity"):
        writer_of(network, tmp_path, "last")


def test_a_tensor_that_was_always_zero_is_refused_with_its_name(tmp_path: Path) -> None:
    network = Network()
    network.conv("picture", "dead", (4, 3, 1, 1), bias=np.full(4, -100.0))
    network.add("Relu", ["dead"], "silence")
    network.conv("silence", "last", (4, 4, 1, 1))
    writer = writer_of(network, tmp_path, "last")
    with pytest.raises(ConversionError, match=r"'silence'.*zero in every calibration frame"):
        written(writer, tmp_path)


def test_a_range_too_narrow_for_a_scale_is_refused(tmp_path: Path) -> None:
    network = Network()
    network.conv("picture", "faint", (4, 3, 1, 1), weights=np.full((4, 3, 1, 1), 1e-38), bias=np.zeros(4))
    writer = writer_of(network, tmp_path, "faint")
    with pytest.raises(ConversionError, match=r"'faint'.*expected a finite range"):
        written(writer, tmp_path)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    network = Network()
    network.conv("picture", "good", (4, 3, 1, 1))
    writer = writer_of(network, tmp_path, "good")
    graph: Graph = writer._graph
    graph.array("good.w")
    graph._arrays["good.w"] = np.full((4, 3, 1, 1), np.nan, np.float32)
    with pytest.raises(ConversionError, match=r"'good'.*NaN or infinity"):
        written(writer, tmp_path)


def test_a_file_that_the_runtime_refuses_is_reported(tmp_path: Path) -> None:
    writer = writer_of(small(), tmp_path, "scores", calibrated=False)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes((tmp_path / "float.onnx").read_bytes()[:200])
    with pytest.raises(ConversionError, match="cannot open the file"):
        writer.int8_layers(broken)
