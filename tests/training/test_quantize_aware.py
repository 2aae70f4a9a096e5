"""A network that trains for int8 rounds where the artifact will, and its ranges arrive there."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import edgecnn
from edgecnn import Classify, FrameSpec, TrainedModel
from edgecnn.converters.int8.search.plan import Plan, RangeMethod
from edgecnn.errors import SourceError, UnknownNameError
from edgecnn.formats import FORMATS
from edgecnn.formats.devices import parse_device
from edgecnn.measure.machine import describe_machine
from edgecnn.sources.normalise import normalise
from edgecnn.training.quantize_aware.fake_quantize import LearnedRange, rounded_weights
from edgecnn.training.quantize_aware.layers import AbsorbedNorm, RoundingConv2d, RoundingLinear
from edgecnn.training.quantize_aware.placement import find_places
from edgecnn.training.quantize_aware.prepare import (
    learned_ranges,
    make_quantize_aware,
    without_rounding,
)

pytestmark = pytest.mark.torch

SIDE_PX = 32

TARGETS = [row.name for row in FORMATS if row.int8_rounding is not None]


def unit(inputs: int, outputs: int, activation: nn.Module, *, groups: int = 1, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm with statistics of its own, activation."""
    conv = nn.Conv2d(inputs, outputs, 3, stride, 1, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs)
    with torch.no_grad():
        conv.weight.normal_(0, (2 / (9 * inputs / groups)) ** 0.5)
        norm.running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr]
        norm.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
        norm.weight.uniform_(0.7, 1.3)
        norm.bias.uniform_(-0.2, 0.2)
    return nn.Sequential(conv, norm, activation)


