"""Candidates are judged on pictures that their calibration has not seen, also where both get the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgecnn import open_runner, quantize
from edgecnn.converters.int8.held_back import Crossed
from edgecnn.converters.int8.onnx.writer import OnnxInt8Writer
from edgecnn.pictures import picture_hash
from edgecnn.results import Classification, UInt8Array
from tests.builders.formats import require_format

pytestmark = pytest.mark.torch

PICTURES = 36


def pictures(count: int = PICTURES) -> list[UInt8Array]:
    """Different smooth pictures."""
    rng = np.random.default_rng(0)
    small = (rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in range(count))
    return [np.asarray(cv2.resize(each, (96, 96), interpolation=cv2.INTER_CUBIC), np.uint8) for each in small]


class Named:
    """Answers with its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.task: object = "as opened"

    def __call__(self, picture: UInt8Array, /) -> str:
        return self.name


def test_each_picture_is_answered_by_the_artifact_that_has_not_seen_it() -> None:
    seen, unseen = pictures(2)
    crossed = Crossed(Named("first"), Named("second"), {picture_hash(seen)})  # type: ignore[arg-type]
    assert [str(crossed(picture)) for picture in (seen, unseen)] == ["second", "first"]


def test_a_measurement_sets_the_thresholds_of_both() -> None:
    first, second = Named("first"), Named("second")
    crossed = Crossed(first, second, ())  # type: ignore[arg-type]
    crossed.task = SimpleNamespace(name="for evaluation")  # type: ignore[assignment]
    assert first.task is second.task is crossed.task


@pytest.fixture
def calibrated_on(monkeypatch: pytest.MonkeyPatch) -> list[list[bytes]]:
    """The frames of each calibration, in order."""
    found: list[list[bytes]] = []
    real = OnnxInt8Writer.calibrate

    def spy(self: OnnxInt8Writer, frames: Sequence[UInt8Array], progress: object = None) -> None:
        found.append([frame.tobytes() for frame in frames])
        real(self, frames)

    monkeypatch.setattr(OnnxInt8Writer, "calibrate", spy)
    return found


@pytest.fixture
def labelled(tiny_bundle: Path, tmp_path: Path) -> Path:
    """Pictures in class folders, labelled by what the float classifier says."""
    with open_runner(tiny_bundle) as runner:
        for index, picture in enumerate(pictures()):
            result = runner(picture)
            assert isinstance(result, Classification)
            folder = tmp_path / "data" / result.labels[result.class_ids[0]]
            folder.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / f"{index:03}.png"), picture)
        for label in runner.task.labels:
            (tmp_path / "data" / label).mkdir(exist_ok=True)
    return tmp_path / "data"


def test_a_search_on_the_calibration_pictures_calibrates_on_each_half_and_the_artifact_on_all(
    tiny_bundle: Path, labelled: Path, calibrated_on: list[list[bytes]], tmp_path: Path
) -> None:
    require_format("onnx")
    made = quantize(
        tiny_bundle, out=tmp_path / "small.edge", to=["onnx"], data=labelled, max_drop=0.5, keep_slower=True
    )
    assert not made.refused, made.refused
    first, second, everything = calibrated_on[:3]
    assert len(first) == len(second) == PICTURES // 2
    assert not set(first) & set(second)
    assert set(first) | set(second) == set(everything)
    assert len(everything) == PICTURES


def test_calibration_pictures_of_their_own_are_all_used_from_the_start(
    tiny_bundle: Path, labelled: Path, calibrated_on: list[list[bytes]], tmp_path: Path
) -> None:
    require_format("onnx")
    own = tmp_path / "own"
    own.mkdir()
    for index, picture in enumerate(pictures()):
        cv2.imwrite(str(own / f"{index:03}.png"), 255 - picture)
    quantize(tiny_bundle, out=tmp_path / "x.edge", to=["onnx"], data=labelled, calibration=own, max_drop=0.5)
    assert len(calibrated_on[0]) == PICTURES
