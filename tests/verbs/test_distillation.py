"""Training with a teacher: the command, what it leaves behind, and that a stop changes nothing."""

from __future__ import annotations

import csv
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

pytest.importorskip("lightning", reason="needs lightning: pip install 'edgecnn[train]'")
pytest.importorskip("torch_pruning", reason="needs torch-pruning: pip install 'edgecnn[train]'")

import edgecnn
from edgecnn.cli._main import main
from edgecnn.errors import SpecError, TrainingError
from edgecnn.sources.saved import describe
from edgecnn.training.settings import Distillation, TrainSettings
from tests.builders.training_data import write_boxes, write_classes

pytestmark = pytest.mark.torch

NETWORKS = """
import torch
from torch import nn
from edgecnn import Classify, Detect, FrameSpec, TrainedModel
from edgecnn.sources.zoo.yolox import Yolox

FRAME = FrameSpec(height_px=64, width_px=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def unit(inputs, outputs):
    convolution = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def classifier():
    torch.manual_seed(0)
    body = [unit(3, 16), unit(16, 32), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.1)]
    module = nn.Sequential(*body, nn.Linear(32, 2)).eval()
    return TrainedModel(module=module, frame=FRAME, task=Classify(labels=("green", "red")))


def detector():
    torch.manual_seed(0)
    module = Yolox(depth=0.33, width=0.125, depthwise=False, classes=2).eval()
    return TrainedModel(module=module, frame=FRAME, task=Detect(labels=("red", "green")), decode="yolox")
"""

QUICK: dict[str, Any] = {"batch": 8, "workers": 0, "learning_rate": 0.01, "ema_decay": 0.9}
SETTINGS = TrainSettings(epochs=3, distillation=Distillation(outputs=2.0, temperature=3.0), **QUICK)


@pytest.fixture(autouse=True)
def _in_a_folder_with_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "nets_that_teach.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("nets_that_teach", None)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def taught(student: Path, out: Path, **words: Any) -> Any:
    """A training with the unpruned network as teacher."""
    words = {"data": student.parent / "train", "settings": SETTINGS, "teacher": "nets_that_teach:classifier", **words}
    return edgecnn.train(str(student), out=out, **words)


def test_a_teacher_alone_teaches_what_wrong_labels_do_not(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "right", 24)
    held = write_classes(tmp_path / "held", 24, seed=1)
    (tmp_path / "wrong").mkdir()
    for name, other in (("red", "green"), ("green", "red")):
        (data / name).rename(tmp_path / "wrong" / other)
    write_classes(tmp_path / "train", 24)
    settings = TrainSettings(epochs=6, evaluate_every=6, **QUICK)
    teacher = edgecnn.train(
        "nets_that_teach:classifier",
        data=tmp_path / "train",
        validate_on=held,
        out=tmp_path / "t.model",
        settings=settings,
    )
    assert teacher.value > 0.9
    values = {}
    for labels in (0.0, 100.0):
        how = msgspec.structs.replace(settings, distillation=Distillation(features=0.0, labels=labels))
        student = taught(
            Path("nets_that_teach:classifier"),
            tmp_path / f"labels-{labels:g}.model",
            data=tmp_path / "wrong",
            validate_on=held,
            settings=how,
            teacher=teacher.folder,
        )
        values[labels] = student.value
        assert ("class_loss" in student.history[-1]) == (labels > 0)
    assert values[0.0] > 0.9 and values[100.0] < 0.5


