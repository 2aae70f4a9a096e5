"""What the demo says of a photograph in a few words, and its small pictures."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.results import Classification, Detections, Instances, Result, SegmentationMap
from edgecnn.tasks import TASKS, Classify, Detect, InstanceSegment, Segment

LABELS = ("cat", "dog", "background")


def found(*scores: float) -> Detections:
    boxes = np.tile(np.array([0, 0, 9, 9], np.float32), (len(scores), 1))
    return Detections(boxes, np.array(scores, np.float32), np.zeros(len(scores), np.int64), LABELS)


def region(*class_ids: int) -> SegmentationMap:
    return SegmentationMap(np.array([class_ids], np.uint8), LABELS)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (found(), []),
        (found(0.8301), ["cat 0.83"]),
        (found(0.5, 0.5, 0.5, 0.5), ["cat 0.50", "cat 0.50", "cat 0.50"]),
        (region(2), []),
        (region(2, 2, 0, 2, 0), ["cat 40 %"]),
        (region(*([0] * 499), 1), ["cat 100 %"]),
        (Classification(np.array([1]), np.array([0.954], np.float32), LABELS), ["dog 0.95"]),
        (Instances(found(0.7), np.ones((1, 9, 9), np.bool_)), ["cat 0.70"]),
    ],
)
def test_the_surest_findings_in_a_few_words(result: Result, message: list[str]) -> None:
    assert TASKS.of(result).findings(result, most=3) == message


def test_a_smaller_picture_has_its_boxes_and_regions_where_they_were() -> None:
    boxes = Detections(
        np.array([[0, 0, 200, 100], [20, 10, 40, 50]], np.float32),
        np.array([0.9, 0.5], np.float32),
        np.array([0, 1]),
        ("a", "b"),
    )
    small = Detect.scaled(boxes, 0.25, 0.5)
    assert small.boxes_xyxy_px.tolist() == [[0, 0, 50, 50], [5, 5, 10, 25]]
    classes = np.zeros((100, 200), np.uint8)
    classes[:, 100:] = 1
    regions = Segment.scaled(SegmentationMap(classes, ("a", "b")), 0.25, 0.5)
    assert regions.classes.shape == (50, 50)
    assert regions.shares() == {"a": 0.5, "b": 0.5}
    same = Classification(np.array([0]), np.array([1.0], np.float32), ("a",))
    assert Classify.scaled(same, 0.25, 0.5) is same
    outlined = Instances(boxes, np.stack([classes == 0, classes == 1]))
    smaller = InstanceSegment.scaled(outlined, 0.25, 0.5)
    assert smaller.masks.shape == (2, 50, 50)
    assert smaller.masks[1, 0].tolist() == [False] * 25 + [True] * 25
    assert smaller.detections.boxes_xyxy_px.tolist() == small.boxes_xyxy_px.tolist()