class Small(nn.Module):
    """One of everything: ReLU6, SiLU, a skip, a depthwise convolution, a concatenation, a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = unit(3, 8, nn.ReLU6(inplace=True), stride=2)
        self.smooth = unit(8, 8, nn.SiLU())
        self.spread = unit(8, 8, nn.ReLU(), groups=8)
        self.narrow = unit(8, 8, nn.Identity())
        self.last = unit(16, 16, nn.ReLU(), stride=2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x)
        skipped = stem + self.narrow(self.spread(self.smooth(stem)))
        return self.head(3 * self.last(torch.cat([skipped, stem], dim=1)).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def small() -> TrainedModel:
    torch.manual_seed(5)
    return TrainedModel(
        module=Small().eval(),
        frame=FrameSpec(height_px=SIDE_PX, width_px=SIDE_PX, fit="stretch", scale=1 / 64, mean=(2, 2, 2)),
        task=Classify(labels=("a", "b", "c", "d", "e")),
        name="small",
    )


def frames(count: int = 8, seed: int = 0) -> list[np.ndarray]:
    """Smooth coloured blobs, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return list(coarse.repeat(SIDE_PX // 4, axis=1).repeat(SIDE_PX // 4, axis=2))


def answers(model: TrainedModel, pictures: list[np.ndarray]) -> np.ndarray:
    with torch.no_grad():
        rows = [
            model.module(normalise(torch.from_numpy(picture[None]), model.frame)).softmax(1) for picture in pictures
        ]
    return torch.cat(rows).numpy()


def noise_db(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(10 * np.log10(((found - wanted) ** 2).sum() / (wanted**2).sum()))


# Rounding


@given(
    low=st.floats(-10, 0),
    high=st.floats(0.01, 10),
    values=st.lists(st.floats(-12, 12, width=32), min_size=1, max_size=20),
)
@settings(max_examples=50, deadline=None)
def test_values_in_the_range_move_by_half_a_level_at_most_and_others_to_its_ends(
    low: float, high: float, values: list[float]
) -> None:
    learned = LearnedRange()
    learned.histogram = None
    learned.start.copy_(torch.tensor([low, high]))
    x = torch.tensor(values)
    rounded = learned(x).detach()
    first, last = learned.levels()
    step = (high - low) / 255
    assert ((rounded - x.clamp(first, last)).abs() <= 0.502 * step + 1e-6).all()
    assert learned(torch.zeros(1)).detach().tolist() == [0.0]


def test_a_range_that_is_too_narrow_learns_to_be_wider() -> None:
    torch.manual_seed(0)
    learned = LearnedRange()
    learned.histogram = None
    learned.start.copy_(torch.tensor([-0.5, 0.5]))
    x = torch.randn(2000)
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.05)
    before = float(((learned(x) - x) ** 2).mean().detach())
    for _ in range(120):
        optimizer.zero_grad()
        ((learned(x) - x) ** 2).mean().backward()
        optimizer.step()
    low, high = learned.levels()
    assert low < -1.5 and high > 1.5
    assert float(((learned(x) - x) ** 2).mean().detach()) < 0.1 * before


def test_the_gradient_of_a_value_passes_inside_the_range_alone() -> None:
    learned = LearnedRange()
    learned.histogram = None
    learned.start.copy_(torch.tensor([-1.0, 1.0]))
    x = torch.tensor([-2.0, 0.3, 2.0], requires_grad=True)
    learned(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0.0, 1.0, 0.0]


def test_weights_get_255_levels_for_each_output_channel() -> None:
    torch.manual_seed(0)
    weights = torch.randn(4, 3, 3, 3) * torch.tensor([0.01, 1, 100, 0])[:, None, None, None]
    rounded = rounded_weights(weights)
    for channel in range(3):
        step = weights[channel].abs().max() / 127
        assert (rounded[channel] - weights[channel]).abs().max() <= 0.501 * step
    assert (rounded[3] == 0).all()


# Where


def test_what_a_layer_reads_and_what_cuts_its_output_is_found_by_running_the_network() -> None:
    model = small()
    x = normalise(torch.from_numpy(frames(1)[0][None]), model.frame)
    places = find_places(model.module, x)
    assert list(places) == ["stem.0", "smooth.0", "spread.0", "narrow.0", "last.0", "head"]
    assert [name for name, place in places.items() if place.from_frame] == ["stem.0"]
    # Through batch norm and ReLU6 "smooth" reads what the stem makes; behind "smooth" there is a SiLU.
    assert [place.from_layer for place in places.values()][1:4] == ["stem.0", "", "spread.0"]
    assert (places["stem.0"].norm, places["stem.0"].bounds) == ("stem.1", (0, 6))
    assert places["smooth.0"].bounds == (-torch.inf, torch.inf)


def test_openvino_rounds_what_layers_read_the_others_also_what_they_write() -> None:
    model = small()
    layers = {
        target: {
            name: (layer.reads is not None, layer.writes is not None)
            for name, layer in make_quantize_aware(model, target, frames()).module.named_modules()
            if isinstance(layer, RoundingConv2d | RoundingLinear)
        }
        for target in TARGETS
    }
    assert layers["onnx"] == layers["tflite"]
    assert layers["onnx"] == {
        "stem.0": (False, True),
        "smooth.0": (False, True),  # reads what the stem wrote
        "spread.0": (True, True),
        "narrow.0": (False, True),
        "last.0": (True, True),
        "head": (True, False),
    }
    assert layers["openvino"] == {
        "stem.0": (False, False),
        "smooth.0": (True, False),
        "spread.0": (False, False),  # depthwise: a range for each channel there
        "narrow.0": (True, False),
        "last.0": (True, False),
        "head": (True, False),
    }


def test_the_network_keeps_its_weights_names_and_statistics_but_for_biases() -> None:
    model = small()
    aware = make_quantize_aware(model, "onnx", frames())
    assert any(isinstance(module, AbsorbedNorm) for module in aware.module.modules())
    aware.module.train()
    aware.module(torch.randn(4, 3, SIDE_PX, SIDE_PX))
    plain = without_rounding(aware, model)
    assert list(plain.module.state_dict()) == list(model.module.state_dict())
    for name, tensor in model.module.state_dict().items():
        if not name.endswith("bias"):
            assert torch.equal(plain.module.state_dict()[name], tensor), name
    assert not any(isinstance(module, RoundingConv2d) for module in plain.module.modules())
    assert set(plain.ranges) == {"stem.0", "smooth.0", "spread.0", "narrow.0", "last.0", "head"}


@pytest.mark.parametrize("target", TARGETS)
def test_what_the_rounding_of_weights_adds_to_a_channels_mean_is_taken_from_its_bias(target: str) -> None:
    model, pictures = small(), frames(24)
    aware = make_quantize_aware(model, target, pictures)
    errors: dict[str, Tensor] = {}

    def keep(layer: nn.Module, inputs: tuple[Tensor], output: Tensor, *, name: str) -> None:
        assert isinstance(layer, RoundingConv2d | RoundingLinear)
        added = layer.computed(*inputs) - layer.computed(*inputs, round_weights=False)
        errors[name] = added.mean(dim=(0, 2, 3) if added.ndim == 4 else (0,))

    biases = {"stem.0": "stem.1.bias", "smooth.0": "smooth.1.bias", "last.0": "last.1.bias", "head": "head.bias"}
    for name in biases:
        aware.module.get_submodule(name).register_forward_hook(partial(keep, name=name))
    with torch.no_grad():
        aware.module(normalise(torch.from_numpy(np.stack(pictures)), model.frame))
    before, after = model.module.state_dict(), aware.module.state_dict()
    for name, bias in biases.items():
        assert errors[name].abs().max() > 1e-5, "rounding adds something"
        np.testing.assert_allclose(after[bias] - before[bias], -errors[name], atol=1e-6, err_msg=name)


def test_weights_and_ranges_learn() -> None:
    model = small()
    aware = make_quantize_aware(model, "tflite", frames())
    before = learned_ranges(aware)
    optimizer = torch.optim.Adam(aware.module.parameters(), lr=0.01)
    x = normalise(torch.from_numpy(np.stack(frames())), model.frame)
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(aware.module(x), torch.arange(8) % 5).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    plain = without_rounding(aware, model)
    assert plain.ranges != before
    assert not torch.equal(plain.module.state_dict()["stem.0.weight"], model.module.state_dict()["stem.0.weight"])


def test_a_layer_that_never_sees_anything_but_zeros_stays_float() -> None:
    model = small()
    norm = model.module.get_submodule("spread.1")
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        norm.weight.zero_()
        norm.bias.fill_(-1)
    aware = make_quantize_aware(model, "onnx", frames())
    assert aware.module.get_submodule("spread.0").writes is None
    assert aware.module.get_submodule("smooth.0").writes is not None
    assert np.isfinite(answers(aware, frames())).all()


def test_an_unknown_target_and_a_network_without_layers_are_errors() -> None:
    with pytest.raises(UnknownNameError, match="opnvino"):
        make_quantize_aware(small(), "opnvino", frames())
    nothing = TrainedModel(module=nn.Flatten(), frame=small().frame, task=small().task)
    with pytest.raises(SourceError, match="no convolution"):
        make_quantize_aware(nothing, "onnx", frames())


# In the artifact


@pytest.mark.parametrize("target", TARGETS)
def test_the_artifact_with_learned_ranges_answers_as_the_network_that_rounded(target: str, tmp_path: Path) -> None:
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "nncf", "tflite": "ai_edge_quantizer"}[target])
    model = small()
    aware = make_quantize_aware(model, target, frames())
    for learned in {id(m): m for m in aware.module.modules() if isinstance(m, LearnedRange)}.values():
        with torch.no_grad():  # so that they are nobody's usual ones
            learned.factor.mul_(torch.tensor([0.8, 0.7]))
    plain = without_rounding(aware, model)
    made = edgecnn.convert(plain, to=[target], out=tmp_path / "small.edge")
    assert made.bundle is not None
    manifest, artifact = made.bundle.manifest, made.bundle.artifact(target, "fp32")
    writer = FORMATS.get(target).load_int8_writer()(made.bundle.checked_path(artifact), manifest.layers, threads=1)
    assert writer.range_methods[0] == "learned"
    writer.calibrate([frame[None] for frame in frames()])
    seen = frames(seed=9)
    answered = {}
    methods: tuple[RangeMethod, ...] = ("learned", "min-max")
    for ranges in methods:
        folder = tmp_path / ranges
        folder.mkdir()
        plan = Plan(int8_layers=frozenset(writer.layers), ranges=ranges)
        file = writer.write(plan, folder).files[0]
        backend = FORMATS.get(target).load_backend()(
            file, outputs=manifest.outputs, device=parse_device("cpu"), precision="int8", threads=1
        )
        try:
            rows = [next(iter(backend.infer(frame[None]).values())).copy() for frame in seen]
        finally:
            backend.close()
        answered[ranges] = np.concatenate(rows)
    rounded, exact = answers(aware, seen), answers(model, seen)
    error = noise_db(answered["learned"], rounded)
    if target == "openvino" and not {"avx_vnni", "avx512_vnni"} & set(describe_machine().cpu_flags):
        pytest.skip("this processor adds int8 products in 16 bits, which overflow (no VNNI)")
    assert error < noise_db(rounded, exact) - 6, "closer to the network that rounds than that is to the exact one"
    assert error < noise_db(answered["min-max"], rounded) - 6
