"""Results are shown, drawn, cropped, saved and compared, each kind and those of other packages."""

from __future__ import annotations

import copy
import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn.errors import SpecError, StorageError
from edgecnn.results import Classification, Detections, Items, Result, UInt8Array, found_in
from edgecnn.tasks import TASKS, Detect
from tests.results.samples import (
    KINDS,
    LABELS,
    SIZE_PX,
    classification,
    detections,
    each_kind,
    instances,
    segmentation,
)

EACH = pytest.mark.parametrize("result", each_kind(), ids=KINDS)


def image() -> UInt8Array:
    return np.full((SIZE_PX[1], SIZE_PX[0], 3), 90, np.uint8)


def decoded(png: bytes | None) -> UInt8Array:
    assert png is not None and png.startswith(b"\x89PNG")
    read = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    assert read is not None
    return np.asarray(read, np.uint8)


# --- compared


@EACH
def test_equality_is_a_plain_bool(result: Items) -> None:
    again = pickle.loads(pickle.dumps(result))
    assert (result == result) is True and (result == again) is True and (result != again) is False
    assert (result == result[:1]) is False
    assert (result == 1) is False and (result != None) is True  # noqa: E711
    assert type(result).__hash__ is None
    with pytest.raises(TypeError, match="unhashable"):
        hash(result)


def test_one_value_makes_them_unequal() -> None:
    found = detections()
    for name in ("boxes_xyxy_px", "scores", "class_ids", "track_ids"):
        other = copy.deepcopy(found)
        getattr(other, name).flat[0] += 1
        assert found != other, name
    assert found != Detections(found.boxes_xyxy_px, found.scores, found.class_ids, LABELS)
    assert found != Detections(found.boxes_xyxy_px, found.scores, found.class_ids, ("a", "b", "c"), found.track_ids)


def test_kinds_are_distinguished() -> None:
    assert len({repr(result) for result in each_kind()}) == 4
    assert all((a == b) is (i == j) for i, a in enumerate(each_kind()) for j, b in enumerate(each_kind()))


# --- in words


def test_repr_is_short_however_much_was_found() -> None:
    labels = tuple(f"a class with a rather long name, number {i}" for i in range(5000))
    count = 5000
    boxes, scores = np.zeros((count, 4), np.float32), np.full(count, 0.5, np.float32)
    assert len(repr(Detections(boxes, scores, np.arange(count), labels))) < 300
    assert len(repr(Classification(np.arange(count), scores, labels))) < 300
    assert repr(detections()) == "<Detections: 2 person, 1 car, 1 dog; door: 1 in, 0 out>"
    assert repr(detections(0)) == "<Detections: nothing; door: 0 in, 0 out>".replace("0 in", "1 in")
    assert repr(classification()) == "<Classification: dog 0.70, person 0.20, car 0.10>"
    assert str(segmentation()) == "car 75 %, dog 17 %, person 8 %"


def test_a_label_does_not_command_the_terminal() -> None:
    found = Classification(np.array([0]), np.array([1.0], np.float32), ("\x1b[2Jgone\n",))
    assert repr(found) == r"<Classification: \x1b[2Jgone\n 1.00>"


@EACH
def test_dict_and_json_are_equal_and_have_ids_and_labels(result: Items) -> None:
    document = result.to_dict()
    assert document == json.loads(result.to_json()) == json.loads(result.to_json(indent=2))
    assert "\n" in result.to_json(indent=2) and "\n" not in result.to_json()
    things = next(value for key, value in document.items() if isinstance(value, list) and key != "counts")
    assert [thing["label"] for thing in things] == result.names
    assert [thing["class_id"] for thing in things] == result.class_ids.tolist()
    assert document["task"] == TASKS.of(result).name


# --- the picture


@EACH
def test_it_is_drawn_on_a_copy_of_a_picture_that_is_given(result: Items) -> None:
    canvas = image()
    drawn = result.draw(canvas)
    assert drawn.shape == canvas.shape and (drawn != 90).any() and (canvas == 90).all()


@EACH
def test_it_remembers_its_picture_without_copying_and_so_do_its_parts(result: Items) -> None:
    canvas = image()
    known = found_in(copy.copy(result), canvas)
    assert known.picture is canvas and known[:1].picture is canvas and known.filter(labels=0).picture is canvas
    assert np.array_equal(known.draw(), result.draw(canvas))
    assert known == result
    assert len(pickle.dumps(known)) == len(pickle.dumps(result)), "a picture is not pickled"


