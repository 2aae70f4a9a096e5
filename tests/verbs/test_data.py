"""`data` says what labelled pictures hold and what looks wrong, before anybody trains on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgecnn
from edgecnn.cli._main import main
from edgecnn.errors import DataError, SplitError


def picture(path: Path, level: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((100, 200, 3), level, np.uint8))[1].tobytes())
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two parts that share a picture; train has an empty one, a tiny box, one that stands there twice."""
    folder = tmp_path / "set"
    rows = {"a": "0 0.5 0.5 0.5 0.5\n1 0.1 0.1 0.01 0.01\n", "b": "", "c": "1 0.3 0.3 0.2 0.2\n" * 2}
    for index, (name, text) in enumerate(rows.items()):
        picture(folder / "train" / "images" / f"{name}.png", index)
        (folder / "train" / "labels").mkdir(exist_ok=True)
        (folder / "train" / "labels" / f"{name}.txt").write_text(text)
    picture(folder / "valid" / "images" / "a_again.png", 0)
    (folder / "valid" / "labels").mkdir()
    (folder / "valid" / "labels" / "a_again.txt").write_text(rows["a"])
    (folder / "data.yaml").write_text("train: train/images\nval: valid/images\nnames: [cat, dog, cow]\n")
    return folder


def test_parts_classes_and_sizes_are_counted(data: Path) -> None:
    report = edgecnn.check_data(data)
    assert (report.task, [part.split for part in report.parts]) == ("detect", ["train", "val"])
    train = report.parts[0]
    assert (train.pictures, train.objects) == (3, 4)
    assert train.per_class == {"cat": 1, "dog": 3, "cow": 0}
    assert train.box_sizes == {"small": 3, "medium": 1, "large": 0}
    assert train.box_side_px == pytest.approx((1, 30, 100))


def test_what_looks_wrong_is_named_with_its_pictures(data: Path) -> None:
    report = edgecnn.check_data(data)
    assert sorted(map(str, report.parts[0].findings)) == [
        "1 box equal to another (c.png)",
        "1 box with a side below 4 px (a.png)",
        "1 class without an object: cow",
        "1 picture without an object (b.png)",
    ]
    assert [str(finding) for finding in report.findings] == ["1 picture both in train and val (a.png)"]
    assert report.wrong


def test_a_damaged_picture_and_labels_of_another_part_do_not_hide_the_rest(data: Path) -> None:
    (data / "train" / "images" / "b.png").write_bytes(b"\x89PNG")
    (data / "valid" / "labels" / "a_again.txt").write_text("7 0.5 0.5 0.5 0.5\n")
    train, val = edgecnn.check_data(data).parts
    assert str(train.findings[0]) == "1 picture that cannot be read (b.png)"
    assert val.error is not None and "class id 7" in val.error


def test_masks_give_shares_and_void(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png", 1)
    (tmp_path / "masks").mkdir()
    ids = np.repeat(np.array([0, 0, 1, 255], np.uint8), 50 * 100).reshape(100, 200)
    (tmp_path / "masks" / "a.png").write_bytes(cv2.imencode(".png", ids)[1].tobytes())
    (tmp_path / "classes.txt").write_text("background\ncat\n")
    (part,) = edgecnn.check_data(tmp_path).parts
    assert (part.per_class, part.void_share) == ({"background": 0.5, "cat": 0.25}, 0.25)


def test_class_folders_give_pictures_a_class(tmp_path: Path) -> None:
    for name, count in (("cat", 2), ("dog", 1)):
        for index in range(count):
            picture(tmp_path / name / f"{index}.png", index + 10 * count)
    (part,) = edgecnn.check_data(tmp_path).parts
    assert part.per_class == {"cat": 2, "dog": 1}


def test_the_grid_shows_the_labels(data: Path, tmp_path: Path) -> None:
    report = edgecnn.check_data(data, grid=tmp_path / "grid.png")
    grid = cv2.imread(str(tmp_path / "grid.png"))
    assert report.grid == str(tmp_path / "grid.png")
    assert grid is not None
    assert grid.std() > 10


def test_the_command_prints_a_summary_and_json_and_its_code_says_that_something_is_wrong(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", str(data)]) == 1
    printed = capsys.readouterr()
    assert "wrong: 1 picture both in train and val (a.png)" in printed.err
    assert "dog" in printed.out
    assert main(["data", str(data), "--json", "--split", "valid"]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [part["split"] for part in document["parts"]] == ["val"]


def test_anything_but_a_data_set_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SplitError, match="no split 'best'; it has train, val"):
        edgecnn.check_data(data, task="detect", split="best")
    with pytest.raises(DataError, match="no labels for the task segment"):
        edgecnn.check_data(data, task="segment")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no labels"):
        edgecnn.check_data(tmp_path / "empty")
