"""`compress`: a whole flow from one recipe, which goes on where it was stopped and redoes what has changed."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning", reason="needs lightning: pip install 'edgecnn[train]'")
pytest.importorskip("torch_pruning", reason="needs torch-pruning: pip install 'edgecnn[train]'")

import edgecnn
import edgecnn._verbs.compress as compress_module
from edgecnn.bundle import Refusal
from edgecnn.cli._main import main
from edgecnn.converters.quantize_bundle import Conversion
from edgecnn.errors import DataError, SourceError, SpecError
from edgecnn.flow import closing_measurements
from edgecnn.flow.recipe import Recipe
from edgecnn.flow.timed_in_turns import time_in_turns
from edgecnn.sources.saved import describe
from tests.builders.formats import require_format
from tests.builders.processes import start_edgecnn
from tests.builders.training_data import write_classes

pytestmark = pytest.mark.torch

FACTORY = "net:classifier"  # what the recipes name, named again by the user


NETWORK = """
import torch
from torch import nn
from edgecnn import Classify, FrameSpec, TrainedModel


def unit(inputs, outputs, stride=1):
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.SiLU())


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(unit(3, 8, 2), unit(8, 24, 2), unit(24, 24))
        self.head = nn.Linear(24, 2)

    def forward(self, x):
        return self.head(self.body(x).amax((2, 3)))


