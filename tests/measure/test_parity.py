"""What passes for the same answer, and what does not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgecnn.bundle.evidence import ParityEvidence
from edgecnn.frame import FrameSpec, Placement, placement
from edgecnn.measure import parity
from edgecnn.tasks import Classify, Detect, InstanceSegment, Segment, Task

SPEC = FrameSpec(height_px=100, width_px=100)
LABELS = ("a", "b", "c")
Outputs = dict[str, np.ndarray]


def compared(
    task: Task,
    expected: Outputs,
    answer: Outputs,
    *,
    precision: str = "fp32",
    place: Placement | None = None,
    match_results: bool = True,
    torch_rounding: float | None = None,
) -> ParityEvidence:
    """One frame's answer against torch's."""
    sample = parity.Sample(
        frame=np.zeros((1, 100, 100, 3), np.uint8),
        place=place or placement(SPEC, 100, 100),
        expected=expected,
        unsaturated=list(expected.values()),
    )
    return parity.compare(
        [sample],
        [answer],
        task=task,
        precision=precision,
        match_results=match_results,
        torch_rounding=torch_rounding,
    )


def changed(outputs: Outputs, **values: Any) -> Outputs:
    """A copy with some outputs replaced."""
    return {name: np.array(values.get(name, value)) for name, value in outputs.items()}


def detector_outputs() -> Outputs:
    """Three objects far apart, and an anchor of background."""
    boxes = np.array([[[10, 10, 30, 30], [50, 50, 90, 90], [10, 60, 40, 95], [0, 0, 5, 5]]], np.float32)
    scores = np.full((1, 4, 3), 1e-4, np.float32)
    scores[0, 0, 0], scores[0, 1, 1], scores[0, 2, 2] = 0.9, 0.8, 0.7
    return {"boxes": boxes, "scores": scores}


def test_the_same_answer_passes_with_no_error() -> None:
    right = detector_outputs()
    evidence = compared(Detect(labels=LABELS), right, changed(right))
    assert evidence.ok
    assert evidence.max_rel_err == 0
    assert evidence.agreement == 1
    assert evidence.frames == 1
    assert (evidence.worst_box_iou, evidence.worst_score_difference) == (1, 0)


def test_a_shifted_box_fails() -> None:
    right = detector_outputs()
    boxes = right["boxes"].copy()
    boxes[0, 0] += 1
    evidence = compared(Detect(labels=LABELS), right, changed(right, boxes=boxes))
    assert not evidence.ok
    assert evidence.tensors["boxes"] == pytest.approx(1 / 95)
    assert evidence.worst_box_iou is not None
    assert evidence.worst_box_iou < 0.95
    assert "'boxes' differs from torch by 0.011 (limit 0.0001)" in parity.describe(evidence)


def test_the_box_of_an_anchor_with_a_low_score_does_not_count() -> None:
    right = detector_outputs()
    boxes = right["boxes"].copy()
    boxes[0, 3] += 50
    assert compared(Detect(labels=LABELS), right, changed(right, boxes=boxes)).ok


def test_an_anchor_that_only_the_artifact_sees_counts() -> None:
    right = detector_outputs()
    scores = right["scores"].copy()
    scores[0, 3, 0] = 0.95
    evidence = compared(Detect(labels=LABELS), right, changed(right, scores=scores))
    assert not evidence.ok
    assert evidence.agreement == 0.75


def test_a_small_change_of_a_score_passes_and_a_large_one_fails() -> None:
    right = detector_outputs()
    task = Detect(labels=LABELS)
    assert compared(task, right, changed(right, scores=right["scores"] * np.float32(1 + 1e-5))).ok
    evidence = compared(task, right, changed(right, scores=right["scores"] * np.float32(0.99)))
    assert not evidence.ok
    assert evidence.worst_score_difference == pytest.approx(0.009, abs=1e-4)
    assert compared(task, right, changed(right, scores=right["scores"] * np.float32(0.995)), precision="fp16").ok


def test_a_detection_that_only_one_side_has_is_forgiven_at_the_threshold_alone() -> None:
    task = Detect(labels=LABELS, score_threshold=0.3)
    right = detector_outputs()
    right["scores"][0, 2, 2] = 0.30001
    below = right["scores"].copy()
    below[0, 2, 2] = 0.29999
    evidence = compared(task, right, changed(right, scores=below))
    assert evidence.ok
    assert evidence.agreement == pytest.approx(2 / 3)
    assert compared(task, changed(right, scores=below), right).ok, "whichever side has it"
    below[0, 1, 1] = 0.0001
    assert not compared(task, right, changed(right, scores=below)).ok


def test_a_detection_of_another_class_fails() -> None:
    right = detector_outputs()
    other = changed(right, scores=right["scores"][:, :, [1, 0, 2]])
    assert not compared(Detect(labels=LABELS), right, other).ok


def test_a_box_in_the_letterboxs_border_agrees_with_itself() -> None:
    place = placement(SPEC, 50, 100)  # the picture covers rows 25 to 75
    right = detector_outputs()
    right["boxes"][0, 0] = [10, 2, 30, 20]  # wholly in the border: clipped to a line
    right["boxes"][0, 1] = [50, 50, 90, 90]
    right["boxes"][0, 2] = [10, 5, 40, 25.0001]  # a sliver of the picture
    answer = changed(right, boxes=right["boxes"] + np.float32(1e-5))
    evidence = compared(Detect(labels=LABELS), right, answer, place=place)
    assert evidence.ok
    assert evidence.agreement == 1
    boxes = right["boxes"].copy()
    boxes[0, 0, ::2] += 3
    assert not compared(Detect(labels=LABELS), right, changed(right, boxes=boxes), place=place).ok


@pytest.mark.parametrize("broken", ["boxes", "scores"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_a_number_fails_on_either_side(broken: str, value: float) -> None:
    task = Detect(labels=LABELS)
    right = detector_outputs()
    wrong = changed(right)
    wrong[broken][0, 3, 0] = value
    for expected, answer in ((right, wrong), (wrong, right), (wrong, wrong)):
        evidence = compared(task, expected, answer, match_results=False)
        assert not evidence.ok
        assert evidence.max_rel_err == np.inf


def test_another_shape_fails() -> None:
    right = detector_outputs()
    fewer = {name: value[:, :3] for name, value in right.items()}
    assert compared(Detect(labels=LABELS), right, fewer, match_results=False).max_rel_err == np.inf


def test_a_class_map_passes_to_one_pixel_in_a_thousand() -> None:
    task = Segment(labels=LABELS)
    classes = np.random.default_rng(0).integers(0, 3, (1, 100, 100), np.uint8)
    for flipped, passes in ((0, True), (10, True), (11, False)):
        answer = classes.copy()
        answer[0, :1, :flipped] ^= 1
        evidence = compared(task, {"classes": classes}, {"classes": answer})
        assert evidence.ok is passes
        assert evidence.agreement == pytest.approx(1 - flipped / 10_000)


def test_logits_that_are_decided_later_are_compared_as_numbers() -> None:
    task = Segment(labels=LABELS, decided_in="finish")
    logits = np.random.default_rng(0).normal(0, 5, (1, 3, 20, 20)).astype(np.float32)
    assert compared(task, {"logits": logits}, {"logits": logits * np.float32(1 + 1e-5)}).ok
    evidence = compared(task, {"logits": logits}, {"logits": logits * np.float32(1 + 1e-3)})
    assert not evidence.ok, "every pixel's class is the same, the numbers are not"
    assert evidence.agreement == 1


def test_a_saturated_probability_does_not_hide_a_difference_below_it() -> None:
    task = Classify(labels=LABELS)
    sure = np.array([[1 - 2e-7, 1e-7, 1e-7]], np.float32)
    other = np.array([[1 - 2e-7, 1e-7, 3e-7]], np.float32)
    assert np.abs(sure - other).max() < 1e-6
    assert not compared(task, {"scores": sure}, {"scores": other}).ok


def test_an_undecided_network_is_measured_by_how_its_logits_differ() -> None:
    """Probabilities of nearly 1/C all have the same large logarithm, which is no yardstick for their differences."""
    task = Classify(labels=LABELS)
    logits = np.array([[1e-3, -2e-3, 1e-3]])
    undecided, off = (np.exp(x - np.log(np.exp(x).sum())).astype(np.float32) for x in (logits, logits * 1.01))
    evidence = compared(task, {"scores": undecided}, {"scores": off})
    assert evidence.max_rel_err == pytest.approx(0.01, rel=0.05)
    assert not evidence.ok


def test_an_artifact_is_not_held_to_less_than_torch_itself_is_off_by() -> None:
    task = Classify(labels=LABELS)
    logits = np.array([[1.0, -2.0, 1.0]])
    right, off = (np.exp(x - np.log(np.exp(x).sum())).astype(np.float32) for x in (logits, logits * 1.0005))
    passing = {
        rounding: compared(task, {"scores": right}, {"scores": off}, match_results=False, torch_rounding=rounding).ok
        for rounding in (None, 1e-5, 1e-4, 2e-4)
    }
    assert passing == {None: False, 1e-5: False, 1e-4: False, 2e-4: True}
    assert compared(task, {"scores": right}, {"scores": off}, torch_rounding=1e-5).limit == 1e-4


def test_another_best_class_fails_unless_it_was_a_tie() -> None:
    task = Classify(labels=LABELS)
    tied = np.array([[0.40002, 0.40001, 0.19997]], np.float32)
    turned = tied[:, [1, 0, 2]]
    evidence = compared(task, {"scores": tied}, {"scores": turned}, precision="fp16")
    assert evidence.ok
    assert evidence.agreement == 0
    clear = np.array([[0.5, 0.4, 0.1]], np.float32)
    assert not compared(task, {"scores": clear}, {"scores": clear[:, [1, 0, 2]]}, precision="fp16").ok


def test_coefficients_and_prototypes_of_instances_are_compared() -> None:
    task = InstanceSegment(labels=LABELS)
    rng = np.random.default_rng(0)
    right = detector_outputs() | {
        "coefficients": rng.normal(size=(1, 4, 2)).astype(np.float32),
        "prototypes": rng.normal(size=(1, 2, 25, 25)).astype(np.float32),
    }
    assert compared(task, right, changed(right)).ok
    coefficients = right["coefficients"].copy()
    coefficients[0, 3] += 1  # of the background's anchor
    assert compared(task, right, changed(right, coefficients=coefficients)).ok
    coefficients[0, 0] += 1
    assert not compared(task, right, changed(right, coefficients=coefficients)).ok
    assert not compared(task, right, changed(right, prototypes=-right["prototypes"])).ok


def sample(*tensors: np.ndarray) -> parity.Sample:
    """A frame of which only the unsaturated answer matters."""
    return parity.Sample(np.zeros((1, 1, 1, 3), np.uint8), placement(SPEC, 1, 1), {}, tensors)


def test_blindness_is_the_spread_of_the_most_telling_output() -> None:
    constant = np.ones((1, 3), np.float32)
    assert parity.blindness([sample(constant), sample(constant)]) == 0
    telling = np.array([[1, 1, 3]], np.float32)
    assert parity.blindness([sample(constant), sample(telling)]) == pytest.approx(2 / 3)
    assert parity.blindness([sample(constant, constant), sample(constant, telling)]) == pytest.approx(2 / 3)
    assert parity.blindness([sample(constant * 0), sample(constant * 0)]) == 0


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_network_that_answers_no_numbers_is_blind(value: float, first: bool) -> None:
    broken, fine = np.full((1, 3), value), np.ones((1, 3))
    tensors = [(broken, fine), (broken, 2 * fine)] if first else [(fine, broken), (2 * fine, broken)]
    assert not parity.blindness([sample(*pair) for pair in tensors]) > 0


def test_one_picture_cannot_show_blindness() -> None:
    assert parity.blindness([sample(np.ones((1, 3)))]) == np.inf


def normalised(picture: np.ndarray) -> np.ndarray:
    """RGB → what a network with the default scale sees."""
    array: np.ndarray = picture.astype(np.float32).transpose(2, 0, 1) / 255
    return array


def test_preprocessing_is_compared_in_grey_levels() -> None:
    pictures = [np.random.default_rng(seed).integers(0, 250, (100, 100, 3), np.uint8) for seed in range(2)]
    same = parity.compare_preprocessing(SPEC, pictures, normalised, name="ours", square_only=False)
    assert same.compared
    assert (same.max_levels, same.mean_levels, same.frames) == (0, 0, 2)

    def brighter(picture: np.ndarray) -> np.ndarray:
        return normalised(picture) + 3 / 255

    other = parity.compare_preprocessing(SPEC, pictures, brighter, name="theirs", square_only=False)
    assert other.max_levels == pytest.approx(3, abs=1e-3)
    assert other.mean_levels == pytest.approx(3, abs=1e-3)

    def swapped(picture: np.ndarray) -> np.ndarray:
        return normalised(picture)[::-1]

    wrong = parity.compare_preprocessing(SPEC, pictures, swapped, name="theirs", square_only=False)
    assert (wrong.max_levels or 0) > 100


def test_a_reference_of_another_size_is_not_compared_and_says_so() -> None:
    def half(picture: np.ndarray) -> np.ndarray:
        return normalised(picture)[:, ::2, ::2]

    picture = np.zeros((100, 100, 3), np.uint8)
    evidence = parity.compare_preprocessing(SPEC, [picture], half, name="theirs", square_only=False)
    assert not evidence.compared
    assert evidence.reason == "theirs gives the shape [3, 50, 50], but this frame has [3, 100, 100]"
