"""`eval` with a real runtime: one artifact beside another, and never on pictures that it was made with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from edgecnn import evaluate, evaluate_versus
from edgecnn.bundle import Bundle, record_evidence
from edgecnn.bundle.evidence import CalibrationRecord, Evidence, QuantizationEvidence
from edgecnn.cli._main import main
from edgecnn.errors import BundleError, DataError, EdgeCnnError, SpecError, UnknownNameError
from edgecnn.pictures import picture_hash, read_picture
from edgecnn.tasks import Classify, Segment
from tests.builders.colour_network import COLOURS, write_colour_bundle

pytestmark = pytest.mark.runtime

pytest.importorskip("onnxruntime", reason="needs the extra [onnx]")

OF_EACH = 8
PICTURES = OF_EACH * len(COLOURS)


@pytest.fixture
def street(tmp_path: Path) -> Bundle:
    """fp32 is always right; int8 is nearly blind to red."""
    return write_colour_bundle(tmp_path / "street.edge", {"fp32": (0.1, 0.1, 0.1), "int8": (0.1, 0.1, 0.02)})


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Eight pictures of each colour, all different."""
    rng = np.random.default_rng(0)
    for channel, colour in enumerate(COLOURS):
        folder = tmp_path / "val" / colour
        folder.mkdir(parents=True)
        for index in range(OF_EACH):
            image = rng.integers(0, 100, (20, 30, 3)).astype(np.uint8)
            image[..., channel] += 100
            cv2.imwrite(str(folder / f"{index}.png"), image)
    return tmp_path / "val"


def calibrated_on(bundle: Bundle, files: Sequence[Path]) -> Bundle:
    """The bundle, with the evidence that its int8 artifact was calibrated on these pictures."""
    evidence = QuantizationEvidence(
        recipe="static_wi8_ai8",
        calibration=CalibrationRecord(
            source="train",
            count=len(files),
            seed=0,
            preprocess_sha256="",
            images=tuple(picture_hash(read_picture(file)) for file in files),
        ),
        float_layers=(),
        int8_mac_share=1.0,
        snr_db={},
    )
    return record_evidence(bundle, {("onnx", "int8"): Evidence(quantization=evidence)})


def eval_words(bundle: Bundle, data: Path, *words: str) -> list[str]:
    return ["eval", str(bundle.folder), "--data", str(data), "--format", "onnx", *words]


def test_the_worse_artifact_is_named(street: Bundle, data: Path) -> None:
    opened: list[str] = []
    found = evaluate_versus(
        street, data, precision="int8", versus="onnx:fp32", on_start=lambda runner: opened.append(runner.precision)
    )
    alone = {precision: evaluate(street, data, format="onnx", precision=precision) for precision in ("fp32", "int8")}
    assert {name: getattr(found, name) for name in vars(alone["int8"])} == vars(alone["int8"])
    other, fp32 = found.versus, alone["fp32"]
    assert (other.value, other.low, other.high) == (fp32.value, fp32.low, fp32.high) == (1, 1, 1)
    assert (other.format, other.precision, other.bundle) == ("onnx", "fp32", str(street.folder))
    assert other.difference == found.value - other.value == pytest.approx(-1 / 3)
    assert other.agreement == pytest.approx(2 / 3)
    assert -0.6 < other.difference_low < other.difference < other.difference_high < -0.1
    assert other.verdict.startswith("int8 is 0.333 below fp32 [0.")
    assert other.verdict.endswith("]: worse")
    assert opened == ["int8", "fp32"]


def test_the_other_way_round_it_is_better(street: Bundle, data: Path) -> None:
    found = evaluate_versus(street, data, precision="fp32", versus="onnx:int8")
    assert found.versus.verdict.startswith("fp32 is 0.333 above int8")
    assert found.versus.verdict.endswith("]: better")


def test_few_pictures_give_figures_and_no_verdict(street: Bundle, data: Path) -> None:
    found = evaluate_versus(street, data, precision="int8", versus="onnx:fp32", limit=6)
    assert found.versus.verdict.startswith("6 images are too few to compare int8 with fp32")


