"""Drawings can be read: all lies inside the picture, names don't hide each other, colours are those said."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.results import Classification, Detections, Instances, SegmentationMap, UInt8Array
from edgecnn.tasks import Classify, Detect, InstanceSegment, Segment
from edgecnn.tasks.drawing import colour_of, line_weights, plate_places, plate_size

LABELS = ("background", "person", "traffic light", "a name that is rather long for a picture")
SIZES = [(240, 320), (1080, 1920), (32, 24), (3000, 200)]


def _grey(size: tuple[int, int]) -> UInt8Array:
    return np.full((*size, 3), 90, np.uint8)


def _detections(boxes: list[list[float]], *, tracked: bool = False) -> Detections:
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(count, 4),
        np.linspace(0.9, 0.5, count).astype(np.float32),
        np.arange(count) % len(LABELS),
        LABELS,
        np.arange(count) if tracked else None,
    )


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("tracked", [False, True])
def test_boxes_at_every_edge_can_be_drawn(size: tuple[int, int], tracked: bool) -> None:
    height, width = size
    corners: list[list[float]] = [
        [0, 0, 9, 9],
        [width - 9, 0, width, 9],
        [0, height - 9, 9, height],
        [0, 0, width, height],
    ]
    image = _grey(size)
    picture = Detect(labels=LABELS).draw(image, _detections(corners, tracked=tracked))
    assert picture.shape == image.shape
    assert (image == 90).all()  # the original is not touched
    assert (picture != image).any()


@pytest.mark.parametrize("size", SIZES[:2])
def test_an_outline_has_its_classs_colour_and_its_place(size: tuple[int, int]) -> None:
    picture = Detect(labels=LABELS).draw(_grey(size), _detections([[100, 100, 180, 200]]))
    assert picture[150, 100].tolist() == list(colour_of(0))
    assert picture[200, 140].tolist() == list(colour_of(0))
    assert (picture[120:180, 120:160] == 90).all()


@pytest.mark.parametrize("size", SIZES[:2])
def test_names_lie_inside_and_apart_where_there_is_room(size: tuple[int, int]) -> None:
    canvas = _grey(size)
    _, scale = line_weights(canvas)
    height, width = size
    rng = np.random.default_rng(4)
    left, top = rng.integers(0, width - 40, 40), rng.integers(0, height - 40, 40)
    corners = np.stack([left, top, left + 40, top + 40], axis=1)
    texts = ["person 0.90"] * 40
    w, h = plate_size(texts[0], scale)
    places = plate_places(canvas, texts, corners, scale)
    assert all(0 <= x <= width - w and h <= y <= height for x, y in places)

    two = np.array([[100, 100, 140, 140], [104, 102, 144, 142]])  # nearly the same object twice
    (x1, y1), (x2, y2) = plate_places(canvas, texts[:2], two, scale)
    assert abs(y1 - y2) >= h or abs(x1 - x2) >= w


def test_a_label_wider_than_the_picture_is_cut_not_lost() -> None:
    found = _detections([[2, 2, 20, 20]] * 4)
    assert (Detect(labels=LABELS).draw(_grey((32, 24)), found) != 90).any()


def test_nothing_found_changes_nothing() -> None:
    image = _grey((60, 80))
    assert np.array_equal(Detect(labels=LABELS).draw(image, _detections([])), image)
    nothing = Instances(_detections([]), np.zeros((0, 60, 80), np.bool_))
    assert np.array_equal(InstanceSegment(labels=LABELS).draw(image, nothing), image)


def test_a_tint_follows_the_classes_and_spares_the_background() -> None:
    classes = np.zeros((240, 320), np.uint8)
    classes[150:, 100:] = 2
    picture = Segment(labels=LABELS).draw(_grey((240, 320)), SegmentationMap(classes, LABELS))
    assert (picture[120:150] == 90).all()
    expected = 0.45 * 90 + 0.55 * np.array(colour_of(2))
    assert np.abs(picture[200, 200] - expected).max() <= 1
    assert (picture[:20, :60] != 90).any()  # the legend

    roads = ("road", *LABELS[1:])
    everything = Segment(labels=roads).draw(_grey((240, 320)), SegmentationMap(classes, roads))
    assert (everything[120:140, 200:] != 90).any()  # class 0 is a class like any other


def test_a_mask_tints_its_object_only() -> None:
    masks = np.zeros((1, 240, 320), np.bool_)
    masks[0, 100:140, 100:150] = True
    found = Instances(_detections([[100, 100, 150, 140]]), masks)
    picture = InstanceSegment(labels=LABELS).draw(_grey((240, 320)), found)
    expected = 0.5 * 90 + 0.5 * np.array(colour_of(0))
    assert np.abs(picture[132, 120] - expected).max() <= 1
    assert (picture[150:, :] == 90).all()


@pytest.mark.parametrize("size", SIZES)
def test_the_best_classes_stand_in_the_corner(size: tuple[int, int]) -> None:
    best = Classification(np.arange(4), np.array([0.5, 0.3, 0.1, 0.1], np.float32), LABELS)
    picture = Classify(labels=LABELS).draw(_grey(size), best)
    assert (picture[:15, :20] != 90).any()
    if size[0] > 200:
        assert (picture[size[0] // 2 :] == 90).all()


def test_neighbouring_classes_have_different_colours() -> None:
    colours = np.array([colour_of(i) for i in range(80)])
    assert (np.abs(np.diff(colours, axis=0)).sum(axis=1) > 60).all()
