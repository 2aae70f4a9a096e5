"""Frames that no photographer takes, and what comparing on them finds."""

from __future__ import annotations

import numpy as np
import pytest

from edgecnn.frame import FrameFitter, FrameSpec
from edgecnn.measure.made_frames import made_error, made_frames, usable
from edgecnn.measure.parity import Sample
from edgecnn.tasks.classify import Classify
from edgecnn.tasks.segment import Segment

FRAME, PLACE = FrameFitter(FrameSpec(height_px=8, width_px=8))(
    np.random.default_rng(3).integers(0, 256, (8, 8, 3), np.uint8)
)


def scores(first: float) -> dict[str, np.ndarray]:
    return {"scores": np.array([[first, 1 - first]], np.float32)}


def test_they_are_dark_bright_blank_and_noise() -> None:
    frames = made_frames(FRAME)
    assert list(frames) == ["dark", "bright", "blank", "noise"]
    assert all(frame.shape == FRAME.shape and frame.dtype == np.uint8 for frame in frames.values())
    assert frames["dark"].max() <= 31
    assert frames["bright"].min() >= 224
    assert not frames["blank"].any()
    assert 100 < frames["noise"].mean() < 155
    assert all(np.array_equal(again, frames[name]) for name, again in made_frames(FRAME).items())


def test_an_error_on_one_is_seen_in_addition_to_photographs() -> None:
    photograph, made = (Sample(FRAME, PLACE, scores(share), ()) for share in (0.9, 0.5))
    task = Classify(labels=("a", "b"))
    assert made_error([photograph], made, scores(0.5), task, tie=0) == 0
    assert made_error([photograph], made, scores(0.55), task, tie=0) > 0.05


def test_what_the_reference_itself_answers_no_number_to_is_left_out() -> None:
    samples = {"blank": Sample(FRAME, PLACE, scores(float("nan")), ()), "dark": Sample(FRAME, PLACE, scores(0.5), ())}
    assert list(usable(samples)) == ["dark"]


@pytest.mark.parametrize(("margin", "error"), [(1e-6, 0.0), (0.5, 1.0)])
def test_a_tie_may_flip_the_classes_of_a_blank_frame_and_nothing_else_may(margin: float, error: float) -> None:
    logits = np.stack([np.full((1, 4, 4), 1.0), np.full((1, 4, 4), 1.0 - margin)], axis=1)
    blank = Sample(FRAME, PLACE, {"classes": np.zeros((1, 4, 4), np.uint8)}, [logits])
    task = Segment(labels=("a", "b"), decided_in="graph")
    flipped = {"classes": np.ones((1, 4, 4), np.uint8)}
    assert made_error([], blank, flipped, task, tie=2e-4) == error