def test_a_pruned_network_learns_from_the_unpruned_one_and_a_stop_changes_nothing(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", 24)
    small = edgecnn.prune("nets_that_teach:classifier", share=0.5, out=tmp_path / "small.model").folder
    whole = taught(small, tmp_path / "whole.model")
    with (whole.folder / "training.csv").open() as file:
        columns = next(csv.reader(file))
    assert [name for name in columns if name.endswith("_loss")] == [
        "class_loss",
        "teacher_class_loss",
        "teacher_features_loss",
    ]
    *_, stage = describe(whole.folder).stages
    assert stage.settings["distillation"] == {"outputs": 2.0, "features": 1.0, "labels": 1.0, "temperature": 3.0}
    assert stage.settings["teacher"]["name"] == "classifier" and len(stage.settings["teacher"]["weights_sha256"]) == 64

    def stop(done: int, total: int, what: str) -> None:
        if "epoch 2" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        taught(small, tmp_path / "stopped.model", progress=stop)
    for other in (
        {"teacher": None},
        {"teacher": small},
        {"settings": TrainSettings(epochs=3, distillation=Distillation(temperature=1.0), **QUICK)},
    ):
        with pytest.raises(TrainingError, match="belongs to a training with another network"):
            taught(small, tmp_path / "stopped.model", **other)
    said: list[str] = []
    again = taught(small, tmp_path / "stopped.model", progress=lambda done, total, what: said.append(what))
    assert not any("epoch 1 of" in what for what in said), "the first epoch was there already"
    assert without_seconds(again.history) == without_seconds(whole.history)
    one, other_weights = (edgecnn.load_model(str(t.folder)).module.state_dict() for t in (whole, again))
    for name, tensor in one.items():
        np.testing.assert_array_equal(tensor.numpy(), other_weights[name].numpy(), err_msg=name)


def without_seconds(history: Any) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def test_the_command_takes_a_teacher_and_its_settings(tmp_path: Path) -> None:
    write_boxes(tmp_path / "train", 8)
    (tmp_path / "how.toml").write_text("workers = 0\n[distillation]\nfeatures = 0.0\n")
    words = ["train", "nets_that_teach:detector", "--data", "train", "--out", "net.model", "--settings", "how.toml"]
    words += ["--epochs", "1", "--batch", "4"]
    assert main([*words, "--teacher", "nets_that_teach:detector"]) == 0
    (stage,) = describe(tmp_path / "net.model").stages
    assert stage.settings["distillation"]["features"] == 0.0
    columns = (tmp_path / "net.model" / "training.csv").read_text().splitlines()[0].split(",")
    assert {"teacher_box_loss", "teacher_objectness_loss", "teacher_class_loss"} < set(columns)
    assert "teacher_features_loss" not in columns


def test_a_teacher_of_other_answers_is_refused_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_classes(tmp_path / "train", 8)
    words = ["train", "nets_that_teach:classifier", "--data", "train", "--out", "net.model"]
    assert main([*words, "--teacher", "nets_that_teach:detector"]) == 2
    assert "the teacher must classify" in capsys.readouterr().err
    assert main([*words, "--teacher-weights", "some.pth"]) == 2
    assert "give --teacher too" in capsys.readouterr().err
    assert main([*words, "--teacher", "torchvision:squeezenet1_1"]) == 2
    assert "train it on the same data first" in " ".join(capsys.readouterr().err.split())
    assert not list(tmp_path.glob(".net.model*"))


def test_without_a_teacher_none_is_mentioned(tmp_path: Path) -> None:
    trained = edgecnn.train(
        "nets_that_teach:classifier",
        data=write_classes(tmp_path / "train", 16),
        out=tmp_path / "net.model",
        settings=TrainSettings(epochs=1, **{**QUICK, "learning_rate": 1e-9}),
    )
    (stage,) = describe(trained.folder).stages
    assert not {"teacher", "distillation"} & set(stage.settings)
    with pytest.raises(SpecError, match="without a teacher"):
        edgecnn.train("nets_that_teach:classifier", data="train", out="net.model", teacher_weights="some.pth")


@pytest.mark.parametrize("freeze_norms", [False, True])
def test_norms_learn_the_statistics_of_the_pictures_unless_they_are_frozen(freeze_norms: bool, tmp_path: Path) -> None:
    """The network is trained in training mode, though it comes in the other."""
    trained = edgecnn.train(
        "nets_that_teach:classifier",
        data=write_classes(tmp_path / "train", 16),
        out=tmp_path / "net.model",
        settings=TrainSettings(epochs=1, freeze_norms=freeze_norms, **{**QUICK, "learning_rate": 1e-9}),
    )
    before, after = (
        edgecnn.load_model(str(model)).module.state_dict() for model in ("nets_that_teach:classifier", trained.folder)
    )
    np.testing.assert_allclose(after["0.0.weight"], before["0.0.weight"], atol=1e-6)
    assert np.allclose(after["0.1.running_var"], before["0.1.running_var"], atol=1e-3) == freeze_norms
