"""NanoDet-Plus through the verbs: trained, with a teacher, for int8, pruned; and its guide is in nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning", reason="needs lightning: pip install 'edgecnn[train]'")

import torch

import edgecnn
from edgecnn.bundle import SourceRecord
from edgecnn.frame import FrameSpec
from edgecnn.pruning.channels import PruneSettings, prune_to_share
from edgecnn.sources.classes import with_classes
from edgecnn.sources.load import load_model
from edgecnn.sources.zoo.nanodet import NanoDetPlus
from edgecnn.tasks import Detect
from edgecnn.training.settings import NO_AUGMENTATION, TrainSettings
from tests.builders.training_data import write_boxes

pytestmark = pytest.mark.torch

QUICK: dict[str, Any] = {"batch": 4, "workers": 0, "augmentation": NO_AUGMENTATION}
NET = "nanodet-plus-m"


def test_it_is_trained_from_scratch_and_again_with_a_teacher_and_for_int8(tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "train", 10)

    def train(model: str, name: str, **options: Any) -> edgecnn.Training:
        settings = TrainSettings(epochs=1, **QUICK, **options.pop("more", {}))
        return edgecnn.train(model, data=data, out=tmp_path / name, settings=settings, **options)

    first = train(NET, "first.model", size=(64, 64))
    assert {"class_loss", "box_loss", "distribution_loss", "guide_class_loss"} <= set(first.history[0])
    saved = load_model(str(first.folder))
    assert set(saved.module.state_dict()) == set(NanoDetPlus(channels=(116, 232, 464), width=96).state_dict())
    again = train(str(first.folder), "again.model", teacher=str(first.folder))
    assert {"teacher_class_loss", "teacher_distribution_loss", "teacher_features_loss"} <= set(again.history[0])
    assert not any(name.startswith("guide_") for name in again.history[0])
    rounded = train(str(first.folder), "rounded.model", more={"quantize_for": "openvino"})
    assert load_model(str(rounded.folder)).ranges


def test_other_classes_keep_what_is_known_of_boxes() -> None:
    model = load_model(NET, size=(64, 64))
    other, new = with_classes(model, ("person", "robot"))
    assert new == {f"head.gfl_cls.{level}.{part}" for level in range(4) for part in ("weight", "bias")}
    before, after = (each.module.state_dict() for each in (model, other))
    assert torch.equal(before["head.gfl_reg.2.weight"], after["head.gfl_reg.2.weight"])
    assert torch.equal(before["head.gfl_cls.2.weight"][0], after["head.gfl_cls.2.weight"][0])  # person


@pytest.mark.parametrize("share", [0.8, 0.5])
def test_channels_go_through_shuffles_splits_and_concatenations(share: float) -> None:
    torch.manual_seed(0)
    model = edgecnn.TrainedModel(
        module=NanoDetPlus(channels=(48, 96, 192), width=48, classes=2).eval(),
        frame=FrameSpec(height_px=96, width_px=96),
        task=Detect(labels=("red", "green")),
        decode="nanodet",
        source=SourceRecord(model="nanodet"),
    )
    pruned = prune_to_share(model, share=share, settings=PruneSettings(round_to=4))
    widths = {
        name: (tensor.shape[0], pruned.module.state_dict()[name].shape[0])
        for name, tensor in model.module.state_dict().items()
        if tensor.ndim == 4
    }
    for part in ("backbone.stage3", "fpn", "head.cls_convs"):
        assert any(now < before for name, (before, now) in widths.items() if name.startswith(part)), part
    assert all(now == before for name, (before, now) in widths.items() if ".gfl_" in name)
    with torch.no_grad():
        levels = pruned.module(torch.randn(1, 3, 96, 96))
    assert [tuple(classes.shape) for classes, _ in levels] == [(1, 2, side, side) for side in (12, 6, 3, 2)]
