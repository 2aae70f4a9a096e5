"""Data sets are recognised by what they hold, and bad ones say what is wrong with them."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn.datasets import UNLABELLED, BoxTruth, LabelTruth, MapTruth, iterate_frames, open_dataset
from edgecnn.datasets.data_yaml import names_of
from edgecnn.datasets.mask_files import read_class_ids
from edgecnn.datasets.untrusted_documents import parse_yaml
from edgecnn.errors import DataError

CATS_AND_DOGS = ("cat", "dog")
HEIGHT_PX, WIDTH_PX = 40, 60


def write_image(path: Path, *, height: int = HEIGHT_PX, width: int = WIDTH_PX, level: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((height, width, 3), level, np.uint8))[1].tobytes())
    return path


def write_mask(path: Path, ids: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", ids)[1].tobytes())


def write_palette_png(path: Path, indices: np.ndarray[Any, Any], palette: list[tuple[int, int, int]]) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = indices.shape
    rows = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in indices)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", bytes(value for colour in palette for value in colour))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def coco_json(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = {
        "images": [{"id": 7, "file_name": "a.jpg", "height": HEIGHT_PX, "width": WIDTH_PX}],
        "categories": [{"id": 17, "name": "Cat"}, {"id": 99, "name": "giraffe"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 17, "bbox": [10, 5, 20, 30], "area": 500, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 99, "bbox": [0, 0, 5, 5]},
        ],
    }
    return {**content, **changes}


def make_coco(folder: Path, **changes: Any) -> Path:
    write_image(folder / "images" / "a.jpg")
    write_image(folder / "images" / "unlabelled.jpg")
    (folder / "instances.json").write_text(json.dumps(coco_json(**changes)))
    return folder


def make_yolo(folder: Path, lines: str = "1 0.5 0.5 0.5 0.5\n") -> Path:
    write_image(folder / "images" / "a.jpg")
    write_image(folder / "images" / "b.jpg")
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text(lines)
    (folder / "classes.txt").write_text("dog\ncat\n")
    return folder


def make_voc(folder: Path) -> Path:
    for name in ("a", "b"):
        write_image(folder / "JPEGImages" / f"{name}.jpg")
        (folder / "Annotations").mkdir(exist_ok=True)
        (folder / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><size><width>{WIDTH_PX}</width><height>{HEIGHT_PX}</height></size>"
            "<object><name>cat</name><difficult>1</difficult><bndbox><xmin>1</xmin><ymin>3</ymin>"
            "<xmax>20</xmax><ymax>10</ymax></bndbox></object></annotation>"
        )
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "val.txt").write_text("a\n")
    (folder / "ImageSets" / "Main" / "train.txt").write_text("b 1\n")
    return folder


def make_masks(folder: Path, ids: np.ndarray[Any, Any] | None = None) -> Path:
    write_image(folder / "images" / "a.jpg")
    write_image(folder / "images" / "b.jpg")
    default = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    write_mask(folder / "masks" / "a.png", default if ids is None else ids)
    (folder / "classes.txt").write_text("dog\ncat\ngiraffe\n")
    return folder


def boxes(folder: Path, **options: Any) -> BoxTruth:
    sample = open_dataset(folder, task="detect", labels=CATS_AND_DOGS, **options)[0]
    truth = sample.truth(sample.image())
    assert isinstance(truth, BoxTruth)
    return truth


def test_coco_boxes_become_corners_and_classes_are_mapped_by_name(tmp_path: Path) -> None:
    truth = boxes(make_coco(tmp_path))
    assert truth.boxes_xyxy_px.tolist() == [[10, 5, 30, 35]]
    assert truth.class_ids.tolist() == [0]
    assert truth.areas_px2.tolist() == [500]


def test_what_coco_leaves_out_is_counted(tmp_path: Path) -> None:
    dataset = open_dataset(make_coco(tmp_path), task="detect", labels=CATS_AND_DOGS)
    assert dataset.left_out == {
        "objects of classes that the network doesn't have": 1,
        "images without boxes": 1,
    }
    assert dataset.classes.unknown_names == ("giraffe",)


def test_a_coco_json_can_be_given_itself(tmp_path: Path) -> None:
    assert len(open_dataset(make_coco(tmp_path) / "instances.json", task="detect", labels=CATS_AND_DOGS)) == 1


def test_the_official_layout_of_coco_is_found(tmp_path: Path) -> None:
    write_image(tmp_path / "val2017" / "a.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(coco_json()))
    assert len(open_dataset(tmp_path, task="detect", labels=CATS_AND_DOGS, split="val2017")) == 1


def test_of_two_json_files_the_one_called_boxes_is_taken_for_detection(tmp_path: Path) -> None:
    make_coco(tmp_path)
    moved = coco_json(annotations=[{"id": 1, "image_id": 7, "category_id": 17, "bbox": [1, 1, 2, 2]}])
    (tmp_path / "some_boxes.json").write_text(json.dumps(moved))
    assert boxes(tmp_path).boxes_xyxy_px.tolist() == [[1, 1, 3, 3]]


def test_outlines_are_for_instances(tmp_path: Path) -> None:
    annotation = {"id": 1, "image_id": 7, "category_id": 17, "bbox": [0, 0, 9, 9]}
    outline = [[0.0, 0.0, 9.0, 0.0, 9.0, 9.0]]
    make_coco(tmp_path, annotations=[{**annotation, "segmentation": outline}])
    sample = open_dataset(tmp_path, task="instances", labels=CATS_AND_DOGS)[0]
    truth = sample.truth(sample.image())
    assert isinstance(truth, BoxTruth)
    assert truth.outlines == (outline,)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [{"image_id": 7, "category_id": 5, "bbox": [0, 0, 1, 1]}]}, "category_id 5"),
        ({"annotations": [{"image_id": 8, "category_id": 17, "bbox": [0, 0, 1, 1]}]}, "image_id 8"),
        ({"annotations": [{"image_id": 7, "category_id": 17, "bbox": [0, 0, 1]}]}, "bbox"),
        ({"categories": [{"id": 17}]}, "expected a category 'id' and 'name'"),
        ({"images": [{"id": 7, "file_name": "gone.jpg"}]}, "none of the 1 images"),
        (
            {"categories": [{"id": 17, "name": "yak"}, {"id": 99, "name": "emu"}]},
            "yak, emu, the network cat, dog",
        ),
    ],
)
def test_a_wrong_coco_json_says_what_is_wrong(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(make_coco(tmp_path, **changes), task="detect", labels=CATS_AND_DOGS)


def test_broken_json_is_named(tmp_path: Path) -> None:
    (make_coco(tmp_path) / "instances.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"instances\.json is broken JSON"):
        open_dataset(tmp_path, task="detect", labels=CATS_AND_DOGS)


def test_another_json_is_not_coco(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"not COCO JSON.*found a"):
        open_dataset(tmp_path / "x.json", task="detect", labels=CATS_AND_DOGS)


def test_boxes_of_an_image_of_another_size_are_refused(tmp_path: Path) -> None:
    make_coco(tmp_path)
    write_image(tmp_path / "images" / "a.jpg", height=20, width=30)
    with pytest.raises(DataError, match="60x40 px, but the file has 30x20"):
        boxes(tmp_path)


def test_yolo_shares_become_pixels_and_unlabelled_images_are_counted(tmp_path: Path) -> None:
    truth = boxes(make_yolo(tmp_path))
    assert truth.boxes_xyxy_px.tolist() == [[15, 10, 45, 30]]
    assert truth.class_ids.tolist() == [0]
    dataset = open_dataset(tmp_path, task="detect", labels=CATS_AND_DOGS)
    assert dataset.left_out == {"images without labels": 1}


def test_an_empty_yolo_file_is_a_picture_without_objects(tmp_path: Path) -> None:
    assert len(boxes(make_yolo(tmp_path, lines="")).class_ids) == 0


def test_a_yolo_polygon_gives_its_box_and_its_outline(tmp_path: Path) -> None:
    make_yolo(tmp_path, "1 0 0 0.5 0 0.5 0.25\n")
    assert boxes(tmp_path).boxes_xyxy_px.tolist() == [[0, 0, 30, 10]]
    sample = open_dataset(tmp_path, task="instances", labels=CATS_AND_DOGS)[0]
    truth = sample.truth(sample.image())
    assert isinstance(truth, BoxTruth)
    assert truth.outlines == ([[0, 0, 30, 0, 30, 10]],)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("2 0.5 0.5 0.1 0.1\n", r"a\.txt, line 1: class id 2, but there are 2 class names"),
        ("0 0.5 0.5 0.1\n", "found 4 fields"),
        ("0 15 10 45 30\n", "shares of the picture"),
        ("cat 0.5 0.5 0.1 0.1\n", "class id and numbers"),
    ],
)
def test_a_wrong_yolo_line_is_named(tmp_path: Path, lines: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(make_yolo(tmp_path, lines), task="detect", labels=CATS_AND_DOGS)


def test_yolo_without_class_names_says_where_to_put_them(tmp_path: Path) -> None:
    (make_yolo(tmp_path / "set") / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"no class names.*classes\.txt"):
        open_dataset(tmp_path / "set", task="detect", labels=())


@pytest.mark.parametrize(
    "text",
    [
        "names: [dog, 'big cat']\n",
        'nc: 2\nnames:\n  0: dog\n  1: "big cat"  # a comment\ntrain: x\n',
        "names:\n- dog\n- big cat\nval: y\n",
        "names: {0: dog, 1: big cat}\n",
        "names: [\n  dog,\n  big cat\n]\n",
    ],
)
def test_names_are_read_from_the_usual_forms_of_data_yaml(text: str) -> None:
    described = parse_yaml(text, "data.yaml")
    assert isinstance(described, dict)
    assert names_of(described["names"], "data.yaml") == ("dog", "big cat")


def test_voc_counts_pixels_from_one_and_ignores_difficult_objects(tmp_path: Path) -> None:
    truth = boxes(make_voc(tmp_path))
    assert truth.boxes_xyxy_px.tolist() == [[0, 2, 20, 10]]
    assert truth.ignored.tolist() == [True]


@pytest.mark.parametrize(("split", "name"), [(None, "a"), ("val", "a"), ("train", "b")])
def test_the_split_picks_the_list_of_voc(tmp_path: Path, split: str | None, name: str) -> None:
    dataset = open_dataset(make_voc(tmp_path), task="detect", labels=CATS_AND_DOGS, split=split)
    assert [sample.path.stem for sample in dataset] == [name]


def test_an_unknown_split_of_voc_lists_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'best'; it has train, val"):
        open_dataset(make_voc(tmp_path), task="detect", labels=CATS_AND_DOGS, split="best")


def test_broken_xml_is_named(tmp_path: Path) -> None:
    (make_voc(tmp_path) / "Annotations" / "a.xml").write_text("<annotation>")
    with pytest.raises(DataError, match=r"a\.xml is broken XML"):
        open_dataset(tmp_path, task="detect", labels=CATS_AND_DOGS)


def test_mask_ids_are_mapped_and_what_has_no_name_is_unlabelled(tmp_path: Path) -> None:
    ids = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    ids[0, :5] = (0, 1, 2, 3, 255)  # dog, cat, giraffe, beyond the names, void
    dataset = open_dataset(make_masks(tmp_path, ids), task="segment", labels=CATS_AND_DOGS)
    truth = dataset[0].truth(dataset[0].image())
    assert isinstance(truth, MapTruth)
    assert truth.classes[0, :5].tolist() == [1, 0, UNLABELLED, UNLABELLED, UNLABELLED]
    assert dataset.left_out == {"images without a mask": 1}


def test_masks_with_a_suffix_have_their_own_class_names(tmp_path: Path) -> None:
    make_masks(tmp_path / "val")
    write_mask(tmp_path / "val" / "masks_pets" / "a.png", np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8))
    (tmp_path / "classes_pets.txt").write_text("hamster\nparrot\n")
    dataset = open_dataset(tmp_path, task="segment", labels=("parrot", "hamster"))
    assert dataset.path.name == "masks_pets"
    assert dataset.classes.network_ids.tolist() == [1, 0]


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    dataset = open_dataset(make_masks(tmp_path, np.zeros((4, 6), np.uint8)), task="segment", labels=CATS_AND_DOGS)
    with pytest.raises(DataError, match=r"a\.png has 6x4 px, its image 60x40"):
        dataset[0].truth(dataset[0].image())


def test_a_palette_mask_gives_its_indices(tmp_path: Path) -> None:
    indices = np.array([[0, 1, 2], [3, 1, 0]])
    repeated = [(0, 0, 0), (128, 0, 0), (128, 0, 0), (0, 0, 0)]
    write_palette_png(tmp_path / "a.png", indices, repeated)
    assert read_class_ids(tmp_path / "a.png").tolist() == indices.tolist()


def test_a_colour_mask_is_refused(tmp_path: Path) -> None:
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[0, 0] = (1, 2, 3)
    write_mask(tmp_path / "a.png", picture)
    with pytest.raises(DataError, match="colour picture"):
        read_class_ids(tmp_path / "a.png")


def test_class_folders_are_mapped_by_name_and_unknown_ones_counted(tmp_path: Path) -> None:
    for name in ("Dog", "cat", "unicorn"):
        write_image(tmp_path / "val" / name / "1.jpg")
    dataset = open_dataset(tmp_path, task="classify", labels=CATS_AND_DOGS)
    truths = [sample.truth(sample.image()) for sample in dataset]
    assert truths == [LabelTruth(1), LabelTruth(0)]
    assert dataset.left_out == {"images of classes that the network doesn't have": 1}


def test_images_without_class_folders_say_what_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"task classify\. Expected one folder per class.*Found: images/"):
        open_dataset(make_masks(tmp_path), task="classify", labels=CATS_AND_DOGS)


def test_other_dialects_of_a_name_are_the_same_class(tmp_path: Path) -> None:
    for name in ("aeroplane", "tvmonitor", "potted_plant", "dining-table"):
        write_image(tmp_path / name / "1.jpg")
    labels = ("airplane", "tv", "pottedplant", "diningtable")
    dataset = open_dataset(tmp_path, task="classify", labels=labels)
    assert dataset.classes.unknown_names == ()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone does not exist"):
        open_dataset(tmp_path / "gone", task="detect", labels=CATS_AND_DOGS)


@pytest.mark.parametrize("task", ["classify", "detect", "segment", "instances"])
def test_an_empty_folder_says_what_is_wanted(tmp_path: Path, task: str) -> None:
    with pytest.raises(DataError, match="Found: nothing"):
        open_dataset(tmp_path, task=task, labels=CATS_AND_DOGS)


def test_an_unreadable_image_is_named_when_it_is_met(tmp_path: Path) -> None:
    (make_yolo(tmp_path) / "images" / "a.jpg").write_bytes(b"not an image")
    dataset = open_dataset(tmp_path, task="detect", labels=CATS_AND_DOGS)
    with pytest.raises(DataError, match=r"a\.jpg \(12 bytes\) cannot be decoded"):
        dataset[0].image()


def test_a_limit_takes_evenly_spaced_samples(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        for index in range(3):
            write_image(tmp_path / name / f"{index}.jpg")
    dataset = open_dataset(tmp_path, task="classify", labels=CATS_AND_DOGS).limited(2)
    assert [sample.path.parent.name for sample in dataset] == ["cat", "dog"]
    assert dataset.left_out == {"images beyond the limit": 4}


def test_a_class_is_found_by_name_or_id(tmp_path: Path) -> None:
    classes = open_dataset(make_masks(tmp_path), task="segment", labels=CATS_AND_DOGS).classes
    assert (classes.find("Cat"), classes.find("1"), classes.find(2)) == (0, 0, UNLABELLED)
    with pytest.raises(DataError, match="no class 'cow'; it has dog, cat, giraffe"):
        classes.find("cow")


def test_frames_come_from_a_folder_in_order_of_name_and_not_from_its_masks(tmp_path: Path) -> None:
    make_masks(tmp_path)
    write_image(tmp_path / "images" / "b.jpg", level=200)
    frames = iterate_frames(tmp_path, 10)
    assert [round(float(frame.mean())) for frame in frames] == [90, 200]


def test_frames_of_a_video_are_evenly_spaced(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for level in range(0, 200, 10):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    frames = iterate_frames(tmp_path / "v.avi", 4)
    assert np.allclose([frame.mean() for frame in frames], [0, 50, 100, 150], atol=3)


def test_one_image_is_one_frame(tmp_path: Path) -> None:
    assert iterate_frames(write_image(tmp_path / "a.png"), 5)[0].shape == (HEIGHT_PX, WIDTH_PX, 3)


@pytest.mark.parametrize(("name", "message"), [("a.jpg", "cannot be decoded"), ("a.mp4", "cannot be opened")])
def test_a_damaged_file_gives_no_frames(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"rubbish")
    with pytest.raises(DataError, match=message):
        iterate_frames(tmp_path / name, 1)


def test_an_empty_folder_gives_no_frames(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no images"):
        iterate_frames(tmp_path, 1)


@pytest.mark.parametrize(
    ("task", "classes", "images", "without"),
    [
        ("detect", "classes.txt", 128, {}),
        ("instances", "classes.txt", 100, {"images without outlines": 28}),
        ("segment", "classes_voc21.txt", 100, {"images without a mask": 28}),
    ],
)
def test_each_task_finds_its_own_labels_in_coco128(
    shared: Path, task: str, classes: str, images: int, without: dict[str, int]
) -> None:
    folder = shared / "data" / "coco128"
    labels = (folder / classes).read_text().split("\n")
    dataset = open_dataset(folder / "val", task=task, labels=labels)
    assert len(dataset) == images
    assert dataset.left_out == without
    sample = dataset[3]
    sample.truth(sample.image())


def test_bccd_has_its_official_splits(shared: Path) -> None:
    labels = ("WBC", "RBC", "Platelets")
    lengths = [
        len(open_dataset(shared / "data" / "bccd", task="detect", labels=labels, split=split))
        for split in (None, "train", "val")
    ]
    assert lengths == [72, 205, 87]


def test_pascal_vocs_class_maps_are_read_with_its_lists_and_names(tmp_path: Path) -> None:
    for stem in ("one", "two", "three"):
        write_image(tmp_path / "JPEGImages" / f"{stem}.jpg")
    ids = np.zeros((HEIGHT_PX, WIDTH_PX), np.int64)
    ids[:10], ids[10:12] = 8, 255  # a cat, and its edge, which is void
    for stem in ("one", "two"):
        (tmp_path / "SegmentationClass").mkdir(exist_ok=True)
        write_palette_png(tmp_path / "SegmentationClass" / f"{stem}.png", ids, [(0, 0, n % 3) for n in range(256)])
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("two\nthree\n")
    (lists / "val.txt").write_text("one\n")
    dataset = open_dataset(tmp_path, task="segment", labels=("cat", "background"))
    assert (dataset.form, dataset.split, len(dataset)) == ("Pascal VOC masks", "val", 1)
    truth = dataset[0].truth(dataset[0].image())
    assert isinstance(truth, MapTruth)
    assert np.unique(truth.classes).tolist() == sorted({UNLABELLED, 0, 1})
    assert (truth.classes[:10] == 0).all() and (truth.classes[10:12] == UNLABELLED).all()
    assert open_dataset(tmp_path, task="segment", labels=("cat",), split="train").left_out == {
        "images without a mask": 1
    }


def test_a_label_map_names_the_classes_of_such_masks(tmp_path: Path) -> None:
    write_image(tmp_path / "JPEGImages" / "one.jpg")
    (tmp_path / "SegmentationClass").mkdir()
    ids = np.ones((HEIGHT_PX, WIDTH_PX), np.int64)
    write_palette_png(tmp_path / "SegmentationClass" / "one.png", ids, [(0, 0, 0), (9, 9, 9)])
    (tmp_path / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nsoil:0,0,0::\nweed:9,9,9::\n")
    dataset = open_dataset(tmp_path, task="segment", labels=("weed", "soil"))
    truth = dataset[0].truth(dataset[0].image())
    assert isinstance(truth, MapTruth) and (truth.classes == 0).all()
