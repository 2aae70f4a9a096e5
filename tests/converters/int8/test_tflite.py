"""The int8 writer of TFLite files: which operators run in int8, what stays float, and what it refuses."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("ai_edge_litert")
pytest.importorskip("ai_edge_quantizer")
pytest.importorskip("torch")

from edgecnn.bundle import LayerRecord, TensorSpec
from edgecnn.converters.int8.search.plan import Plan, RangeMethod
from edgecnn.converters.int8.tflite.graph import Graph
from edgecnn.converters.int8.tflite.placement import activation_after, int8_operators, range_source
from edgecnn.converters.int8.tflite.statistics import open_interpreter, run
from edgecnn.converters.int8.tflite.weights import along_outputs, as_stored, by_group, sample_inputs
from edgecnn.converters.int8.tflite.writer import TfliteInt8Writer, write_dynamic
from edgecnn.converters.layers import weights_fingerprint
from edgecnn.errors import ConversionError
from edgecnn.formats.devices import parse_device
from edgecnn.results import UInt8Array
from edgecnn.runners.litert.backend import LiteRtBackend

pytestmark = pytest.mark.torch

Float32Array = NDArray[np.float32]

SIZE_PX = 16
METHODS: tuple[RangeMethod, ...] = ("min-max", "percentile", "least-error")
FLOAT, INT32, UINT8 = 0, 2, 3  # the schema's numbers of types


class Network:
    """A TFLite file made operator by operator, with the records that a converter would make of its layers."""

    def __init__(self) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.records: list[LayerRecord] = []
        self._schema: Any = schema
        self._model = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[], signatureDefs=[])
        self._graph = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[])
        self._model.subgraphs = [self._graph]
        self._random = np.random.default_rng(0)
        frame = self._tensor("frame", [1, SIZE_PX, SIZE_PX, 3], UINT8)
        self._graph.inputs = [frame]
        self.picture = self.operator("CAST", [frame], [1, SIZE_PX, SIZE_PX, 3], name="picture")

    def constant(self, values: NDArray[Any]) -> int:
        """A constant tensor, float32 or int32."""
        kind = FLOAT if values.dtype == np.float32 else INT32
        tensor = self._tensor(f"constant {len(self._graph.tensors)}", values.shape, kind)
        self._model.buffers.append(self._schema.BufferT(data=np.frombuffer(values.tobytes(), np.uint8)))
        self._graph.tensors[tensor].buffer = len(self._model.buffers) - 1
        return tensor

    def operator(
        self, kind: str, inputs: Sequence[int], shape: Sequence[int], *, name: str = "", **options: Any
    ) -> int:
        """An operator; returns its output."""
        schema = self._schema
        code = getattr(schema.BuiltinOperator, kind)
        codes = [known.builtinCode for known in self._model.operatorCodes]
        if code not in codes:
            codes.append(code)
            self._model.operatorCodes.append(
                schema.OperatorCodeT(builtinCode=code, deprecatedBuiltinCode=min(code, 127), version=1)
            )
        output = self._tensor(name or f"{kind.lower()} {len(self._graph.tensors)}", shape, FLOAT)
        operator = schema.OperatorT(opcodeIndex=codes.index(code), inputs=list(inputs), outputs=[output])
        table = _OPTIONS.get(kind)
        if table:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, table)
            operator.builtinOptions = getattr(schema, table + "T")(**options)
        self._graph.operators.append(operator)
        return output

    def layer(self, x: int, outputs: int, *, name: str, kernel: int = 3, groups: int = 1, act: int = 0) -> int:
        """A convolution with random weights, same padding; depthwise where there are as many groups as channels."""
        _height, _width, channels = self.shape(x)[1:]
        inputs = channels // groups
        depthwise = groups == channels > 1
        weights = self._normal(
            [1, kernel, kernel, outputs] if depthwise else [outputs, kernel, kernel, inputs], kernel**2 * inputs
        )
        return self.convolution(x, weights, self._normal([outputs], 4), name=name, depthwise=depthwise, act=act)

    def convolution(
        self, x: int, weights: Float32Array, bias: Float32Array, *, name: str, depthwise: bool = False, act: int = 0
    ) -> int:
        """A convolution with these weights, its output tensor called `name`."""
        self.record(name, weights)
        return self.convolution_of(
            x, self.constant(weights), self.constant(bias), name=name, depthwise=depthwise, act=act
        )

    def convolution_of(
        self, x: int, weights: int, bias: int, *, name: str, depthwise: bool = False, act: int = 0
    ) -> int:
        """A convolution with constants that are there, which nobody records."""
        shape, outputs = self.shape(x), self.shape(bias)[0]
        options = {
            "strideW": 1,
            "strideH": 1,
            "dilationWFactor": 1,
            "dilationHFactor": 1,
            "fusedActivationFunction": act,
        }
        if depthwise:
            options["depthMultiplier"] = outputs // shape[-1]
        kind = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        return self.operator(kind, [x, weights, bias], [*shape[:3], outputs], name=name, **options)

    def transposed(self, x: int, outputs: int, *, name: str) -> int:
        """A transposed convolution, 2 × 2, stride 2."""
        _, height, width, channels = self.shape(x)
        weights = self._normal([outputs, 2, 2, channels], channels)
        self.record(name, weights)
        shape = [1, 2 * height, 2 * width, outputs]
        inputs = [
            self.constant(np.array(shape, np.int32)),
            self.constant(weights),
            x,
            self.constant(self._normal([outputs], 4)),
        ]
        return self.operator("TRANSPOSE_CONV", inputs, shape, name=name, padding=1, strideW=2, strideH=2)

    def linear(self, x: int, outputs: int, *, name: str) -> int:
        """A matrix product of [1, channels]."""
        weights = self._normal([outputs, self.shape(x)[-1]], self.shape(x)[-1])
        self.record(name, weights)
        inputs = [x, self.constant(weights), self.constant(self._normal([outputs], 4))]
        return self.operator("FULLY_CONNECTED", inputs, [1, outputs], name=name)

    def silu(self, x: int) -> int:
        """x × sigmoid(x)."""
        return self.operator("MUL", [x, self.operator("LOGISTIC", [x], self.shape(x))], self.shape(x))

    def mean(self, x: int) -> int:
        """Over height and width."""
        axes = self.constant(np.array([1, 2], np.int32))
        return self.operator("MEAN", [x, axes], [1, self.shape(x)[-1]], keepDims=False)

    def record(self, name: str, weights: Float32Array) -> None:
        """What the torch network would have said of a layer; weights count as torch has their axes."""
        mark = weights_fingerprint(np.ascontiguousarray(np.moveaxis(weights, -1, 0)))
        self.records.append(LayerRecord(name=name, kind="convolution", macs=1, weights=mark))

    def shape(self, tensor: int) -> list[int]:
        return [int(n) for n in self._graph.tensors[tensor].shape]

    def save(self, path: Path, *outputs: int) -> Path:
        """Write the file; its outputs are called output_0, output_1, …"""
        from ai_edge_litert.tools import flatbuffer_utils

        schema = self._schema
        self._graph.outputs = list(outputs)
        signature = schema.SignatureDefT(signatureKey="serving_default", subgraphIndex=0)
        signature.inputs = [schema.TensorMapT(name="args_0", tensorIndex=self._graph.inputs[0])]
        signature.outputs = [schema.TensorMapT(name=f"output_{i}", tensorIndex=t) for i, t in enumerate(outputs)]
        self._model.signatureDefs = [signature]
        path.write_bytes(flatbuffer_utils.convert_object_to_bytearray(self._model))
        return path

    def _tensor(self, name: str, shape: Sequence[int], kind: int) -> int:
        tensor = self._schema.TensorT(name=name, shape=list(shape), type=kind, buffer=0)
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _normal(self, shape: Sequence[int], inputs: float) -> Float32Array:
        return self._random.normal(0, np.sqrt(2 / inputs), shape).astype(np.float32)


_OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "TRANSPOSE_CONV": "TransposeConvOptions",
    "FULLY_CONNECTED": "FullyConnectedOptions",
    "ADD": "AddOptions",
    "MUL": "MulOptions",
    "CONCATENATION": "ConcatenationOptions",
    "MEAN": "ReducerOptions",
    "SOFTMAX": "SoftmaxOptions",
    "PAD": "PadOptions",
    "PADV2": "PadV2Options",
    "MAX_POOL_2D": "Pool2DOptions",
    "CAST": "CastOptions",
}


def frames(count: int = 6) -> list[UInt8Array]:
    """Smooth random pictures."""
    random = np.random.default_rng(1)
    coarse = random.integers(0, 256, (count, 1, 4, 4, 3), dtype=np.uint8)
    return [np.ascontiguousarray(frame.repeat(4, axis=1).repeat(4, axis=2)) for frame in coarse]


def small(path: Path) -> tuple[Path, Network]:
    """Every kind of layer, branches, and a decoding behind the last layers."""
    network = Network()
    x = network.operator(
        "MUL", [network.picture, network.constant(np.full((), 1 / 64, np.float32))], network.shape(network.picture)
    )
    stem = network.silu(network.layer(x, 8, name="stem"))
    left = network.layer(stem, 8, name="left", groups=8, act=3)
    right = network.layer(stem, 8, name="right", groups=2)
    both = network.operator("CONCATENATION", [left, right], [1, SIZE_PX, SIZE_PX, 16], axis=3)
    mixed = network.layer(both, 8, name="mixed", kernel=1)
    added = network.operator("ADD", [mixed, stem], network.shape(stem))
    larger = network.transposed(added, 4, name="larger")
    boxes = network.operator("LOGISTIC", [network.layer(larger, 4, name="boxes", kernel=1)], network.shape(larger))
    scores = network.linear(network.mean(larger), 5, name="scores")
    softmax = network.operator("SOFTMAX", [scores], [1, 5], beta=1.0)
    return network.save(path / "float.tflite", boxes, softmax), network


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Network, TfliteInt8Writer]:
    """The small network's file, and a calibrated writer of it."""
    file, network = small(tmp_path_factory.mktemp("small"))
    writer = TfliteInt8Writer(file, network.records, threads=1)
    writer.calibrate(frames())
    return file, network, writer


