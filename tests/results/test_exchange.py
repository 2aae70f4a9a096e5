"""Results in other people's forms: COCO, supervision, pandas; masks as polygons and runs."""

from __future__ import annotations

import sys
from typing import Any

import cv2
import numpy as np
import pytest

from edgecnn import rle
from edgecnn.errors import MissingDependencyError, SpecError
from edgecnn.results import Detections, Instances
from tests.results.samples import LABELS, SIZE_PX, classification, detections, instances, segmentation


def test_boxes_are_written_as_coco_has_them() -> None:
    first = detections().to_coco(image_id=42)[1]
    assert first == {"image_id": 42, "category_id": 1, "bbox": [0, 0, 4, 10], "score": 0.7}
    mapped = detections().to_coco(category_ids={0: 1, 1: 3, 2: 18})
    assert [each["category_id"] for each in mapped] == [1, 3, 18, 1]
    with pytest.raises(SpecError, match=r"none for class 2 \(dog\)"):
        detections().to_coco(category_ids={0: 1, 1: 3})


def test_masks_are_written_as_cocos_runs() -> None:
    found = instances()
    for record, mask in zip(found.to_coco(), found.masks, strict=True):
        assert np.array_equal(rle.decode(record["segmentation"]), mask)
    for record, mask in zip(segmentation().to_coco(), segmentation().masks, strict=True):
        assert "score" not in record and np.array_equal(rle.decode(record["segmentation"]), mask)
    with pytest.raises(SpecError, match="COCO has no form"):
        classification().to_coco()


def test_polygons_filled_are_the_mask_again() -> None:
    masks = np.zeros((3, 30, 40), np.bool_)
    masks[0, 3:9, 4:20] = masks[0, 20:22, 1:3] = True  # two parts
    masks[1] = cv2.circle(np.zeros((30, 40), np.uint8), (20, 15), 9, 1, -1) > 0
    found = Instances(detections(3), masks)
    polygons = found.polygons()
    assert [len(parts) for parts in polygons] == [2, 1, 0]
    for parts, mask in zip(polygons, masks, strict=True):
        assert np.array_equal(cv2.fillPoly(np.zeros(mask.shape, np.uint8), parts, 1) > 0, mask)
    assert polygons[0][0].dtype == np.int32 and polygons[0][0][:, 0].max() == 19, "the largest part first"
    assert found.rles() == [rle.encode(mask) for mask in masks]
    assert [len(parts) for parts in segmentation().polygons()] == [1, 1, 1]


def test_there_and_back_by_supervision() -> None:
    pytest.importorskip("supervision", reason="needs supervision: pip install supervision")
    found = detections()
    theirs = found.to_supervision()
    assert theirs.data["class_name"].tolist() == found.names
    assert np.shares_memory(theirs.xyxy, found.boxes_xyxy_px)
    again = Detections.from_supervision(theirs, labels=LABELS)
    assert again == Detections(found.boxes_xyxy_px, found.scores, found.class_ids, LABELS, found.track_ids)
    assert Detections.from_supervision(theirs) == again, "labels are known by their names"
    outlined = instances()
    back = Instances.from_supervision(outlined.to_supervision(), labels=LABELS)
    assert np.array_equal(back.masks, outlined.masks) and back.names == outlined.names
    assert Detections.from_supervision(theirs[[3, 0]]).scores.tolist() == found.scores[[0, 3]].tolist(), "best first"
    nothing = Detections.from_supervision(detections(0).to_supervision(), labels=LABELS)
    assert len(nothing) == 0 and nothing.boxes_xyxy_px.shape == (0, 4)


def test_other_kinds_by_supervision() -> None:
    pytest.importorskip("supervision", reason="needs supervision: pip install supervision")
    assert classification().to_supervision().get_top_k(1)[0].tolist() == [2]
    segments = segmentation().to_supervision()
    assert segments.mask.sum(axis=(1, 2)).tolist() == [900, 200, 100]
    assert segments.xyxy[1].tolist() == [0, 0, 20, 10]


def test_what_supervision_does_not_say_is_asked_for() -> None:
    sv: Any = pytest.importorskip("supervision", reason="needs supervision: pip install supervision")
    boxes = np.array([[0, 0, 5, 5]], np.float32)
    with pytest.raises(SpecError, match="class_id"):
        Detections.from_supervision(sv.Detections(boxes), labels=LABELS)
    unnamed = sv.Detections(boxes, class_id=np.array([2]))
    with pytest.raises(SpecError, match="labels must be given"):
        Detections.from_supervision(unnamed)
    with pytest.raises(SpecError, match="2 labels are for class ids"):
        Detections.from_supervision(unnamed, labels=["a", "b"])
    with pytest.raises(SpecError, match="must have masks"):
        Instances.from_supervision(unnamed, labels=LABELS)
    assert Detections.from_supervision(unnamed, labels=LABELS).scores.tolist() == [1], "who says no score is sure"


def test_a_table_of_pandas_has_a_row_for_each() -> None:
    pytest.importorskip("pandas", reason="needs pandas: pip install pandas")
    table = instances().to_pandas()
    assert list(table.columns) == [
        "label", "class_id", "score", "area_px2", "left_px", "top_px", "right_px", "bottom_px", "track_id",
    ]  # fmt: skip
    assert table["area_px2"].tolist() == [18, 36, 54, 72]
    assert detections().to_pandas().loc[1, "label"] == "car"
    assert classification().to_pandas()["score"].tolist() == pytest.approx([0.7, 0.2, 0.1])
    assert segmentation().to_pandas()["area_px2"].tolist() == [900, 200, 100]
    assert list(detections(0).to_pandas()["label"]) == []


@pytest.mark.parametrize("package", ["supervision", "pandas"])
def test_a_package_that_is_not_there_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    for result in (detections(), instances(), classification(), segmentation()):
        with pytest.raises(MissingDependencyError, match=f"pip install {package}"):
            getattr(result, f"to_{package}")()


def test_size_is_that_of_the_masks() -> None:
    assert instances().masks.shape[1:] == segmentation().classes.shape == (SIZE_PX[1], SIZE_PX[0])
