"""Channels go with all that belongs to them, and what is left answers as it did."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch_pruning", reason="needs torch-pruning: pip install 'edgecnn[train]'")

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from edgecnn import Classify, FrameSpec, TrainedModel, load_model
from edgecnn.errors import SourceError, SpecError, UnknownNameError
from edgecnn.pruning.channel_selection import Cost, Selection
from edgecnn.pruning.channels import PruneSettings, cost_of, prune_by_ratio, prune_to_share
from edgecnn.pruning.couplings import Coupling, Side, find_couplings
from edgecnn.pruning.importance import scorer
from edgecnn.pruning.layers import all_trainable
from edgecnn.pruning.removal import Check, least_important
from edgecnn.pruning.tracing import answering_layers
from edgecnn.sources.shapes import reshape_like

pytestmark = pytest.mark.torch

SIDE_PX = 16


def unit(inputs: int, outputs: int, kernel: int = 3, *, groups: int = 1, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())


def head(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


class Residual(nn.Module):
    def __init__(self, *inner: nn.Module) -> None:
        super().__init__()
        self.inner = nn.Sequential(*inner)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)  # type: ignore[no-any-return]


class Beside(nn.Module):
    """Its parts' answers to the same input, concatenated."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part(x) for part in self.parts], dim=1)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x).sigmoid()  # type: ignore[no-any-return]


class ConvNext(nn.Module):
    """Layer normalisation and linear layers on the last axis, and a scale that belongs to no layer."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.mix = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 3 * channels), nn.GELU(), nn.Linear(3 * channels, channels)
        )
        self.scale = nn.Parameter(torch.rand(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.mix(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return x + self.scale * y


class SharedHead(nn.Module):
    """One head on the maps of two strides, as detectors have it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = unit(3, 24), unit(24, 24, stride=2)
        self.tower, self.boxes, self.classes = unit(24, 24), nn.Conv2d(24, 4, 1), nn.Conv2d(24, 7, 1)

    def forward(self, x: Tensor) -> dict[str, list[Tensor]]:
        fine = self.stem(x)
        towers = [self.tower(each) for each in (fine, self.down(fine))]
        return {"boxes": [self.boxes(each) for each in towers], "classes": [self.classes(each) for each in towers]}


class Segmenter(nn.Module):
    """Two answers added, one through a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = unit(3, 16), unit(16, 32, stride=2)
        self.up = nn.ConvTranspose2d(32, 24, 2, stride=2)
        self.low, self.high = nn.Conv2d(16, 5, 1), nn.Conv2d(24, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        answer = self.low(fine) + self.high(self.up(self.coarse(fine)).relu())
        return functional.interpolate(answer, scale_factor=2.0)


class Shuffle(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.unflatten(x, 1, (2, -1)).transpose(1, 2).flatten(1, 2)


class HalfKept(nn.Module):
    """The first half of the channels goes around a convolution, as in ShuffleNetV2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(unit(channels // 2, channels, 1), unit(channels, channels // 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, dim=1)
        return torch.cat((kept, self.inner(changed)), dim=1)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "plain": lambda: nn.Sequential(unit(3, 24), unit(24, 32, stride=2), unit(32, 40), head(40)),
    "flattened": lambda: nn.Sequential(
        unit(3, 16, stride=2), unit(16, 16, stride=2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 5)
    ),
    "residual": lambda: nn.Sequential(
        unit(3, 24), Residual(unit(24, 32), unit(32, 24)), Residual(unit(24, 16), unit(16, 24)), head(24)
    ),
    "depthwise": lambda: nn.Sequential(
        unit(3, 24), unit(24, 24, groups=24, stride=2), unit(24, 48, 1), unit(48, 48, groups=48), head(48)
    ),
    "grouped": lambda: nn.Sequential(unit(3, 32), unit(32, 64, groups=4), unit(64, 32, groups=8), head(32)),
    "narrowing groups": lambda: nn.Sequential(
        unit(3, 32), Beside(unit(32, 16, groups=16), unit(32, 32, groups=4)), unit(48, 24), head(24)
    ),
    "concatenated": lambda: nn.Sequential(
        unit(3, 16),
        Residual(Beside(unit(16, 8), unit(16, 8))),
        Beside(unit(16, 24), nn.MaxPool2d(3, 1, 1), unit(16, 8)),
        Residual(unit(48, 16, 1), unit(16, 48, 1)),
        head(48),
    ),
    "groups of a concatenation": lambda: nn.Sequential(
        unit(3, 16), Beside(unit(16, 16), unit(16, 32)), unit(48, 48, groups=3), head(48)
    ),
    "squeeze-excite": lambda: nn.Sequential(
        unit(3, 24), SqueezeExcite(24, 16), unit(24, 32), SqueezeExcite(32, 8), head(32)
    ),
    "convnext": lambda: nn.Sequential(unit(3, 16), ConvNext(16), ConvNext(16), head(16)),
    "prelu and group norm": lambda: nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.GroupNorm(4, 32), nn.PReLU(32), nn.Conv2d(32, 24, 3), nn.PReLU(), head(24)
    ),
    "shared head": SharedHead,
    "segmenter": Segmenter,
    "shuffled": lambda: nn.Sequential(
        unit(3, 16), HalfKept(16), Shuffle(), unit(16, 24, groups=2), Shuffle(), unit(24, 32), unit(32, 32), head(32)
    ),
}
MADE_HERE = pytest.mark.parametrize("name", NETWORKS)