@pytest.mark.parametrize("how", ["path", "text", "text with artifact", "bundle"])
def test_another_bundle_is_named_by_its_path(how: str, street: Bundle, data: Path, tmp_path: Path) -> None:
    other = write_colour_bundle(tmp_path / "other.edge", {"fp32": (0.2, 0.2, 0.2), "int8": (0.1, 0.1, 0.1)})
    versus: Any = {
        "path": other.folder,
        "text": str(other.folder),
        "text with artifact": f"{other.folder}:onnx:int8",
        "bundle": other,
    }[how]
    found = evaluate_versus(street, data, format="onnx", precision="int8", versus=versus)
    assert (found.versus.format, found.versus.precision) == ("onnx", "int8")  # what runs of the first
    assert found.versus.bundle == str(other.folder)
    assert found.versus.verdict.startswith("street.edge is 0.333 below other.edge")


def test_bundles_of_one_name_are_distinguished_by_their_folders(street: Bundle, data: Path, tmp_path: Path) -> None:
    other = write_colour_bundle(tmp_path / "old" / "street.edge", {"int8": (0.1, 0.1, 0.1)})
    found = evaluate_versus(street, data, precision="int8", versus=other)
    assert found.versus.verdict.startswith(f"{street.folder} is 0.333 below {other.folder} [")


@pytest.mark.parametrize(
    ("versus", "error", "said"),
    [
        ("torch", SpecError, r"edgecnn eval tests:mean_colour --weights gains.pth --data DATA --versus .*street.edge:"),
        ("torch:fp32", SpecError, "a bundle holds no torch network"),
        ("gone.edge:torch:fp32", SpecError, "a bundle holds no torch network"),
        ("int8", SpecError, "expected FORMAT:PRECISION"),
        ("gone.edge:int8", SpecError, "expected FORMAT:PRECISION"),
        ("", SpecError, "expected FORMAT:PRECISION"),
        ("onx:fp32", UnknownNameError, "did you mean onnx"),
        ("onnx:fp16", BundleError, "holds no onnx fp16 for device 'cpu'; it holds: onnx fp32, onnx int8"),
        ("onnx:int8", SpecError, "are the same artifact"),
        ("gone.edge", BundleError, "gone.edge does not exist"),
        ("gone.edge:onnx:fp32", BundleError, "gone.edge does not exist"),
    ],
)
def test_anything_that_cannot_be_compared_with_is_refused(
    versus: str, error: type[EdgeCnnError], said: str, street: Bundle, data: Path
) -> None:
    with pytest.raises(error, match=said):
        evaluate_versus(street, data, precision="int8", versus=versus)


def test_a_copy_of_the_artifact_is_the_same_artifact(street: Bundle, data: Path, tmp_path: Path) -> None:
    shutil.copytree(street.folder, tmp_path / "copy.edge")
    with pytest.raises(SpecError, match="are the same artifact"):
        evaluate_versus(street, data, precision="int8", versus=tmp_path / "copy.edge")


def test_a_network_has_no_artifact_to_compare_with(data: Path) -> None:
    with pytest.raises(SpecError, match=r"PATH\.edge:onnx:fp32"):
        evaluate_versus("torchvision:resnet18", data, versus="onnx:fp32")
    with pytest.raises(SpecError, match="runs in torch already"):
        evaluate_versus("torchvision:resnet18", data, versus="torch")


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (Classify(labels=("blue", "green", "brown")), r"other\.edge have different classes"),
        (Segment(labels=COLOURS), r"street\.edge is for the task classify, other\.edge for segment"),
    ],
    ids=["classes", "task"],
)
def test_answers_to_different_questions_are_not_compared(
    task: Any, said: str, street: Bundle, data: Path, tmp_path: Path
) -> None:
    other = write_colour_bundle(tmp_path / "other.edge", {"fp32": (0.2, 0.2, 0.2)})
    manifest = msgspec.structs.replace(other.manifest, task=task)
    with pytest.raises(SpecError, match=said):
        evaluate_versus(street, data, precision="fp32", versus=Bundle(other.folder, manifest))