def calibrated(file: Path, network: Network) -> TfliteInt8Writer:
    writer = TfliteInt8Writer(file, network.records, threads=1)
    writer.calibrate(frames())
    return writer


def answers(file: Path, frame: UInt8Array, count: int = 2) -> dict[str, NDArray[Any]]:
    """What a file answers in the runner that devices use."""
    specs = [TensorSpec(name=f"answer {i}", dtype="float32", shape=()) for i in range(count)]
    backend = LiteRtBackend(file, outputs=specs, device=parse_device("cpu"), precision="int8", threads=1)
    try:
        return {name: values.copy() for name, values in backend.infer(frame).items()}
    finally:
        backend.close()


def noise(file: Path, other: Path, count: int = 2) -> float:
    """Largest difference of two files' answers, by the largest answer."""
    worst = 0.0
    for frame in frames(3):
        a, b = answers(file, frame, count), answers(other, frame, count)
        worst = max(worst, *(float(np.abs(a[name] - b[name]).max() / np.abs(b[name]).max()) for name in a))
    return worst


def kinds_in_int8(file: Path) -> list[str]:
    """Names of the operators that write int8."""
    graph = Graph.read(file.read_bytes())
    return [o.kind for o in graph.operators if graph.tensors[o.outputs[0]].dtype == "int8" and o.kind != "QUANTIZE"]


