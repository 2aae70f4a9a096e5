"""Shuffled channels are deployed as contiguous slices, with the weights in another order."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from edgecnn.converters.deployable.rewrites.batch_norm import fuse_batch_norm
from edgecnn.converters.deployable.rewrites.shuffle import read_shuffles_in_slices
from edgecnn.frame import FrameSpec
from edgecnn.sources.zoo.nanodet import NanoDetPlus, interleaved

pytestmark = pytest.mark.torch

SPEC = FrameSpec(width_px=64, height_px=96)
SHUFFLING = {"view", "unflatten", "transpose", "chunk", torch.unflatten, torch.transpose, torch.chunk}


class Units(nn.Module):
    """A stem, units that shuffle, and what reads the last of them."""

    def __init__(self, half: int, units: int, groups: int, last: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 2 * half, 3, stride=2, padding=1)
        self.units = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(half, half, 1),
                nn.ReLU(),
                nn.Conv2d(half, half, 3, padding=1, groups=half),
                nn.Conv2d(half, half, 1, bias=False),
                nn.LeakyReLU(),
            )
            for _ in range(units)
        )
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(2 * half, 5, 1)
        self.groups, self.last = groups, last

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        for unit in self.units:
            passing, convolved = x.chunk(2, dim=1)
            x = torch.cat((passing, unit(convolved)), dim=1)
            x = torch.unflatten(x, 1, (self.groups, -1)).transpose(1, 2).flatten(1, 2)
        if self.last is not None:
            return self.last(x)
        y: Tensor = self.head(self.pool(x))
        return y


class SharedConvolution(nn.Module):
    """One convolution reads a map and its shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.shared(interleaved(self.shared(torch.relu(self.stem(x)))))
        return y


class Deciding(nn.Module):
    """What cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return interleaved(x) if x.mean() > 0 else x


def answers(network: nn.Module) -> list[Tensor]:
    x = torch.randn(2, 3, SPEC.height_px, SPEC.width_px, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answer = network(x)
    parts = [answer] if isinstance(answer, Tensor) else [part for level in answer for part in level]
    return list(parts)


def shuffles(network: nn.Module) -> int:
    assert isinstance(network, fx.GraphModule)
    return sum(node.target in SHUFFLING for node in network.graph.nodes)


def real_networks() -> list[nn.Module]:
    torch.manual_seed(0)
    own = NanoDetPlus(channels=(24, 48, 72), width=16, classes=3).eval()
    theirs = torchvision.models.shufflenet_v2_x0_5(num_classes=7).eval()
    return [fuse_batch_norm(network, SPEC) for network in (own, theirs)]


@pytest.mark.parametrize("index", [0, 1], ids=["NanoDet-Plus", "torchvision's ShuffleNetV2"])
def test_a_networks_shuffles_become_slices_of_what_convolutions_make(index: int) -> None:
    network = real_networks()[index]
    before = copy.deepcopy(network.state_dict())
    rewritten = read_shuffles_in_slices(network, SPEC)
    assert shuffles(rewritten) == 0
    for expected, found in zip(answers(network), answers(rewritten), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert set(rewritten.state_dict()) == set(before)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(1, 5), st.sampled_from([2, 3, 4]))
def test_units_of_any_width_number_and_groups_answer_alike(half: int, units: int, groups: int) -> None:
    torch.manual_seed(half * 100 + units)
    network = Units(half * groups, units, groups).eval()
    rewritten = read_shuffles_in_slices(network, SPEC)
    if half * groups > 1:
        assert not any(node.target == "transpose" for node in rewritten.graph.nodes)  # type: ignore[union-attr]
    (expected,), (found,) = answers(network), answers(rewritten)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_one_unit_reads_lies_side_by_side() -> None:
    rewritten = read_shuffles_in_slices(Units(16, 3, 2).eval(), SPEC)
    assert isinstance(rewritten, fx.GraphModule)
    slices = [n for n in rewritten.graph.nodes if n.target is operator.getitem and isinstance(n.args[1], tuple)]
    read = [(n.args[0], n.args[1][1].start, n.args[1][1].stop) for n in slices]
    assert len(set(read)) == len(read)
    assert len(read) <= 3 * 4  # of the stem and each unit before, one slice for each unit that reads of it


@pytest.mark.parametrize(
    "last",
    [
        lambda x: x,
        lambda x: x.softmax(dim=1).cumsum(dim=1),
        lambda x: x * torch.arange(32.0).reshape(1, -1, 1, 1),
        lambda x: x.mean((2, 3)),
    ],
    ids=["the answer", "a sum over channels", "a factor for each", "a mean of each"],
)
def test_channels_whose_order_matters_stay_where_they_are(last: Callable[[Tensor], Tensor]) -> None:
    network = Units(16, 2, 2, last).eval()
    rewritten = read_shuffles_in_slices(network, SPEC)
    for expected, found in zip(answers(network), answers(rewritten), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [SharedConvolution, Deciding])
def test_a_network_that_cannot_be_rewritten_is_left_as_it_is(make: Callable[[], nn.Module]) -> None:
    network = make().eval()
    assert read_shuffles_in_slices(network, SPEC) is network


def test_a_network_without_shuffles_is_left_as_it_is() -> None:
    network = torchvision.models.squeezenet1_1(num_classes=4).eval()
    assert read_shuffles_in_slices(network, SPEC) is network


def test_a_grouped_convolution_that_reads_shuffled_channels_keeps_its_groups() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, groups=2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.second(interleaved(torch.relu(self.first(x))))
            return y

    network = Grouped().eval()
    (expected,), (found,) = answers(network), answers(read_shuffles_in_slices(network, SPEC))
    torch.testing.assert_close(found, expected)