def classifier():
    torch.manual_seed(0)
    frame = FrameSpec(height_px=64, width_px=64, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return TrainedModel(module=Classifier().eval(), frame=frame, task=Classify(labels=("green", "red")))
"""

RECIPE: dict[str, dict[str, str]] = {
    "": {"model": '"net:classifier"'},
    "data": {"train": '"cells"', "validate_on": '"held"', "evaluate_on": '"cells"', "evaluate_split": '"test"'},
    "train": {"epochs": "4", "batch": "8", "workers": "0", "learning_rate": "0.01", "ema_decay": "0.9"},
    "prune": {"macs": "0.7"},
    "fine-tune": {
        "epochs": "2", "batch": "8", "workers": "0", "learning_rate": "0.01", "ema_decay": "0.9",
        "replace_activations": '"relu"', "distill": "true",
    },
    "convert": {"to": '["onnx"]', "precision": '["fp32", "fp16"]'},
    "quantize": {"max_drop": "0.2", "calibration_count": "8", "keep_slower": "true"},
    "bench": {"iterations": "4"},
}  # fmt: skip


def lay_out(folder: Path) -> None:
    (folder / "net.py").write_text(NETWORK)
    write_classes(folder / "cells" / "train", 32)
    write_classes(folder / "cells" / "test", 12, seed=2)
    write_classes(folder / "held", 8, seed=1)


@contextlib.contextmanager
def working_in(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        sys.modules.pop("net", None)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole recipe was done, as "flow"; copy it before changing anything."""
    require_format("onnx")
    folder = tmp_path_factory.mktemp("whole")
    lay_out(folder)
    with working_in(folder):
        edgecnn.compress(recipe(folder / "flow.toml"), factory=FACTORY)
    return folder


@pytest.fixture
def finished(whole: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, elsewhere: nothing of a flow depends on where it lies."""
    shutil.copytree(whole, tmp_path / "copy")
    with working_in(tmp_path / "copy"):
        yield tmp_path / "copy"


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Path]:
    """A folder with a network and pictures."""
    require_format("onnx")
    lay_out(tmp_path)
    with working_in(tmp_path):
        yield tmp_path


@pytest.fixture
def verbs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which verbs a flow called, in their order."""
    called: list[str] = []

    def listening(name: str, verb: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **words: Any) -> Any:
            called.append(name)
            return verb(*args, **words)

        return call

    for home, names in ((compress_module, ("train", "prune", "convert", "quantize", "evaluate")),):
        for name in names:
            monkeypatch.setattr(home, name, listening(name, getattr(home, name)))
    monkeypatch.setattr(closing_measurements, "time_in_turns", listening("time", time_in_turns))
    return called


def recipe(file: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write RECIPE with other values; None takes a key or a table out."""
    tables: dict[str, dict[str, str]] = {name: dict(keys) for name, keys in RECIPE.items()}
    for name, changed in (changes or {}).items():
        if changed is None:
            del tables[name]
            continue
        for key, value in changed.items():
            if value is None:
                del tables[name][key]
            else:
                tables.setdefault(name, {})[key] = value
    lines = []
    for name, keys in tables.items():
        lines += [f"[{name}]"] if name else []
        lines += [f"{key} = {value}" for key, value in keys.items()]
    file.write_text("\n".join(lines))
    return file


WITHOUT_TRAINING: dict[str, Any] = {"train": None, "fine-tune": None, "quantize": None}


def done_before(report: dict[str, Any]) -> dict[str, bool]:
    return {stage["stage"]: stage["done_before"] for stage in report["stages"]}


def test_a_recipe_becomes_a_bundle_with_figures_of_every_stage(whole: Path) -> None:
    report = json.loads((whole / "flow" / "compress.json").read_text())
    assert done_before(report) == dict.fromkeys(["train", "prune", "fine-tune", "convert", "quantize"], False)
    train, prune, fine_tune = report["networks"]
    assert [network["stage"] for network in report["networks"]] == ["train", "prune", "fine-tune"]
    assert prune["macs"] <= 0.7 * train["macs"] and fine_tune["macs"] == prune["macs"]
    assert prune["parameters"] < train["parameters"] and prune["file_bytes"] < train["file_bytes"]
    for network in report["networks"]:
        assert (network["metric"], network["measured_on"], network["n"]) == ("top1", "evaluate_on", 12)
        assert (network["format"], network["precision"]) == ("onnx", "fp32") and network["latency_ms"] > 0
    assert train["value"] >= 0.9 and fine_tune["value"] >= 0.9
    assert [(a["format"], a["precision"]) for a in report["artifacts"]] == [
        ("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "int8"),
    ]  # fmt: skip
    for artifact in report["artifacts"]:
        assert artifact["stage"] == "shipped" and artifact["macs"] == fine_tune["macs"]
        assert (whole / artifact["path"]).stat().st_size == artifact["file_bytes"]
        assert artifact["times_faster_low"] <= artifact["times_faster"] <= artifact["times_faster_high"]
        assert artifact["value"] >= 0.8
    (baseline,) = report["baselines"]
    assert (baseline["stage"], baseline["format"], baseline["times_faster"]) == ("train", "onnx", 1.0)
    assert baseline["latency_ms"] == train["latency_ms"]
    assert report["refused"] == report["failures"] == []
    assert (whole / "flow" / "compress.png").read_bytes().startswith(b"\x89PNG")


def test_the_stages_are_what_the_verbs_leave(whole: Path) -> None:
    folder = whole / "flow"
    assert [stage.what for stage in describe(folder / "3-fine-tune.model").stages] == ["train", "prune", "train"]
    assert describe(folder / "3-fine-tune.model").blueprint.activations == "relu"
    assert describe(folder / "1-train.model").blueprint.activations == ""
    held = edgecnn.Bundle.open(folder / "flow.edge").manifest
    assert [artifact.precision for artifact in held.artifacts] == ["fp32", "fp16", "int8"]
    assert not any("int8" in a.precision for a in edgecnn.Bundle.open(folder / "5-convert.edge").manifest.artifacts)


def test_a_network_is_trained_for_int8_before_it_is_converted(fresh: Path) -> None:
    changed: dict[str, Any] = {
        **dict.fromkeys(("train", "prune", "fine-tune", "quantize")),
        "quantize-aware": {"quantize_for": '"onnx"', "epochs": "1", "batch": "8", "workers": "0", "distill": "true"},
        "convert": {"precision": '["fp32"]'},
    }
    flow = edgecnn.compress(recipe(fresh / "flow.toml", changed), factory=FACTORY)
    assert [network.stage for network in flow.networks] == ["start", "quantize-aware"]
    layers = edgecnn.Bundle.open(fresh / "flow" / "flow.edge").manifest.layers
    assert all(layer.learned is not None for layer in layers)


def test_a_finished_flow_is_only_reported_again(
    finished: Path, verbs: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = json.loads((finished / "flow" / "compress.json").read_text())
    assert main(["compress", "flow.toml", "--factory", FACTORY, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert verbs == []
    assert done_before(again) == dict.fromkeys(["train", "prune", "fine-tune", "convert", "quantize"], True)
    for part in ("networks", "artifacts", "baselines", "refused"):
        assert again[part] == first[part]


def test_the_table_names_every_row_and_what_it_was_measured_on(
    finished: Path, capsys: pytest.CaptureFixture[str], assert_readable: Callable[[str], None]
) -> None:
    assert main(["compress", "flow.toml", "--factory", FACTORY]) == 0
    printed = capsys.readouterr()
    for words in ("train", "prune", "fine-tune", "onnx fp32", "onnx fp16", "onnx int8", "M MACs", "times faster"):
        assert words in printed.out
    assert_readable(printed.out)
    assert "top-1: on 12 pictures used for nothing else" in printed.out
    assert "done before, not repeated: train, prune, fine-tune, convert, quantize" in printed.err


def test_another_bound_quantizes_again_and_nothing_before_it(finished: Path, verbs: list[str]) -> None:
    flow = edgecnn.compress(recipe(finished / "flow.toml", {"quantize": {"max_drop": "0.3"}}), factory=FACTORY)
    assert [verb for verb in verbs if verb not in ("evaluate", "time")] == ["quantize"]
    assert flow.before == {"train": True, "prune": True, "fine-tune": True, "convert": True, "quantize": False}


def test_another_share_redoes_pruning_and_all_after_it(finished: Path, verbs: list[str]) -> None:
    changed: dict[str, Any] = {
        "prune": {"macs": "0.5"},
        "quantize": None,
        "fine-tune": {"epochs": "1", "distill": None},
    }
    before = json.loads((finished / "flow" / "compress.json").read_text())
    flow = edgecnn.compress(recipe(finished / "flow.toml", changed), factory=FACTORY)
    assert verbs[:4] == ["prune", "train", "convert", "convert"]  # what is shipped, and the pruned network's fp32
    assert flow.before == {"train": True, "prune": False, "fine-tune": False, "convert": False}
    train, prune, _ = flow.networks
    assert train.macs == before["networks"][0]["macs"]
    assert prune.macs is not None and prune.macs < before["networks"][1]["macs"]
    assert [artifact.precision for artifact in flow.artifacts] == ["fp32", "fp16"]  # of the new network alone


def test_a_stage_whose_folder_was_damaged_or_whose_data_has_changed_is_done_again(
    fresh: Path, verbs: list[str]
) -> None:
    words = recipe(fresh / "flow.toml", {**WITHOUT_TRAINING, "convert": {"precision": '["fp32"]'}})
    edgecnn.compress(words, factory=FACTORY)
    assert verbs == ["prune", "convert", "convert", "evaluate", "evaluate", "evaluate", "time"]
    verbs.clear()
    (weights,) = (fresh / "flow" / "2-prune.model").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    flow = edgecnn.compress(words, factory=FACTORY)
    assert verbs == ["prune"]  # which gave the same as before, so that all after it stands
    assert flow.before == {"prune": False, "convert": True}
    verbs.clear()
    shutil.rmtree(fresh / "cells" / "test")
    write_classes(fresh / "cells" / "test", 14, seed=3)
    assert edgecnn.compress(words, factory=FACTORY).networks[0].n == 14
    assert verbs == ["evaluate", "evaluate", "evaluate"]
    next((fresh / "cells" / "train" / "red").iterdir()).unlink()
    assert edgecnn.compress(words, factory=FACTORY).before["prune"] is False


def test_a_flow_that_was_killed_goes_on_after_the_last_whole_stage(
    fresh: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changes: dict[str, Any] = {"train": None, "quantize": None, "convert": {"precision": '["fp32"]'}}
    recipe(fresh / "flow.toml", {**changes, "fine-tune": {"epochs": "500", "distill": None}})
    process = start_edgecnn(["compress", "flow.toml", "--factory", FACTORY], fresh)
    checkpoint, deadline = fresh / "flow" / ".3-fine-tune.model.training" / "last.ckpt", time.monotonic() + 300
    while process.poll() is None and not checkpoint.exists():
        assert time.monotonic() < deadline, "no epoch ended"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
    pruned = fresh / "flow" / "2-prune.model" / "model.json"
    written_ns = pruned.stat().st_mtime_ns

    recipe(fresh / "flow.toml", {**changes, "fine-tune": {"epochs": "1", "distill": None}})
    code = main(["compress", "flow.toml", "--factory", FACTORY, "--json"])
    printed = capsys.readouterr()
    assert code == 0, printed.err  # the checkpoint of other words was no obstacle
    report = json.loads(printed.out)
    assert done_before(report) == {"prune": True, "fine-tune": False, "convert": False}
    assert [network["stage"] for network in report["networks"]] == ["start", "prune", "fine-tune"]
    assert pruned.stat().st_mtime_ns == written_ns
    assert not checkpoint.parent.exists()


def test_a_refused_artifact_is_listed_and_the_float_ones_are_shipped(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refusal = Refusal(format="onnx", precision="int8", error="AccuracyError", reason="too far below float")
    monkeypatch.setattr(compress_module, "quantize", lambda *args, **words: Conversion(None, (refusal,), ()))
    recipe(fresh / "flow.toml", {"train": None, "prune": None, "fine-tune": None})
    assert main(["compress", "flow.toml", "--factory", FACTORY]) == 1
    assert "refused: onnx int8: AccuracyError: too far below float" in capsys.readouterr().err
    held = edgecnn.Bundle.open(fresh / "flow" / "flow.edge").manifest
    assert [artifact.precision for artifact in held.artifacts] == ["fp32", "fp16"]
    assert held.refused == (refusal,)
    assert main(["compress", "flow.toml", "--factory", FACTORY]) == 1, "told again, not forgotten"
    report = json.loads((fresh / "flow" / "compress.json").read_text())
    assert [network["stage"] for network in report["networks"]] == ["start"]
    assert report["networks"][0]["latency_ms"] == report["artifacts"][0]["latency_ms"]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"data": {"evaluate_split": '"train"'}},
            DataError,
            r"some of the 32 pictures .* are also used elsewhere \(32 in \[data",
        ),
        ({"data": {"evaluate_on": '"held"', "evaluate_split": None}}, DataError, "8 in \\[data"),
        ({"quantize": {"calibration": '"cells"'}}, DataError, r"\(12 in \[quantize\] calibration\)"),
        ({"data": {"train": '"nowhere"'}}, DataError, r"\[data\] train: .*nowhere does not exist"),
        ({"": {"weights": '"gone.pth"'}}, DataError, r"weights: .*gone\.pth does not exist"),
        ({"data": {"evaluate_split": '"val"'}}, DataError, "has no split 'val'; it has test, train"),
        ({"": {"model": '"torchvision:resnet18"', "size": "64"}, "train": None}, SpecError, "distill: the teacher is"),
        ({"": {"model": '"net:nothing"'}}, SourceError, "nothing"),
    ],
)
def test_an_impossible_request_is_reported_before_any_work(
    changes: dict[str, Any], error: type[Exception], message: str, fresh: Path, verbs: list[str]
) -> None:
    with pytest.raises(error, match=message):
        edgecnn.compress(recipe(fresh / "flow.toml", changes), factory=FACTORY)
    assert verbs == [] and not (fresh / "flow").exists()


def test_a_folder_with_something_else_in_it_is_left_alone(fresh: Path, verbs: list[str]) -> None:
    with pytest.raises(SpecError, match="cells exists and was not made by `compress`"):
        edgecnn.compress(recipe(fresh / "cells.toml"), factory=FACTORY)
    assert verbs == []


def test_a_recipe_without_a_file_needs_a_folder() -> None:
    with pytest.raises(SpecError, match="give out"):
        edgecnn.compress(Recipe(model="yolox-nano"))