def trained(module: nn.Module, *, side_px: int = SIDE_PX) -> TrainedModel:
    """A network whose batch normalisations have seen something and differ from channel to channel."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for parameter in (part.weight, part.bias):
                nn.init.uniform_(parameter, 0.3, 1.5)
            part.momentum = None
    with torch.no_grad():
        module.train()(torch.randn(4, 3, side_px, side_px))
    labels = tuple("abcde")
    return TrainedModel(
        module=module, frame=FrameSpec(height_px=side_px, width_px=side_px), task=Classify(labels=labels), name="tiny"
    )


def made(name: str) -> TrainedModel:
    torch.manual_seed(0)
    return trained(NETWORKS[name]())


def ask(module: nn.Module, *, side_px: int = SIDE_PX) -> list[Tensor]:
    x = torch.randn(2, 3, side_px, side_px, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return tree_leaves(copy.deepcopy(module).eval()(x))


def macs(module: nn.Module, *, side_px: int = SIDE_PX) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(module).eval()(torch.zeros(1, 3, side_px, side_px))
    return int(counter.get_total_flops() // 2)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def widths(module: nn.Module) -> dict[str, int]:
    """Channels that each convolution and linear layer writes."""
    return {
        name: int(part.out_features if isinstance(part, nn.Linear) else part.out_channels)
        for name, part in module.named_modules()
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    }


def check_pruned(model: TrainedModel, pruned: TrainedModel, fresh: nn.Module, *, side_px: int = SIDE_PX) -> None:
    """What must be so whatever was pruned."""
    before, after = widths(model.module), widths(pruned.module)
    assert count(pruned.module) < count(model.module)
    assert all(after[name] == n or (after[name] < n and after[name] % 8 == 0) for name, n in before.items())
    assert all(after[name] >= n * 0.1 for name, n in before.items())
    answer = ask(pruned.module, side_px=side_px)
    assert [part.shape for part in answer] == [part.shape for part in ask(model.module, side_px=side_px)]
    assert all(part.isfinite().all() for part in answer)
    reshape_like(fresh, pruned.module.state_dict())
    fresh.load_state_dict(pruned.module.state_dict(), strict=True)
    assert all(torch.equal(a, b) for a, b in zip(ask(fresh, side_px=side_px), answer, strict=True))


@MADE_HERE
def test_half_of_the_channels_go_and_the_rest_can_be_built_again(name: str) -> None:
    model = made(name)
    state, mode = copy.deepcopy(model.module.state_dict()), model.module.training
    pruned = prune_by_ratio(model, ratio=0.5)
    check_pruned(model, pruned, NETWORKS[name]())
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.module.state_dict().items())
    assert model.module.training is mode is pruned.module.training
    assert all(each.grad is None and each.requires_grad for each in pruned.module.parameters())
    assert pruned.warnings == ()


@pytest.mark.parametrize("name", ["concatenated", "groups of a concatenation", "convnext"])
def test_scales_of_batch_norms_decide_where_they_see_but_a_part_of_the_channels(name: str) -> None:
    model = made(name)
    check_pruned(
        model, prune_by_ratio(model, ratio=0.5, settings=PruneSettings(importance="batch-norm")), NETWORKS[name]()
    )


@pytest.mark.parametrize("name", sorted(set(NETWORKS) - {"shuffled"}))
def test_in_networks_of_ordinary_layers_every_coupling_is_sound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the search for those that are would hide what is wrong, and take its time."""

    def search(_: Check, couplings: list[Coupling]) -> list[Coupling]:
        raise AssertionError(f"{len(couplings)} couplings are not all sound")

    monkeypatch.setattr(Check, "sound", search)
    prune_by_ratio(made(name), ratio=0.5, settings=PruneSettings(round_to=1))