def test_layers_of_every_kind_are_found_in_the_order_of_execution(
    made: tuple[Path, Network, TfliteInt8Writer],
) -> None:
    assert list(made[2].layers) == ["stem", "left", "right", "mixed", "larger", "boxes", "scores"]


@pytest.mark.parametrize(
    "chosen",
    [["stem"], ["left"], ["larger"], ["scores"], ["left", "right"], ["stem", "boxes", "scores"]],
    ids=lambda chosen: "+".join(chosen),
)
def test_exactly_the_layers_of_the_plan_run_in_int8(
    made: tuple[Path, Network, TfliteInt8Writer], chosen: list[str], tmp_path: Path
) -> None:
    file = made[2].write(Plan(int8_layers=frozenset(chosen)), tmp_path).files[0]

    assert made[2].int8_layers(file) == set(chosen)


@pytest.mark.parametrize(("ranges", "corrected"), [*itertools.product(METHODS, (False, True))])
def test_all_layers_in_int8_answer_nearly_as_in_float(
    made: tuple[Path, Network, TfliteInt8Writer], ranges: RangeMethod, corrected: bool, tmp_path: Path
) -> None:
    source, _, writer = made
    plan = Plan(int8_layers=frozenset(writer.layers), ranges=ranges, correct_weights=corrected)

    written = writer.write(plan, tmp_path)

    assert writer.int8_layers(written.files[0]) == set(writer.layers)
    assert noise(written.files[0], source) < 0.2
    assert plan.recipe in written.tool


