"""The int8 writer of OpenVINO IR: which layers run in int8, what stays float to the bit, and what it refuses."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

openvino = pytest.importorskip("openvino")
pytest.importorskip("nncf")

from openvino import opset13  # noqa: E402

from edgecnn.bundle import LayerRecord  # noqa: E402
from edgecnn.converters.int8.openvino.graph import (  # noqa: E402
    bias_add,
    by_name,
    float_weights,
    output_shift,
    quantized_weights,
    quantizer_of,
)
from edgecnn.converters.int8.openvino.statistics import TensorStatistics  # noqa: E402
from edgecnn.converters.int8.openvino.writer import OpenVinoInt8Writer  # noqa: E402
from edgecnn.converters.int8.search.plan import Plan, RangeMethod  # noqa: E402
from edgecnn.converters.layers import weights_fingerprint  # noqa: E402
from edgecnn.errors import ConversionError  # noqa: E402
from edgecnn.results import UInt8Array  # noqa: E402
from edgecnn.runners.openvino.core import CORE  # noqa: E402

pytestmark = pytest.mark.torch

Float32Array = NDArray[np.float32]

SIZE_PX = 32
METHODS: tuple[RangeMethod, ...] = ("min-max", "percentile", "least-error")


class Network:
    """A graph made layer by layer, with the records that a converter would make of it."""

    def __init__(self) -> None:
        self.frame = opset13.parameter([1, SIZE_PX, SIZE_PX, 3], np.uint8, name="frame")
        self.records: list[LayerRecord] = []
        self._random = np.random.default_rng(0)

    def picture(self) -> Any:
        """The frame as float32 [1, 3, height, width]."""
        return opset13.convert(opset13.transpose(self.frame, [0, 3, 1, 2]), np.float32)

    def layer(self, kind: str, x: Any, shape: Sequence[int], *, name: str, bias: bool = True, stride: int = 1) -> Any:
        """A layer with random weights of this shape."""
        inputs = math.prod(shape[1:]) if kind != "grouped" else math.prod(shape[2:])
        weights = self._random.normal(0, math.sqrt(2 / inputs), shape).astype(np.float32)
        return self.with_weights(kind, x, weights, name=name, bias=bias, stride=stride)

    def with_weights(
        self, kind: str, x: Any, weights: Float32Array, *, name: str, bias: bool = True, stride: int = 1
    ) -> Any:
        """A layer, its operator called `name`."""
        steps, pads, ones = [stride] * 2, [weights.shape[-1] // 2] * 2, [1, 1]
        constant = opset13.constant(weights)
        if kind == "convolution":
            node, channels = opset13.convolution(x, constant, steps, pads, pads, ones), weights.shape[0]
        elif kind == "grouped":
            node = opset13.group_convolution(x, constant, steps, pads, pads, ones)
            channels = weights.shape[0] * weights.shape[1]
        elif kind == "transposed":
            node = opset13.convolution_backprop_data(x, constant, steps)
            channels = weights.shape[1]
        else:
            node, channels = opset13.matmul(x, constant, False, True), weights.shape[0]
        node.set_friendly_name(name)
        if name not in {record.name for record in self.records}:
            mark = weights_fingerprint(weights)
            self.records.append(LayerRecord(name=name, kind=kind, macs=1, weights=mark))
        if not bias:
            return node
        shape = [1, channels] + [1] * (len(node.get_output_shape(0)) - 2)
        return opset13.add(node, opset13.constant(self._random.normal(0, 0.1, shape).astype(np.float32)))

    def save(self, output: Any, folder: Path) -> Path:
        """Write it as the converter does."""
        model = openvino.Model([opset13.result(output)], [self.frame], "tiny")
        model.inputs[0].get_tensor().set_names({"frame"})
        model.outputs[0].get_tensor().set_names({"scores"})
        file = folder / "float.xml"
        openvino.save_model(model, file, compress_to_fp16=False)
        return file


def residual_network() -> tuple[Network, Any]:
    """Stem, pool, a residual block, then two layers that read one tensor, then a classifier."""
    network = Network()
    x = opset13.multiply(network.picture(), opset13.constant(np.float32(1 / 255)))
    x = opset13.relu(network.layer("convolution", x, (16, 3, 3, 3), name="stem", stride=2))
    x = opset13.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0)
    y = opset13.relu(network.layer("convolution", x, (16, 16, 3, 3), name="first"))
    y = network.layer("convolution", y, (16, 16, 3, 3), name="second")
    add = opset13.add(y, x)
    add.set_friendly_name("skip")
    y = opset13.relu(add)
    deep = opset13.relu(network.layer("grouped", y, (16, 1, 1, 3, 3), name="depthwise", bias=False))
    wide = opset13.relu(network.layer("convolution", y, (32, 16, 1, 1), name="wide"))
    pooled = opset13.reduce_mean(opset13.concat([deep, wide], 1), np.array([2, 3]), False)
    return network, opset13.softmax(network.layer("linear", pooled, (5, 48), name="head"), 1)


def frames(count: int = 6) -> list[UInt8Array]:
    """Random patches of random brightness."""
    random = np.random.default_rng(1)
    patches = random.integers(20, 256, (count, 4, 4, 3)) * random.uniform(0.3, 1, (count, 1, 1, 1))
    large = patches.repeat(SIZE_PX // 4, axis=1).repeat(SIZE_PX // 4, axis=2).astype(np.uint8)
    return [frame[None] for frame in large]


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network, scores = residual_network()
    return network.save(scores, tmp_path_factory.mktemp("float"))


@pytest.fixture(scope="module")
def writer(float_file: Path) -> OpenVinoInt8Writer:
    """Calibrated, of the residual network."""
    writer = OpenVinoInt8Writer(float_file, residual_network()[0].records, threads=1)
    writer.calibrate(frames())
    return writer


def written(writer: OpenVinoInt8Writer, folder: Path, layers: Sequence[str], **words: Any) -> Path:
    return Path(writer.write(Plan(int8_layers=frozenset(layers), **words), folder).files[0])


def nodes_of(file: Path) -> dict[str, Any]:
    return by_name(CORE.read_model(file))


def signal_to_noise_db(signal: NDArray[Any], other: NDArray[Any]) -> float:
    return float(10 * np.log10((signal**2).sum() / max(((signal - other) ** 2).sum(), 1e-20)))


def test_layers_are_found_in_the_order_of_execution(writer: OpenVinoInt8Writer) -> None:
    assert list(writer.layers[:3]) == ["stem", "first", "second"]
    assert set(writer.layers[3:5]) == {"depthwise", "wide"}  # side by side
    assert writer.layers[5] == "head"


def test_a_layer_that_runs_twice_stands_once_and_is_int8_both_times(tmp_path: Path) -> None:
    network = Network()
    weights = np.random.default_rng(2).normal(0, 0.2, (3, 3, 3, 3)).astype(np.float32)
    shared = opset13.constant(weights)
    ones, pads = [1, 1], [1, 1]
    once = opset13.convolution(network.picture(), shared, ones, pads, pads, ones)
    twice = opset13.convolution(opset13.relu(once), shared, ones, pads, pads, ones)
    network.records = [LayerRecord(name="both", kind="convolution", macs=2, weights=weights_fingerprint(weights))]
    writer = OpenVinoInt8Writer(network.save(opset13.relu(twice), tmp_path), network.records, threads=1)
    writer.calibrate(frames(2))
    assert list(writer.layers) == ["both"]
    file = written(writer, tmp_path, ["both"])
    assert writer.int8_layers(file) == {"both"}
    assert sum(node.get_type_name() == "FakeQuantize" for node in nodes_of(file).values()) == 2


def test_the_runtime_computes_every_layer_of_the_plan_in_int8(writer: OpenVinoInt8Writer, tmp_path: Path) -> None:
    assert writer.int8_layers(written(writer, tmp_path, writer.layers)) == set(writer.layers)


@pytest.mark.parametrize("layer", ["stem", "second", "depthwise", "head"])
def test_one_layer_can_be_int8_alone(writer: OpenVinoInt8Writer, tmp_path: Path, layer: str) -> None:
    assert writer.int8_layers(written(writer, tmp_path, [layer])) == {layer}


def test_a_layer_is_offered_unless_only_a_slow_fallback_computes_it_in_int8(tmp_path: Path) -> None:
    network = Network()
    x = network.layer("convolution", network.picture(), (50, 3, 3, 3), name="stem")
    few = network.layer("grouped", x, (10, 1, 5, 3, 3), name="five channels a group")
    few = opset13.prelu(few, opset13.constant(np.full(10, 0.2, np.float32)))
    file = network.save(network.layer("convolution", few, (16, 10, 1, 1), name="after"), tmp_path)
    writer = OpenVinoInt8Writer(file, network.records, threads=1)
    # Processors with AMX have no other kernel for so few channels a group; those without it have one.
    compiled = CORE.compile_model(writer._quantized, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    node_infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    kernels = [
        info["primitiveType"].astype(str) for info in node_infos if info["layerType"].astype(str) == "Convolution"
    ]
    falls_back = any("gemm" in kernel or "ref" in kernel for kernel in kernels)
    expected = ["stem", "after"] if falls_back else ["stem", "five channels a group", "after"]
    assert list(writer.layers) == expected
    writer.calibrate(frames(2))
    assert writer.int8_layers(written(writer, tmp_path, writer.layers)) == set(expected)


def test_without_int8_layers_it_is_the_float_network(
    writer: OpenVinoInt8Writer, float_file: Path, tmp_path: Path
) -> None:
    file = written(writer, tmp_path, [])
    assert writer.int8_layers(file) == frozenset()
    was, now = (writer.layer_outputs(each, frames()[0]) for each in (float_file, file))
    for layer in writer.layers:
        np.testing.assert_allclose(now[layer], was[layer], rtol=1e-5, atol=1e-6)


def test_a_float_layer_does_not_see_the_8_bit_copy_that_its_neighbour_reads(
    writer: OpenVinoInt8Writer, float_file: Path, tmp_path: Path
) -> None:
    file = written(writer, tmp_path, ["depthwise"])  # "wide" reads the same tensor
    was, now = (writer.layer_outputs(each, frames()[0]) for each in (float_file, file))
    np.testing.assert_allclose(now["wide"], was["wide"], rtol=1e-5, atol=1e-6)
    assert not np.allclose(now["depthwise"], was["depthwise"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ranges", METHODS)
@pytest.mark.parametrize("correct_weights", [False, True])
def test_all_in_int8_it_answers_nearly_the_same(
    writer: OpenVinoInt8Writer, float_file: Path, tmp_path: Path, ranges: RangeMethod, correct_weights: bool
) -> None:
    file = written(writer, tmp_path, writer.layers, ranges=ranges, correct_weights=correct_weights)
    was, now = (writer.layer_outputs(each, frames()[0]) for each in (float_file, file))
    assert all(signal_to_noise_db(was[layer], now[layer]) > 15 for layer in writer.layers)


def test_names_of_input_and_outputs_stay(writer: OpenVinoInt8Writer, tmp_path: Path) -> None:
    model = CORE.read_model(written(writer, tmp_path, writer.layers))
    assert not model.has_rt_info("nncf")  # settings that don't hold for this file
    assert [model.inputs[0].get_any_name(), model.outputs[0].get_any_name()] == ["frame", "scores"]


def test_weights_are_stored_in_8_bits(writer: OpenVinoInt8Writer, float_file: Path, tmp_path: Path) -> None:
    file = written(writer, tmp_path, writer.layers)
    assert file.with_suffix(".bin").stat().st_size < 0.45 * float_file.with_suffix(".bin").stat().st_size


def test_weights_have_a_scale_for_each_output_channel(
    writer: OpenVinoInt8Writer, float_file: Path, tmp_path: Path
) -> None:
    weights = quantized_weights(nodes_of(written(writer, tmp_path, ["first"]))["first"])
    exact = float_weights(nodes_of(float_file)["first"])
    assert weights is not None
    largest = np.abs(exact).max(axis=(1, 2, 3), keepdims=True)
    assert (np.abs(weights - exact) <= 0.51 * largest / 127).all()


def test_a_skip_connection_is_int8_only_between_int8_layers(writer: OpenVinoInt8Writer, tmp_path: Path) -> None:
    def skip_is_quantized(layers: Sequence[str]) -> bool:
        add = nodes_of(written(writer, tmp_path, layers))["skip"]
        sources = [add.input_value(index).get_node() for index in (0, 1)]
        # The pool passes on what was quantized before it.
        sources += [node.input_value(0).get_node() for node in sources if node.get_type_name() == "MaxPool"]
        return any(node.get_type_name() == "FakeQuantize" for node in sources)

    assert skip_is_quantized(writer.layers)
    for kept_float in ("stem", "second", "wide"):
        assert not skip_is_quantized([layer for layer in writer.layers if layer != kept_float]), kept_float


def test_what_a_depthwise_layer_reads_has_a_range_for_each_channel(tmp_path: Path) -> None:
    network = Network()
    x = opset13.relu(network.layer("convolution", network.picture(), (8, 3, 3, 3), name="stem"))
    file = network.save(opset13.relu(network.layer("grouped", x, (8, 1, 1, 3, 3), name="depthwise")), tmp_path)
    writer = OpenVinoInt8Writer(file, network.records, threads=1)
    writer.calibrate(frames(3))
    nodes = nodes_of(written(writer, tmp_path, writer.layers))
    quantizers = [quantizer_of(nodes[name]) for name in ("stem", "depthwise")]
    assert [math.prod(quantizer.get_input_shape(1)) for quantizer in quantizers if quantizer] == [1, 8]


def test_the_first_layer_has_all_levels_of_the_frame_whatever_was_seen(
    writer: OpenVinoInt8Writer, tmp_path: Path
) -> None:
    quantizer = quantizer_of(nodes_of(written(writer, tmp_path, ["stem"], ranges="percentile"))["stem"])
    assert quantizer is not None
    ends = [float(quantizer.input_value(port).get_node().data.item()) for port in (1, 2)]
    assert ends == pytest.approx([0, 1])  # the network divides by 255


def test_zero_is_one_of_the_levels() -> None:
    statistics = TensorStatistics(None)
    for seed in range(3):
        statistics.add(np.random.default_rng(seed).normal(0.3, 1, (1, 4, 8, 8)).astype(np.float32))
    for method in METHODS:
        low, high = (float(end.item()) for end in statistics.ranges(method))
        zero = -low / ((high - low) / 255)
        assert zero == pytest.approx(round(zero), abs=1e-4) and low < 0 < high


def test_a_channel_that_was_always_zero_gets_some_range() -> None:
    statistics = TensorStatistics(1)
    values = np.ones((1, 3, 2, 2), np.float32)
    values[:, 1] = 0
    statistics.add(values)
    low, high = statistics.ranges("min-max")
    assert (low == 0).all() and (high > 0).all()


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        ("convolution", (6, 4, 3, 3)),
        ("grouped", (2, 3, 2, 3, 3)),
        ("grouped", (4, 1, 1, 3, 3)),
        ("transposed", (4, 6, 2, 2)),
    ],
)
def test_the_shift_of_a_wrong_weight_is_what_it_makes(kind: str, shape: tuple[int, ...]) -> None:
    means = np.array([0.5, -1, 2, 0.1])
    x = np.broadcast_to(means[None, :, None, None], (1, 4, 9, 9)).astype(np.float32)
    errors = np.random.default_rng(3).normal(0, 0.01, shape).astype(np.float32)
    node = Network().with_weights(kind, opset13.constant(x), errors, name="layer", bias=False, stride=2)
    model = openvino.Model([opset13.result(node)], [], "layer")
    made = CORE.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([])[0]
    inside = made[0, :, 1:-1, 1:-1].mean(axis=(1, 2))  # at the border there is less
    np.testing.assert_allclose(output_shift(node, errors, means), inside, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("layer", ["head", "depthwise"])
def test_bias_correction_brings_the_mean_output_back(
    writer: OpenVinoInt8Writer, float_file: Path, tmp_path: Path, layer: str
) -> None:
    def mean_error(correct_weights: bool) -> float:
        folder = tmp_path / str(correct_weights)
        folder.mkdir()
        file = written(writer, folder, [layer], correct_weights=correct_weights, ranges="least-error")
        errors = [
            writer.layer_outputs(file, frame)[layer] - writer.layer_outputs(float_file, frame)[layer]
            for frame in frames()[:3]
        ]
        return float(np.abs(np.mean(errors, axis=tuple(a for a in range(errors[0].ndim + 1) if a != 2))).mean())

    assert mean_error(True) < mean_error(False)


def test_a_layer_without_a_bias_gets_one_that_its_output_holds(writer: OpenVinoInt8Writer, tmp_path: Path) -> None:
    nodes = nodes_of(written(writer, tmp_path, ["depthwise"], correct_weights=True))
    assert bias_add(nodes["depthwise"]) is not None


def test_progress_counts_frames_to_the_end(float_file: Path) -> None:
    seen: list[tuple[int, int]] = []
    writer = OpenVinoInt8Writer(float_file, residual_network()[0].records, threads=1)
    writer.calibrate(frames(3), lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_the_tool_says_versions_and_recipe(writer: OpenVinoInt8Writer, tmp_path: Path) -> None:
    tool = writer.write(Plan(int8_layers=frozenset({"stem"}), ranges="percentile"), tmp_path).tool
    assert "nncf" in tool and "openvino" in tool and "percentile ranges" in tool


def test_layers_that_a_file_lacks_are_left_out_of_its_outputs(
    writer: OpenVinoInt8Writer, tmp_path: Path, float_file: Path
) -> None:
    network = Network()
    other = network.save(network.layer("convolution", network.picture(), (4, 3, 3, 3), name="stem"), tmp_path)
    assert set(writer.layer_outputs(other, frames()[0])) == {"stem"}


def test_outputs_of_the_half_precision_twin_are_found_by_the_same_names(
    writer: OpenVinoInt8Writer, float_file: Path, tmp_path: Path
) -> None:
    twin = tmp_path / "twin.xml"
    openvino.save_model(CORE.read_model(float_file), twin, compress_to_fp16=True)
    was, now = (writer.layer_outputs(each, frames()[0]) for each in (float_file, twin))
    assert set(now) == set(writer.layers)
    assert all(now[layer].dtype == np.float32 for layer in now)
    assert all(signal_to_noise_db(was[layer], now[layer]) > 50 for layer in writer.layers)


def test_a_file_that_is_not_a_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "float.xml").write_text("<net/>")
    with pytest.raises(ConversionError, match="cannot read"):
        OpenVinoInt8Writer(tmp_path / "float.xml", residual_network()[0].records, threads=1)


def test_layers_of_another_conversion_are_refused(float_file: Path) -> None:
    foreign = [LayerRecord(name="conv", kind="convolution", macs=1, weights="0" * 16)]
    with pytest.raises(ConversionError, match="convert again"):
        OpenVinoInt8Writer(float_file, foreign, threads=1)


def test_writing_needs_calibration(float_file: Path, tmp_path: Path) -> None:
    writer = OpenVinoInt8Writer(float_file, residual_network()[0].records, threads=1)
    with pytest.raises(ConversionError, match="call calibrate"):
        written(writer, tmp_path, ["stem"])


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ([], "got none"),
        ([np.zeros((1, 8, 8, 3), np.uint8)], "expected calibration frames uint8"),
        ([np.zeros((1, SIZE_PX, SIZE_PX, 3), np.float32)], "got float32"),
    ],
)
def test_frames_that_do_not_fit_are_refused(float_file: Path, given: list[UInt8Array], complaint: str) -> None:
    writer = OpenVinoInt8Writer(float_file, residual_network()[0].records, threads=1)
    with pytest.raises(ConversionError, match=complaint):
        writer.calibrate(given)


def test_a_plan_with_a_layer_that_is_not_there_is_refused(writer: OpenVinoInt8Writer, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="nowhere: not among the 6 layers"):
        written(writer, tmp_path, ["nowhere"])


def test_a_place_that_cannot_be_written_is_reported(writer: OpenVinoInt8Writer, tmp_path: Path) -> None:
    (tmp_path / "model.bin").mkdir()
    with pytest.raises(ConversionError, match="cannot write"):
        written(writer, tmp_path, ["stem"])


def test_activations_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    network = Network()
    x = opset13.relu(network.layer("convolution", network.picture(), (4, 3, 3, 3), name="stem"))
    x = opset13.log(opset13.subtract(x, opset13.constant(np.float32(1e6))))
    file = network.save(network.layer("convolution", x, (4, 4, 1, 1), name="after"), tmp_path)
    writer = OpenVinoInt8Writer(file, network.records, threads=1)
    with pytest.raises(ConversionError, match="NaN or infinity"):
        writer.calibrate(frames(2))


def test_a_layer_whose_input_is_always_zero_cannot_be_int8_and_the_others_can(tmp_path: Path) -> None:
    network = Network()
    x = opset13.relu(network.layer("convolution", network.picture(), (4, 3, 3, 3), name="stem"))
    dead = opset13.relu(opset13.subtract(x, opset13.constant(np.float32(1e6))))
    file = network.save(network.layer("convolution", dead, (4, 4, 1, 1), name="after"), tmp_path)
    writer = OpenVinoInt8Writer(file, network.records, threads=1)
    writer.calibrate(frames(2))
    with pytest.raises(ConversionError, match=r"input of after cannot be int8.*zero"):
        written(writer, tmp_path, writer.layers)
    assert writer.int8_layers(written(writer, tmp_path, ["stem"])) == {"stem"}


def test_nncf_has_nothing_to_report_its_use_with() -> None:
    # In a process of its own, since NNCF is silent by itself where it sees pytest.
    program = (
        "from edgecnn.converters.int8.openvino.nncf import import_nncf\n"
        "nncf = import_nncf()\n"
        "import sys, nncf.telemetry.decorator as a, nncf.telemetry.wrapper as b\n"
        "assert 'pytest' not in sys.modules\n"
        "assert not isinstance(a.telemetry, b.NNCFTelemetry) and a.telemetry is b.telemetry\n"
        "assert not hasattr(b, 'Telemetry'), 'its reporter was imported'\n"
        "assert a.telemetry.send_event(event_category='x') is None\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
