"""The figure of a data set is the same in every form in which its labels may lie, or there is none."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgecnn
from edgecnn.errors import DataError

pytestmark = pytest.mark.runtime

PICTURES = 12


@pytest.fixture(scope="module")
def val(shared: Path) -> Path:
    return shared / "data" / "coco128" / "val"


def measured(model: str, data: Path, **options: Any) -> float:
    return edgecnn.evaluate(model, data, resamples=0, **options).value


def measured_boxes(data: Path) -> float:
    """AP of the detector that comes along, on some of the pictures: the same ones of the same names."""
    return measured("default-detector", data, limit=40)


def palette_png(indices: np.ndarray[Any, Any], palette: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = indices.shape
    rows = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in indices)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"PLTE", palette)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.fixture(scope="module")
def masks(val: Path) -> dict[str, np.ndarray[Any, Any]]:
    paths = sorted((val / "masks_voc21").glob("*.png"))[:PICTURES]
    return {path.stem: np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)) for path in paths}


def mask_folder(folder: Path, val: Path, files: dict[str, bytes], names: str) -> Path:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for stem, data in files.items():
        (folder / "images" / f"{stem}.jpg").write_bytes((val / "images" / f"{stem}.jpg").read_bytes())
        (folder / "masks" / f"{stem}.png").write_bytes(data)
    (folder / "classes.txt").write_text(names)
    return folder


def png(ids: np.ndarray[Any, Any]) -> bytes:
    return cv2.imencode(".png", ids)[1].tobytes()


def test_masks_with_a_palette_that_repeats_colours_have_the_same_mean_iou(
    tmp_path: Path, val: Path, masks: dict[str, np.ndarray[Any, Any]]
) -> None:
    names = (val.parent / "classes_voc21.txt").read_text()
    repeated = bytes([0, 0, 0]) * 10 + bytes([128, 0, 0]) * 246
    forms = {
        "grey": {stem: png(ids) for stem, ids in masks.items()},
        "palette": {stem: palette_png(ids, repeated) for stem, ids in masks.items()},
        "deep": {stem: png(ids.astype(np.uint16)) for stem, ids in masks.items()},
    }
    values = {
        form: measured("default-segmenter", mask_folder(tmp_path / form, val, files, names))
        for form, files in forms.items()
    }
    assert values["grey"] > 0.1
    assert values["palette"] == values["deep"] == values["grey"]


@pytest.mark.parametrize(
    "change",
    [
        lambda ids: np.where(ids == 15, 255, 0).astype(np.uint8),
        lambda ids: np.select([ids == 15, ids > 0], [255, 128], 0).astype(np.uint8),
        lambda ids: (ids.astype(np.uint16) > 0) * (26000 + ids.astype(np.uint16)),
        lambda ids: np.dstack([ids, ids * 2, ids * 3]),
    ],
    ids=["0-255", "0-128-255", "instance-ids", "colours"],
)
def test_masks_that_are_not_class_ids_have_no_figure(
    tmp_path: Path, val: Path, masks: dict[str, np.ndarray[Any, Any]], change: Any
) -> None:
    files = {stem: png(change(ids)) for stem, ids in masks.items()}
    with pytest.raises(DataError):
        measured("default-segmenter", mask_folder(tmp_path, val, files, "background\nperson\n"))


def test_binary_masks_of_ids_have_a_figure(tmp_path: Path, val: Path, masks: dict[str, np.ndarray[Any, Any]]) -> None:
    files = {stem: png((ids == 15).astype(np.uint8)) for stem, ids in masks.items()}
    assert 0.5 < measured("default-segmenter", mask_folder(tmp_path, val, files, "background\nperson\n")) < 1


@pytest.fixture(scope="module")
def detector_ap(val: Path) -> float:
    return measured_boxes(val / "instances_boxes.json")


def linked(folder: Path, pictures: Path, labels: Path) -> None:
    for part, source in (("images", pictures), ("labels", labels)):
        (folder / part).mkdir(parents=True)
        for file in source.iterdir():
            (folder / part / file.name).symlink_to(file)


@pytest.fixture
def both(tmp_path: Path, val: Path) -> Path:
    """The pictures and labels of train and val, as Roboflow lays them."""
    linked(tmp_path / "valid", val / "images", val / "labels")
    linked(tmp_path / "train", val.parent / "train" / "images", val.parent / "train" / "labels")
    names = (val.parent / "classes.txt").read_text().split("\n")
    (tmp_path / "data.yaml").write_text(
        f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: {json.dumps(names)}\n"
    )
    return tmp_path


def test_roboflows_folder_its_yaml_and_a_list_give_the_ap_of_val(both: Path, detector_ap: float) -> None:
    assert measured_boxes(both) == pytest.approx(detector_ap, abs=1e-3)
    (both / "late.txt").write_text(
        "\n".join(f"valid/images/{p.name}" for p in sorted((both / "valid" / "images").iterdir()))
    )
    text = (both / "data.yaml").read_text().replace("../valid/images", "late.txt")
    (both / "data.yaml").write_text(text)
    assert measured_boxes(both / "data.yaml") == pytest.approx(detector_ap, abs=1e-3)


def test_a_coco_folder_with_train_and_val_gives_the_ap_of_val(tmp_path: Path, val: Path, detector_ap: float) -> None:
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").symlink_to(val.parent / split / "images")
        (tmp_path / "annotations" / f"instances_{split}2017.json").symlink_to(
            val.parent / split / "instances_boxes.json"
        )
    assert measured_boxes(tmp_path) == pytest.approx(detector_ap, abs=1e-6)


def test_pose_labels_give_the_ap_of_their_boxes_or_none(tmp_path: Path, val: Path, detector_ap: float) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").symlink_to(val / "images")
    for file in (val / "labels").glob("*.txt"):
        rows = []
        for line in file.read_text().splitlines():
            x, y, width, height = map(float, line.split()[1:5])
            points = (x, y) + rng.uniform(-0.5, 0.5, (17, 2)) * (width, height)
            rows.append(f"{line} " + " ".join(f"{px:.6f} {py:.6f}" for px, py in points.clip(0, 1)))
        (tmp_path / "labels" / file.name).write_text("\n".join(rows) + "\n")
    names = json.dumps((val.parent / "classes.txt").read_text().split("\n"))
    (tmp_path / "data.yaml").write_text(f"names: {names}\n")
    with pytest.raises(DataError, match=r"kpt_shape: \[17, 2\]"):
        measured_boxes(tmp_path)
    (tmp_path / "data.yaml").write_text(f"names: {names}\nkpt_shape: [17, 2]\n")
    assert measured_boxes(tmp_path) == pytest.approx(detector_ap, abs=1e-3)