def test_a_frame_goes_in_as_uint8_and_the_answers_come_out_in_float_and_in_order(
    made: tuple[Path, Network, TfliteInt8Writer], tmp_path: Path
) -> None:
    source, _, writer = made
    file = writer.write(Plan(int8_layers=frozenset(writer.layers)), tmp_path).files[0]

    found, wanted = answers(file, frames(1)[0]), answers(source, frames(1)[0])

    assert {name: (a.shape, a.dtype) for name, a in found.items()} == {
        name: (a.shape, a.dtype) for name, a in wanted.items()
    }
    assert found["answer 1"].sum() == pytest.approx(1, abs=1e-5)


def test_a_last_layer_that_is_itself_an_output_answers_in_float(tmp_path: Path) -> None:
    network = Network()
    file = network.save(tmp_path / "float.tflite", network.layer(network.picture, 4, name="only"))
    writer = calibrated(file, network)

    written = writer.write(Plan(int8_layers=frozenset({"only"})), tmp_path).files[0]

    assert writer.int8_layers(written) == {"only"}
    assert answers(written, frames(1)[0], 1)["answer 0"].dtype == np.float32
    assert noise(written, file, 1) < 0.05


def test_operators_without_weights_follow_between_int8_layers(
    made: tuple[Path, Network, TfliteInt8Writer], tmp_path: Path
) -> None:
    writer = made[2]

    def follow(*layers: str) -> list[str]:
        file = writer.write(Plan(int8_layers=frozenset(layers)), tmp_path).files[0]
        return [kind for kind in kinds_in_int8(file) if "CONV" not in kind and kind != "FULLY_CONNECTED"]

    assert follow("stem", "left") == ["LOGISTIC", "MUL"]
    assert follow("stem") == follow("left", "right") == []  # no layer in int8 reads what they give
    assert follow("left", "mixed") == []  # the concatenation reads a float layer too
    assert follow("left", "right", "mixed") == ["CONCATENATION"]
    assert follow(*writer.layers) == ["LOGISTIC", "MUL", "CONCATENATION", "ADD", "MEAN"]  # not what decodes


def test_nothing_before_the_first_layer_runs_in_int8(made: tuple[Path, Network, TfliteInt8Writer]) -> None:
    graph = Graph.read(made[0].read_bytes())
    layers = list(graph.with_weights())

    in_int8 = int8_operators(graph, layers)

    first = next(operator for operator in graph.operators if operator.kind == "CONV_2D")
    assert min(in_int8) == first.index > 1


def test_a_plan_without_layers_is_the_float_file(made: tuple[Path, Network, TfliteInt8Writer], tmp_path: Path) -> None:
    source, _, writer = made

    file = writer.write(Plan(int8_layers=frozenset()), tmp_path).files[0]

    assert noise(file, source) == 0
    assert writer.int8_layers(file) == set()


def test_a_plan_is_written_the_same_whatever_was_written_before(
    made: tuple[Path, Network, TfliteInt8Writer], tmp_path: Path
) -> None:
    writer = made[2]
    plan = Plan(int8_layers=frozenset(writer.layers), ranges="least-error", correct_weights=True)

    first = writer.write(plan, tmp_path).files[0].read_bytes()
    writer.write(Plan(int8_layers=frozenset({"mixed"}), correct_weights=True), tmp_path)

    assert writer.write(plan, tmp_path).files[0].read_bytes() == first


