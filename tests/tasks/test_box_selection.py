"""Choosing boxes, against a slow plain reference."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.results import FloatArray, IntArray
from edgecnn.tasks import Detect
from edgecnn.tasks.box_selection import non_maximum_suppression, select

thorough = settings(max_examples=300, deadline=None)


def overlap(a: FloatArray, b: FloatArray) -> float:
    """Intersection over union of two xyxy boxes."""
    width = max(0.0, float(min(a[2], b[2]) - max(a[0], b[0])))
    height = max(0.0, float(min(a[3], b[3]) - max(a[1], b[1])))
    areas = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]))
    return width * height / (areas - width * height)


def best_first_greedy(boxes: FloatArray, scores: FloatArray, class_ids: IntArray, iou: float) -> list[int]:
    """The textbook: take the best, drop what it covers of its class, go on. Ties: the earlier one is better."""
    left = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    kept: list[int] = []
    for i in left:
        if all(class_ids[i] != class_ids[j] or overlap(boxes[i], boxes[j]) <= iou for j in kept):
            kept.append(i)
    return kept


@st.composite
def crowds(draw: st.DrawFn) -> tuple[FloatArray, FloatArray, IntArray]:
    """Boxes on a coarse grid and scores of few values, so that ties and equal boxes are common."""
    count = draw(st.integers(0, 25))
    corner = st.integers(0, 12)
    extent = st.integers(1, 9)
    boxes = []
    for _ in range(count):
        x, y = draw(corner), draw(corner)
        boxes.append((x, y, x + draw(extent), y + draw(extent)))
    scores = draw(st.lists(st.sampled_from([0.1, 0.25, 0.5, 0.9]), min_size=count, max_size=count))
    classes = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    return (
        np.array(boxes, np.float32).reshape(-1, 4) * 3,
        np.array(scores, np.float32),
        np.array(classes, np.int64),
    )


# Thresholds that no ratio of the grid's small integers hits: there OpenCV's float32 decides.
thresholds = st.sampled_from([0.0997, 0.3003, 0.5003, 0.7507, 0.9501])


@thorough
@given(crowds(), thresholds)
def test_suppression_agrees_with_the_textbook(crowd: tuple[FloatArray, FloatArray, IntArray], iou: float) -> None:
    boxes, scores, class_ids = crowd
    found = non_maximum_suppression(boxes, scores, class_ids, iou=iou)
    assert found.tolist() == best_first_greedy(boxes, scores, class_ids, iou)
    assert found.dtype == np.int64


@thorough
@given(
    crowds(),
    thresholds,
    st.sampled_from([0.0, 0.2, 0.5]),
    st.booleans(),
    st.integers(1, 30),
    st.integers(1, 90),
    st.integers(0, 99),
)
def test_selection_agrees_with_the_textbook(
    crowd: tuple[FloatArray, FloatArray, IntArray],
    iou: float,
    threshold: float,
    multi_label: bool,
    most: int,
    candidates: int,
    seed: int,
) -> None:
    boxes, _, _ = crowd
    scores = np.random.default_rng(seed).choice(np.array([0, 0.2, 0.3, 0.5, 0.8], np.float32), (len(boxes), 3))
    rows: list[tuple[int, int]] = []
    for anchor in range(len(boxes)):
        classes = range(3) if multi_label else [int(scores[anchor].argmax())]
        rows += [(anchor, c) for c in classes if scores[anchor, c] > threshold]
    best_rows = sorted(range(len(rows)), key=lambda i: (-scores[rows[i]], i))[:candidates]  # ties: the earlier one
    rows = [rows[i] for i in sorted(best_rows)]
    anchors = np.array([a for a, _ in rows], np.int64)
    class_ids = np.array([c for _, c in rows], np.int64)
    row_scores = scores[anchors, class_ids]
    kept = best_first_greedy(boxes[anchors], row_scores, class_ids, iou)[:most]

    found = select(
        boxes,
        scores,
        score_threshold=threshold,
        nms_iou=iou,
        max_detections=most,
        max_candidates=candidates,
        multi_label=multi_label,
    )
    expected = (anchors[kept], class_ids[kept], row_scores[kept], boxes[anchors[kept]])
    for found_array, expected_array in zip(found, expected, strict=True):
        np.testing.assert_array_equal(found_array, expected_array)


def test_only_what_overlaps_by_more_than_the_threshold_goes() -> None:
    boxes = np.array([[0, 0, 4, 4], [0, 2, 4, 4]], np.float32)  # IoU is exactly a half
    scores, class_ids = np.array([0.9, 0.8], np.float32), np.zeros(2, np.int64)
    assert non_maximum_suppression(boxes, scores, class_ids, iou=0.5).tolist() == [0, 1]
    assert non_maximum_suppression(boxes, scores, class_ids, iou=0.49).tolist() == [0]


def test_boxes_of_other_classes_do_not_suppress() -> None:
    boxes = np.array([[0, 0, 4, 4]] * 3, np.float32)
    scores = np.array([0.5, 0.9, 0.7], np.float32)
    found = non_maximum_suppression(boxes, scores, np.array([0, 1, 0], np.int64), iou=0.5)
    assert found.tolist() == [1, 2]


def test_boxes_far_outside_the_frame_are_treated_the_same() -> None:
    boxes = np.array([[-500, -500, -480, -480], [-499, -500, -479, -480], [9000, 9000, 9010, 9010]], np.float32)
    scores, class_ids = np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int64)
    assert non_maximum_suppression(boxes, scores, class_ids, iou=0.5).tolist() == [0, 2]


def test_a_box_without_area_neither_crashes_nor_suppresses() -> None:
    boxes = np.array([[5, 5, 5, 5], [0, 0, 10, 10], [7, 5, 7, 9]], np.float32)
    scores, class_ids = np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int64)
    found = non_maximum_suppression(boxes, scores, class_ids, iou=0.5).tolist()
    assert found[:2] == [0, 1]  # OpenCV takes two boxes without area for one


def test_nothing_above_the_threshold_gives_nothing() -> None:
    anchors, class_ids, scores, boxes = select(
        np.zeros((4, 4), np.float32),
        np.full((4, 2), 0.3, np.float32),
        score_threshold=0.3,
        nms_iou=0.5,
        max_detections=10,
        max_candidates=100,
        multi_label=False,
    )
    assert len(anchors) == len(class_ids) == len(scores) == 0
    assert boxes.shape == (0, 4)


@thorough
@given(crowds(), thresholds, st.integers(1, 30))
def test_suppression_may_stop_early(crowd: tuple[FloatArray, FloatArray, IntArray], iou: float, most: int) -> None:
    boxes, scores, class_ids = crowd
    found = non_maximum_suppression(boxes, scores, class_ids, iou=iou, most=most)
    assert found.tolist() == best_first_greedy(boxes, scores, class_ids, iou)[:most]


@pytest.mark.parametrize(
    ("anchors", "classes", "multi_label"), [(30_000, 1, False), (8_400, 80, False), (3_000, 90, True)]
)
def test_a_frame_in_which_all_passes_takes_milliseconds(anchors: int, classes: int, multi_label: bool) -> None:
    """Small boxes that hardly overlap: none suppresses another, so that every pair would be compared."""
    rng = np.random.default_rng(0)
    centres = rng.uniform(0, 4000, (anchors, 2))
    half = rng.uniform(2, 10, (anchors, 2))
    boxes = np.concatenate([centres - half, centres + half], axis=1).astype(np.float32)
    scores = rng.uniform(0.01, 1, (anchors, classes)).astype(np.float32)
    task = Detect(labels=("x",) * classes, score_threshold=0.0, multi_label=multi_label)
    best_s = math.inf
    for _ in range(5):
        start = time.perf_counter()
        _, _, kept, _ = task.selected({"boxes": boxes[None], "scores": scores[None]})
        best_s = min(best_s, time.perf_counter() - start)
    assert len(kept) == task.max_detections
    assert np.all(np.diff(kept) <= 0)
    assert best_s < 0.1  # it was 10 s; a few ms on an idle machine
