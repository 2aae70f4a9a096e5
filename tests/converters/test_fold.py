"""Scale, std and colour order go into the first convolutions where that is exact, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgecnn import FrameSpec, Segment, TrainedModel
from edgecnn.converters.deployable.rewrites.fold import fold_normalisation
from edgecnn.converters.deployable.wrapper import Deployable
from edgecnn.frame import ColourOrder
from edgecnn.sources.normalise import normalise

pytestmark = pytest.mark.torch

SIZE_PX = 32


class Plain(nn.Module):
    """An ordinary stem."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.rest = nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.stem(x).relu())  # type: ignore[no-any-return]


class Focus(Plain):
    """YOLOX's stem: four neighbouring pixels become twelve channels first."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(12, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        parts = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
        return self.rest(self.stem(torch.cat(parts, 1)).relu())  # type: ignore[no-any-return]


class Twice(Plain):
    """ESPNetv2's way: a later convolution sees the picture again, smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(3, 8, 3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        smaller = functional.avg_pool2d(x, 2)
        return self.rest(self.stem(x).relu() + self.again(smaller))  # type: ignore[no-any-return]


class Shared(Plain):
    """One convolution sees the picture in two sizes."""

    def forward(self, x: Tensor) -> Tensor:
        large = functional.avg_pool2d(self.stem(x), 2)
        return self.rest(large + self.stem(functional.avg_pool2d(x, 2)))  # type: ignore[no-any-return]


class Residual(Plain):
    """The picture is also added at the end, where no convolution scales it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + functional.avg_pool2d(x, 2).mean(1, keepdim=True)


class Squared(Plain):
    """The picture is squared first: no scale can be moved past that."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * x)


class Grouped(Plain):
    """The stem has a group for each colour: its inputs cannot be reordered, only scaled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 9, 3, stride=2, padding=1, groups=3)
        self.rest = nn.Conv2d(9, 4, 1)


class Swapped(Plain):
    """Turns the colours itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, [2, 0, 1]])


class Normalised(Plain):
    """Batch normalisation in front of the first convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        with torch.no_grad():
            self.norm.running_mean.copy_(torch.tensor([0.3, 0.4, 0.5]))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.norm(x))


FOLDED = {Plain: True, Focus: True, Twice: True, Shared: False, Residual: False, Squared: False, Normalised: False}


def spec_of(colour: ColourOrder = "rgb") -> FrameSpec:
    return FrameSpec(
        height_px=SIZE_PX,
        width_px=SIZE_PX,
        colour=colour,
        scale=1 / 255,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.1, 0.4),
    )


def deployed(network: nn.Module, colour: ColourOrder) -> Deployable:
    task = Segment(labels=("a", "b", "c", "d"), decided_in="finish")
    return Deployable(TrainedModel(module=network, frame=spec_of(colour), task=task))


@pytest.mark.parametrize("colour", ["rgb", "bgr"])
@pytest.mark.parametrize(
    "make", [Plain, Focus, Twice, Shared, Residual, Squared, Grouped, Swapped, Normalised], ids=lambda m: m.__name__
)
def test_the_deployable_answers_as_the_network_fed_by_hand(make: Callable[[], nn.Module], colour: ColourOrder) -> None:
    torch.manual_seed(0)
    network = make().eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    deployable = deployed(network, colour)
    frames = torch.randint(0, 256, (2, SIZE_PX, SIZE_PX, 3), dtype=torch.uint8)
    with torch.no_grad():
        (found,) = deployable(frames)
        expected = network(normalise(frames, spec_of(colour)))
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name]), f"{name} of the original was changed"


@pytest.mark.parametrize("make", list(FOLDED), ids=lambda m: m.__name__)
def test_what_can_be_folded_is_and_what_cannot_is_not(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    folding = fold_normalisation(make().eval(), spec_of())
    assert folding.scale is folding.colour is FOLDED[make]  # type: ignore[index]


def test_a_grouped_stem_is_scaled_and_the_colours_are_turned_in_front_of_it() -> None:
    torch.manual_seed(0)
    folding = fold_normalisation(Grouped().eval(), spec_of())
    assert (folding.scale, folding.colour) == (True, False)


def test_the_colours_of_a_bgr_network_are_left_alone() -> None:
    torch.manual_seed(0)
    folding = fold_normalisation(Plain().eval(), spec_of("bgr"))
    assert (folding.scale, folding.colour) == (True, False)


def test_the_manifest_says_what_was_folded() -> None:
    torch.manual_seed(0)
    assert deployed(Plain().eval(), "rgb").in_graph[:4] == (
        "cast uint8 to float",
        "BGR to RGB (folded into the first convolution)",
        "scale and std (folded into the first convolution)",
        "mean",
    )
    assert deployed(Residual().eval(), "rgb").in_graph[:4] == (
        "cast uint8 to float",
        "BGR to RGB",
        "scale and std",
        "mean",
    )
    assert "BGR to RGB" not in deployed(Plain().eval(), "bgr").in_graph


def test_the_mean_goes_on_meaning_zero_at_the_padded_border() -> None:
    """A picture of the mean's colour is all zeros to the network, borders included."""
    torch.manual_seed(0)
    network = Plain().eval()
    spec = FrameSpec(height_px=SIZE_PX, width_px=SIZE_PX, scale=1.0, mean=(10, 20, 30), std=(5, 6, 7))
    task = Segment(labels=("a", "b", "c", "d"), decided_in="finish")
    deployable = Deployable(TrainedModel(module=network, frame=spec, task=task))
    frame = torch.tensor([30, 20, 10], dtype=torch.uint8).expand(1, SIZE_PX, SIZE_PX, 3).contiguous()
    with torch.no_grad():
        (found,) = deployable(frame)
    torch.testing.assert_close(found, found[:, :, :1, :1].expand_as(found))
