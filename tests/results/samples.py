"""A result of each kind, small enough to be read."""

from __future__ import annotations

import numpy as np

from edgecnn.results import Classification, Detections, Instances, Items, LineCount, SegmentationMap

LABELS = ("person", "car", "dog")
SIZE_PX = (40, 30)  # width, height


def detections(count: int = 4) -> Detections:
    """Boxes of 2x10, 4x10, 6x10, … px, of person, car, dog, person, …; tracked, and counted by a line."""
    left = np.zeros(count, np.float32)
    boxes = np.stack((left, left, left + 2 * np.arange(1, count + 1), left + 10), axis=1).astype(np.float32)
    scores = np.linspace(0.9, 0.3, count).astype(np.float32)
    count_of_door = LineCount("door", (0, 0), (10, 0), {"person": 1}, {})
    return Detections(boxes, scores, np.arange(count) % 3, LABELS, np.arange(count) + 7, (count_of_door,))


def instances(count: int = 4) -> Instances:
    """The same objects; each mask is its box without the last row."""
    found = detections(count)
    masks = np.zeros((count, SIZE_PX[1], SIZE_PX[0]), np.bool_)
    for mask, (left, top, right, bottom) in zip(masks, found.boxes_xyxy_px.astype(int).tolist(), strict=True):
        mask[top : bottom - 1, left:right] = True
    return Instances(found, masks)


def classification() -> Classification:
    """dog .7, person .2, car .1."""
    return Classification(np.array([2, 0, 1]), np.array([0.7, 0.2, 0.1], np.float32), LABELS)


def segmentation() -> SegmentationMap:
    """900 px of car, 200 of dog, 100 of person."""
    classes = np.full((SIZE_PX[1], SIZE_PX[0]), 1, np.uint8)
    classes[:10, :20], classes[20:30, 30:40] = 2, 0
    return SegmentationMap(classes, LABELS)


def each_kind() -> list[Items]:
    """One of each."""
    return [detections(), instances(), classification(), segmentation()]


KINDS = ["detections", "instances", "classification", "segmentation"]