def test_a_name_that_begins_or_ends_another_takes_nothing_along(tmp_path: Path) -> None:
    network = Network()
    x = network.picture
    for name in ("block;1", "block;12", "a/block;1"):
        x = network.layer(x, 3, name=name)
    writer = calibrated(network.save(tmp_path / "float.tflite", x), network)

    for name in ("block;1", "block;12", "a/block;1"):
        file = writer.write(Plan(int8_layers=frozenset({name})), tmp_path).files[0]
        assert writer.int8_layers(file) == {name}


def test_a_layer_that_runs_twice_is_one_layer_and_int8_both_times(tmp_path: Path) -> None:
    network = Network()
    weights = np.random.default_rng(2).normal(0, 0.3, (3, 3, 3, 3)).astype(np.float32)
    network.record("twice", weights)
    shared = network.constant(weights), network.constant(np.ones(3, np.float32))
    first = network.convolution_of(network.picture, *shared, name="first run")
    alone = network.layer(first, 3, name="alone")
    file = network.save(tmp_path / "float.tflite", network.convolution_of(alone, *shared, name="second run"))
    writer = calibrated(file, network)

    assert list(writer.layers) == ["twice", "alone"]
    for chosen, convolutions in (({"twice"}, 2), ({"alone"}, 1), ({"twice", "alone"}, 3)):
        written = writer.write(Plan(int8_layers=frozenset(chosen), correct_weights=True), tmp_path).files[0]
        assert writer.int8_layers(written) == chosen
        assert kinds_in_int8(written) == ["CONV_2D"] * convolutions
        assert noise(written, file, 1) < 0.1
    assert noise(write_dynamic(file, tmp_path).files[0], file, 1) < 0.1


def test_a_constant_that_float_and_int8_operators_share_is_right_for_both(tmp_path: Path) -> None:
    network = Network()
    factor, bias = network.constant(np.full((), 0.5, np.float32)), network.constant(np.ones(3, np.float32))
    x = network.picture
    for name in ("first", "second", "third"):
        weights = np.random.default_rng(len(name)).normal(0, 0.3, (3, 3, 3, 3)).astype(np.float32)
        weights[0] += network.shape(x)[0] * len(network.records)
        network.record(name, weights)
        x = network.convolution_of(x, network.constant(weights), bias, name=name)
        x = network.operator("MUL", [x, factor], network.shape(x))
    file = network.save(tmp_path / "float.tflite", x)
    writer = calibrated(file, network)

    written = writer.write(Plan(int8_layers=frozenset({"first", "third"}), correct_weights=True), tmp_path).files[0]

    assert writer.int8_layers(written) == {"first", "third"}
    assert noise(written, file, 1) < 0.1


def test_layers_with_the_same_weights_are_distinguished_by_their_order(tmp_path: Path) -> None:
    network = Network()
    weights, bias = np.full((3, 1, 1, 3), 0.5, np.float32), np.zeros(3, np.float32)
    x = network.convolution(network.picture, weights, bias, name="one")
    file = network.save(tmp_path / "float.tflite", network.convolution(x, weights, bias, name="two"))
    writer = calibrated(file, network)

    written = writer.write(Plan(int8_layers=frozenset({"two"})), tmp_path).files[0]

    graph = Graph.read(written.read_bytes())
    in_int8 = [graph.name_of(o) for o in graph.with_weights() if graph.tensors[o.outputs[0]].dtype == "int8"]
    assert in_int8 == ["two"]


def test_a_channel_without_weights_keeps_its_bias(tmp_path: Path) -> None:
    network = Network()
    weights = np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    weights[1] = 0
    weights[2] *= 1e-12
    bias = np.array([1, -150, 150, 1], np.float32)
    file = network.save(tmp_path / "float.tflite", network.convolution(network.picture, weights, bias, name="dead"))
    writer = calibrated(file, network)

    written = writer.write(Plan(int8_layers=frozenset({"dead"})), tmp_path).files[0]

    found = answers(written, frames(1)[0], 1)["answer 0"]
    assert found[..., 1] == pytest.approx(-150, abs=5)
    assert found[..., 2] == pytest.approx(150, abs=5)


