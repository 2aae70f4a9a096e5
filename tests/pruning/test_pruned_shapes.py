"""A freshly built network takes the widths of saved weights."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")

import torch
from torch import Tensor, nn

from edgecnn.errors import WeightsError
from edgecnn.sources.shapes import reshape_like
from edgecnn.sources.weights import fit_weights

pytestmark = pytest.mark.torch


class Scale(nn.Module):
    """A parameter and a buffer of the network's own code."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.register_buffer("shift", torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.get_buffer("shift")


def network(hidden: int, middle: int, *, grouped: int = 4) -> nn.Sequential:
    """Every kind of layer, at 16 by 16 px; `hidden` is a multiple of 4."""
    torch.manual_seed(hidden)
    return nn.Sequential(
        nn.Conv2d(3, hidden, 3, padding=1),
        nn.BatchNorm2d(hidden),
        nn.PReLU(hidden),
        nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
        nn.GroupNorm(2, hidden),
        nn.Conv2d(hidden, middle, 1, groups=grouped),
        Scale(middle),
        nn.ConvTranspose2d(middle, hidden, 2, stride=2),
        nn.ConvTranspose2d(hidden, hidden, 2, stride=2, groups=hidden),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.LayerNorm(hidden),
        nn.Linear(hidden, middle),
        nn.BatchNorm1d(middle, affine=False),
        nn.Linear(middle, 5, bias=False),
    ).eval()


def numbers(module: nn.Module) -> dict[str, object]:
    """What layers count besides their tensors."""
    names = ("in_channels", "out_channels", "groups", "num_features", "num_channels", "num_parameters", "in_features")
    return {
        f"{name}.{number}": getattr(part, number)
        for name, part in module.named_modules()
        for number in (*names, "out_features", "normalized_shape")
        if hasattr(part, number)
    }


def test_a_wide_network_becomes_the_narrow_one_that_was_saved() -> None:
    wide, narrow = network(16, 24), network(8, 12)
    reshape_like(wide, narrow.state_dict())
    assert numbers(wide) == numbers(narrow)
    wide.load_state_dict(narrow.state_dict(), strict=True)
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(wide(x), narrow(x))
    wide.train()(x).sum().backward()
    assert all(parameter.grad is not None for parameter in wide.parameters())


def test_saved_weights_of_the_same_widths_change_nothing() -> None:
    module = network(16, 24)
    tensors = {name: tensor.data_ptr() for name, tensor in module.state_dict().items()}
    reshape_like(module, copy.deepcopy(module).state_dict())
    assert {name: tensor.data_ptr() for name, tensor in module.state_dict().items()} == tensors


def test_frozen_parameters_stay_frozen_and_types_stay() -> None:
    module, narrow = network(16, 24).double(), network(8, 12)
    module[0].weight.requires_grad_(False)
    reshape_like(module, narrow.state_dict())
    assert [name for name, each in module.named_parameters() if not each.requires_grad] == ["0.weight"]
    assert {each.dtype for each in module.parameters()} == {torch.float64}


def test_a_grouped_convolution_keeps_its_groups_and_reads_fewer_channels_in_each() -> None:
    conv = nn.Conv2d(32, 16, 3, groups=8)
    reshape_like(conv, {"weight": torch.zeros(8, 2, 3, 3), "bias": torch.zeros(8)})
    assert (conv.groups, conv.in_channels, conv.out_channels) == (8, 16, 8)
    assert conv(torch.zeros(1, 16, 4, 4)).shape == (1, 8, 2, 2)


def test_names_that_only_one_side_has_are_left_to_the_loading() -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1))
    tensors = {"0.weight": torch.zeros(4, 3, 1, 1), "0.bias": torch.zeros(4), "2.weight": torch.zeros(9)}
    reshape_like(module, tensors)
    with pytest.raises(WeightsError, match=r"2 missing, first '1\.weight'; 1 unexpected, first '2\.weight'"):
        fit_weights(module, tensors, origin="narrow.safetensors")


@pytest.mark.parametrize(
    ("build", "tensors", "message"),
    [
        (lambda: nn.Conv2d(3, 8, 3), {"weight": torch.zeros(16, 3, 3, 3)}, "is narrower than the built one"),
        (lambda: nn.Conv2d(3, 8, 3), {"weight": torch.zeros(8, 3, 3)}, "is narrower than the built one"),
        (lambda: nn.Conv2d(3, 8, 3), {"weight": torch.zeros(8, 3, 1, 1)}, r"kernel of \[3, 3\] px, .* \[1, 1\]"),
        (lambda: nn.Conv2d(8, 8, 1, groups=4), {"weight": torch.zeros(6, 2, 1, 1)}, "has 4 groups, .* 6 outputs"),
        (lambda: nn.MultiheadAttention(8, 2), {"in_proj_bias": torch.zeros(12)}, "a MultiheadAttention, .* narrowed"),
    ],
)
def test_anything_but_a_narrower_network_is_refused_and_nothing_changes(
    build: Callable[[], nn.Module], tensors: dict[str, Tensor], message: str
) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 1), build())
    shapes = [each.shape for each in module.parameters()]
    narrower = {"0.weight": torch.zeros(4, 3, 1, 1), "0.bias": torch.zeros(4)}
    with pytest.raises(WeightsError, match=message):
        reshape_like(module, narrower | {f"1.{name}": tensor for name, tensor in tensors.items()})
    assert [each.shape for each in module.parameters()] == shapes
