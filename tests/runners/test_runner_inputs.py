"""A runner takes what people have: paths, arrays, frames, images of Pillow, and several of them."""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgecnn
from edgecnn.bundle import Bundle
from edgecnn.errors import DataError, SpecError
from edgecnn.photographs import photographs
from edgecnn.results import UInt8Array
from edgecnn.runners.live.frame import frame_now

pytestmark = pytest.mark.runtime


@pytest.fixture(scope="module")
def runner() -> Iterator[edgecnn.Runner]:
    with edgecnn.open_runner("default-detector") as opened:
        yield opened


@pytest.fixture
def cat() -> UInt8Array:
    return photographs()["cat"]


@pytest.fixture
def cat_file(cat: UInt8Array, tmp_path: Path) -> Path:
    path = tmp_path / "cat.png"
    cv2.imwrite(str(path), cat)
    return path


def test_one_line_draws_what_is_on_a_picture(cat_file: Path, cat: UInt8Array) -> None:
    drawn = edgecnn.open_runner("default-detector")(str(cat_file)).draw()
    assert drawn.shape == cat.shape and (drawn != cat).any()


def test_every_kind_of_picture_gives_the_same(runner: edgecnn.Runner, cat: UInt8Array, cat_file: Path) -> None:
    expected = runner(cat)
    assert isinstance(expected, edgecnn.Detections) and "cat" in expected.names
    assert runner(cat_file) == runner(str(cat_file)) == expected
    assert runner(frame_now(cat, 0, "camera")) == expected


def test_pillow_is_rgb(runner: edgecnn.Runner, cat: UInt8Array, cat_file: Path) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="needs pillow: pip install pillow")
    with pillow.open(cat_file) as image:
        found = runner(image)
        assert found == runner(cat)
        assert np.array_equal(found.picture, cat)
        for mode in ("RGBA", "CMYK"):
            assert runner(image.convert(mode)).draw().shape == cat.shape
        grey = runner(image.convert("L")).picture
        assert grey is not None and (grey[..., 0] == grey[..., 2]).all()
        with pytest.raises(SpecError, match="8 bits a sample, got mode 'I'"):
            runner(image.convert("I"))


def test_a_file_of_pillow_that_is_cut_off_is_an_error(runner: edgecnn.Runner, cat_file: Path) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="needs pillow: pip install pillow")
    cat_file.write_bytes(cat_file.read_bytes()[:3000])
    with pillow.open(cat_file) as image, pytest.raises(DataError, match="cannot be read"):
        runner(image)


def test_pillow_is_not_imported(cat: UInt8Array, runner: edgecnn.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    runner(cat)
    assert "PIL.Image" not in sys.modules


@pytest.mark.parametrize("as_what", [list, tuple, np.stack])
def test_several_are_answered_in_their_order(runner: edgecnn.Runner, cat: UInt8Array, as_what: Any) -> None:
    pictures = [cat, np.zeros_like(cat), cat]
    found = runner(as_what(pictures))
    assert isinstance(found, list)
    assert found == [runner(cat), runner(pictures[1]), runner(cat)]


def test_of_several_each_may_be_of_another_kind(runner: edgecnn.Runner, cat: UInt8Array, cat_file: Path) -> None:
    assert runner([cat, cat_file, frame_now(cat, 0, "camera")]) == [runner(cat)] * 3
    assert runner([]) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (None, "got NoneType"),
        (np.zeros((4, 4), np.uint8), r"got uint8 \[4, 4\]"),
        (np.zeros((4, 4, 3)), r"got float64 \[4, 4, 3\]"),
        (np.zeros((2, 4, 4, 4), np.uint8), r"got uint8 \[4, 4, 4\]"),
        (b"\xff\xd8", "got bytes"),
        ({"a": 1}, "got dict"),
    ],
)
def test_anything_but_a_picture_is_an_error(runner: edgecnn.Runner, wrong: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        runner(wrong)


def test_a_path_that_is_not_a_picture_is_an_error(runner: edgecnn.Runner, tmp_path: Path, cat_file: Path) -> None:
    (tmp_path / "words.jpg").write_text("no picture")
    wrong = {tmp_path: "directory", tmp_path / "cat.pn": "did you mean", tmp_path / "words.jpg": "decoded"}
    for path, message in wrong.items():
        with pytest.raises(DataError, match=message):
            runner(path)


# --- what a result keeps of its picture


def test_an_array_is_kept_by_reference_and_a_frame_is_not(runner: edgecnn.Runner, cat: UInt8Array) -> None:
    assert runner(cat).picture is cat
    frame = frame_now(cat.copy(), 0, "camera")
    found, image = runner(frame), weakref.ref(frame.image)
    assert found.picture is None and found._repr_png_() is None
    del frame
    gc.collect()
    assert image() is None, "the live loop's pictures are let go"


def test_a_file_is_kept_by_its_path_and_read_again(
    runner: edgecnn.Runner, cat: UInt8Array, cat_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(cat_file.parent)
    found = runner("cat.png")
    monkeypatch.chdir("/")
    assert not any(isinstance(value, np.ndarray) and value.nbytes == cat.nbytes for value in vars(found).values())
    again = found.picture
    assert again is not None and np.array_equal(again, cat)
    assert found._repr_png_() is not None


def test_a_file_that_was_changed_meanwhile_is_not_drawn_on(runner: edgecnn.Runner, cat_file: Path) -> None:
    found = runner(cat_file)
    cv2.imwrite(str(cat_file), np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(DataError, match="not the picture any more"):
        found.draw()
    os.remove(cat_file)
    with pytest.raises(DataError, match="not the picture any more"):
        found._repr_png_()


# --- what things are


def test_reprs_say_what_things_are(runner: edgecnn.Runner, cat_file: Path, tmp_path: Path) -> None:
    assert repr(runner).startswith("<Runner: detect, 80 classes, ") and "416x416 px" in repr(runner)
    opened = edgecnn.open_runner("default-detector")
    opened.close()
    assert repr(opened).startswith("<Runner (closed): detect")
    shown = repr(Bundle.open("default-detector"))
    assert shown.startswith("<Bundle ") and "detect, 80 classes, 416x416 px; " in shown and "onnx" in shown
    with edgecnn.open_camera(tmp_path) as camera:
        assert repr(camera) == f"<PictureCamera {tmp_path}: 1 picture>"
