"""Which part of a data set is meant: what its own file says, else folders by their names; ambiguity is an error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn.datasets import Dataset, iterate_frames, open_dataset
from edgecnn.errors import DataError, SplitError

LABELS = ("cat", "dog")


def picture(path: Path, level: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((40, 60, 3), level, np.uint8))[1].tobytes())
    return path


def yolo_pair(images: Path, name: str) -> None:
    picture(images / f"{name}.jpg")
    labels = images.parent / "labels" if images.name == "images" else images.parent.parent / "labels" / images.name
    labels.mkdir(parents=True, exist_ok=True)
    (labels / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")


def opened(path: Path, **options: Any) -> Dataset:
    return open_dataset(path, task="detect", labels=LABELS, **options)


def stems(path: Path, **options: Any) -> list[str]:
    return [sample.path.stem for sample in opened(path, **options)]


@pytest.fixture
def roboflow(tmp_path: Path) -> Path:
    for split in ("train", "valid"):
        yolo_pair(tmp_path / split / "images", f"{split}_a")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['cat', 'dog']\n"
    )
    return tmp_path


@pytest.mark.parametrize("given", ["", "data.yaml"])
def test_roboflows_data_yaml_means_the_folders_next_to_it(roboflow: Path, given: str) -> None:
    assert stems(roboflow / given) == ["valid_a"]
    assert stems(roboflow / given, use="learn") == ["train_a"]
    assert stems(roboflow / given, split="valid") == stems(roboflow / given, split="val") == ["valid_a"]
    assert opened(roboflow / given).defined_by == "data.yaml"


@pytest.mark.parametrize(
    "said",
    [
        "val: pictures/late",
        "val: late.txt",
        "val: [pictures/late/b.jpg]",
        "val:\n  - pictures/late",
        "path: pictures\nval: late",
        "path: ../{name}\nval: pictures/late",
        "path: {root}\nval: pictures/late",
        "val: {root}/pictures/late",
        "val: ./pictures/late/",
        "validation: pictures/late",
    ],
)
def test_val_of_a_data_yaml_is_a_folder_a_list_file_or_elsewhere(tmp_path: Path, said: str) -> None:
    folder = tmp_path / "set"
    for part, name in (("early", "a"), ("late", "b")):
        picture(folder / "pictures" / part / f"{name}.jpg")
        (folder / "pictures" / part / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    yolo_pair(folder / "images" / "test", "decoy")
    (folder / "late.txt").write_text("./pictures/late/b.jpg\n")
    (folder / "data.yaml").write_text(
        said.format(root=folder, name="set") + "\ntrain: pictures/early\nnames: [cat, dog]\n"
    )
    assert stems(folder) == ["b"]
    assert opened(folder).split == "val"


def test_a_data_yaml_whose_val_is_absent_is_an_error(roboflow: Path) -> None:
    (roboflow / "data.yaml").write_text("train: train/images\nval: gone/images\nnames: [cat, dog]\n")
    with pytest.raises(DataError, match=r"data\.yaml gives 'gone/images' for val, which does not exist"):
        opened(roboflow)


def test_two_descriptions_are_an_error_with_their_names(roboflow: Path) -> None:
    (roboflow / "other.yaml").write_text("val: train/images\nnames: [cat, dog]\n")
    with pytest.raises(DataError, match=r"data\.yaml, other\.yaml"):
        opened(roboflow)


def test_a_yaml_of_another_kind_is_passed_over(roboflow: Path) -> None:
    (roboflow / "compose.yaml").write_text("{{ template }}: [\n")
    assert stems(roboflow) == ["valid_a"]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_folder_by_any_name_of_val_is_measured_on_and_not_learned_from(tmp_path: Path, name: str) -> None:
    for split in ("train", name):
        yolo_pair(tmp_path / split / "images", split)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    assert stems(tmp_path) == [name]
    assert stems(tmp_path, use="learn") == ["train"]
    assert stems(tmp_path, split="val") == [name]


def test_val_and_valid_together_are_ambiguous(tmp_path: Path) -> None:
    for split in ("val", "valid"):
        yolo_pair(tmp_path / split / "images", split)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="2 places are both val"):
        opened(tmp_path)
    assert stems(tmp_path, split="valid") == ["valid"]


def test_nothing_but_pictures_to_learn_from_is_not_measured_on(tmp_path: Path) -> None:
    yolo_pair(tmp_path / "train" / "images", "a")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(SplitError, match="has train: choose the one to measure on"):
        opened(tmp_path)
    assert stems(tmp_path, split="train") == ["a"]


def test_nothing_but_pictures_to_measure_on_is_not_learned_from(tmp_path: Path) -> None:
    yolo_pair(tmp_path / "test" / "images", "a")
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(SplitError, match="to learn from"):
        opened(tmp_path, use="learn")


def coco(folder: Path, name: str, pictures: Path) -> None:
    picture(pictures)
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "images": [{"id": 1, "file_name": pictures.name, "width": 60, "height": 40}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 30]}],
    }
    (folder / name).write_text(json.dumps(content))


def test_of_a_coco_folder_with_train_and_val_val_is_measured_on(tmp_path: Path) -> None:
    for split in ("train2017", "val2017"):
        coco(tmp_path / "annotations", f"instances_{split}.json", tmp_path / split / f"{split}.jpg")
        (tmp_path / "annotations" / f"captions_{split}.json").write_text('{"images": [], "annotations": []}')
    assert stems(tmp_path) == ["val2017"]
    assert stems(tmp_path, use="learn") == ["train2017"]
    assert stems(tmp_path, split="train") == stems(tmp_path, split="train2017") == ["train2017"]


def test_roboflows_coco_folders_are_its_parts(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        coco(tmp_path / split, "_annotations.coco.json", tmp_path / split / f"{split}.jpg")
    assert stems(tmp_path) == ["test"]
    assert stems(tmp_path, split="val") == ["valid"]
    assert stems(tmp_path, use="learn") == ["train"]


def test_two_candidate_coco_files_are_an_error(tmp_path: Path) -> None:
    for name in ("instances_a.json", "instances_b.json"):
        coco(tmp_path, name, tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"instances_a\.json, instances_b\.json"):
        opened(tmp_path)
    assert stems(tmp_path / "instances_a.json") == ["a"]


def test_class_folders_in_parts(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        picture(tmp_path / split / "cat" / f"{split}.jpg")
    sets = {use: open_dataset(tmp_path, task="classify", labels=(), use=use) for use in ("measure", "learn")}
    assert {use: [s.path.stem for s in found] for use, found in sets.items()} == {
        "measure": ["valid"],
        "learn": ["train"],
    }


def test_a_data_yaml_gives_the_frames_to_learn_from(roboflow: Path) -> None:
    picture(roboflow / "train" / "images" / "train_a.jpg", level=30)
    (frame,) = iterate_frames(roboflow / "data.yaml", 5)
    assert round(float(frame.mean())) == 30


def test_the_pictures_used_are_printed(roboflow: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", logger="edgecnn.datasets"):
        opened(roboflow)
    assert f"{roboflow} (YOLO; val, by data.yaml): 1 picture" in caplog.text


def test_a_list_names_pictures_that_are_there(tmp_path: Path) -> None:
    yolo_pair(tmp_path / "images", "a")
    (tmp_path / "data.yaml").write_text("val: val.txt\nnames: [cat, dog]\n")
    (tmp_path / "val.txt").write_text("images/a.jpg\nimages/gone.jpg\n" + "x" * 5000 + "\n")
    with pytest.raises(DataError, match=r"2 of the 3 pictures in .*val\.txt do not exist: images/gone\.jpg"):
        opened(tmp_path)


def test_frames_of_a_divided_folder_are_those_to_learn_from(tmp_path: Path) -> None:
    for level, split in ((30, "train"), (200, "val")):
        picture(tmp_path / split / "images" / f"{split}.jpg", level=level)
    assert [round(float(frame.mean())) for frame in iterate_frames(tmp_path, 5)] == [30]
    assert [round(float(frame.mean())) for frame in iterate_frames(tmp_path / "val", 5)] == [200]
