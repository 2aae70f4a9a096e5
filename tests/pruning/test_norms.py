"""Batch norms of a narrower network: what they write of the same frames stays what it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgecnn.frame import FrameSpec
from edgecnn.pruning.channels import PruneSettings, prune_to_share
from edgecnn.pruning.norms import frames_wanted, keep_norm_outputs, norm_moments
from edgecnn.pruning.removal import remove
from edgecnn.sources import TrainedModel
from edgecnn.tasks import Classify

pytestmark = pytest.mark.torch

SIDE_PX = 24


def unit(inputs: int, outputs: int) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())


def network() -> nn.Sequential:
    """Three units whose norms have the statistics of `pictures()`, and a head."""
    torch.manual_seed(3)
    module = nn.Sequential(
        unit(3, 12), unit(12, 16), unit(16, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.uniform_(part.bias, -0.5, 0.5)
    module.train()
    with torch.no_grad():
        module(pictures(64, seed=9))
    return module.eval()


def pictures(count: int = 16, seed: int = 0) -> Tensor:
    """Smooth noise, float32 [count, 3, SIDE_PX, SIDE_PX]."""
    coarse = torch.randn((count, 3, 6, 6), generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(coarse, size=(SIDE_PX, SIDE_PX), mode="bilinear")


def outputs_of_norms(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, part in module.named_modules():
        if isinstance(part, nn.BatchNorm2d):
            part.register_forward_hook(lambda _, __, output, name=name: found.update({name: output}))
    with torch.no_grad():
        module(x)
    return found


REMOVAL = {
    ("0.0", "out"): [1, 5],
    ("0.1", "out"): [1, 5],
    ("1.0", "in"): [1, 5],
    ("1.0", "out"): [0, 3, 15],
    ("1.1", "out"): [0, 3, 15],
    ("2.0", "in"): [0, 3, 15],
}


def test_norms_write_with_the_mean_and_spread_that_they_wrote_with() -> None:
    wide, x = network(), pictures()
    wanted = outputs_of_norms(copy.deepcopy(wide), x)
    before = norm_moments(wide, x)
    narrow = copy.deepcopy(wide)
    remove(narrow, REMOVAL)  # type: ignore[arg-type]
    unsettled = outputs_of_norms(copy.deepcopy(narrow), x)["2.1"]
    keep_norm_outputs(narrow, REMOVAL, before, x)  # type: ignore[arg-type]
    for name, output in outputs_of_norms(narrow, x).items():
        gone = REMOVAL.get((name, "out"), [])
        left = [channel for channel in range(wanted[name].shape[1]) if channel not in gone]
        for moment in (torch.mean, torch.std):
            found, expected = (moment(maps, dim=(0, 2, 3)) for maps in (output, wanted[name][:, left]))
            torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)
    assert (unsettled.mean(dim=(0, 2, 3)) - wanted["2.1"].mean(dim=(0, 2, 3))).abs().max() > 0.05


def test_what_lost_no_channel_keeps_its_statistics_on_whatever_frames() -> None:
    wide = network()
    strange = 3 * pictures(seed=5) + 2
    same = copy.deepcopy(wide)
    keep_norm_outputs(same, {}, norm_moments(wide, strange), strange)
    for name, tensor in wide.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], tensor, msg=name)


def test_a_norm_that_runs_twice_is_settled_once() -> None:
    wide = network()
    conv, norm = wide.get_submodule("0.0"), wide.get_submodule("0.1")
    twice = nn.Sequential(conv, norm, nn.ReLU(), nn.Conv2d(12, 12, 1), norm).eval()
    x = pictures()
    wanted = {name: tensor.clone() for name, tensor in twice.state_dict().items()}
    keep_norm_outputs(twice, {}, norm_moments(twice, x), x)
    for name, tensor in twice.state_dict().items():
        torch.testing.assert_close(tensor, wanted[name], msg=name)


def test_a_pruned_network_is_nearer_to_the_unpruned_one_with_frames_than_without() -> None:
    module = network()
    model = TrainedModel(
        module=module,
        frame=FrameSpec(height_px=SIDE_PX, width_px=SIDE_PX, fit="stretch"),
        task=Classify(labels=("a", "b", "c", "d")),
        name="small",
    )
    x, others = pictures(), pictures(seed=1)
    how = {"share": 0.6, "settings": PruneSettings(round_to=1)}
    with torch.no_grad():
        wanted = module(others)
        errors = [
            float((prune_to_share(model, frames=frames, **how).module.eval()(others) - wanted).square().mean())  # type: ignore[arg-type]
            for frames in (None, x)
        ]
    assert errors[1] < errors[0], errors


@pytest.mark.parametrize(("side_px", "frames"), [(96, 64), (416, 34), (2000, 4)])
def test_as_many_frames_are_looked_at_as_memory_and_time_allow(side_px: int, frames: int) -> None:
    assert frames_wanted(side_px, side_px) == frames