@EACH
def test_without_a_picture_it_says_what_to_do(result: Items) -> None:
    assert result.picture is None and result._repr_png_() is None
    with pytest.raises(SpecError, match=r"draw\(image\)"):
        result.draw()


@EACH
def test_a_notebook_shows_the_drawn_picture(result: Items) -> None:
    canvas = image()
    png = found_in(copy.copy(result), canvas)._repr_png_()
    assert np.array_equal(decoded(png), result.draw(canvas))


def test_a_large_picture_is_shown_smaller() -> None:
    boxes = np.array([[1000, 1000, 4000, 3000]], np.float32)
    found = Detections(boxes, np.array([0.9], np.float32), np.array([0]), LABELS)
    png = found_in(found, np.zeros((4000, 6000, 3), np.uint8))._repr_png_()
    shown = decoded(png)
    assert shown.shape == (1067, 1600, 3)
    assert shown[260:800, 264:270].any(), "the box lies where it lay"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_it_is_saved_as_the_suffix_says(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"drawn{suffix}"
    path.write_bytes(b"old")
    assert detections().save(path, image()) == path
    read = cv2.imread(str(path))
    assert read is not None and read.shape == (SIZE_PX[1], SIZE_PX[0], 3)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_result_that_cannot_be_saved_says_why(tmp_path: Path) -> None:
    for name in ("drawn.txt", "drawn"):
        with pytest.raises(SpecError, match="suffix"):
            detections().save(tmp_path / name, image())
    with pytest.raises(StorageError, match="absent"):
        detections().save(tmp_path / "absent" / "a.png", image())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("result", [instances(), segmentation()], ids=["instances", "segmentation"])
def test_masks_are_not_drawn_on_another_size(result: Items) -> None:
    with pytest.raises(SpecError, match="a picture of 40x30 px, this one has 50x30"):
        result.draw(np.zeros((30, 50, 3), np.uint8))


@pytest.mark.parametrize(
    "wrong", [np.zeros((30, 40), np.uint8), np.zeros((30, 40, 3)), 7, np.zeros((0, 4, 3), np.uint8)]
)
def test_anything_but_a_picture_is_an_error(wrong: Any) -> None:
    with pytest.raises(SpecError, match=re.escape("a picture must be uint8 [height, width, 3] BGR")):
        detections().draw(wrong)


# --- cut out


def test_boxes_are_cut_out_as_views() -> None:
    canvas = np.arange(SIZE_PX[1] * SIZE_PX[0] * 3, dtype=np.uint32).astype(np.uint8).reshape(SIZE_PX[1], SIZE_PX[0], 3)
    boxes = np.array([[1.5, 2, 3.2, 9], [-5, -5, 2, 2], [38, 28, 99, 99], [7, 7, 7, 7], [60, 60, 70, 70]], np.float32)
    found = Detections(boxes, np.full(5, 0.5, np.float32), np.zeros(5, np.int64), LABELS)
    crops = found.crop(canvas)
    assert [crop.shape[:2] for crop in crops] == [(7, 3), (2, 2), (2, 2), (0, 0), (0, 0)]
    assert np.array_equal(crops[0], canvas[2:9, 1:4]) and np.shares_memory(crops[0], canvas)


def test_classes_of_a_map_are_cut_out_by_the_box_around_them() -> None:
    assert [crop.shape[:2] for crop in segmentation().crop(image())] == [(30, 40), (10, 20), (10, 10)]
    with pytest.raises(SpecError, match="no boxes to cut out"):
        classification().crop(image())


# --- other packages' results


@dataclass(frozen=True)
class Faces(Detections):
    """As another package derives one, with a dataclass of its own."""

    smiles: Any = None


def test_a_result_of_another_package_inherits_all_of_it() -> None:
    ours = detections()
    faces = Faces(ours.boxes_xyxy_px, ours.scores, ours.class_ids, LABELS, smiles=np.arange(4))
    assert (faces == faces) is True and (faces == ours) is False
    assert faces != Faces(ours.boxes_xyxy_px, ours.scores, ours.class_ids, LABELS, smiles=np.zeros(4))
    assert repr(faces) == "<Faces: 2 person, 1 car, 1 dog>"
    assert faces.to_dict()["task"] == Detect.name
    assert faces.draw(image()).any()
    with pytest.raises(TypeError):
        hash(faces)


def test_a_result_that_no_task_reads_has_a_repr_all_the_same() -> None:
    class Strange(Result):
        pass

    assert repr(Strange()).startswith("<Strange: SpecError: no task has results of the class")
    assert Strange() == Strange()
