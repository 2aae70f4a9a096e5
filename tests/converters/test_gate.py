"""The gate: what is refused whatever the photographs say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from edgecnn import convert
from edgecnn.formats import FORMATS
from edgecnn.frame import FrameSpec
from edgecnn.sources import TrainedModel
from edgecnn.tasks.classify import Classify

pytestmark = pytest.mark.torch


class SeesTheDark(nn.Module):
    """Its answer to a picture that is all but black has nothing to do with its answer to others."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 4, 3, stride=2)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(x).mean(dim=(2, 3)))
        if x.mean() < 0.1:
            scores = scores.flip(1) + 1
        return scores


class Contrast(nn.Module):
    """Divides by the picture's contrast: of a blank one there is none."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 4, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        x = x - x.mean(dim=(2, 3), keepdim=True)
        features: Tensor = self.features(x / x.pow(2).mean(dim=(2, 3), keepdim=True).sqrt())
        return features.mean(dim=(2, 3))


def model_of(module: nn.Module) -> TrainedModel:
    return TrainedModel(
        module=module,
        frame=FrameSpec(height_px=32, width_px=32),
        task=Classify(labels=tuple("abcd"[: 3 if isinstance(module, SeesTheDark) else 4])),
        name=type(module).__name__,
    )


@pytest.fixture
def to() -> list[str]:
    if not (FORMATS.get("openvino").converts_here and FORMATS.get("openvino").runs_here):
        pytest.skip("OpenVINO is not installed")
    return ["openvino"]


def test_a_branch_that_photographs_never_take_is_found_on_a_dark_frame(to: list[str], tmp_path: Path) -> None:
    conversion = convert(model_of(SeesTheDark()), to=to, out=tmp_path / "net.edge")
    assert conversion.bundle is None
    (refusal,) = conversion.refused
    assert refusal.error in {"ParityError", "ConversionError"}, refusal.reason
    if refusal.parity is not None:
        assert refusal.parity.ok is False
        assert refusal.parity.max_rel_err < 1e-4, "photographs don't tell"
        assert refusal.parity.made_frames["dark"] > 0.1
        assert "not on a dark frame" in refusal.reason


def test_a_frame_that_torch_itself_answers_no_number_to_is_not_compared(to: list[str], tmp_path: Path) -> None:
    bundle = convert(model_of(Contrast()), to=to, out=tmp_path / "net.edge").bundle
    assert bundle is not None
    parity = bundle.manifest.artifacts[0].evidence.parity
    assert parity is not None
    assert "blank" not in parity.made_frames
    assert np.max(list(parity.made_frames.values())) < 1e-4


class Regions(nn.Module):
    """Reads a region out of its features, which OpenVINO has a mistake for."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Conv2d(3, 8, 3, stride=2)
        self.head = nn.Linear(8 * 49, 4)
        self.register_buffer("regions", torch.tensor([[0.0, 2, 2, 20, 20]]))

    def forward(self, x: Tensor) -> Tensor:
        found = torchvision.ops.roi_align(self.features(x), self.regions, (7, 7))
        scores: Tensor = self.head(found.flatten(1))
        return scores


def test_a_runtime_that_crashes_at_one_format_loses_no_other(to: list[str], tmp_path: Path) -> None:
    conversion = convert(model_of(Regions()), to=[*to, "onnx"], out=tmp_path / "net.edge")
    assert {refusal.format for refusal in conversion.refused} <= {"openvino"}
    for refusal in conversion.refused:
        assert refusal.error == "ConversionError"
        assert "crashes on it (SIG" in refusal.reason
    assert conversion.bundle is not None
    assert "onnx" in {artifact.format for artifact in conversion.bundle.manifest.artifacts}
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.edge"], "no staging folder is left"
