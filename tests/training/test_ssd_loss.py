"""The MultiBox loss: codes that decode to their boxes, an anchor for every box, and three negatives a positive."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import box_iou

from edgecnn.converters.deployable.decoders.ssd import decode_ssd
from edgecnn.errors import SpecError
from edgecnn.sources import load_model
from edgecnn.sources.grow import grow_head
from edgecnn.training.frame_truth import FrameBoxTruth
from edgecnn.training.ssd_loss import NOBODY, SsdLoss, encode_boxes, match_anchors

pytestmark = pytest.mark.torch

FRAME_PX = 100.0
NO_BOXES = FrameBoxTruth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def grid(cells: int = 5, side_px: float = 30.0) -> Tensor:
    """Square anchors about the centres of cells x cells, float32 [cells², 4]."""
    centres = (torch.arange(cells) + 0.5) * FRAME_PX / cells
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    middle = torch.stack((x.flatten(), y.flatten()), dim=1)
    return torch.cat((middle - side_px / 2, middle + side_px / 2), dim=1)


@st.composite
def boxes(draw: st.DrawFn, *, smallest_px: float = 2.0) -> Tensor:
    """One to eight boxes of at most 90 px inside the frame, float32 [n, 4] xyxy."""
    rows = []
    for _ in range(draw(st.integers(1, 8))):
        width, height = (draw(st.floats(smallest_px, 90, width=32)) for _ in range(2))
        left = draw(st.floats(0, 1, width=32)) * (FRAME_PX - width)
        top = draw(st.floats(0, 1, width=32)) * (FRAME_PX - height)
        rows.append((left, top, left + width, top + height))
    return torch.tensor(rows, dtype=torch.float32)


def truth_of(*rows: tuple[float, float, float, float], class_ids: tuple[int, ...] = ()) -> FrameBoxTruth:
    ids = class_ids or (0,) * len(rows)
    return FrameBoxTruth(torch.tensor(rows, dtype=torch.float32).reshape(-1, 4), torch.tensor(ids, dtype=torch.int64))


@given(boxes(), st.integers(0, 24))
@settings(deadline=None)
def test_codes_decode_to_the_boxes_they_were_made_of(truth: Tensor, anchor: int) -> None:
    anchors = grid()[anchor].expand(len(truth), 4)
    decoded, _ = decode_ssd((encode_boxes(truth, anchors)[None], torch.zeros(1, len(truth), 2), anchors))
    torch.testing.assert_close(decoded[0], truth, atol=1e-3, rtol=1e-4)


@given(boxes(smallest_px=41))  # each touches nine anchors and more
@settings(deadline=None)
def test_every_box_has_an_anchor_and_whatever_overlaps_one_by_half_answers_for_one(truth: Tensor) -> None:
    answers = match_anchors(truth, grid())
    assert set(answers.tolist()) - {NOBODY} == set(range(len(truth)))
    overlapping = (box_iou(truth, grid()) >= 0.5).any(dim=0)
    assert (answers[overlapping] != NOBODY).all()
    assert int((answers[~overlapping] != NOBODY).sum()) <= len(truth)


def test_anchors_answer_for_what_they_overlap_by_half_and_for_the_best_of_it() -> None:
    anchors = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 4], [50, 50, 60, 60]], dtype=torch.float32)
    whole, upper = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 7.0]
    assert match_anchors(torch.tensor([whole]), anchors).tolist() == [0, 0, NOBODY, NOBODY]
    assert match_anchors(torch.tensor([whole, upper]), anchors).tolist() == [0, 1, 1, NOBODY]


def test_a_box_that_nothing_overlaps_by_half_has_its_best_anchor_all_the_same() -> None:
    anchors = grid()
    answers = match_anchors(torch.tensor([[48.0, 48.0, 52.0, 52.0]]), anchors)
    assert answers.tolist() == [0 if index == 12 else NOBODY for index in range(25)]


def test_of_two_boxes_with_one_best_anchor_the_better_gets_it_and_the_other_its_next() -> None:
    anchors = torch.tensor([[0, 0, 10, 10], [2, 0, 12, 10], [50, 50, 60, 60]], dtype=torch.float32)
    worse, better = [0.0, 0.0, 10.0, 9.0], [0.0, 0.0, 10.0, 10.0]
    assert match_anchors(torch.tensor([worse, better]), anchors).tolist() == [1, 0, NOBODY]


def test_more_boxes_than_anchors_leave_some_without() -> None:
    answers = match_anchors(torch.tensor([[0.0, 0.0, 10.0, 10.0 + i] for i in range(5)]), grid(1, 90.0))
    assert answers.tolist() == [4]


def test_a_box_outside_the_frame_has_no_anchor() -> None:
    assert (match_anchors(torch.tensor([[500.0, 500.0, 520.0, 520.0]]), grid()) == NOBODY).all()


def perfect_answer(truths: list[FrameBoxTruth], anchors: Tensor, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    codes = torch.zeros(len(truths), len(anchors), 4)
    logits = torch.zeros(len(truths), len(anchors), 1 + classes)
    for frame, truth in enumerate(truths):
        for anchor, box in enumerate(match_anchors(truth.boxes_xyxy_px, anchors).tolist()):
            if box == NOBODY:
                logits[frame, anchor, 0] = 30
                continue
            codes[frame, anchor] = encode_boxes(truth.boxes_xyxy_px[box : box + 1], anchors[anchor : anchor + 1])[0]
            logits[frame, anchor, 1 + int(truth.class_ids[box])] = 30
    return codes, logits, anchors


def test_the_right_answer_costs_nothing_and_a_wrong_one_its_own_part() -> None:
    truths = [truth_of((10, 10, 40, 45), (60, 5, 90, 30), class_ids=(0, 2)), truth_of((5, 50, 45, 95), class_ids=(1,))]
    codes, logits, anchors = perfect_answer(truths, grid(), 3)
    loss = SsdLoss(classes=3)
    right = loss((codes, logits, anchors), truths)
    assert float(right["box"]) == pytest.approx(0, abs=1e-9)
    assert float(right["class"]) == pytest.approx(0, abs=1e-6)
    elsewhere = loss((codes + 1, logits, anchors), truths)
    assert float(elsewhere["box"]) == pytest.approx(4 * 0.5)  # smooth L1 of 1 for each number of every matched anchor
    assert float(elsewhere["class"]) == pytest.approx(0, abs=1e-6)
    other = loss((codes, logits.roll(1, dims=-1), anchors), truths)
    assert float(other["box"]) == pytest.approx(0, abs=1e-9)
    assert float(other["class"]) > 30


def test_each_positive_brings_the_three_hardest_negatives_of_its_frame() -> None:
    anchors = grid()
    logits = torch.zeros(2, 25, 2)
    logits[0, [3, 7, 21], 1] = torch.tensor([3.0, 2.0, 1.0])  # taken for objects
    logits[1, [20, 23, 24], 1] = torch.tensor([3.0, 2.0, 1.0])
    logits.requires_grad_()
    truths = [truth_of((48, 48, 52, 52)), truth_of((8, 8, 12, 12))]
    SsdLoss(classes=1)((torch.zeros(2, 25, 4), logits, anchors), truths)["class"].backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    learned = [set(frame.abs().sum(dim=1).nonzero().flatten().tolist()) for frame in logits.grad]
    assert learned == [{12, 3, 7, 21}, {0, 20, 23, 24}]


def test_a_frame_without_objects_trains_the_background() -> None:
    anchors = grid()
    logits = torch.zeros(2, 25, 2)
    logits[1, 9, 1] = 5.0
    logits.requires_grad_()
    codes = torch.zeros(2, 25, 4, requires_grad=True)
    losses = SsdLoss(classes=1)((codes, logits, anchors), [truth_of((48, 48, 52, 52)), NO_BOXES])
    (losses["box"] + losses["class"]).backward()  # type: ignore[no-untyped-call]
    assert codes.grad is not None and logits.grad is not None
    assert not codes.grad[1].any()
    assert int((logits.grad[1].abs().sum(dim=1) > 0).sum()) == 3
    assert logits.grad[1, 9, 1] > 0.4  # it is to be less of an object


def test_a_batch_without_any_object_has_a_loss_and_a_gradient() -> None:
    codes, logits = torch.zeros(2, 25, 4, requires_grad=True), torch.zeros(2, 25, 2, requires_grad=True)
    losses = SsdLoss(classes=1)((codes, logits, grid()), [NO_BOXES, NO_BOXES])
    assert float(losses["box"].detach()) == 0
    (losses["box"] + losses["class"]).backward()  # type: ignore[no-untyped-call]
    assert codes.grad is not None and logits.grad is not None
    assert not codes.grad.any()
    assert logits.grad.any() and logits.grad.isfinite().all()


def test_it_counts_in_single_precision_whatever_the_answer_is_in() -> None:
    answer = (torch.zeros(1, 25, 4, dtype=torch.bfloat16), torch.zeros(1, 25, 2, dtype=torch.bfloat16), grid())
    losses = SsdLoss(classes=1)(answer, [truth_of((10, 10, 40, 45))])
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


@pytest.mark.parametrize(("frames", "logits"), [(2, 3), (1, 4)])
def test_an_answer_of_another_form_is_an_error(frames: int, logits: int) -> None:
    answer = (torch.zeros(frames, 25, 4), torch.zeros(frames, 25, logits), grid())
    with pytest.raises(SpecError, match="expected 1 frames and 3 class logits"):
        SsdLoss(classes=2)(answer, [NO_BOXES])


def test_a_network_learns_a_batch_by_heart_from_its_first_layer_on() -> None:
    grown = grow_head(load_model("torchvision:mobilenet_v3_small"), "ssdlite", labels=("bright", "dark"), size=(64, 64))
    network = grown.module.train()
    frames = torch.full((4, 3, 64, 64), 0.0)
    truths = []
    for frame, (left, top, side, class_id) in enumerate(
        [(4, 8, 30, 0), (24, 20, 36, 1), (10, 30, 28, 1), (2, 2, 50, 0)]
    ):
        frames[frame, :, top : top + side, left : left + side] = 2.0 if class_id == 0 else -2.0
        truths.append(truth_of((left, top, left + side, top + side), class_ids=(class_id,)))
    loss = SsdLoss(classes=2)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    seen = []
    for _ in range(15):
        optimizer.zero_grad()
        parts = loss(network(frames), truths)
        sum(parts.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        assert first.weight.grad is not None
        assert first.weight.grad.abs().max() > 0
        optimizer.step()
        seen.append({name: float(part.detach()) for name, part in parts.items()})
    assert seen[-1]["box"] < seen[0]["box"] / 2
    assert seen[-1]["class"] < seen[0]["class"] / 2