@MADE_HERE
def test_a_network_shrinks_to_a_share_of_its_multiply_adds(name: str) -> None:
    model = made(name)
    pruned = prune_to_share(model, share=0.6, settings=PruneSettings(round_to=1))
    share = macs(pruned.module) / macs(model.module)
    coarse = {"grouped": 0.15, "narrowing groups": 0.2, "groups of a concatenation": 0.2, "shuffled": 0.1}
    assert 0.6 - coarse.get(name, 0.04) < share <= 0.6


@pytest.mark.parametrize("ranked", [True, False])
def test_a_network_shrinks_to_a_share_of_its_parameters(ranked: bool) -> None:
    model = made("residual")
    rounding = PruneSettings(round_to=2, global_ranking=ranked)
    pruned = prune_to_share(model, share=0.4, cost="parameters", settings=rounding)
    assert 0.36 < count(pruned.module) / count(model.module) <= 0.4


@MADE_HERE
def test_what_is_left_answers_as_the_network_without_the_channels_that_went(name: str) -> None:
    """The weights of what stayed are found in the original, and all others set to zero there."""
    model = made(name)
    for part in model.module.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):  # no number twice
            values = (torch.randperm(part.weight.numel()) + 0.5) / part.weight.numel() - 0.5
            part.weight.data = values.reshape(part.weight.shape) * part.weight.std()
    pruned = prune_by_ratio(model, ratio=0.4, settings=PruneSettings(round_to=1)).module
    if any(isinstance(part, nn.LayerNorm | nn.GroupNorm) for part in pruned.modules()):
        pytest.skip("a silent channel still counts in their averages")
    silenced = copy.deepcopy(model.module)
    parts = dict(pruned.named_modules())
    for key, part in silenced.named_modules():
        if not isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        weight, left = part.weight.detach(), parts[key].get_parameter("weight").detach()
        found = torch.isin(weight, left)
        assert int(found.sum()) == left.numel()
        part.weight.data = torch.where(found, weight, 0.0)
    for a, b in zip(ask(pruned), ask(silenced), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_channel_that_was_always_zero_is_not_missed() -> None:
    model = made("residual")
    layers = dict(model.module.named_modules())
    with torch.no_grad():  # six of the 24 channels that the shortcuts carry, and six of 32 inside
        for name, silent in (
            ("0", range(6)),
            ("1.inner.1", range(6)),
            ("2.inner.1", range(6)),
            ("1.inner.0", range(6)),
        ):
            block: Any = layers[name]
            for tensor in (block[0].weight, block[1].weight, block[1].bias):
                tensor[list(silent)] = 0
    pruned = prune_by_ratio(model, ratio=0.2, settings=PruneSettings(round_to=1, importance="batch-norm"))
    gone = {"0.0": 18, "1.inner.1.0": 18, "2.inner.1.0": 18, "1.inner.0.0": 26}
    assert widths(pruned.module) == widths(model.module) | gone
    for a, b in zip(ask(pruned.module), ask(model.module), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@settings(max_examples=12, deadline=None)
@given(
    ratio=st.floats(0.3, 0.9), round_to=st.sampled_from([1, 4, 8]), largest=st.floats(0.5, 0.95), ranked=st.booleans()
)
def test_every_layer_stays_within_its_bounds(ratio: float, round_to: int, largest: float, ranked: bool) -> None:
    model = made("squeeze-excite")
    bounds = PruneSettings(round_to=round_to, largest_ratio=largest, global_ranking=ranked)
    pruned = prune_by_ratio(model, ratio=ratio, settings=bounds)
    before, after = widths(model.module), widths(pruned.module)
    for name, channels in after.items():
        assert channels == before[name] or (
            channels % round_to == 0 and channels >= before[name] * (1 - largest) - 1e-6
        )
    if not ranked and round_to == 1:
        gone = {name: 1 - channels / before[name] for name, channels in after.items() if channels != before[name]}
        assert all(math.isclose(share, min(ratio, largest), abs_tol=0.2) for share in gone.values())


def test_layers_that_are_to_be_kept_write_as_much_as_before() -> None:
    model = made("plain")
    pruned = prune_by_ratio(model, ratio=0.5, settings=PruneSettings(keep=("1",), largest_ratio=0.7))
    after = widths(pruned.module)
    assert after["1.0"] == 32 and after["0.0"] < 24
    with pytest.raises(UnknownNameError, match=r"no part of tiny is called 'stem'"):
        prune_by_ratio(model, ratio=0.5, settings=PruneSettings(keep=("stem",)))


def test_layers_that_answer_keep_their_channels() -> None:
    detector = prune_by_ratio(made("shared head"), ratio=0.6, settings=PruneSettings(round_to=1)).module
    assert {name: widths(detector)[name] for name in ("boxes", "classes")} == {"boxes": 4, "classes": 7}
    # The answer is what a sum, an activation and a depthwise convolution make of two layers.
    module = nn.Sequential(
        unit(3, 16), unit(16, 16), Residual(unit(16, 32), nn.Conv2d(32, 16, 1)), unit(16, 16, groups=16)
    )
    names = {part: name for name, part in module.named_modules()}
    found = {names[part] for part in answering_layers(module, torch.zeros(1, 3, 8, 8))}
    assert found == {"1.0", "2.inner.1", "3.0"}
    after = widths(prune_by_ratio(trained(module), ratio=0.5).module)
    assert [after[name] for name in ("0.0", "1.0", "2.inner.0.0", "2.inner.1", "3.0")] == [8, 16, 16, 16, 16]


def test_what_is_shuffled_or_split_is_left_alone() -> None:
    model = made("shuffled")
    before, after = widths(model.module), widths(prune_by_ratio(model, ratio=0.5).module)
    assert {name for name, n in before.items() if after[name] == n} >= {"0.0", "1.inner.1.0", "3.0"}
    assert after["1.inner.0.0"] < before["1.inner.0.0"] and after["6.0"] < before["6.0"]


def test_shufflenet_is_followed_where_torch_pruning_alone_fails() -> None:
    module = load_model("torchvision:shufflenet_v2_x0_5").module
    with all_trainable(module):
        x = torch.zeros(1, 3, 32, 32)
        couplings = find_couplings(module, x, score=scorer("magnitude"), kept=(), round_to=8)
    inner = {"stage2.1.branch2.0", "stage3.1.branch2.0", "stage4.1.branch2.0", "conv5.0"}
    assert inner <= {name for coupling in couplings for name, side in coupling.positions if side == "out"}


def test_a_convolution_with_one_output_for_each_group_reads_less_and_writes_as_much() -> None:
    """As ESPNetv2 has it; taken for a depthwise one, it would hold all its inputs."""
    after = prune_by_ratio(made("narrowing groups"), ratio=0.5).module
    narrowing = after.get_submodule("1.parts.0.0")
    assert isinstance(narrowing, nn.Conv2d)
    assert (narrowing.in_channels, narrowing.out_channels, narrowing.groups) == (16, 16, 16)


def test_a_convolution_that_makes_several_channels_of_each_keeps_them_and_the_others_go() -> None:
    module = nn.Sequential(unit(3, 16), unit(16, 32, groups=16), unit(32, 32, 1), unit(32, 16), head(16)).eval()
    pruned = prune_by_ratio(trained(module), ratio=0.5)
    assert [n for name, n in widths(pruned.module).items() if name.endswith(".0")] == [16, 32, 16, 8]


def test_a_network_that_counts_its_channels_is_pruned_elsewhere() -> None:
    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(x.shape[0], 16, -1).mean(2)

    module = nn.Sequential(unit(3, 24), unit(24, 16), Counted(), nn.Linear(16, 5))
    after = widths(prune_by_ratio(trained(module), ratio=0.5).module)
    assert after == {"0.0": 16, "1.0": 16, "3": 5} or after == {"0.0": 8, "1.0": 16, "3": 5}


def test_gradients_decide_what_goes_by_taylor() -> None:
    model = made("plain")

    def only_some_matter(module: nn.Module) -> None:
        assert module is not model.module and not module.training
        loss = sum((part.weight[8:] * 3).sum() for part in module.modules() if isinstance(part, nn.Conv2d))
        assert isinstance(loss, Tensor)
        loss.backward()  # type: ignore[no-untyped-call]

    pruned = prune_by_ratio(model, ratio=0.2, settings=PruneSettings(importance="taylor"), gradients=only_some_matter)
    check_pruned(model, pruned, NETWORKS["plain"]())
    weights = [dict(each.named_parameters()) for each in (model.module, pruned.module)]
    narrowed = [
        name for name in ("0.0.weight", "1.0.weight", "2.0.weight") if len(weights[1][name]) < len(weights[0][name])
    ]
    assert narrowed
    for name in narrowed:
        gone = ~torch.isin(weights[0][name], weights[1][name]).flatten(1).any(1)
        assert not gone[8:].any()
    assert all(each.grad is None for each in model.module.parameters())


@pytest.mark.parametrize("given_gradients", [None, lambda module: None])
def test_taylor_without_gradients_is_refused(given_gradients: Callable[[nn.Module], None] | None) -> None:
    with pytest.raises(SpecError, match='"taylor" needs gradients'):
        prune_by_ratio(made("plain"), ratio=0.5, settings=PruneSettings(importance="taylor"), gradients=given_gradients)


def test_batch_norm_scales_need_batch_norms() -> None:
    module = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), head(32))
    with pytest.raises(SourceError, match=r"tiny has no channels that can be removed: .* \(batch-norm\)"):
        prune_by_ratio(trained(module), ratio=0.5, settings=PruneSettings(importance="batch-norm"))