def strided(path: Path, **options: int) -> tuple[Path, Network]:
    """A convolution and a depthwise one with these strides, dilations and padding."""
    network = Network()
    for kind, shape in (("CONV_2D", (6, 3, 2, 3)), ("DEPTHWISE_CONV_2D", (1, 3, 2, 6))):
        weights = np.random.default_rng(2).normal(0, 1, shape).astype(np.float32)
        network.record(kind, weights)
        size = [
            -(-(SIZE_PX - (0 if not options["padding"] else dilation * (taps - 1))) // stride)
            for taps, stride, dilation in (
                (3, options["strideH"], options["dilationHFactor"]),
                (2, options["strideW"], options["dilationWFactor"]),
            )
        ]
        inputs = [network.picture, network.constant(weights), network.constant(np.zeros(6, np.float32))]
        extra = {"depthMultiplier": 2} if kind == "DEPTHWISE_CONV_2D" else {}
        output = network.operator(kind, inputs, [1, *size, 6], name=kind, **options, **extra)
        network.operator("LOGISTIC", [output], [1, *size, 6])
    return network.save(path / "strided.tflite", output), network


def assert_samples_are_what_weights_are_multiplied_by(file: Path, network: Network) -> None:
    graph, interpreter = Graph.read(file.read_bytes()), open_interpreter(file.read_bytes())
    run(interpreter, frames(1)[0])
    for operator in graph.with_weights():
        if operator.kind == "TRANSPOSE_CONV":
            continue
        weights = graph.weights(operator)
        values = interpreter.get_tensor(operator.inputs[0])
        columns = sample_inputs(graph, operator, values, 10**6, np.random.default_rng(0))
        grouped = by_group(weights, operator, len(columns))
        np.testing.assert_array_equal(as_stored(grouped, operator, weights.shape), weights)
        products = np.einsum("goi,gip->pgo", grouped, columns).reshape(columns.shape[2], -1)
        found = interpreter.get_tensor(operator.outputs[0]).reshape(len(products), -1)
        bias = graph.bias(operator)
        assert bias is not None
        cut = np.clip(products + bias, found.min(), found.max())  # where an activation is part of the layer
        np.testing.assert_allclose(cut, found, rtol=1e-4, atol=1e-4 * np.abs(found).max())


def test_what_is_sampled_of_a_layers_input_is_what_its_weights_are_multiplied_by(
    made: tuple[Path, Network, TfliteInt8Writer],
) -> None:
    assert_samples_are_what_weights_are_multiplied_by(made[0], made[1])


@pytest.mark.parametrize("padding", [0, 1], ids=["same", "valid"])
@pytest.mark.parametrize(("strides", "dilations"), [((2, 3), (1, 1)), ((1, 1), (2, 3))])
def test_strides_dilations_and_padding_are_sampled_as_they_are(
    strides: tuple[int, int], dilations: tuple[int, int], padding: int, tmp_path: Path
) -> None:
    options = dict(zip(("strideH", "strideW", "dilationHFactor", "dilationWFactor"), strides + dilations, strict=True))
    assert_samples_are_what_weights_are_multiplied_by(*strided(tmp_path, padding=padding, **options))


@pytest.mark.parametrize("name", ["stem", "left", "right", "mixed", "scores"])
def test_rounding_weights_together_makes_a_layer_less_noisy(
    made: tuple[Path, Network, TfliteInt8Writer], name: str, tmp_path: Path
) -> None:
    source, network, _ = made
    writer = TfliteInt8Writer(source, network.records, threads=1)
    writer.calibrate(frames(64))

    def weights_noise(corrected: bool) -> float:
        graph = Graph.read(source.read_bytes())
        operator = graph.find_layers(network.records)[name][0]
        file = writer.write(Plan(int8_layers=frozenset({name}), correct_weights=corrected), tmp_path).files[0]
        written = Graph.read(file.read_bytes())
        twin = next(o for o in written.with_weights() if written.name_of(o) == graph.name_of(operator))
        scales = written.tensors[twin.inputs[1]].scales
        error = written.weights(twin) * along_outputs(scales, operator, 4) - graph.weights(operator)
        moments = writer._statistics.moments(operator)
        covariance = moments.second_moment(moments.mean)
        assert covariance is not None
        grouped = by_group(error, operator, len(covariance))
        return float(np.einsum("goi,gij,goj->", grouped, covariance, grouped))

    assert weights_noise(corrected=True) < 0.8 * weights_noise(corrected=False)


@pytest.mark.parametrize("name", ["stem", "left", "right", "larger", "scores"])
def test_bias_correction_takes_the_mean_error_out_of_a_layer(
    made: tuple[Path, Network, TfliteInt8Writer], name: str, tmp_path: Path
) -> None:
    source, _, writer = made

    def mean_error(corrected: bool) -> float:
        plan = Plan(int8_layers=frozenset({name}), correct_weights=corrected)
        file = writer.write(plan, tmp_path).files[0]
        errors = [
            writer.layer_outputs(file, frame)[name] - writer.layer_outputs(source, frame)[name] for frame in frames()
        ]
        return float(np.abs(np.stack(errors).reshape(-1, errors[0].shape[-1]).mean(axis=0)).mean())

    # Rounding of the output, and borders, where part of the input is padding, leave something.
    assert mean_error(corrected=True) < mean_error(corrected=False)


def test_every_layers_output_can_be_read_in_float_and_int8_files(
    made: tuple[Path, Network, TfliteInt8Writer], tmp_path: Path
) -> None:
    source, _, writer = made
    file = writer.write(Plan(int8_layers=frozenset(writer.layers)), tmp_path).files[0]
    frame = frames(1)[0]

    floating, quantized = writer.layer_outputs(source, frame), writer.layer_outputs(file, frame)

    assert list(floating) == list(quantized) == list(writer.layers)
    for layer, values in floating.items():
        assert quantized[layer].dtype == np.float32
        assert np.abs(quantized[layer] - values).max() < 0.15 * np.abs(values).max(), layer


def test_ranges_are_shared_by_what_is_only_padded_or_pooled(tmp_path: Path) -> None:
    network = Network()
    layer = network.layer(network.picture, 4, name="layer")
    lowest = network.constant(np.full((), -np.inf, np.float32))
    margins = network.constant(np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32))
    padded = network.operator("PADV2", [layer, margins, lowest], [1, SIZE_PX + 2, SIZE_PX + 2, 4])
    pool: dict[str, Any] = {"strideW": 2, "strideH": 2, "filterWidth": 3, "filterHeight": 3, "padding": 1}
    pooled = network.operator("MAX_POOL_2D", [padded], [1, 8, 8, 4], **pool)
    nines = network.operator("PADV2", [pooled, margins, network.constant(np.full((), 900, np.float32))], [1, 10, 10, 4])
    ends = network.layer(pooled, 4, name="next"), network.layer(nines, 4, name="last")
    file = network.save(tmp_path / "float.tflite", *ends)
    graph = Graph.read(file.read_bytes())
    writer = calibrated(file, network)

    written = writer.write(Plan(int8_layers=frozenset(writer.layers)), tmp_path).files[0]

    assert range_source(graph, pooled) == layer
    assert range_source(graph, nines) == nines  # 900 lies outside
    assert kinds_in_int8(written) == ["CONV_2D", "PADV2", "MAX_POOL_2D", "CONV_2D", "CONV_2D"]
    assert noise(written, file) < 0.1


