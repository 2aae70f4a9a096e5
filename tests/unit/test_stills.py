"""What the demo says of a photograph in a few words, and its small pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecnn._verbs._stills import in_few_words, shrunk
from edgecnn.results import Classification, Detections, SegmentationMap


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"detections": []}, "nothing"),
        ({"detections": [{"label": "cat", "score": 0.8301}]}, "cat 0.83"),
        ({"detections": [{"label": f"c{n}", "score": 0.5} for n in range(5)]}, "c0 0.50, c1 0.50, c2 0.50"),
        ({"segments": [{"label": "background", "share": 1.0}]}, "nothing"),
        ({"segments": [{"label": "__background__", "share": 0.6}, {"label": "cat", "share": 0.4}]}, "cat 40 %"),
        ({"segments": [{"label": "cat", "share": 0.998}, {"label": "dog", "share": 0.002}]}, "cat 100 %"),
        ({"classes": [{"label": "espresso", "score": 0.954}]}, "espresso 0.95"),
    ],
)
def test_a_record_in_a_few_words(record: dict[str, Any], said: str) -> None:
    assert in_few_words(record) == said


def test_a_smaller_picture_has_its_boxes_and_regions_where_they_were() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    found = Detections(
        np.array([[0, 0, 200, 100], [20, 10, 40, 50]], np.float32),
        np.array([0.9, 0.5], np.float32),
        np.array([0, 1]),
        ("a", "b"),
    )
    small = shrunk(found, image, (50, 50))
    assert isinstance(small, Detections)
    assert small.boxes_xyxy_px.tolist() == [[0, 0, 50, 50], [5, 5, 10, 25]]
    classes = np.zeros((100, 200), np.uint8)
    classes[:, 100:] = 1
    region = shrunk(SegmentationMap(classes, ("a", "b")), image, (50, 50))
    assert isinstance(region, SegmentationMap)
    assert region.classes.shape == (50, 50)
    assert region.shares() == {"a": 0.5, "b": 0.5}
    same = Classification(np.array([0]), np.array([1.0], np.float32), ("a",))
    assert shrunk(same, image, (50, 50)) is same
