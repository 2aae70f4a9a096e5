"""Pictures to learn from: varied, with their truths, and the same for the same seed, epoch and index."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[train]'")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn import FrameSpec
from edgecnn.datasets import UNLABELLED, BoxTruth, Dataset, Sample
from edgecnn.datasets.base import map_classes
from edgecnn.frame import FrameFitter, placement
from edgecnn.training.augment import Varied, vary_boxes, vary_map, vary_picture
from edgecnn.training.examples import EpochOrder, TrainingPictures, collate
from edgecnn.training.frame_truth import FrameBoxTruth
from edgecnn.training.mosaic import mosaic
from edgecnn.training.settings import NO_AUGMENTATION, Augmentation

pytestmark = pytest.mark.torch

FRAME = FrameSpec(height_px=48, width_px=64)
GREY, WHITE = 114, 255


def square(left: int, top: int, side: int, *, height_px: int = 60, width_px: int = 80) -> Varied:
    """A white square on black, and the box around it."""
    image = np.zeros((height_px, width_px, 3), np.uint8)
    image[top : top + side, left : left + side] = WHITE
    box = np.array([[left, top, left + side, top + side]], np.float64)
    return Varied(image, box, np.array([1], np.int64))


def white_box(frame: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where a frame is white, xyxy."""
    rows, columns = np.nonzero(frame[..., 0] > 200)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


def _given(truth: BoxTruth, image: NDArray[np.uint8]) -> BoxTruth:
    del image
    return truth


def dataset(folder: Path, count: int = 3) -> Dataset:
    samples = []
    for index in range(count):
        made = square(5 + 7 * index, 10, 30)
        file = folder / f"{index}.png"
        cv2.imwrite(str(file), made.image)
        boxes = np.concatenate([made.boxes_xyxy_px, [[0, 0, 4, 4]]])
        truth = BoxTruth(boxes, np.array([1, 0]), np.array([False, True]), np.array([900.0, 16.0]))
        samples.append(Sample(file, partial(_given, truth)))
    classes = map_classes(("cell", "square"), (), where=folder)
    return Dataset(folder, "made here", classes, tuple(samples))


@given(left=st.integers(0, 49), top=st.integers(0, 29), flip=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_boxes_stay_around_what_they_were_around(left: int, top: int, flip: bool, seed: int) -> None:
    torch.manual_seed(seed)
    made = square(left, top, 30)
    how = Augmentation(flip=float(flip), flip_vertical=float(flip), smallest_crop=0.3, largest_zoom_out=2.0)
    varied = vary_boxes(made.image, made.boxes_xyxy_px, made.class_ids, how)
    if len(varied.boxes_xyxy_px):  # else a crop left its centre out
        np.testing.assert_allclose(varied.boxes_xyxy_px[0], white_box(varied.image), atol=1.01)
        assert varied.class_ids.tolist() == [1]


def test_without_variation_a_frame_is_what_the_device_would_see() -> None:
    image = square(10, 10, 30).image
    expected = FrameFitter(FRAME)(image)[0][0]
    np.testing.assert_array_equal(vary_picture(image, FRAME, NO_AUGMENTATION), expected)
    frame, classes = vary_map(image, (image[..., 0] > 0).astype(np.int64), FRAME, NO_AUGMENTATION)
    np.testing.assert_array_equal(frame, expected)
    covered = placement(FRAME, 60, 80).covered
    inside = np.zeros(classes.shape, bool)
    inside[covered] = True
    assert (classes[~inside] == UNLABELLED).all()
    assert np.mean((classes == 1) == (frame[..., 0] > 127)) > 0.98


@given(seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_a_map_is_cropped_and_flipped_with_its_picture(seed: int) -> None:
    torch.manual_seed(seed)
    image = square(10, 10, 30).image
    frame, classes = vary_map(
        image, (image[..., 0] > 0).astype(np.int64), FRAME, Augmentation(brightness=0, contrast=0)
    )
    assert frame.shape == (48, 64, 3) and classes.shape == (48, 64)
    assert np.mean((classes == 1) == (frame[..., 0] > 127)) > 0.9


@given(seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_a_mosaic_has_boxes_around_what_is_left_of_its_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [square(int(rng.integers(50)), int(rng.integers(30)), 30) for _ in range(4)]
    made = mosaic(parts, FRAME, rng)
    assert made.image.shape == (48, 64, 3)
    assert (made.boxes_xyxy_px >= 0).all() and (made.boxes_xyxy_px <= (64, 48, 64, 48)).all()
    for left, top, right, bottom in made.boxes_xyxy_px:
        inside = made.image[int(np.ceil(top)) : int(bottom), int(np.ceil(left)) : int(right)]
        assert inside.size == 0 or np.mean(inside > 127) > 0.7


def test_an_example_depends_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    def pictures(seed: int = 0) -> TrainingPictures:
        return TrainingPictures(dataset(tmp_path), FRAME, Augmentation(), seed=seed, mosaic_until=5)

    keys = [(epoch, index) for epoch in (0, 1) for index in (0, 1, 2)]
    first, again = pictures(), pictures()
    expected = {key: first[key] for key in keys}
    torch.rand(7)
    for key in reversed(keys):
        frame, truth = again[key]
        wanted_frame, wanted = expected[key]
        assert torch.equal(frame, wanted_frame)
        assert isinstance(truth, FrameBoxTruth) and isinstance(wanted, FrameBoxTruth)
        assert torch.equal(truth.boxes_xyxy_px, wanted.boxes_xyxy_px)
    assert not torch.equal(expected[0, 0][0], expected[1, 0][0])  # another epoch
    assert not torch.equal(expected[0, 0][0], pictures(seed=1)[(0, 0)][0])


def test_the_generator_of_torch_goes_on_as_if_no_picture_had_been_varied(tmp_path: Path) -> None:
    pictures = TrainingPictures(dataset(tmp_path), FRAME, Augmentation(), seed=0, mosaic_until=0)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    pictures[(0, 0)]
    assert torch.equal(torch.rand(1), expected)


def test_objects_that_do_not_count_are_not_learned(tmp_path: Path) -> None:
    pictures = TrainingPictures(dataset(tmp_path), FRAME, NO_AUGMENTATION, seed=0, mosaic_until=0)
    frames, truths = collate([pictures[(0, 0)], pictures[(0, 1)]])
    assert frames.shape == (2, 48, 64, 3) and frames.dtype == torch.uint8
    for frame, truth in zip(frames, truths, strict=True):
        assert isinstance(truth, FrameBoxTruth)
        assert truth.class_ids.tolist() == [1]
        np.testing.assert_allclose(truth.boxes_xyxy_px[0].numpy(), white_box(frame.numpy()), atol=1.01)


@given(count=st.integers(1, 50), batch=st.integers(1, 60), epoch=st.integers(0, 3))
def test_an_epoch_shows_no_picture_twice_and_only_whole_batches(count: int, batch: int, epoch: int) -> None:
    batches = list(EpochOrder(count, batch, seed=0, epoch=epoch))
    assert len(batches) == len(EpochOrder(count, batch, seed=0, epoch=epoch)) >= 1
    shown = [index for one in batches for _, index in one]
    assert len(set(shown)) == len(shown) > count - batch
    assert all(len(one) == min(batch, count) for one in batches)
    assert all(key[0] == epoch for one in batches for key in one)


def test_epochs_have_orders_of_their_own() -> None:
    orders = [[i for one in EpochOrder(30, 5, seed=s, epoch=e) for _, i in one] for s, e in ((0, 0), (0, 1), (1, 0))]
    assert orders[0] != orders[1] and orders[0] != orders[2]