def test_an_activation_is_seen_only_where_nothing_else_reads_the_tensor(tmp_path: Path) -> None:
    network = Network()
    alone, shared = network.layer(network.picture, 4, name="alone"), network.layer(network.picture, 4, name="shared")
    outputs = [
        network.silu(alone),
        network.silu(shared),
        network.operator("ADD", [shared, shared], network.shape(alone)),
    ]
    hard = network.layer(outputs[0], 4, name="hard")
    outputs.append(network.operator("HARD_SWISH", [hard], network.shape(hard)))
    graph = Graph.read(network.save(tmp_path / "float.tflite", *outputs).read_bytes())

    assert activation_after(graph, shared) is None
    silu, hard_swish = activation_after(graph, alone), activation_after(graph, hard)
    assert silu is not None and silu(np.array([-1.0, 1.0])) == pytest.approx([-0.2689, 0.7311], abs=1e-4)
    assert hard_swish is not None and hard_swish(np.array([-4.0, 4.0])) == pytest.approx([0, 4])


def test_a_layer_that_gives_only_zeros_is_left_float(tmp_path: Path) -> None:
    network = Network()
    weights = np.random.default_rng(0).normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32)
    low = np.full(4, -1e4, np.float32)
    zeros = network.convolution(network.picture, weights, low, name="zeros", act=1)  # ReLU
    other = network.layer(network.picture, 4, name="other")
    added = network.operator("ADD", [zeros, other], network.shape(other))
    file = network.save(tmp_path / "float.tflite", network.layer(added, 4, name="last"))
    writer = calibrated(file, network)

    written = writer.write(Plan(int8_layers=frozenset(writer.layers)), tmp_path).files[0]

    assert list(writer.layers) == ["other", "last"]
    assert writer.int8_layers(written) == {"other", "last"}