def test_batch_norms_may_see_only_a_part_of_the_channels() -> None:
    module = nn.Sequential(nn.Conv2d(3, 48, 1), Residual(Beside(unit(48, 24), unit(48, 24))), nn.ReLU(), head(48))
    model = trained(module)
    with torch.no_grad():
        for number in range(2):
            module.get_parameter(f"1.inner.0.parts.{number}.1.weight")[8:16] = 0.01
    pruned = prune_by_ratio(model, ratio=0.3, settings=PruneSettings(importance="batch-norm")).module
    for number in range(2):
        name = f"1.inner.0.parts.{number}.1.weight"
        assert torch.equal(
            pruned.get_parameter(name), torch.cat((module.get_parameter(name)[:8], module.get_parameter(name)[16:]))
        )


def test_layers_with_larger_weights_are_no_more_important() -> None:
    module = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.Tanh(), nn.Conv2d(32, 32, 3), nn.Tanh(), nn.Conv2d(32, 32, 1), head(32)
    )
    module.get_parameter("0.weight").data *= 1000
    after = widths(prune_by_ratio(trained(module), ratio=0.5, settings=PruneSettings(round_to=1)).module)
    assert all(8 <= after[name] <= 24 for name in ("0", "2", "4"))


def coupling(layer: str, importance: list[float], *, step: int = 1) -> Coupling:
    """Of a layer that writes a channel for each, and one that reads them."""
    channels = np.arange(len(importance))[:, None]
    positions: dict[Side, Any] = {(layer, "out"): channels, (f"after {layer}", "in"): channels}
    return Coupling(positions=positions, importance=np.array(importance), channels=1, step=step)


