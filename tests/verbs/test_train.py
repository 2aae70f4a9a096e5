"""Training: networks learn what the pictures show, and a training that was killed ends as one that was not."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("lightning", reason="needs lightning: pip install 'edgecnn[train]'")

import edgecnn
from edgecnn.cli._main import main
from edgecnn.errors import DataError, SpecError, TrainingError
from edgecnn.sources.saved import describe
from edgecnn.training.settings import NO_AUGMENTATION, Augmentation, TrainSettings
from tests.builders.processes import start_edgecnn
from tests.builders.training_data import write_boxes, write_classes, write_masks

pytestmark = pytest.mark.torch

NETWORKS = """
import torch
from torch import nn
from edgecnn import Classify, Detect, FrameSpec, Segment, TrainedModel
from edgecnn.sources.zoo.yolox import Yolox

FRAME = FrameSpec(height_px=64, width_px=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def unit(inputs, outputs, stride=1):
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(unit(3, 8, 2), unit(8, 16, 2))
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(16, 2)

    def forward(self, x):
        return self.head(self.drop(self.body(x).amax((2, 3))))


def classifier():
    torch.manual_seed(0)
    return TrainedModel(module=Classifier().eval(), frame=FRAME, task=Classify(labels=("green", "red")))


def detector():
    torch.manual_seed(0)
    module = Yolox(depth=0.33, width=0.125, depthwise=False, classes=2).eval()
    return TrainedModel(module=module, frame=FRAME, task=Detect(labels=("red", "green")), decode="yolox")


def segmenter():
    torch.manual_seed(0)
    module = nn.Sequential(unit(3, 16), unit(16, 16), nn.Conv2d(16, 3, 1)).eval()
    return TrainedModel(module=module, frame=FRAME, task=Segment(labels=("ground", "red", "green")))
"""

QUICK: dict[str, Any] = {"batch": 8, "workers": 0, "learning_rate": 0.01, "ema_decay": 0.9}


@pytest.fixture(autouse=True)
def _in_a_folder_with_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_to_train.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("nets_to_train", None)


@pytest.mark.parametrize(
    ("factory", "write", "epochs", "least"),
    [("classifier", write_classes, 6, 0.9), ("segmenter", write_masks, 6, 0.7)],
)
def test_a_network_learns_what_the_pictures_show(
    factory: str, write: Any, epochs: int, least: float, tmp_path: Path
) -> None:
    write(tmp_path / "train", 48), write(tmp_path / "held", 24, seed=1)
    settings = TrainSettings(epochs=epochs, evaluate_every=epochs, augmentation=Augmentation(mosaic=0.0), **QUICK)
    trained = edgecnn.train(
        f"nets_to_train:{factory}",
        data=tmp_path / "train",
        validate_on=tmp_path / "held",
        out=tmp_path / "net.model",
        settings=settings,
    )
    assert trained.value >= least
    assert trained.before is not None and trained.before < trained.value
    # What was saved answers as what was measured, by another road: eval of the folder.
    again = edgecnn.evaluate(str(trained.folder), tmp_path / "held", resamples=0)
    assert again.value == pytest.approx(trained.value, abs=1e-6)
    # These decided which epoch was kept, and it says so; other pictures are other pictures.
    assert "24 of the 24 images were used to make the network (24 in train)" in again.remarks[-1]
    others = edgecnn.evaluate(str(trained.folder), write(tmp_path / "others", 8, seed=2), resamples=0)
    assert not any("were used" in remark for remark in others.remarks)
    assert (trained.folder / "training.png").read_bytes().startswith(b"\x89PNG")
    assert len((trained.folder / "training.csv").read_text().splitlines()) == 1 + epochs
    (stage,) = describe(trained.folder).stages
    assert stage.what == "train" and stage.figures["value"] == trained.value and len(stage.images) == 48 + 24


def test_a_detector_learns_from_boxes(tmp_path: Path) -> None:
    settings = TrainSettings(epochs=8, evaluate_every=8, augmentation=NO_AUGMENTATION, **QUICK)
    trained = edgecnn.train(
        "nets_to_train:detector",
        data=write_boxes(tmp_path / "train", 20),
        out=tmp_path / "net.model",
        settings=settings,
    )
    losses = [sum(value for name, value in row.items() if name.endswith("_loss")) for row in trained.history]
    assert losses[-1] < losses[0] / 2
    assert edgecnn.load_model(str(trained.folder)).decode == "yolox"


def test_a_pruned_network_is_saved_trained_and_converted(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "train", 16)
    pruned = edgecnn.prune("torchvision:resnet18", size=(64, 64), share=0.4, out=tmp_path / "small.model")
    assert pruned.macs[1] <= 0.4 * pruned.macs[0]
    settings = TrainSettings(epochs=1, **QUICK)
    trained = edgecnn.train(str(pruned.folder), data=data, out=tmp_path / "net.model", settings=settings)
    assert [stage.what for stage in describe(trained.folder).stages] == ["prune", "train"]
    conversion = edgecnn.convert(str(trained.folder), to=["onnx"], out=tmp_path / "net.edge")
    assert not conversion.refused, conversion.refused
    assert conversion.bundle is not None
    macs = sum(layer.macs for layer in conversion.bundle.manifest.layers)
    assert macs == pytest.approx(pruned.macs[1], rel=0.01)


def test_a_trained_network_converts(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "train", 16)
    settings = TrainSettings(epochs=1, **QUICK)
    trained = edgecnn.train("nets_to_train:classifier", data=data, out=tmp_path / "net.model", settings=settings)
    assert trained.train == 14 and trained.validation == 2  # a tenth was held out
    conversion = edgecnn.convert(str(trained.folder), to=["onnx"], out=tmp_path / "net.edge")
    assert not conversion.refused, conversion.refused
    assert conversion.bundle is not None
    assert conversion.bundle.manifest.task.labels == ("green", "red")


def rows_without_seconds(history: Any) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def weights_of(folder: Path) -> dict[str, Any]:
    module = edgecnn.load_model(str(folder)).module
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


def test_a_killed_training_ends_as_one_that_was_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_classes(tmp_path / "train", 48)
    words = ["train", "nets_to_train:classifier", "--data", str(data), "--epochs", "6", "--batch", "8"]
    words += ["--workers", "0", "--dropout", "0.3", "--json"]

    def trained(out: str) -> Any:
        code = main([*words, "--out", out])
        said = capsys.readouterr()
        assert code == 0, said.err
        return json.loads(said.out)

    first = trained("whole.model")
    checkpoint = tmp_path / ".killed.model.training" / "last.ckpt"
    process = start_edgecnn([*words, "--out", "killed.model"], tmp_path)
    deadline = time.monotonic() + 200
    while not checkpoint.exists() and process.poll() is None:
        assert time.monotonic() < deadline, "no epoch ended"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
    assert not (tmp_path / "killed.model").exists()

    second = trained("killed.model")
    assert rows_without_seconds(second["history"]) == rows_without_seconds(first["history"])
    one, other = weights_of(tmp_path / "whole.model"), weights_of(tmp_path / "killed.model")
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)
    assert not checkpoint.parent.exists()


def test_ctrl_c_ends_a_training_that_can_be_taken_up(tmp_path: Path) -> None:
    data, epochs_done = write_classes(tmp_path / "train", 16), []

    def stop(done: int, total: int, what: str) -> None:
        if "epoch 2" in what:
            epochs_done.append(what)
            raise KeyboardInterrupt

    how: dict[str, Any] = {"data": data, "out": tmp_path / "net.model", "settings": TrainSettings(epochs=3, **QUICK)}
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        edgecnn.train("nets_to_train:classifier", progress=stop, **how)
    assert signal.getsignal(signal.SIGINT) is handler
    seen: list[str] = []
    trained = edgecnn.train("nets_to_train:classifier", progress=lambda done, total, what: seen.append(what), **how)
    assert trained.epochs == 3
    assert not any("epoch 1 of" in what for what in seen), "the first epoch was there already"


def test_another_training_does_not_take_up_what_was_left(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "train", 16)

    def stop(done: int, total: int, what: str) -> None:
        if "epoch 2" in what:
            raise KeyboardInterrupt

    how: dict[str, Any] = {"data": data, "out": tmp_path / "net.model"}
    with pytest.raises(KeyboardInterrupt):
        edgecnn.train("nets_to_train:classifier", settings=TrainSettings(epochs=3, **QUICK), progress=stop, **how)
    with pytest.raises(TrainingError, match=r"last\.ckpt belongs to a training with another network, other data or"):
        edgecnn.train("nets_to_train:classifier", settings=TrainSettings(epochs=4, **QUICK), **how)


def test_the_classes_of_the_data_replace_those_of_the_network_and_names_in_common_are_kept(tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "train", 4)
    (data / "classes.txt").write_text("person\ngreen")
    settings = TrainSettings(epochs=1, learning_rate=1e-9, ema_decay=0.0, batch=2, workers=0)
    trained = edgecnn.train("yolox-nano", size=(64, 64), data=data, out=tmp_path / "net.model", settings=settings)
    assert {name.rsplit(".", 2)[0] for name in trained.new_layers} == {"head.cls_preds"}
    assert trained.before is None
    coco, ours = edgecnn.load_model("yolox-nano"), edgecnn.load_model(str(trained.folder))
    assert ours.task.labels == ("person", "green")
    person = coco.task.labels.index("person")
    rows = [model.module.state_dict()["head.cls_preds.0.weight"] for model in (coco, ours)]
    np.testing.assert_allclose(rows[1][0], rows[0][person], atol=1e-6)


def test_classes_that_the_data_lacks_can_be_kept_and_strange_ones_are_refused(tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "train", 4)
    settings = TrainSettings(epochs=1, learning_rate=1e-9, ema_decay=0.0, batch=2, workers=0)
    words: dict[str, Any] = {"size": (64, 64), "data": data, "settings": settings, "keep_classes": True}
    (data / "classes.txt").write_text("person\ncat")
    trained = edgecnn.train("yolox-nano", out=tmp_path / "net.model", **words)
    assert trained.new_layers == () and trained.before is not None
    assert edgecnn.load_model(str(trained.folder)).task.labels == edgecnn.load_model("yolox-nano").task.labels
    (data / "classes.txt").write_text("person\ngreen")
    with pytest.raises(DataError, match=r"classes that yolox-nano doesn't: green\."):
        edgecnn.train("yolox-nano", out=tmp_path / "other.model", **words)
    with pytest.raises(SpecError, match="--head ssdlite adds one for others"):
        edgecnn.train("yolox-nano", out=tmp_path / "other.model", head="ssdlite", **words)


def test_a_frozen_backbone_stays_to_the_last_bit(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "train", 16)
    settings = TrainSettings(epochs=2, freeze_backbone=True, **QUICK)
    trained = edgecnn.train(
        "torchvision:squeezenet1_1", size=(64, 64), data=data, out=tmp_path / "net.model", settings=settings
    )
    before = edgecnn.load_model("torchvision:squeezenet1_1").module.state_dict()
    after = edgecnn.load_model(str(trained.folder)).module.state_dict()
    changed = {
        name for name in before if before[name].shape != after[name].shape or not before[name].equal(after[name])
    }
    assert changed == {"classifier.1.weight", "classifier.1.bias"}


def test_freezing_what_keeps_its_head_is_refused(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "train", 8)
    with pytest.raises(SpecError, match="keeps its own head"):
        edgecnn.train(
            "nets_to_train:classifier",
            data=data,
            out=tmp_path / "net.model",
            settings=TrainSettings(freeze_backbone=True, **QUICK),
        )


def test_training_stops_when_the_metric_no_longer_rises(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "train", 16)
    settings = TrainSettings(
        epochs=50, early_stop_epochs=2, augmentation=NO_AUGMENTATION, **{**QUICK, "learning_rate": 1e-9}
    )
    trained = edgecnn.train("nets_to_train:classifier", data=data, out=tmp_path / "net.model", settings=settings)
    assert trained.stopped_early
    assert trained.epochs == trained.best_epoch + 2


def test_a_loss_that_is_not_a_number_ends_the_training_at_once(tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "train", 16)
    settings = TrainSettings(
        epochs=50, optimizer="sgd", clip_gradient_norm=0.0, warmup_epochs=0.0, **{**QUICK, "learning_rate": 1e20}
    )
    with pytest.raises(TrainingError, match=r"not finite.*lower learning rate"):
        edgecnn.train("nets_to_train:detector", data=data, out=tmp_path / "net.model", settings=settings)
    assert not (tmp_path / "net.model").exists()


def test_boxes_outside_their_picture_are_found_before_training(tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "train", 8)
    document = {
        "images": [{"id": 1, "file_name": "images/3.png", "width": 64, "height": 64}],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [50, 10, 40, 20]}],
    }
    (data / "boxes.json").write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"1 of the 1 boxes of 3\.png lie outside the picture, which has 64x64 px"):
        edgecnn.train(
            "nets_to_train:detector",
            data=data / "boxes.json",
            validate_on=write_boxes(tmp_path / "held", 2, seed=1),
            out=tmp_path / "net.model",
            settings=TrainSettings(**QUICK),
        )


def test_pictures_to_learn_from_cannot_decide_what_is_kept(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "train", 8)
    with pytest.raises(DataError, match=r"8 of the 8 pictures to measure on .* are also trained on"):
        edgecnn.train(
            "nets_to_train:classifier",
            data=data,
            validate_on=data,
            out=tmp_path / "net.model",
            settings=TrainSettings(**QUICK),
        )


def test_a_broken_label_of_the_train_split_is_no_reason_to_learn_from_another_split(tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "data" / "test", 4)
    broken = write_boxes(tmp_path / "data" / "train", 4, seed=1) / "labels" / "2.txt"
    broken.write_text("7 0.5 0.5 0.2 0.2")
    with pytest.raises(DataError, match=r"2\.txt, line 1: class id 7, but there are 2 class names"):
        edgecnn.train(
            "nets_to_train:detector", data=data.parent, out=tmp_path / "net.model", settings=TrainSettings(**QUICK)
        )


def test_data_without_anything_to_learn_is_refused(tmp_path: Path) -> None:
    data = write_boxes(tmp_path / "train", 4)
    for file in (data / "labels").iterdir():
        file.write_text("")
    with pytest.raises(DataError, match="no object or pixel of a class to learn"):
        edgecnn.train("nets_to_train:detector", data=data, out=tmp_path / "net.model", settings=TrainSettings(**QUICK))


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("net.pth", r"expected a path NAME\.model to save a network, got .*net\.pth"),
        ("train.model", "is not a saved network: choose another"),
    ],
)
def test_a_place_that_cannot_be_written_is_refused_before_training(out: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.model").mkdir()
    with pytest.raises(SpecError, match=message):
        edgecnn.train("nets_to_train:classifier", data=tmp_path / "nowhere", out=tmp_path / out)


def test_a_network_that_came_as_an_object_is_refused_before_the_work(tmp_path: Path) -> None:
    import nets_to_train  # type: ignore[import-not-found]

    with pytest.raises(SpecError, match="was given as a Python object"):
        edgecnn.train(nets_to_train.classifier(), data=write_classes(tmp_path / "train", 8), out=tmp_path / "net.model")


def test_flags_go_before_the_settings_file(tmp_path: Path) -> None:
    from edgecnn.cli.train import train_settings

    file = tmp_path / "how.toml"
    file.write_text('epochs = 7\noptimizer = "sgd"\n[augmentation]\nmosaic = 0.0\n')
    settings = train_settings(file, {"epochs": 3})
    assert (settings.epochs, settings.optimizer, settings.augmentation.mosaic) == (3, "sgd", 0.0)
    assert settings.augmentation.flip == Augmentation().flip
    file.write_text("epoches = 7\n")
    with pytest.raises(SpecError, match="epoches"):
        train_settings(file, {})
    file.write_text("epochs = ")
    with pytest.raises(DataError, match=r"how\.toml is not TOML"):
        train_settings(file, {})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive, got nan"),
        ({"dropout": 2.0}, "dropout must be between 0 and 1, got 2.0"),
        ({"ema_decay": 1.0}, "ema_decay must be at least 0 and below 1"),
        ({"weight_decay": -1.0}, "weight_decay must be 0 or more"),
    ],
)
def test_settings_that_cannot_be_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        TrainSettings(**words)


@pytest.mark.parametrize("target", ["openvino", "onnx"])
def test_a_network_trained_for_int8_brings_its_ranges_into_the_artifact(target: str, tmp_path: Path) -> None:
    data = write_classes(tmp_path / "train", 32)
    trained = edgecnn.train(
        "nets_to_train:classifier", data=data, out=tmp_path / "float.model", settings=TrainSettings(epochs=8, **QUICK)
    )
    aware = edgecnn.train(
        str(trained.folder),
        data=data,
        out=tmp_path / "aware.model",
        settings=TrainSettings(epochs=2, quantize_for=target, **{**QUICK, "learning_rate": 1e-4}),
    )
    assert aware.before is not None and aware.value >= aware.before
    assert describe(aware.folder).stages[-1].settings["quantize_for"] == target
    model = edgecnn.load_model(str(aware.folder))
    assert set(model.ranges) <= {"body.0.0", "body.1.0", "head"} and model.ranges
    made = edgecnn.convert(
        model, to=[target], precision=["int8"], calibration=data, out=tmp_path / "aware.edge", keep_slower=True
    )
    assert made.bundle is not None
    evidence = made.bundle.artifact(target, "int8").evidence.quantization
    assert evidence is not None
    learned = {layer.name: layer.learned for layer in made.bundle.manifest.layers if layer.learned}
    assert learned == dict(model.ranges)
    again = edgecnn.train(
        str(aware.folder), data=data, out=tmp_path / "again.model", settings=TrainSettings(epochs=1, **QUICK)
    )
    assert not edgecnn.load_model(str(again.folder)).ranges, "they were of other weights"


def test_training_for_an_unknown_format_is_an_error_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="opnvino"):
        TrainSettings(quantize_for="opnvino")
