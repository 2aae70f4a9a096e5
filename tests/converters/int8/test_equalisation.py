"""Layers with SiLU are equalised: the float file answers as before, and int8 loses much less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert")
pytest.importorskip("ai_edge_quantizer")
pytest.importorskip("torch")

from edgecnn.converters.int8.search.equalisation import ChannelSamples, choose_equalisation
from edgecnn.converters.int8.search.plan import Plan
from edgecnn.converters.int8.tflite.graph import Graph
from edgecnn.converters.int8.tflite.units import equalised_file, find_units
from edgecnn.converters.int8.tflite.writer import TfliteInt8Writer
from edgecnn.errors import ConversionError
from tests.converters.int8.test_tflite import SIZE_PX, Float32Array, Network, calibrated, frames, noise

pytestmark = pytest.mark.torch

UNLIKE = np.geomspace(0.02, 20, 8).astype(np.float32)  # sizes of the channels before SiLU


def uneven(network: Network, x: int, *, name: str) -> int:
    """A convolution whose output channels differ a thousandfold in size, with SiLU."""
    channels = network.shape(x)[-1]
    weights = np.random.default_rng(1).normal(0, 1 / np.sqrt(9 * channels), (8, 3, 3, channels)).astype(np.float32)
    bias = np.zeros(8, np.float32)
    return network.silu(network.convolution(x, weights * UNLIKE[:, None, None, None], bias, name=name))


def even_again(network: Network, x: int, *, name: str) -> int:
    """A 1 x 1 convolution to which each channel of `x` matters as much as the others."""
    weights = np.random.default_rng(2).normal(0, 0.3, (8, 1, 1, network.shape(x)[-1])).astype(np.float32)
    sizes = np.resize(np.maximum(UNLIKE, 0.1), network.shape(x)[-1])
    return network.convolution(x, weights / sizes, np.zeros(8, np.float32), name=name)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Network, TfliteInt8Writer]:
    """A layer to equalise, of which a part of a concatenation is read; one beside it; two that cannot be."""
    network = Network()
    x = network.operator(
        "MUL", [network.picture, network.constant(np.full((), 1 / 64, np.float32))], network.shape(network.picture)
    )
    first = uneven(network, x, name="first")
    deep = network.silu(network.layer(even_again(network, first, name="mixed"), 8, name="depthwise", groups=8))
    joined = network.operator(
        "CONCATENATION", [uneven(network, x, name="second"), deep], [1, SIZE_PX, SIZE_PX, 16], axis=3
    )
    added = network.silu(network.layer(joined, 8, name="reads both", kernel=1))
    total = network.operator("ADD", [added, network.silu(network.layer(x, 8, name="added"))], network.shape(added))
    scores = network.linear(network.mean(total), 5, name="scores")
    file = network.save(tmp_path_factory.mktemp("uneven") / "float.tflite", scores)
    return file, network, calibrated(file, network)


def test_layers_whose_output_is_added_or_has_another_activation_are_left_out(
    made: tuple[Path, Network, TfliteInt8Writer],
) -> None:
    assert set(made[2].equalisable) == {"first", "depthwise", "second"}


def test_the_equalised_float_file_answers_as_before(
    made: tuple[Path, Network, TfliteInt8Writer], tmp_path: Path
) -> None:
    file, _, _ = made
    content = file.read_bytes()
    graph = Graph.read(content)
    units = find_units(content, graph, graph.with_weights())
    assert len(units) == 3
    rng = np.random.default_rng(3)
    scales: dict[object, Float32Array] = {unit: rng.uniform(0.01, 9, 8).astype(np.float32) for unit in units}
    equalised = tmp_path / "equalised.tflite"
    equalised.write_bytes(equalised_file(content, graph, scales))  # type: ignore[arg-type]
    assert noise(equalised, file, 1) < 1e-5
    added = len(units) * (4 * SIZE_PX * 8 + 1024)  # a row of scales and the operator; no weights are left over
    assert equalised.stat().st_size < file.stat().st_size + added


def test_int8_loses_much_less_where_channels_are_unlike(
    made: tuple[Path, Network, TfliteInt8Writer], tmp_path: Path
) -> None:
    """Of the layer that reads it, whose weights are large where the channels are small."""
    file, _, writer = made
    exact = [writer.layer_outputs(file, frame)["mixed"] for frame in frames()]
    lost = {}
    for name, chosen in (("plain", frozenset[str]()), ("equalised", frozenset({"first"}))):
        folder = tmp_path / name
        folder.mkdir()
        plan = Plan(int8_layers=frozenset({"first", "mixed"}), ranges="least-error", equalised=chosen)
        written = writer.write(plan, folder).files[0]
        assert writer.int8_layers(written) == {"first", "mixed"}
        found = [writer.layer_outputs(written, frame)["mixed"] for frame in frames()]
        lost[name] = np.mean([np.square(a - b).mean() for a, b in zip(found, exact, strict=True)])
    assert lost["equalised"] < 0.2 * lost["plain"], lost


def test_only_layers_in_int8_are_equalised(made: tuple[Path, Network, TfliteInt8Writer], tmp_path: Path) -> None:
    file, _, writer = made
    plan = Plan(int8_layers=frozenset({"mixed"}), equalised=frozenset({"first"}))
    written = writer.write(plan, tmp_path).files[0]
    kinds = [operator.kind for operator in Graph.read(written.read_bytes()).operators]
    assert kinds.count("MUL") == [o.kind for o in Graph.read(file.read_bytes()).operators].count("MUL")
    assert "equalised" not in plan.recipe
    assert Plan(int8_layers=frozenset({"first"}), equalised=plan.equalised).recipe.endswith(", 1 layer equalised")


def test_an_equalised_layers_output_is_compared_in_its_own_units(
    made: tuple[Path, Network, TfliteInt8Writer], tmp_path: Path
) -> None:
    file, _, writer = made
    plan = Plan(int8_layers=frozenset(writer.layers), ranges="least-error", equalised=frozenset({"first"}))
    written = writer.write(plan, tmp_path).files[0]
    frame = frames(1)[0]
    exact, found = (np.maximum(writer.layer_outputs(each, frame)["first"], 0) for each in (file, written))
    largest = exact.max(axis=(0, 1, 2))  # large negative values, of which SiLU leaves nothing, are cut off
    assert (np.abs(found - exact).mean(axis=(0, 1, 2)) < 0.1 * largest).all()
    assert found.max(axis=(0, 1, 2)) == pytest.approx(largest, rel=0.5)


def test_a_plan_that_equalises_what_cannot_be_is_an_error(
    made: tuple[Path, Network, TfliteInt8Writer], tmp_path: Path
) -> None:
    plan = Plan(int8_layers=frozenset({"added"}), equalised=frozenset({"added"}))
    with pytest.raises(ConversionError, match="cannot be equalised here: added"):
        made[2].write(plan, tmp_path)


def test_an_output_of_the_network_is_not_scaled(tmp_path: Path) -> None:
    network = Network()
    seen = uneven(network, network.picture, name="seen")
    file = network.save(tmp_path / "x.tflite", seen, network.layer(seen, 4, name="reads"))
    content = file.read_bytes()
    graph = Graph.read(content)
    assert find_units(content, graph, graph.with_weights()) == []


def test_weights_that_two_layers_share_are_not_changed(tmp_path: Path) -> None:
    network = Network()
    x = uneven(network, network.picture, name="first")
    weights, bias = (network.constant(np.ones(size, np.float32)) for size in ((8, 1, 1, 8), (8,)))
    once = network.convolution_of(x, weights, bias, name="once")
    file = network.save(tmp_path / "x.tflite", network.convolution_of(once, weights, bias, name="twice"))
    content = file.read_bytes()
    graph = Graph.read(content)
    assert find_units(content, graph, graph.with_weights()) == []


def test_channels_get_scales_of_their_own_size_that_int8_has_exactly() -> None:
    rng = np.random.default_rng(0)
    samples = ChannelSamples(8)
    for _ in range(4):
        samples.add((rng.normal(0.3, 1, (64, 8)) * UNLIKE).astype(np.float32), 4, rng)
    found = choose_equalisation(samples, np.ones(8), 5.0)
    assert found.after[1] == found.before[1] == pytest.approx(5.0)
    steps = found.scales / found.scales.max() * 255
    assert np.abs(steps - np.round(steps)).max() < 1e-3
    assert found.scales[-1] > 10 * found.scales[2]