def test_ranking_compares_layers_or_takes_the_same_share_of_each() -> None:
    pair = [coupling("weak", [0.1, 0.3, 0.2, 0.4]), coupling("strong", [2.0, 1.0, 4.0, 3.0, 6.0, 5.0, 8.0, 7.0])]
    assert Selection(pair, global_ranking=True, largest_ratio=0.9).by_ratio(0.5) == [1, 6]  # one of the weak stays
    assert Selection(pair, global_ranking=False, largest_ratio=0.9).by_ratio(0.5) == [2, 4]
    assert least_important(pair, [2, 6])["strong", "out"] == [0, 1]


def test_rounding_leaves_layers_alone_that_lose_nothing_and_otherwise_takes_the_nearest_width() -> None:
    odd = [coupling("odd", [5.0] * 10, step=8), coupling("even", [1.0] * 24, step=8)]
    selection = Selection(odd, global_ranking=True, largest_ratio=0.9)
    assert selection.by_ratio(5 / 34) == [10, 16]
    assert selection.by_ratio(3 / 34) == [10, 24]
    assert not selection.is_empty and Selection(odd, global_ranking=True, largest_ratio=0.1).is_empty


def test_what_need_not_go_for_the_bound_comes_back() -> None:
    cheap, dear = coupling("cheap", [0.1] * 16, step=8), coupling("dear", [1.0] * 16, step=8)
    cost = Cost(
        40.0, ((8.0, (("cheap", "out"),)), (32.0, (("dear", "out"),))), {("cheap", "out"): 16, ("dear", "out"): 16}
    )
    selection = Selection([cheap, dear], global_ranking=True, largest_ratio=0.9)
    assert selection.by_cost(cost, limit=36.0) == [8, 16]
    assert selection.by_cost(cost, limit=24.0) == [16, 8]  # the cheap one went first, and in vain
    assert selection.by_cost(cost, limit=23.9) == [8, 8]


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 1.5, math.nan])
def test_shares_outside_of_0_to_1_are_refused(share: float) -> None:
    model = made("plain")
    for attempt in (
        lambda: prune_by_ratio(model, ratio=share),
        lambda: prune_to_share(model, share=share),
        lambda: PruneSettings(largest_ratio=share),
    ):
        with pytest.raises(SpecError, match=f"between 0 and 1, got {share}"):
            attempt()


