"""`edgecnn prune`: by gradients, down to a measured latency, and in steps with training, which a kill doesn't undo."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning", reason="needs lightning: pip install 'edgecnn[train]'")
pytest.importorskip("torch_pruning", reason="needs torch-pruning: pip install 'edgecnn[train]'")

import edgecnn
from edgecnn.bundle.evidence import Stage, TwinLatency
from edgecnn.cli._main import main
from edgecnn.cli.prune import print_pruning
from edgecnn.errors import MissingDependencyError, SpecError, UnknownNameError
from edgecnn.pruning import steps
from edgecnn.pruning.artifact_latency import artifact_named
from edgecnn.pruning.channels import PruneSettings, cost_of
from edgecnn.pruning.latency import MOST_FAILURES, LatencyPruned, prune_to_latency
from edgecnn.pruning.pruning import Pruning
from edgecnn.pruning.schedule import PruneStep, StepFolder, geometric_shares
from edgecnn.sources import TrainedModel, load_model
from edgecnn.sources.saved import describe, save
from edgecnn.training.settings import TrainSettings
from edgecnn.training.training import Training, train_network
from tests.builders.formats import require_format
from tests.builders.training_data import write_boxes, write_classes

pytestmark = pytest.mark.torch

NETWORKS = """
import torch
from torch import nn
from edgecnn import Classify, Detect, FrameSpec, TrainedModel
from edgecnn.sources.zoo.yolox import Yolox

FRAME = FrameSpec(height_px=64, width_px=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))


def unit(inputs, outputs, stride=1):
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(unit(3, 24, 2), unit(24, 32, 2), unit(32, 32, 2))
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        return self.head(self.drop(self.body(x).amax((2, 3))))


def classifier():
    torch.manual_seed(0)
    return TrainedModel(module=Classifier().eval(), frame=FRAME, task=Classify(labels=("green", "red")))


def detector():
    torch.manual_seed(0)
    module = Yolox(depth=0.33, width=0.125, depthwise=False, classes=2).eval()
    return TrainedModel(module=module, frame=FRAME, task=Detect(labels=("red", "green")), decode="yolox")
"""
CLASSIFIER = "nets_to_prune:classifier"
QUICK = TrainSettings(epochs=1, batch=8, workers=0, learning_rate=0.01, ema_decay=0.9)


@pytest.fixture(autouse=True)
def _in_a_folder_with_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_to_prune.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("nets_to_prune", None)


def twins(times_faster: float, *, width: float = 0.02) -> TwinLatency:
    return TwinLatency(
        latency_ms=1.0,
        float_latency_ms=times_faster,
        ratio=times_faster,
        low=times_faster - width,
        high=times_faster + width,
        device_name="a slide rule",
        threads=1,
    )


# By gradients


def test_taylor_without_data_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--importance taylor needs labelled pictures for gradients: give --data"):
        edgecnn.prune("no-such-network", importance="taylor", out=tmp_path / "small.model")


@pytest.mark.parametrize(("factory", "write"), [("classifier", write_classes), ("detector", write_boxes)])
def test_gradients_of_the_training_loss_choose_the_channels(factory: str, write: Any, tmp_path: Path) -> None:
    data = write(tmp_path / "data", 12)

    def pruned(name: str, **how: Any) -> dict[str, Any]:
        made = edgecnn.prune(f"nets_to_prune:{factory}", share=0.6, out=tmp_path / f"{name}.model", **how)
        assert made.macs[1] <= 0.6 * made.macs[0] and not made.steps
        return edgecnn.load_model(str(made.folder)).module.state_dict()

    def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
        return all(one[name].shape == other[name].shape and one[name].equal(other[name]) for name in one)

    taylor = {"importance": "taylor", "data": data, "settings": None}
    first, again, by_size = pruned("one", **taylor), pruned("two", **taylor), pruned("three")
    assert alike(first, again)
    assert not alike(first, by_size)
    (stage,) = describe(tmp_path / "one.model").stages
    assert stage.settings["importance"] == "taylor" and stage.settings["data"] == "data"
    assert 0 < len(stage.images) <= 12  # so that an evaluation can tell that they took part


def test_channels_that_the_loss_does_not_feel_go_first_by_taylor(tmp_path: Path) -> None:
    """Half of the last body's channels are cut off from the answer: their gradients are zero, their weights are not."""
    import nets_to_prune  # type: ignore[import-not-found]
    import torch

    network = nets_to_prune.classifier()
    with torch.no_grad():
        network.module.head.weight[:, ::2] = 0
    torch.save(network.module.state_dict(), tmp_path / "weights.pth")
    made = edgecnn.prune(
        CLASSIFIER,
        weights="weights.pth",
        importance="taylor",
        data=write_classes(tmp_path / "data", 12),
        keep=("body.0", "body.1"),
        round_to=1,
        share=0.91,
        out=tmp_path / "small.model",
    )
    left = load_model(str(made.folder)).module.state_dict()["head.weight"]
    assert 16 <= left.shape[1] < 20
    assert left.abs().sum(0).count_nonzero() == 16  # all that were felt are there