@pytest.mark.parametrize(
    ("precision", "recipe", "floating"),
    [("int8-dynamic", "dynamic_wi8_afp32", {"left", "larger"}), ("int8-a16", "static_wi8_ai16", set[str]())],
)
def test_the_other_precisions_answer_nearly_as_in_float(
    made: tuple[Path, Network, TfliteInt8Writer], precision: str, recipe: str, floating: set[str], tmp_path: Path
) -> None:
    source, _, writer = made

    written = writer.write_whole(precision, tmp_path)

    assert noise(written.files[0], source) < 0.1
    assert recipe in written.tool
    assert writer.int8_layers(written.files[0]) == set(writer.layers) - floating


def test_dynamic_ranges_leave_depthwise_convolutions_in_float(
    made: tuple[Path, Network, TfliteInt8Writer], tmp_path: Path
) -> None:
    graph = Graph.read(write_dynamic(made[0], tmp_path).files[0].read_bytes())

    dtypes = {operator.kind: graph.weights(operator).dtype for operator in graph.with_weights()}

    assert dtypes["CONV_2D"] == dtypes["FULLY_CONNECTED"] == np.int8
    assert dtypes["DEPTHWISE_CONV_2D"] == np.float32


def test_writing_needs_calibration(tmp_path: Path) -> None:
    file, network = small(tmp_path)
    writer = TfliteInt8Writer(file, network.records, threads=1)

    with pytest.raises(ConversionError, match="call calibrate"):
        writer.write(Plan(int8_layers=frozenset({"stem"})), tmp_path)


def test_calibration_refuses_frames_that_do_not_fit(tmp_path: Path) -> None:
    file, network = small(tmp_path)
    writer = TfliteInt8Writer(file, network.records, threads=1)

    with pytest.raises(ConversionError, match="at least one frame"):
        writer.calibrate([])
    with pytest.raises(ConversionError, match=r"expects frames uint8 \[1, 16, 16, 3\], got uint8 \[1, 8, 16, 3\]"):
        writer.calibrate([np.zeros((1, 8, 16, 3), np.uint8)])


def test_layers_that_are_not_in_the_file_are_named(
    made: tuple[Path, Network, TfliteInt8Writer], tmp_path: Path
) -> None:
    with pytest.raises(ConversionError, match=r"not in this TFLite file: nose; it has 7 layers: stem, left"):
        made[2].write(Plan(int8_layers=frozenset({"stem", "nose"})), tmp_path)


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    file, _ = small(tmp_path)
    foreign = [LayerRecord(name="x", kind="convolution", macs=1, weights="0" * 16)]

    with pytest.raises(ConversionError, match=r"none of the network's 1 layers is in float\.tflite"):
        TfliteInt8Writer(file, foreign, threads=1)


@pytest.mark.parametrize("content", [b"", b"not a flatbuffer at all, but text", b"\x1c\x00\x00\x00TFL3" + bytes(8)])
def test_anything_but_a_tflite_file_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "broken.tflite"
    file.write_bytes(content)

    with pytest.raises(ConversionError, match=r"broken\.tflite"):
        TfliteInt8Writer(file, [], threads=1)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    network = Network()
    weights = np.zeros((2, 1, 1, 3), np.float32)
    weights[0] = np.nan
    file = network.save(
        tmp_path / "f.tflite", network.convolution(network.picture, weights, np.zeros(2, np.float32), name="nan")
    )

    with pytest.raises(ConversionError, match="NaN or infinity"):
        calibrated(file, network)