def test_words_that_mean_nothing_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="no importance is called 'magnitud'; did you mean magnitude"):
        PruneSettings(importance="magnitud")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="no cost is called 'flops'"):
        prune_to_share(made("plain"), share=0.5, cost="flops")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="a multiple of at least 1 channel, got 0"):
        PruneSettings(round_to=0)


def test_anything_that_cannot_be_reached_is_refused() -> None:
    model = made("plain")
    with pytest.raises(SpecError, match=r"at least \d+% of the network must remain, but 1% was requested"):
        prune_to_share(model, share=0.01)
    with pytest.raises(SpecError, match="rounding to multiples of 8 channels keeps all of tiny"):
        prune_by_ratio(model, ratio=0.01)


def test_networks_with_nothing_to_prune_are_refused() -> None:
    with pytest.raises(SourceError, match="tiny has no channels that can be removed"):
        prune_by_ratio(trained(nn.Sequential(unit(3, 8), head(8))), ratio=0.5)

    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.rand(8, 3, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return functional.conv2d(x, self.kernel).mean(dim=(2, 3))

    with pytest.raises(SourceError, match="no convolutions or linear layers as modules"):
        prune_by_ratio(trained(Functional()), ratio=0.5)
    shuffled = nn.Sequential(unit(3, 16), Shuffle(), unit(16, 8, groups=2), head(8))
    with pytest.raises(SourceError, match="with any of its channels removed, the remaining channels are mixed up"):
        prune_by_ratio(trained(shuffled), ratio=0.5)


def test_a_network_that_cannot_run_is_refused() -> None:
    model = made("flattened")
    wrong = TrainedModel(module=model.module, frame=FrameSpec(height_px=32, width_px=32), task=model.task)
    with pytest.raises(SourceError, match="channels of network cannot be traced: RuntimeError: mat1 and mat2"):
        prune_by_ratio(wrong, ratio=0.5)


def test_a_network_that_answers_nan_is_refused() -> None:
    model = made("plain")
    model.module.get_parameter("0.0.weight").data[0] = math.nan
    with pytest.raises(SourceError, match="channels of tiny cannot be traced: ValueError: it answers NaN"):
        prune_by_ratio(model, ratio=0.5)


def test_a_network_that_computes_in_float32_alone_is_checked_in_it() -> None:
    class Single(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.float()

    model = trained(nn.Sequential(Single(), *made("shuffled").module.children()))
    after = widths(prune_by_ratio(model, ratio=0.5).module)
    assert after["2.inner.0.0"] < 16 and after["1.0"] == 16


def test_frozen_parameters_stay_frozen_and_idle_heads_are_reported() -> None:
    class WithAuxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.aux = unit(3, 32), head(32), head(32)

        def forward(self, x: Tensor) -> Any:
            x = self.body(x)
            return (self.head(x), self.aux(x)) if self.training else self.head(x)

    model = trained(WithAuxiliary())
    model.module.get_parameter("body.0.weight").requires_grad_(False)
    pruned = prune_by_ratio(model, ratio=0.5)
    assert widths(pruned.module)["body.0"] == 16
    assert [name for name, each in pruned.module.named_parameters() if not each.requires_grad] == ["body.0.weight"]
    assert len(pruned.warnings) == 1 and pruned.warnings[0].startswith("aux of tiny did not contribute")


@pytest.mark.parametrize("name", ["yolox-nano", "torchvision:mobilenet_v3_small"])
def test_real_networks_lose_half_of_their_multiply_adds(name: str) -> None:
    side_px = 64
    model = load_model(name, size=(side_px, side_px))
    trained(model.module, side_px=side_px)
    pruned = prune_to_share(model, share=0.5)
    check_pruned(model, pruned, load_model(name, size=(side_px, side_px)).module, side_px=side_px)
    assert 0.48 < macs(pruned.module, side_px=side_px) / macs(model.module, side_px=side_px) <= 0.5
    assert pruned.frame == model.frame and pruned.task == model.task and pruned.name == model.name


@pytest.mark.parametrize("name", ["plain", "depthwise", "shared head"])
def test_what_a_network_costs_is_what_shares_are_of(name: str) -> None:
    model = made(name)
    assert model.module.training
    assert cost_of(model, "macs") == macs(model.module) and cost_of(model, "parameters") == count(model.module)
    assert model.module.training, "its mode is its own"
    wrong = TrainedModel(module=nn.Linear(3, 3), frame=model.frame, task=model.task)
    with pytest.raises(SourceError, match="cannot take a frame of 16x16 px: RuntimeError"):
        cost_of(wrong, "macs")
