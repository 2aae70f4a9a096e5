"""The words that name the networks that ship: what they mean as a MODEL and as a BUNDLE."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import edgecnn
from edgecnn._verbs.quantize import quantize
from edgecnn.bundle import Bundle, record_evidence
from edgecnn.bundle import shipped as _shipped
from edgecnn.bundle.evidence import Evidence
from edgecnn.bundle.shipped import ASSETS, DEFAULTS, is_shipped, shipped_bundle, shipped_model
from edgecnn.cli._main import main
from edgecnn.errors import BundleError, SpecError, StorageError, UnknownNameError
from edgecnn.flow.evaluation import as_bundle

TASKS = {"default-detector": ("detect", 80), "default-segmenter": ("segment", 21)}


@pytest.mark.parametrize("word", DEFAULTS)
def test_a_word_opens_the_bundle_that_ships_with_an_artifact_of_each_format(word: str) -> None:
    bundle = Bundle.open(word)
    assert is_shipped(bundle.folder)
    assert (bundle.manifest.task.name, len(bundle.manifest.task.labels)) == TASKS[word]
    assert {artifact.format for artifact in bundle.manifest.artifacts} == {"onnx", "openvino", "tflite"}
    for artifact in bundle.manifest.artifacts:
        bundle.checked_path(artifact)
    assert Bundle.open(Path(word)).folder == bundle.folder  # as the command line gives it


@pytest.mark.parametrize("word", DEFAULTS)
def test_int8_that_ships_is_within_a_point_of_float_and_faster_where_it_was_made(word: str) -> None:
    for artifact in Bundle.open(word).manifest.artifacts:
        if artifact.precision != "int8":
            continue
        how = artifact.evidence.quantization
        assert how is not None and how.int8_mac_share > 0.5 and not how.slower_than_float
        held_out = [one for one in artifact.evidence.accuracy if one.data == "val"]
        assert held_out and all(one.drop is not None and one.drop <= 0.01 for one in held_out)
        assert how.calibration is not None and how.calibration.images


@pytest.mark.torch
@pytest.mark.parametrize("word", DEFAULTS)
def test_a_word_loads_the_network_that_ships_and_what_is_made_of_it_can_be_saved(word: str, tmp_path: Path) -> None:
    import torch

    from edgecnn.sources.saved import save
    from edgecnn.sources.zoo import ZOO

    model = edgecnn.load_model(word)
    assert (model.task.name, len(model.task.labels)) == TASKS[word]
    assert {parameter.dtype for parameter in model.module.parameters()} == {torch.float32}
    assert model.blueprint is not None and model.blueprint.model in ZOO  # not the word, which may mean another tomorrow
    again = edgecnn.load_model(save(model, tmp_path / "mine.model"))
    expected = model.module.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in again.module.state_dict().items())


@pytest.mark.torch
def test_the_model_and_the_bundle_are_of_the_same_classes() -> None:
    from edgecnn.sources.saved import describe

    for word in DEFAULTS:
        folder = shipped_model(word)
        assert folder is not None
        assert describe(folder).task.labels == Bundle.open(word).manifest.task.labels


def test_other_words_name_nothing_that_ships() -> None:
    for word in ("yolox-nano", "default", "detector", "default-detector.edge", ""):
        assert shipped_bundle(word) is None
        assert shipped_model(word) is None


def test_a_local_folder_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("default-detector").mkdir()
    with pytest.raises(BundleError, match="default-detector is not a bundle"):
        Bundle.open("default-detector")
    assert is_shipped(Bundle.open("default-segmenter").folder)


def test_eval_takes_the_bundle_and_with_format_torch_the_network() -> None:
    bundle = as_bundle("default-detector")
    assert bundle is not None and bundle.folder == ASSETS / "detector.edge"
    assert as_bundle("default-detector", format="onnx") is not None
    assert as_bundle("default-detector", format="torch") is None


@pytest.mark.torch
def test_a_slip_of_the_pen_hears_the_word() -> None:
    with pytest.raises(UnknownNameError, match="did you mean default-detector"):
        edgecnn.load_model("default-detecter")


def test_what_ships_is_not_written_to() -> None:
    bundle = Bundle.open("default-detector")
    artifact = bundle.manifest.artifacts[0]
    before = (bundle.folder / "manifest.json").read_bytes()
    with pytest.raises(StorageError, match="ships with edgecnn and is read-only"):
        record_evidence(bundle, {(artifact.format, artifact.precision): Evidence()})
    with pytest.raises(SpecError, match=r"cannot be changed: give --out NAME\.edge"):
        quantize("default-detector")
    assert (bundle.folder / "manifest.json").read_bytes() == before


def test_an_installation_without_its_bundle_says_which_file_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_shipped, "ASSETS", tmp_path)
    with pytest.raises(BundleError, match=r"detector\.edge does not exist"):
        Bundle.open("default-detector")


def test_inspect_knows_the_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "default-segmenter", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"]["kind"] == "segment"
