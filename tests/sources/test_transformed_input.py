"""GoogLeNet and Inception: the frame says what their published weights want; heads of training alone are left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")
pytest.importorskip("torchvision", reason="needs torchvision")

import torch
from torchvision.models import get_model

import edgecnn
from edgecnn.sources import torchvision as source

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as somebody trains them, without the heads that only training uses."""
    torch.manual_seed(0)
    network = get_model("googlenet", weights=None, init_weights=False, aux_logits=False, transform_input=False)
    path = tmp_path_factory.mktemp("weights") / "googlenet.pth"
    torch.save(network.state_dict(), path)
    return path


def as_published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "is_published", lambda published, record: not record.random)


def answer(model: edgecnn.TrainedModel, picture: torch.Tensor) -> torch.Tensor:
    """Of a picture in 0..1, normalised as the frame says."""
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (model.frame.mean, model.frame.std))
    with torch.inference_mode():
        return torch.as_tensor(model.module.eval()((picture - mean) / std))


@pytest.mark.parametrize("published", [True, False])
def test_it_answers_as_torchvision_does(published: bool, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if published:
        as_published(monkeypatch)
    theirs = get_model("googlenet", weights=None, init_weights=False, aux_logits=False, transform_input=published)
    theirs.load_state_dict(torch.load(file, weights_only=True))
    picture = torch.rand(1, 3, 224, 224)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        expected = theirs.eval()((picture - mean.reshape(1, 3, 1, 1)) / std.reshape(1, 3, 1, 1))
    ours = edgecnn.load_model("torchvision:googlenet", weights=str(file))
    torch.testing.assert_close(answer(ours, picture), expected, rtol=1e-3, atol=1e-4)
    assert any("--mean 0.5" in warning for warning in ours.warnings) is not published


def test_a_saved_one_answers_the_same(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgecnn.sources.saved import save

    as_published(monkeypatch)
    model = edgecnn.load_model("torchvision:googlenet", weights=str(file))
    folder = save(model, tmp_path / "net.model")
    picture = torch.rand(1, 3, 224, 224)
    assert torch.equal(answer(edgecnn.load_model(folder), picture), answer(model, picture))
    assert edgecnn.load_model(folder).frame.mean == (0.5, 0.5, 0.5)


def test_its_reference_is_fed_the_same(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_published(monkeypatch)
    model = edgecnn.load_model("torchvision:googlenet", weights=str(file))
    assert model.reference is not None
    values = model.reference.apply(np.full((256, 256, 3), 255, np.uint8))
    np.testing.assert_allclose(values, 1.0, atol=1e-5)
