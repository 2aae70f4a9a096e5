"""What devices want: the files that say so, and what `convert` makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgecnn.targets
from edgecnn import FrameSpec, convert, prune
from edgecnn.errors import EdgeCnnError, SpecError, UnknownNameError
from edgecnn.formats import FORMATS, compiler_of
from edgecnn.targets import Target, in_order_here, load_target, read_target, target_names, target_of_board, threads_here
from edgecnn.targets.artifacts_to_make import artifacts_to_make, target_notes
from edgecnn.tasks import Classify, Detect

WANTED: dict[str, Any] = {
    "name": "mine",
    "title": "Mine",
    "formats": ["onnx"],
    "precisions": ["int8", "fp32"],
    "makes": ["fp32"],
    "device": "cpu",
    "layout": "NHWC",
}


@pytest.mark.parametrize("name", target_names())
def test_every_target_that_ships_is_described_as_it_must_be(name: str) -> None:
    target = load_target(name)
    assert target.base_name == name
    assert target.title
    if target.compiler:
        assert all(compiler_of(name, target.compiler) for name in target.formats)
        assert target.compiled


@pytest.mark.parametrize("architecture", ["v68", "v73", "v75", "v79"])
def test_an_architecture_is_part_of_the_targets_name(architecture: str) -> None:
    target = load_target(f"qualcomm-htp:{architecture}")
    assert (target.name, target.architecture) == (f"qualcomm-htp:{architecture}", architecture)


def test_without_an_architecture_the_first_is_built_for() -> None:
    assert load_target("qualcomm-htp").name == "qualcomm-htp:v73"


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ("qualcom-htp", UnknownNameError, "did you mean qualcomm-htp?"),
        ("raspberry-pi-6", UnknownNameError, "did you mean raspberry-pi-"),
        ("qualcomm-htp:v77", UnknownNameError, "no architecture of qualcomm-htp is called 'v77'"),
        ("qualcomm-htp:", UnknownNameError, "no architecture of qualcomm-htp is called ''"),
        ("intel-npu:v1", SpecError, "target intel-npu has no architectures"),
        ("../targets/intel-npu", UnknownNameError, "no target is called"),
    ],
)
def test_a_target_that_is_not_there_is_refused_with_what_is_near(
    asked: str, error: type[EdgeCnnError], message: str
) -> None:
    with pytest.raises(error) as refused:
        load_target(asked)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"formats": ["onnxx"]}, "no format is called 'onnxx'; did you mean onnx?"),
        ({"precisions": ["int9"], "makes": ["int9"]}, "no precision is called 'int9'"),
        ({"makes": ["fp16"]}, "not all in precisions"),
        ({"device": "gpux"}, "no device is called 'gpux'"),
        ({"round_channels_to": 0}, "round_channels_to"),
        ({"threads": "four"}, "threads"),
        ({"layout": "NCWH"}, "layout"),
        ({"formats": []}, "formats"),
        ({"precision": ["int8"]}, "unknown field `precision`"),
        ({"largest_side_px": {"detect": "320"}}, "largest_side_px"),
        ({"architectures": ["v1"], "architecture": "v2"}, "no architecture of mine is called 'v2'"),
    ],
)
def test_a_target_file_that_is_wrong_is_refused_where_it_is_wrong(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as refused:
        read_target(WANTED | change)
    assert message in str(refused.value)


def test_a_target_file_without_what_is_needed_says_what() -> None:
    with pytest.raises(SpecError, match="missing required field `device`"):
        read_target({name: value for name, value in WANTED.items() if name != "device"})


def test_only_a_target_with_a_compiler_has_precisions_that_are_compiled() -> None:
    assert read_target(WANTED).compiled == ()
    assert read_target({**WANTED, "compiler": "qualcomm-htp"}).compiled == ("int8",)


def test_a_board_is_known_by_the_name_that_its_firmware_gives() -> None:
    known = target_of_board("Raspberry Pi 4 Model B Rev 1.4")
    assert known is not None
    assert known.name == "raspberry-pi-4"
    emulated = target_of_board("Raspberry Pi 5 Model B Rev 1.0 (emulated)")
    assert emulated is not None
    assert emulated.name == "raspberry-pi-5"
    assert target_of_board("Orange Pi 5") is None
    assert target_of_board("") is None


def test_on_a_raspberry_pi_its_targets_order_of_runtimes_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_order_here(FORMATS.names()) == FORMATS.names()
    monkeypatch.setattr(edgecnn.targets, "board_model", lambda: "Raspberry Pi 3 Model B Plus Rev 1.3")
    assert in_order_here(["onnx", "openvino", "tflite"]) == ["tflite", "onnx", "openvino"]
    monkeypatch.setattr(edgecnn.targets, "default_threads", lambda: 16)
    assert threads_here() == 4
    monkeypatch.setattr(edgecnn.targets, "default_threads", lambda: 2)
    assert threads_here() == 2


@pytest.mark.torch
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"target": "intel-npux"}, "did you mean intel-npu or intel-cpu?"),
        ({"target": "intel-npu", "to": ["onnx"]}, "target intel-npu opens openvino; --to onnx is not among them"),
        ({"target": "intel-npu", "precision": ["fp32"]}, "target intel-npu runs int8, fp16, not --precision fp32"),
        ({"target": "intel-npu", "precision": ["fp33"]}, "no precision to convert to is called 'fp33'"),
        ({"target": "qualcomm-htp", "to": ["tflite"]}, "target qualcomm-htp:v73 opens onnx"),
        ({"target": "edge-tpu", "to": ["tflitee"]}, "did you mean tflite?"),
        ({"target": "intel-npu", "to": "onnx"}, "target intel-npu opens openvino; --to onnx is not among them"),
        ({"target": "intel-npu", "precision": "fp32"}, "target intel-npu runs int8, fp16, not --precision fp32"),
        ({"to": "onnxx"}, "did you mean onnx?"),
        ({"precision": "fp33"}, "no precision to convert to is called 'fp33'"),
    ],
)
def test_convert_refuses_what_the_target_does_not_run(words: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as refused:
        convert("torchvision:resnet18", out=tmp_path / "x.edge", **words)
    assert message in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_one_format_and_one_precision_as_plain_text_are_one() -> None:
    assert artifacts_to_make("onnx", "fp16", None, has_pictures=False) == (["onnx"], ["fp16"], [])
    assert artifacts_to_make(("onnx", "onnx"), ["fp32", "fp16"], None, has_pictures=False)[:2] == (
        ["onnx"],
        ["fp32", "fp16"],
    )


@pytest.mark.torch
def test_pruning_takes_the_rounding_of_a_target_and_refuses_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean qualcomm-htp\?"):
        prune("torchvision:resnet18", out=tmp_path / "x.model", round_to="qualcom-htp")
    assert load_target("qualcomm-htp").round_channels_to == 32


def test_a_frame_that_is_much_for_a_board_gets_a_note_and_is_not_changed() -> None:
    board = load_target("raspberry-pi-3")
    large, small = FrameSpec(height_px=480, width_px=640), FrameSpec(height_px=240, width_px=320)
    (note,) = target_notes(board, large, Detect(labels=("a",)))
    assert note == (
        "raspberry-pi-3: a frame of 640x480 px is probably too slow; "
        "measure --size 320 too, its latency and its accuracy"
    )
    assert target_notes(board, small, Detect(labels=("a",))) == []
    assert target_notes(board, large, Classify(labels=("a", "b"))) == []
    assert isinstance(board, Target)
