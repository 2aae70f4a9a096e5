"""A stem that folds pixels into channels is deployed as one convolution with a stride."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import edgecnn
from edgecnn.converters.deployable.rewrites.stem import StridedStem, stride_stem
from edgecnn.converters.deployable.wrapper import Deployable
from edgecnn.frame import FrameSpec

pytestmark = pytest.mark.torch

SPEC = FrameSpec(width_px=64, height_px=48)


class Unshuffled(nn.Module):
    """The order of torch's own pixel_unshuffle, blocks of any size, a kernel that is not square."""

    def __init__(self, block_px: int, conv: nn.Conv2d) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(block_px), conv)
        self.rest = nn.Conv2d(conv.out_channels, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rest(torch.relu(self.stem(x)))
        return y


class LooksTwice(nn.Module):
    """The folded pixels are wanted beside the convolution, too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Shortcut()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.stem(x)
        return y


class _Shortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 12, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        folded = nn.functional.pixel_unshuffle(x, 2)
        y: Tensor = self.conv(folded) + folded
        return y


def same(one: nn.Module, other: nn.Module) -> None:
    x = torch.randn(2, 3, SPEC.height_px, SPEC.width_px)
    with torch.no_grad():
        torch.testing.assert_close(other(x), one(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("block_px", [2, 4])
@pytest.mark.parametrize(("kernel", "padding"), [((3, 3), (1, 1)), ((1, 3), (0, 2)), ((5, 1), (0, 0))])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_of_folded_pixels_is_one_with_a_stride(
    block_px: int, kernel: tuple[int, int], padding: tuple[int, int], bias: bool
) -> None:
    conv = nn.Conv2d(3 * block_px**2, 7, kernel, padding=padding, bias=bias)
    network = Unshuffled(block_px, conv).eval()
    strided = stride_stem(network, SPEC)
    assert isinstance(strided, Unshuffled) and isinstance(strided.stem, StridedStem)
    assert not any(isinstance(module, nn.PixelUnshuffle) for module in strided.modules())
    assert [name for name, module in strided.named_modules() if isinstance(module, nn.Conv2d)] == ["stem.1", "rest"]
    same(network, strided)
    assert isinstance(network.stem, nn.Sequential), "the original is as it was"


def test_yolox_keeps_the_names_of_its_layers_and_loses_its_slices() -> None:
    model = edgecnn.load_model("yolox-nano", size=(64, 64))
    strided = stride_stem(model.module.eval(), model.frame)
    convs = [
        [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
        for network in (model.module, strided)
    ]
    assert convs[0] == convs[1]
    x = torch.randn(1, 3, 64, 64)
    for one, other in zip(model.module(x), strided(x), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
    assert len(steps_of_two(model.module, (x,))) == 6
    deployable = Deployable(model)
    assert steps_of_two(deployable, (deployable.example(),)) == []


def steps_of_two(network: nn.Module, example: tuple[Tensor, ...]) -> list[str]:
    """Slices that take every second pixel."""
    nodes = torch.export.export(network, example).graph.nodes
    return [node.name for node in nodes if node.target is torch.ops.aten.slice.Tensor and node.args[4:] == (2,)]


@pytest.mark.parametrize(
    "network",
    [
        LooksTwice(),
        nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3)),  # the folding is the network's own step
        Unshuffled(2, nn.Conv2d(12, 8, 3, groups=4)),
        Unshuffled(2, nn.Conv2d(12, 8, 3, stride=2)),
        Unshuffled(2, nn.Conv2d(12, 8, 3, dilation=2)),
        Unshuffled(2, nn.Conv2d(12, 8, 3, padding=1, padding_mode="reflect")),
    ],
    ids=["twice", "root", "groups", "stride", "dilation", "reflect"],
)
def test_a_stem_that_cannot_be_strided_stays(network: nn.Module) -> None:
    assert stride_stem(network.eval(), SPEC) is network
