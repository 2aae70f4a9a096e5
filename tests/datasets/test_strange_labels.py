"""Labels that are not what they seem are recognised or refused with their place; bombs take neither time nor memory."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn.datasets import UNLABELLED, BoxTruth, MapTruth, open_dataset
from edgecnn.datasets.summary import Look, watched
from edgecnn.datasets.untrusted_documents import parse_yaml, read_xml
from edgecnn.errors import DataError
from edgecnn.runners.remote.parcel import dataset_items, picture_items

LABELS = ("cat", "dog")
HEIGHT, WIDTH = 40, 60


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, np.full((HEIGHT, WIDTH, 3), 90, np.uint8))[1].tobytes())
    return path


def coco(folder: Path, **changes: Any) -> Path:
    picture(folder / "a.jpg")
    picture(folder / "b.jpg")
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 30]}],
    }
    (folder / "instances.json").write_text(json.dumps({**content, **changes}))
    return folder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]}, "image id twice: 1"),
        ({"images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "a.jpg"}]}, r"'a\.jpg' in 1, 2"),
        ({"categories": [{"id": 1, "name": "cat"}, {"id": 1, "name": "dog"}]}, "category id twice: 1"),
        ({"categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "cat"}]}, "'cat' in 1, 2"),
        ({"images": [{"id": 1, "file_name": "/etc/hostname"}]}, "lies outside /"),
        ({"images": [{"id": 1, "file_name": "../../secret.jpg"}]}, "lies outside /"),
        ({"images": [{"id": 1, "file_name": "a\0.jpg"}]}, "not a valid file name"),
        ({"images": [{"id": 1, "file_name": ""}]}, "not a valid file name"),
        ({"images": [{"id": 1, "file_name": "x" * 300}]}, "not a valid file name"),
        ({"images": [{"id": 1, "file_name": 7}]}, r"`images\[0\]\.file_name`"),
        ({"images": [{"id": 1, "file_name": ["a.jpg"]}]}, r"`images\[0\]\.file_name`"),
        ({"images": [{"id": 1.5, "file_name": "a.jpg"}]}, "is not an integer"),
        ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": [[0], 0, 1, 1]}]}, r"annotations\[0\]\.bbox"),
        (
            {"annotations": [{"image_id": 1, "category_id": 1, "bbox": [0.1, 0.1, 0.5, 0.5]}] * 4},
            "shares of the picture",
        ),
        ({"annotations": [{"image_id": 1, "category_id": 1, "bbox": [30, 20, 55, 38]}] * 4}, "not two corners"),
    ],
)
def test_a_coco_json_that_would_give_wrong_figures_is_refused(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(coco(tmp_path, **changes), task="detect", labels=LABELS)


@pytest.mark.parametrize(
    "outline",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, "x"]],
        [[0, 0, 1e300, 0, 1e300, 1e300]],
        [[-2e6, 0, 10, 0, 10, 10]],
        {"size": [HEIGHT, WIDTH], "counts": [1, 2]},
        {"size": [10**6, 10**6], "counts": [10**12]},
        {"size": [1, 1], "counts": [1]},
        {"size": [HEIGHT, WIDTH], "counts": "~~~~"},
        "rubbish",
    ],
)
def test_a_strange_outline_is_refused_before_it_is_drawn(tmp_path: Path, outline: Any) -> None:
    annotation = {"image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 30], "segmentation": outline}
    with pytest.raises(DataError, match=r"outline of a\.jpg"):
        open_dataset(coco(tmp_path, annotations=[annotation]), task="instances", labels=LABELS)


def test_an_outline_beyond_its_picture_is_found(tmp_path: Path) -> None:
    inside = [[10, 5, WIDTH + 1, 5, 20, HEIGHT]]
    beyond = [[10, 5, WIDTH + 9, 5, 20, 20]]
    annotation = {"image_id": 1, "category_id": 1, "bbox": [10, 5, 20, 30]}
    annotations = [{**annotation, "segmentation": outline} for outline in (inside, beyond)]
    dataset = open_dataset(coco(tmp_path, annotations=annotations), task="instances", labels=LABELS)
    look = Look(dataset.classes)
    for sample in watched(dataset, look):
        sample.truth(sample.image())
    assert [str(found) for found in look.findings if found.wrong] == [
        "1 outline beyond the edge of their picture (a.jpg)"
    ]


@pytest.mark.parametrize(
    "content", [b'{"images": [{"id": 1, "file_name": "\xff"}]', b"\xff\xfe", b"[1]", b"", b'{"a": 1e999}']
)
def test_a_json_of_rubbish_is_named(tmp_path: Path, content: bytes) -> None:
    whole = content + b', "annotations": [], "categories": []}' if content.startswith(b'{"images"') else content
    (tmp_path / "x.json").write_bytes(whole)
    with pytest.raises(DataError, match=r"x\.json"):
        open_dataset(tmp_path / "x.json", task="detect", labels=LABELS)


def test_names_from_an_annotations_folder_may_go_up_as_long_as_they_stay_inside(tmp_path: Path) -> None:
    coco(tmp_path / "annotations", images=[{"id": 1, "file_name": "../images/c.jpg"}])
    picture(tmp_path / "images" / "c.jpg")
    (dataset,) = [open_dataset(tmp_path, task="detect", labels=LABELS)]
    assert [sample.path.name for sample in dataset] == ["c.jpg"]


def yolo(folder: Path, rows: list[str], described: str = "names: [cat, dog]\n") -> Path:
    picture(folder / "images" / "a.jpg")
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("\n".join(rows) + "\n")
    (folder / "data.yaml").write_text(described)
    return folder


def pose_rows(points: int, dim: int, *, rows: int = 12) -> list[str]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(rows):
        x, y = rng.uniform(0.3, 0.7, 2)
        width, height = rng.uniform(0.1, 0.5, 2)
        where = rng.uniform(-0.5, 0.5, (points, 2)) * (width, height) + (x, y)
        seen = rng.integers(0, 3, (points, 1)) if dim == 3 else np.empty((points, 0))
        values = np.hstack([where, seen]).ravel()
        found.append(" ".join(["0", *(f"{value:.6g}" for value in (x, y, width, height, *values))]))
    return found


@pytest.mark.parametrize(("points", "dim"), [(17, 3), (17, 2), (4, 2), (6, 3), (5, 3)])
def test_key_points_are_recognised_if_the_data_declares_them_and_refused_otherwise(
    tmp_path: Path, points: int, dim: int
) -> None:
    rows = pose_rows(points, dim)
    with pytest.raises(DataError, match=rf"kpt_shape: \[{points}, {dim}\]|expected shares"):
        open_dataset(yolo(tmp_path / "silent", rows), task="detect", labels=LABELS)
    named = yolo(tmp_path / "named", rows, f"names: [cat, dog]\nkpt_shape: [{points}, {dim}]\n")
    dataset = open_dataset(named, task="detect", labels=LABELS)
    truth = dataset[0].truth(dataset[0].image())
    assert isinstance(truth, BoxTruth)
    x, y, width, height = map(float, rows[0].split()[1:5])
    expected = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2]) * (WIDTH, HEIGHT, WIDTH, HEIGHT)
    assert np.allclose(truth.boxes_xyxy_px[0], expected)
    assert "key points" in dataset.remarks[0]


@pytest.mark.parametrize("corners", [3, 4, 8, 20])
def test_polygons_of_one_length_are_not_key_points(tmp_path: Path, corners: int) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for _ in range(30):
        angle = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(0, 6)
        radius, centre = rng.uniform(0.01, 0.2), rng.uniform(0.2, 0.8, 2)
        around = centre + radius * np.column_stack([np.cos(angle), np.sin(angle)])
        rows.append(" ".join(["1", *(f"{value:.6g}" for value in around.ravel())]))
    assert len(open_dataset(yolo(tmp_path, rows), task="instances", labels=LABELS)) == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["0 0.5 0.5 0.2 0.2", "0 300 200 40 30"], r"a\.txt, line 2: expected shares"),
        (["0 0.5 0.5 0.2 0.2 0.9"], r"line 1: expected .* found 6 fields"),
        (["2 0.5 0.5 0.2 0.2"], "line 1: class id 2, but there are 2"),
        (["0 nan 0.5 0.2 0.2"], "shares"),
        (["0 0.5 0.6 0.9 0.95", "0 0.4 0.5 0.8 0.9", "1 0.6 0.6 0.9 0.9", "0 0.7 0.7 0.9 0.9"], "not two corners"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, rows: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(yolo(tmp_path, rows), task="detect", labels=LABELS)


def test_boxes_and_polygons_may_stand_in_one_file(tmp_path: Path) -> None:
    rows = ["0 0.5 0.5 0.2 0.2", "1 0.1 0.1 0.5 0.1 0.5 0.5", "1 0.1 0.1 0.4 0.1 0.4 0.4 0.2 0.4"]
    dataset = open_dataset(yolo(tmp_path, rows), task="detect", labels=LABELS)
    truth = dataset[0].truth(dataset[0].image())
    assert isinstance(truth, BoxTruth)
    assert len(truth.boxes_xyxy_px) == 3


@pytest.mark.parametrize(
    ("described", "message"),
    [
        ("names: {2000000000: x}\n", "class id '2000000000'"),
        ("names: {0: cat, 2: dog}\n", "none with the id 1"),
        ("names: [cat, cat]\n", "'cat' is 0, 1"),
        ("names: [cat]\nnc: 2\n", "nc: 2, but 1 names"),
        ("names: [[cat], dog]\n", "not a text"),
        ("names: cats.txt\n", "must be a list, or a mapping"),
        ("names: [cat, dog\n", "broken YAML"),
        ("names: [cat, dog]\nnames: [dog, cat]\n", "twice"),
        ("names: [cat, dog]\nkpt_shape: [17]\n", "kpt_shape"),
        ("names: [cat, dog]\nval: ..\n", "a folder around its own"),
        ("names: [cat, dog]\nval: /\n", "a folder around its own"),
        ("names: [cat, dog]\nval: {a: b}\n", "`val:` must be a folder"),
    ],
)
def test_a_wrong_data_yaml_is_named(tmp_path: Path, described: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(yolo(tmp_path, ["0 0.5 0.5 0.2 0.2"], described), task="detect", labels=LABELS)


def test_names_in_yaml_are_what_yaml_says() -> None:
    text = 'names: [no, "a # b", \'it\'\'s\', "caf\\u00e9", 1e3, [x]]\n"quoted": {0: \'a: b\', "1": b} # c\nx: a#b\n'
    assert parse_yaml(text, "y") == {
        "names": ["no", "a # b", "it's", "café", "1e3", ["x"]],
        "quoted": {"0": "a: b", "1": "b"},
        "x": "a#b",
    }


def test_without_class_names_the_networks_are_used_and_that_is_reported(tmp_path: Path) -> None:
    yolo(tmp_path / "inner" / "set", ["1 0.5 0.5 0.2 0.2"], "train: x\n")
    dataset = open_dataset(tmp_path / "inner" / "set", task="detect", labels=LABELS)
    truth = dataset[0].truth(dataset[0].image())
    assert isinstance(truth, BoxTruth)
    assert truth.class_ids.tolist() == [1]
    assert "used as the network's" in dataset.remarks[0]


def masks(folder: Path, ids: np.ndarray[Any, Any], names: str = "background\ncat\ndog\n") -> Path:
    picture(folder / "images" / "a.jpg")
    (folder / "masks").mkdir()
    (folder / "masks" / "a.png").write_bytes(cv2.imencode(".png", ids)[1].tobytes())
    if names:
        (folder / "classes.txt").write_text(names)
    return folder


def stripes(*ids: int, dtype: Any = np.uint8) -> np.ndarray[Any, Any]:
    return np.repeat(np.array(ids, dtype), WIDTH * HEIGHT // len(ids)).reshape(HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (stripes(0, 255), "Divide binary masks by 255"),
        (stripes(0, 128, 255, 0), "only class 0"),
        (stripes(1, 2, 3, 1), "count from 1"),
        (stripes(0, 26001, 24002, 1, dtype=np.uint16), "instance ids"),
        (stripes(0, 1, 38, 75), "ids that no class has"),
        (stripes(255, 255), "only class 0"),
        (stripes(0, 1, 255, 255, 255, 255, 255, 255), "255 may be a class"),
    ],
)
def test_masks_that_must_be_a_mistake_are_refused(tmp_path: Path, ids: np.ndarray[Any, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        open_dataset(masks(tmp_path, ids), task="segment", labels=("background", "cat", "dog"))


def test_void_and_unknown_ids_in_masks_are_reported_with_shares(tmp_path: Path) -> None:
    dataset = open_dataset(
        masks(tmp_path, stripes(0, 0, 1, 255, 3)), task="segment", labels=("background", "cat", "dog")
    )
    assert dataset.remarks == (
        "pixels with ids that no class has are ignored, as shares of all: 3 (20.0%)",
        "void (255): 20.0% of the pixels",
        "1 of 3 classes occur in no mask: dog",
    )
    assert dataset.classes.find(3) == UNLABELLED
    truth = dataset[0].truth(dataset[0].image())
    assert isinstance(truth, MapTruth)
    assert sorted(set(truth.classes.ravel().tolist())) == [UNLABELLED, 0, 1]


def test_masks_without_class_names_have_the_networks(tmp_path: Path) -> None:
    folder = masks(tmp_path / "inner" / "set", stripes(0, 1, 2), names="")
    dataset = open_dataset(folder, task="segment", labels=("background", "cat", "dog"))
    assert "used as the network's" in dataset.remarks[0]
    with pytest.raises(DataError, match="no class names"):
        open_dataset(folder, task="segment", labels=())


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_mask_in_a_format_that_changes_values_is_refused(tmp_path: Path, suffix: str) -> None:
    folder = masks(tmp_path, stripes(0, 1, 2))
    (folder / "masks" / "a.png").unlink()
    (folder / "masks" / f"a{suffix}").write_bytes(cv2.imencode(suffix, stripes(0, 1, 2))[1].tobytes())
    with pytest.raises(DataError, match="does not keep values exactly"):
        open_dataset(folder, task="segment", labels=("background", "cat", "dog"))


LAUGHS = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
BOMBS = {
    "blanks": "names:" + " " * 60_000,
    "laughs": LAUGHS,
    "deep": "[" * 900_000,
    "keys": "? " * 400_000,
    "dashes": "- " * 400_000,
    "long": "names: [" + "a," * 450_000 + "]",
    "large": " " * 2_000_000,
    "number": "names: {2000000000: x}",
    "digits": "names: {" + "9" * 900_000 + ": x}",
}
XML_BOMB = (
    '<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY a{i} "{("&a" + (str(i - 1) if i else "") + ";") * 10}">' for i in range(10))
    + "]><annotation>&a9;</annotation>"
)


def test_an_xml_with_a_dtd_or_without_an_end_to_its_depth_is_refused(tmp_path: Path) -> None:
    for text in (XML_BOMB, '<!DOCTYPE a SYSTEM "file:///etc/hostname"><a/>', "<a>" * 100_000, "<a/", "", "\0"):
        (tmp_path / "a.xml").write_text(text)
        with pytest.raises(DataError, match=r"a\.xml"):
            read_xml(tmp_path / "a.xml")


def test_bombs_take_neither_time_nor_memory(tmp_path: Path) -> None:
    for name, text in BOMBS.items():
        yolo(tmp_path / name, ["0 0.5 0.5 0.2 0.2"], text)
    (coco(tmp_path / "json") / "instances.json").write_text('{"images": ' + "[" * 20_000_000)
    picture(tmp_path / "xml" / "a.jpg")
    (tmp_path / "xml" / "a.xml").write_text(XML_BOMB)
    picture(tmp_path / "many-elements" / "a.jpg")
    (tmp_path / "many-elements" / "a.xml").write_text(f"<annotation>{'<a/>' * 990_000}</annotation>")
    row = "0 .5 .5 .2 .2\n"
    for name, text in {
        "many-rows": row * 280_000,
        "too-many-rows": row * 3_500_000,
        "row": "0 " + ".5 " * 1_300_000,
    }.items():
        yolo(tmp_path / name, [text])
    yolo(tmp_path / "lines", [row], "names: [cat, dog]\nval: list.txt\n")
    (tmp_path / "lines" / "list.txt").write_text("a\n" * 20_000_000)
    program = textwrap.dedent(
        """
        import resource, sys, time
        from pathlib import Path
        from edgecnn.datasets import open_dataset
        from edgecnn.errors import DataError
        resource.setrlimit(resource.RLIMIT_DATA, (1_000_000_000, 1_000_000_000))
        for place in sorted(Path(sys.argv[1]).iterdir()):
            start = time.process_time()
            try:
                open_dataset(place, task="detect", labels=("cat", "dog"))
            except DataError:
                pass
            assert time.process_time() - start < 10, place
        """
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_nothing_outside_of_the_data_is_sent_to_a_board(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    picture(tmp_path / "secret.jpg")
    for index, (name, target) in enumerate((("b.jpg", "secret.jpg"), ("more.txt", "secret"), ("folder", "."))):
        folder = coco(tmp_path / f"set{index}")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(Path("..") / target)
        dataset = open_dataset(folder / "instances.json", task="detect", labels=LABELS)
        with pytest.raises(DataError, match="lies there"):
            dataset_items(folder, dataset, dataset, folder="data")
    with pytest.raises(DataError, match="lies there"):
        picture_items(tmp_path / "set0", folder="data")


def test_only_pictures_and_labels_are_sent_to_a_board(tmp_path: Path) -> None:
    folder = coco(tmp_path / "set")
    (folder / "id_ed25519").write_text("key")
    (folder / "b.jpg").write_text("key")
    dataset = open_dataset(folder, task="detect", labels=LABELS)
    with pytest.raises(DataError, match="has a picture's name, but is not a picture"):
        dataset_items(folder, dataset, dataset, folder="data")
    picture(folder / "b.jpg")
    items, _ = dataset_items(folder, dataset, dataset, folder="data")
    assert sorted(item.path.name for item in items) == ["a.jpg", "b.jpg", "instances.json"]