def test_the_command_prints_the_document_of_the_first_with_the_other_added(
    street: Bundle, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = eval_words(street, data, "--precision", "int8", "--json")
    assert main(words) == 0
    alone = json.loads(capsys.readouterr().out)
    assert main([*words, "--versus", "onnx:fp32"]) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    versus = found.pop("versus")
    assert found == alone
    assert set(versus) == {
        *("format", "precision", "bundle", "value", "low", "high"),
        *("difference", "difference_low", "difference_high", "agreement", "verdict"),
    }
    assert (versus["precision"], versus["value"]) == ("fp32", 1)
    assert "onnx int8" in printed.err
    assert "onnx fp32" in printed.err


def test_the_command_prints_a_verdict_for_people(
    street: Bundle, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(eval_words(street, data, "--precision", "int8", "--versus", "onnx:fp32")) == 0
    said = capsys.readouterr().out
    assert "difference" in said
    assert "-0.3333" in said
    assert "pictures with the same best class: 66.67%" in said
    assert "int8 is 0.333 below fp32" in said


def test_one_is_compared_with_one(street: Bundle, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(eval_words(street, data, "--all", "--versus", "onnx:fp32")) == 2
    assert "--versus compares one artifact" in capsys.readouterr().err


def test_an_int8_artifact_is_not_measured_on_copies_of_its_calibration_pictures(
    street: Bundle, data: Path, tmp_path: Path
) -> None:
    train = tmp_path / "train"
    train.mkdir()
    for index in range(3):  # the same pictures under other names, in another format
        cv2.imwrite(str(train / f"renamed{index}.bmp"), read_picture(data / "green" / f"{index}.png"))
    bundle = calibrated_on(street, sorted(train.iterdir()))
    progress: list[tuple[int, int]] = []
    with pytest.raises(DataError, match=f"3 of the {PICTURES} images of .*3 in the calibration of .* int8 with train"):
        evaluate(bundle, data, precision="int8", progress=lambda done, total: progress.append((done, total)))
    assert progress[-1] == (PICTURES - 1, PICTURES)  # read once to compare them, and none was measured
    assert evaluate(bundle, data, precision="fp32").value == 1  # the float artifact saw none


@pytest.mark.parametrize(("precision", "versus"), [("int8", "onnx:fp32"), ("fp32", "onnx:int8")])
def test_two_artifacts_are_not_compared_on_pictures_that_one_was_made_with(
    precision: str, versus: str, street: Bundle, data: Path
) -> None:
    bundle = calibrated_on(street, [data / "red" / "0.png"])
    with pytest.raises(DataError, match=f"1 of the {PICTURES} images"):
        evaluate_versus(bundle, data, precision=precision, versus=versus)


def test_the_part_of_the_data_that_took_no_part_is_measured(street: Bundle, data: Path) -> None:
    (data / "train").mkdir()
    (data / "test").mkdir()
    for colour in COLOURS:
        shutil.copytree(data / colour, data / "train" / colour)
        (data / colour).rename(data / "test" / colour)
        for index in range(OF_EACH):
            taken = "test" if index < 4 else "train"
            (data / taken / colour / f"{index}.png").unlink()
    bundle = calibrated_on(street, sorted((data / "train").rglob("*.png")))
    assert evaluate(bundle, data, precision="int8").n == 12
    with pytest.raises(DataError, match="12 of the 12 images"):
        evaluate(bundle, data, precision="int8", split="train")


def test_the_command_measures_the_others_and_ends_with_code_2(
    street: Bundle, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = calibrated_on(street, [data / "red" / "0.png"])
    assert main(eval_words(bundle, data, "--all", "--json")) == 2
    printed = capsys.readouterr()
    assert [each["precision"] for each in json.loads(printed.out)] == ["fp32"]
    assert "onnx int8: 1 of the 24 images" in printed.err