def test_one_layer_to_keep_may_be_given_as_plain_text(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'boddy'"):
        edgecnn.prune(CLASSIFIER, share=0.5, keep="boddy", out=tmp_path / "small.model")


def test_data_with_other_classes_is_refused_with_what_to_do(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data", 8)
    (data / "red").rename(data / "blue")
    for how in ({"importance": "taylor"}, {"settings": QUICK}):
        with pytest.raises(SpecError, match=r"data has 2 classes \(blue, green, …\).*train it for the data's classes"):
            edgecnn.prune(CLASSIFIER, data=data, out=tmp_path / "small.model", **how)
    assert not (tmp_path / ".small.model.pruning").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"steps": 2}, "give --data to train on"),
        ({"settings": QUICK}, "give --data to train on"),
        ({"of": "onnx"}, "--of onnx names the artifact whose latency is the cost: give --latency SHARE"),
        ({"steps": 0, "data": "pictures"}, "--steps must be at least 1, got 0"),
        ({"share": 1.5}, "must be between 0 and 1, got 1.5"),
        ({"cost": "watts"}, "no cost is called 'watts'"),
    ],
)
def test_words_that_contradict_themselves_are_refused(words: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        edgecnn.prune("no-such-network", out=tmp_path / "small.model", **words)


# To a measured latency


def to_latency(share: float, measure: Callable[[TrainedModel, TrainedModel], TwinLatency]) -> LatencyPruned:
    model = load_model(CLASSIFIER)
    return prune_to_latency(model, share=share, unpruned=model, measure=measure, settings=PruneSettings(round_to=2))


def test_a_network_goes_down_in_steps_until_it_is_fast_enough() -> None:
    """Here the latency is what a frame costs at all, and what its multiply-adds cost."""
    unpruned = cost_of(load_model(CLASSIFIER), "macs")

    def latency(model: TrainedModel) -> float:
        return 0.2 + 0.8 * cost_of(model, "macs") / unpruned

    pruned = to_latency(0.5, lambda narrower, wider: twins(latency(wider) / latency(narrower)))
    assert pruned.reached and 0.4 < latency(pruned.model) <= 0.5
    assert pruned.latency.ratio == pytest.approx(1 / latency(pruned.model))
    assert len(pruned.steps) > 2 and all(step.kept for step in pruned.steps)
    shares = [step.macs_share for step in pruned.steps]
    assert shares == sorted(shares, reverse=True)
    assert not pruned.model.warnings


def test_a_step_that_does_not_help_is_not_kept_and_the_next_goes_deeper_from_the_same_network() -> None:
    """Only below half of the multiply-adds is there anything to gain."""
    unpruned = cost_of(load_model(CLASSIFIER), "macs")
    beside: list[TrainedModel] = []

    def measure(narrower: TrainedModel, wider: TrainedModel) -> TwinLatency:
        beside.append(wider)
        costs = [cost_of(model, "macs") / unpruned for model in (narrower, wider)]
        return twins(2.0 if costs[0] < 0.6 <= costs[1] else 1.01)  # 1.01: the interval holds 1

    pruned = to_latency(0.5, measure)
    assert [step.kept for step in pruned.steps] == [False, False, True]
    assert len({id(model) for model in beside}) == 1, "each was made of, and timed beside, the unpruned one"
    assert pruned.reached and cost_of(pruned.model, "macs") < 0.6 * unpruned


def test_what_was_reached_is_kept_where_the_rest_cannot_be() -> None:
    unpruned = cost_of(load_model(CLASSIFIER), "macs")

    def measure(narrower: TrainedModel, wider: TrainedModel) -> TwinLatency:
        return twins(1.25 if cost_of(wider, "macs") == unpruned else 1.0)

    pruned = to_latency(0.5, measure)
    assert not pruned.reached and pruned.latency.ratio == 1.25
    assert [step.kept for step in pruned.steps] == [True] + [False] * MOST_FAILURES
    assert cost_of(pruned.model, "macs") == pytest.approx(pruned.steps[0].macs_share * unpruned)
    assert pruned.model.warnings[-1].startswith("50% of the latency was requested, but only 80% was reached")


def test_where_nothing_helps_the_error_says_what_was_tried() -> None:
    with pytest.raises(SpecError, match=r"narrowed 3 times, down to \d+% of its multiply-adds, and was never clearly"):
        to_latency(0.5, lambda narrower, wider: twins(1.0))


def test_where_nothing_can_go_the_error_says_why() -> None:
    model = load_model(CLASSIFIER)
    how: dict[str, Any] = {"share": 0.5, "unpruned": model, "measure": lambda narrower, wider: twins(2.0)}
    with pytest.raises(SpecError, match=r"at least .* of the network must remain"):
        prune_to_latency(model, settings=PruneSettings(largest_ratio=0.05, round_to=1), **how)
    with pytest.raises(UnknownNameError, match="no part of classifier is called 'tail'"):
        prune_to_latency(model, settings=PruneSettings(keep=("tail",)), **how)


def test_latency_is_really_measured_and_written_down(capsys: pytest.CaptureFixture[str]) -> None:
    """How fast this machine is, and whether it was quiet, is not what is tested."""
    require_format("onnx")
    words = ["prune", CLASSIFIER, "--latency", "0.9", "--of", "onnx", "--round-to", "2", "--json"]
    code = main([*words, "--out", "small.model"])
    printed = capsys.readouterr()
    if code == 2:  # no narrower one was measured to be faster
        assert "never clearly faster" in printed.err.replace("\n", " ")
        return
    assert code == 0, printed.err
    latency = json.loads(printed.out)["latency"]
    assert latency["of"] == "onnx:fp32" and latency["threads"] >= 1 and latency["device_name"]
    assert latency["before_ms"] > 0 and latency["after_ms"] > 0
    assert latency["low"] <= latency["ratio"] <= latency["high"]
    assert latency["reached"] == (1 / latency["ratio"] <= 0.9)
    assert any(step["kept"] for step in latency["steps"])
    (stage,) = describe(Path("small.model")).stages
    assert stage.figures["latency"] == latency


def test_artifacts_to_measure_are_named() -> None:
    require_format("onnx")
    assert artifact_named("onnx") == ("onnx", "fp32")
    assert artifact_named("onnx:fp16") == ("onnx", "fp16")
    assert artifact_named(None)[1] == "fp32"
    with pytest.raises(UnknownNameError, match="onix"):
        artifact_named("onix")
    with pytest.raises(SpecError, match="int8 is calibrated after training"):
        artifact_named("onnx:int8")
    with pytest.raises(UnknownNameError, match="'fp23'; did you mean fp32"):
        artifact_named("onnx:fp23")


def test_without_a_runtime_there_is_nothing_to_measure(without: Callable[..., None]) -> None:
    without("onnxruntime", "openvino", "ai_edge_litert", "tflite_runtime", "ncnn")
    for of in (None, "onnx"):
        with pytest.raises(MissingDependencyError, match="is not installed"):
            artifact_named(of)


# In steps


def test_shares_fall_by_the_same_factor() -> None:
    assert geometric_shares(0.5, 1) == [0.5]
    assert geometric_shares(0.125, 3) == pytest.approx([0.5, 0.25, 0.125])
    assert geometric_shares(0.3, 7)[-1] == 0.3


def in_steps(tmp_path: Path, data: Path, **how: Any) -> Any:
    words: dict[str, Any] = {"share": 0.4, "steps": 2, "round_to": 2, "settings": QUICK}
    return edgecnn.prune(CLASSIFIER, data=data, out=tmp_path / "small.model", **{**words, **how})


def test_a_network_is_pruned_and_trained_in_turns(tmp_path: Path) -> None:
    data = write_classes(tmp_path / "data", 24)
    seen: list[str] = []
    pruning = in_steps(tmp_path, data, progress=lambda done, total, what: seen.append(what))
    first, second = pruning.steps
    assert pruning.macs[0] > first.macs > second.macs == pruning.macs[1]
    assert second.macs <= 0.4 * pruning.macs[0] < first.macs <= 0.4**0.5 * pruning.macs[0]
    assert pruning.metric == "top1" and pruning.unpruned is not None
    assert all(0 <= value <= 1 for step in pruning.steps for value in (step.before, step.value))
    stages = describe(pruning.folder).stages
    assert [stage.what for stage in stages] == ["prune", "train", "prune", "train"]
    assert stages[-1].figures["value"] == second.value
    assert stages[-2].figures["macs_before"] == first.macs
    assert any("step 2 of 2" in what for what in seen)
    assert (pruning.folder / "pruning.png").read_bytes().startswith(b"\x89PNG")
    assert len((pruning.folder / "pruning.csv").read_text().splitlines()) == 3
    assert not (tmp_path / ".small.model.pruning").exists()
    assert edgecnn.load_model(str(pruning.folder)).blueprint is not None


def pass_through(model: str, *, out: Path, teacher: TrainedModel | None = None, **_: Any) -> Training:
    """In the place of `train`, where what is learned doesn't matter."""
    network = load_model(model)
    stage = Stage(what="train", figures={"metric": "top1", "value": 0.5, "n": 2})
    save(dataclasses.replace(network, stages=(*network.stages, stage)), out)
    figures: dict[str, Any] = {"metric": "top1", "value": 0.5, "train": 14, "validation": 2, "epochs": 1}
    more: dict[str, Any] = {"best_epoch": 1, "stopped_early": False, "new_layers": (), "history": []}
    return Training(folder=out, before=0.25, **figures, **more)


def weights_of(folder: Path) -> dict[str, Any]:
    return dict(edgecnn.load_model(str(folder)).module.state_dict())


class _Killed(BaseException):
    pass


def test_a_pruning_that_was_killed_between_two_steps_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_classes(tmp_path / "data", 24)
    whole = in_steps(tmp_path, data)
    expected = weights_of(whole.folder)
    shutil.rmtree(whole.folder)
    calls = []

    def killed_in_the_second(model: str, **how: Any) -> Any:
        calls.append(model)
        if len(calls) == 2:
            raise _Killed
        return train_network(model, **how)

    monkeypatch.setattr(steps, "train_network", killed_in_the_second)
    with pytest.raises(_Killed):
        in_steps(tmp_path, data)
    assert not whole.folder.exists() and (tmp_path / ".small.model.pruning" / "step-1.model").is_dir()
    again = in_steps(tmp_path, data)
    assert len(calls) == 3 and "step-2" in calls[2], "the first step was there already"
    assert again.steps == whole.steps and again.unpruned == whole.unpruned
    found = weights_of(again.folder)
    assert expected.keys() == found.keys() and all(expected[name].equal(found[name]) for name in found)


def test_a_kill_between_the_training_and_its_note_costs_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, finish = write_classes(tmp_path / "data", 24), StepFolder.finish

    def killed(self: StepFolder, step: PruneStep) -> None:
        raise _Killed

    monkeypatch.setattr(StepFolder, "finish", killed)
    with pytest.raises(_Killed):
        in_steps(tmp_path, data, steps=1)
    monkeypatch.setattr(StepFolder, "finish", finish)
    monkeypatch.setattr(steps, "train_network", lambda *_, **__: pytest.fail("trained again"))
    (step,) = in_steps(tmp_path, data, steps=1).steps
    assert step.before is not None and step.value is not None


def test_other_words_do_not_take_up_what_was_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_classes(tmp_path / "data", 24)

    def killed(*_: Any, **__: Any) -> Any:
        raise _Killed

    monkeypatch.setattr(steps, "train_network", killed)
    with pytest.raises(_Killed):
        in_steps(tmp_path, data)
    more = write_classes(tmp_path / "more", 26)
    changes: list[dict[str, Any]] = [
        {"share": 0.5},
        {"steps": 3},
        {"round_to": 4},
        {"importance": "batch-norm"},
        {"distill": False},
        {"settings": TrainSettings(epochs=2, batch=8, workers=0)},
    ]
    for change in changes:
        with pytest.raises(SpecError, match="belongs to a pruning with another network, other data or settings"):
            in_steps(tmp_path, data, **change)
    with pytest.raises(SpecError, match="belongs to a pruning with another network, other data or settings"):
        in_steps(tmp_path, more)
    monkeypatch.setattr(steps, "train_network", pass_through)
    assert len(in_steps(tmp_path, data).steps) == 2  # the same words go on


def test_the_unpruned_network_teaches_unless_that_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, teachers = write_classes(tmp_path / "data", 16), []

    def noted(model: str, *, teacher: TrainedModel | None, **how: Any) -> Training:
        teachers.append(teacher)
        return pass_through(model, **how)

    monkeypatch.setattr(steps, "train_network", noted)
    in_steps(tmp_path, data)
    in_steps(tmp_path, data, steps=1, distill=False)
    unpruned = cost_of(load_model(CLASSIFIER), "macs")
    assert [teacher and cost_of(teacher, "macs") for teacher in teachers] == [unpruned, unpruned, None]


def test_a_step_with_nothing_left_to_do_is_left_out_and_the_last_that_fails_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Multiples of 8 channels: of 24 and 32 there are few, and the last of many steps finds none."""
    monkeypatch.setattr(steps, "train_network", pass_through)
    data = write_classes(tmp_path / "data", 16)
    pruning = in_steps(tmp_path, data, share=0.5, steps=5, round_to=8)
    done = [step for step in pruning.steps if not step.skipped]
    assert 0 < len(done) < 5 and len({step.macs for step in done}) == len(done)
    assert pruning.macs[1] <= 0.5 * pruning.macs[0]
    deeper = in_steps(tmp_path, data, share=0.05, steps=2, round_to=8)
    first, last = deeper.steps
    assert not first.skipped and "must remain" in last.skipped
    assert any("5% of its macs was not reached" in warning for warning in deeper.warnings)


def test_latency_is_a_cost_of_steps_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seam is the function that times; the rest is as on the command line."""
    require_format("onnx")
    from contextlib import nullcontext

    from edgecnn.pruning import pruning

    def measure(narrower: TrainedModel, wider: TrainedModel) -> TwinLatency:
        return twins(cost_of(wider, "macs") / cost_of(narrower, "macs"), width=0.01)

    monkeypatch.setattr(pruning, "artifact_timer", lambda *artifact: nullcontext(measure))
    monkeypatch.setattr(steps, "train_network", pass_through)
    data = write_classes(tmp_path / "data", 16)
    pruned = in_steps(tmp_path, data, cost="latency", of="onnx", share=0.4)
    first, last = pruned.steps
    assert pruned.latency == last.latency and last.latency["reached"] and first.latency["reached"]
    assert 1 / last.latency["ratio"] <= 0.4 < 1 / first.latency["ratio"] <= 0.4**0.5


def test_the_command_writes_down_each_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_classes(tmp_path / "data", 24)
    (tmp_path / "how.toml").write_text("batch = 8\nworkers = 0\n")
    words = ["prune", CLASSIFIER, "--macs", "0.5", "--round-to", "2", "--data", str(data), "--no-distill", "--json"]
    assert main([*words, "--epochs", "1", "--settings", "how.toml", "--out", "small.model"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["metric"] == "top1" and document["latency"] is None and document["unpruned"] is not None
    (step,) = document["steps"]
    assert step["number"] == 1 and step["macs"] == document["macs"]["after"] and step["value"] is not None
    (_, stage) = describe(tmp_path / "small.model").stages
    assert stage.settings["epochs"] == 1 and stage.settings["batch"] == 8


def test_the_closing_tables_tell_each_step_and_what_was_tried(
    capsys: pytest.CaptureFixture[str], assert_readable: Callable[[str], None]
) -> None:
    numbers: dict[str, Any] = {"before_ms": 4.0, "after_ms": 2.0, "ratio": 2.0, "low": 1.9, "high": 2.1}
    tried = [
        {"macs_share": 0.8, "kept": False, "reason": "", **numbers, "ratio": 1.01, "low": 0.98, "high": 1.04},
        {"macs_share": 0.64, "kept": False, "reason": "rounding leaves all"},
        {"macs_share": 0.51, "kept": True, "reason": "", **numbers},
    ]
    machine = {"of": "onnx:fp32", "share": 0.5, "reached": True, "device_name": "a slide rule", "threads": 3}
    step: dict[str, Any] = {"metric": "top1", "before": 0.125, "value": 0.75, "n": 8}
    steps = (
        PruneStep(number=1, share=0.7, macs=7_000_000, parameters=70_000, **step),
        PruneStep(
            number=2, share=0.5, macs=7_000_000, parameters=70_000, skipped="the step before already reached this share"
        ),
    )
    print_pruning(
        Pruning(
            folder=Path("small.model"),
            macs=(10_000_000, 7_000_000),
            parameters=(100_000, 70_000),
            warnings=("mind this",),
            latency={**machine, **numbers, "steps": tried},
            metric="top1",
            unpruned=0.875,
            steps=steps,
        )
    )
    printed = capsys.readouterr()
    for words in ("4.00 ms", "50%", "1.01 [0.98, 1.04]", "rounding", "a slide rule, threads: 3"):
        assert words in printed.out
    for words in ("unpruned", "0.8750", "1: 70%", "0.1250", "0.7500", "small.model/pruning.png"):
        assert words in printed.out
    assert_readable(printed.out)
    assert (
        "mind this" in printed.err and "step 2 was skipped: the step before already reached this share" in printed.err
    )
    assert "train it before you use it" not in printed.err


def test_two_costs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prune", CLASSIFIER, "--macs", "0.5", "--latency", "0.5", "--out", "small.model"]) == 2
    assert "--macs and --latency are 2 costs" in capsys.readouterr().err


def test_a_damaged_note_does_not_restart_the_work_silently(tmp_path: Path) -> None:
    place = tmp_path / ".small.model.pruning"
    (place / "step-1.model").mkdir(parents=True)
    (place / "steps.jsonl").write_text("{")
    with pytest.raises(SpecError, match=r"steps\.jsonl is damaged: .*remove .* to start again"):
        StepFolder(tmp_path / "small.model", about="x")
