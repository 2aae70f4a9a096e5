"""Operations that TFLite wants in another form convert, and answer as in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("litert_torch", reason="needs litert-torch: pip install 'edgecnn[convert]'")

import torch
from torch import Tensor, nn

from edgecnn import Classify, FrameSpec, TrainedModel
from edgecnn.converters.deployable.wrapper import Deployable, signature
from edgecnn.converters.tflite import Graph, TfliteConverter
from edgecnn.converters.tflite_forms import TfliteForms
from edgecnn.formats.devices import parse_device
from edgecnn.runners.litert.backend import LiteRtBackend

pytestmark = pytest.mark.torch

SIZE_PX = 256


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "module": nn.AdaptiveAvgPool2d(1),
    "function": lambda x: nn.functional.adaptive_avg_pool2d(x, (1, 1)),
    "method": lambda x: x.mean([2, 3]),
    "method that keeps dimensions": lambda x: x.mean((-1, -2), keepdim=True),
    "method that keeps dimensions, by position": lambda x: x.mean((-1, -2), True),
    "method by keyword": lambda x: x.mean(dim=(2, 3)),
    "function by keyword": lambda x: torch.mean(input=x, dim=(2, 3)),
    "pooling by keyword": lambda x: nn.functional.adaptive_avg_pool2d(input=x, output_size=1),
}


class Averaging(nn.Module):
    """Values about 10 that differ by a hundredth, averaged in every way; what is left of each is magnified."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies = nn.ModuleList(nn.Conv2d(3, 4, 1) for _ in WAYS)
        self.module = WAYS["module"]  # belongs to the network that calls it

    def forward(self, x: Tensor) -> Tensor:
        averaged = [way(body(x) * 1e-2 + 10).flatten(1) for way, body in zip(WAYS.values(), self.bodies, strict=True)]
        return torch.cat([torch.softmax((each - 10) * 1e2, dim=1) for each in averaged], dim=1) / len(WAYS)


def test_a_large_average_in_tflite_is_as_exact_as_in_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    frame, labels = FrameSpec(height_px=SIZE_PX, width_px=SIZE_PX), tuple(map(str, range(4 * len(WAYS))))
    deployable = Deployable(TrainedModel(module=Averaging().eval(), frame=frame, task=Classify(labels=labels)))
    path = TfliteConverter(deployable, batch=1).write("fp32", tmp_path).files[0]
    assert Graph.read(path).count("MEAN") + Graph.read(path).count("SUM") == 2 * len(WAYS)
    _, outputs = signature(deployable, batch=1)
    picture = np.random.default_rng(0).integers(0, 256, (1, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    backend = LiteRtBackend(path, outputs=outputs, device=parse_device("cpu"), precision="fp32", threads=1)
    scores = backend.infer(picture)["scores"].copy().reshape(len(WAYS), 4) * len(WAYS)
    backend.close()
    expected = deployable.answer(picture)["scores"].reshape(len(WAYS), 4) * len(WAYS)
    for way, found, wanted in zip(WAYS, scores, expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-3, err_msg=way)


def test_other_averages_are_left_alone() -> None:
    x = torch.rand(2, 3, 64, 64)
    with TfliteForms():
        for dims in (1, (1, 2), [2, 3]):
            torch.testing.assert_close(x.mean(dims), torch.from_numpy(x.numpy().mean(tuple(np.atleast_1d(dims)))))
        assert nn.functional.adaptive_avg_pool2d(x, 2).shape == (2, 3, 2, 2)
        assert x.mean((2, 3), keepdim=True).shape == (2, 3, 1, 1)
        assert x.mean().shape == ()
        assert x.mean(dim=None).shape == ()
        assert x.mean((2, 3), dtype=torch.float64).dtype == torch.float64
        assert nn.functional.adaptive_avg_pool2d(x, output_size=2).shape == (2, 3, 2, 2)


class Normalising(nn.Module):
    """As torchvision's SSD300 has it, between convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 4, 3)
        self.scale = nn.Parameter(torch.full((8,), 20.0))

    def forward(self, x: Tensor) -> Tensor:
        x = self.scale.view(1, -1, 1, 1) * nn.functional.normalize(self.before(x))
        return torch.softmax(self.after(x).amax((2, 3)), dim=1)


def test_features_that_are_normalised_convert_and_answer_as_in_torch(tmp_path: Path) -> None:
    torch.manual_seed(0)
    frame = FrameSpec(height_px=64, width_px=64)
    deployable = Deployable(TrainedModel(module=Normalising().eval(), frame=frame, task=Classify(labels=tuple("abcd"))))
    path = TfliteConverter(deployable, batch=1).write("fp32", tmp_path).files[0]
    _, outputs = signature(deployable, batch=1)
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    backend = LiteRtBackend(path, outputs=outputs, device=parse_device("cpu"), precision="fp32", threads=1)
    scores = backend.infer(picture)["scores"].copy()
    backend.close()
    np.testing.assert_allclose(scores, deployable.answer(picture)["scores"], atol=1e-5)


@pytest.mark.parametrize("words", [{}, {"dim": -1}, {"p": 1.0, "dim": 2}, {"eps": 100.0}, {"dim": (1, 2)}])
def test_normalised_in_either_form_is_the_same(words: dict[str, Any]) -> None:
    x = torch.randn(2, 3, 4, 5)
    x[0, :, 0] = 0
    expected = nn.functional.normalize(x, **words)
    with TfliteForms():
        torch.testing.assert_close(nn.functional.normalize(x, **words), expected)
        torch.testing.assert_close(nn.functional.normalize(input=x, **words), expected)
