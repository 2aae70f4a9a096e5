"""YOLOX's loss: which anchors are trained, against a slow plain reference, and what for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou

from edgecnn.converters.deployable.decoders.yolox import decode_yolox
from edgecnn.errors import DataError, SpecError
from edgecnn.sources.zoo.yolox import STRIDES_PX, Level, Yolox
from edgecnn.training import yolox_assignment
from edgecnn.training.frame_truth import FrameBoxTruth
from edgecnn.training.matching import Anchors, pair_iou
from edgecnn.training.yolox_assignment import assign
from edgecnn.training.yolox_loss import YoloxLoss

pytestmark = pytest.mark.torch

SIZE_PX, CLASSES = 64, 3
OFF_CENTRE_COST = 1000.0  # more than all else, as 100000 is, and float32 still tells 1000.001 from it
thorough = settings(max_examples=150, deadline=None)


def grid() -> Anchors:
    """The cells of a frame of 64 x 64, spelled out."""
    cells = [(x * s, y * s, s) for s in STRIDES_PX for y in range(SIZE_PX // s) for x in range(SIZE_PX // s)]
    table = torch.tensor(cells, dtype=torch.float32)
    return Anchors(table[:, :2], table[:, 2])


def truth_of(*boxes: tuple[float, float, float, float], ids: Sequence[int] = ()) -> FrameBoxTruth:
    class_ids = torch.tensor(list(ids) or [0] * len(boxes), dtype=torch.int64)
    return FrameBoxTruth(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), class_ids)


def levels(regression: Tensor, objectness: Tensor, classes: Tensor) -> list[Level]:
    """Rows [N, A, channels] as the maps they come from."""
    sizes = [SIZE_PX // s for s in STRIDES_PX]

    def maps(rows: Tensor) -> list[Tensor]:
        parts = torch.split(rows, [size * size for size in sizes], dim=1)
        return [part.mT.reshape(len(part), -1, size, size) for part, size in zip(parts, sizes, strict=True)]

    return list(zip(maps(regression), maps(objectness), maps(classes), strict=True))


def random_levels(frames: int, seed: int = 0) -> list[Level]:
    generator = torch.Generator().manual_seed(seed)
    count = len(grid().strides_px)
    return levels(*(torch.randn(frames, count, width, generator=generator) for width in (4, 1, CLASSES)))


def perfect_rows(truth: FrameBoxTruth) -> tuple[Tensor, Tensor, Tensor]:
    """Every anchor answers the box whose centre is nearest, and is sure of its class."""
    anchors = grid()
    centres = (truth.boxes_xyxy_px[:, :2] + truth.boxes_xyxy_px[:, 2:]) / 2
    nearest = torch.cdist(anchors.centres_px, centres).argmin(dim=1)
    size = (truth.boxes_xyxy_px[:, 2:] - truth.boxes_xyxy_px[:, :2])[nearest]
    strides = anchors.strides_px[:, None]
    regression = torch.cat(((centres[nearest] - anchors.corners_px) / strides, (size / strides).log()), dim=1)
    classes = functional.one_hot(truth.class_ids[nearest], CLASSES) * 40.0 - 20.0
    return regression[None], torch.full((1, len(strides), 1), 20.0), classes[None]


@st.composite
def crowds(draw: st.DrawFn, least: int = 0) -> FrameBoxTruth:
    """Boxes on a coarse grid, some equal, some beyond the frame's edge."""
    count = draw(st.integers(least, 9))
    corner, extent = st.integers(-1, 9), st.integers(1, 6)
    boxes = []
    for _ in range(count):
        x, y = draw(corner), draw(corner)
        boxes.append((x, y, x + draw(extent), y + draw(extent)))
    ids = draw(st.lists(st.integers(0, CLASSES - 1), min_size=count, max_size=count))
    return FrameBoxTruth(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) * 6.5, torch.tensor(ids, dtype=torch.int64)
    )


@st.composite
def answers(draw: st.DrawFn, frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes around the anchors, objectness and classes: what a network may say while it learns."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**30)))
    anchors = grid()
    count = len(anchors.strides_px)
    centres = anchors.centres_px + torch.randn(frames, count, 2, generator=generator) * 4
    half = torch.rand(frames, count, 2, generator=generator) * draw(st.sampled_from([4.0, 30.0])) + 2
    logits = torch.randn(frames, count, 1 + CLASSES, generator=generator) * draw(st.sampled_from([1.0, 5.0]))
    return torch.cat((centres - half, centres + half), dim=2), logits[..., 0], logits[..., 1:]


def is_inside_and_near(centre: Tensor, stride: float, box: Tensor) -> tuple[bool, bool]:
    x, y = centre.tolist()
    left, top, right, bottom = box.tolist()
    inside = left < x < right and top < y < bottom
    near = max(abs(x - (left + right) / 2), abs(y - (top + bottom) / 2)) < 2.5 * stride
    return inside, near


def simota_of_one_frame(boxes: Tensor, objectness: Tensor, classes: Tensor, truth: FrameBoxTruth) -> dict[int, int]:
    """Anchor to box, one after the other; boxes that lose all their anchors choose again among what is free."""
    anchors = grid()
    costs: list[dict[int, float]] = []
    shares: list[int] = []
    for wanted, class_id in zip(truth.boxes_xyxy_px, truth.class_ids, strict=True):
        one_hot = functional.one_hot(class_id, CLASSES).float()
        cost: dict[int, float] = {}
        ious: list[float] = []
        for a in range(len(anchors.strides_px)):
            inside, near = is_inside_and_near(anchors.centres_px[a], float(anchors.strides_px[a]), wanted)
            if not (inside or near):
                continue
            iou = float(box_iou(boxes[a : a + 1], wanted[None]))
            probability = (objectness[a].sigmoid() * classes[a].sigmoid()).sqrt()
            entropy = float(functional.binary_cross_entropy(probability, one_hot, reduction="sum"))
            cost[a] = entropy - 3 * math.log(iou + 1e-8) + (0 if inside and near else OFF_CENTRE_COST)
            ious.append(iou)
        costs.append(cost)
        shares.append(max(1, int(sum(sorted(ious)[-10:]))))
    owner: dict[int, int] = {}
    while True:
        wishes: dict[int, list[int]] = {}
        for b, cost in enumerate(costs):
            if b not in owner.values():
                free = sorted((a for a in cost if a not in owner), key=lambda a: cost[a])
                for a in free[: shares[b]]:
                    wishes.setdefault(a, []).append(b)
        if not wishes:
            return owner
        owner |= {a: min(asking, key=lambda b: costs[b][a]) for a, asking in wishes.items()}
        shares = [1] * len(costs)


@settings(max_examples=40, deadline=None, derandomize=True)  # what ties but for rounding may go either way
@given(st.data())
def test_assignment_agrees_with_a_plain_one(data: st.DataObject) -> None:
    truths = [data.draw(crowds()), data.draw(crowds())]
    boxes, objectness, classes = data.draw(answers(frames=2))
    with patch.object(yolox_assignment, "_OFF_CENTRE_COST", OFF_CENTRE_COST):
        found = assign(boxes, objectness, classes, truths, grid())
    expected: dict[int, int] = {}
    for frame, truth in enumerate(truths):
        owner = simota_of_one_frame(boxes[frame], objectness[frame], classes[frame], truth)
        first = frame * len(truths[0].class_ids)
        expected |= {frame * 84 + anchor: first + box for anchor, box in owner.items()}
    assert dict(zip(found.anchors.tolist(), found.boxes.tolist(), strict=True)) == expected


@thorough
@given(st.data())
def test_every_anchor_has_one_box_at_most_and_every_box_an_anchor_if_any_is_free(data: st.DataObject) -> None:
    truths = [data.draw(crowds()), data.draw(crowds())]
    boxes, objectness, classes = data.draw(answers(frames=2))
    anchors = grid()

    found = assign(boxes, objectness, classes, truths, anchors)

    assert len(torch.unique(found.anchors)) == len(found.anchors)
    wanted = torch.cat([truth.boxes_xyxy_px for truth in truths])
    frame_of_box = [frame for frame, truth in enumerate(truths) for _ in truth.class_ids]
    for anchor, box in zip(found.anchors.tolist(), found.boxes.tolist(), strict=True):
        assert anchor // 84 == frame_of_box[box]
        assert any(
            is_inside_and_near(anchors.centres_px[anchor % 84], float(anchors.strides_px[anchor % 84]), wanted[box])
        )
    taken = set(found.anchors.tolist())
    for box in set(range(len(wanted))) - set(found.boxes.tolist()):
        candidates = [
            a
            for a in range(84)
            if any(is_inside_and_near(anchors.centres_px[a], float(anchors.strides_px[a]), wanted[box]))
        ]
        assert {frame_of_box[box] * 84 + a for a in candidates} <= taken
    ious = box_iou(boxes.flatten(0, 1)[found.anchors], wanted[found.boxes]).diagonal()
    torch.testing.assert_close(found.ious, ious, atol=1e-5, rtol=1e-4)


@thorough
@given(crowds(least=1), st.data())
def test_no_box_has_more_anchors_than_its_best_ten_overlaps_add_up_to(
    truth: FrameBoxTruth, data: st.DataObject
) -> None:
    boxes, objectness, classes = data.draw(answers(frames=1))
    found = assign(boxes, objectness, classes, [truth], grid())
    for box, wanted in enumerate(truth.boxes_xyxy_px):
        best = box_iou(boxes[0], wanted[None])[:, 0].sort(descending=True).values[:10].sum()
        assert (found.boxes == box).sum() <= max(1.0, float(best) + 1e-4)


def test_equal_boxes_take_anchors_of_their_own() -> None:
    twice = truth_of((10, 10, 40, 40), (10, 10, 40, 40))
    flat = torch.zeros(1, 84)
    found = assign(torch.ones(1, 84, 4), flat, flat[..., None].expand(1, 84, CLASSES), [twice], grid())
    assert sorted(found.boxes.tolist()) == [0, 1]
    assert len(torch.unique(found.anchors)) == 2


def test_frames_keep_to_themselves() -> None:
    truths = [truth_of((4, 4, 30, 30), ids=[2]), truth_of(), truth_of((20, 30, 60, 50), (0, 0, 12, 12), ids=[1, 0])]
    rows = [torch.cat(part) for part in zip(*map(perfect_rows, (truths[0], truths[0], truths[2])), strict=True)]
    loss = YoloxLoss(classes=CLASSES)
    answer = levels(*rows)
    together = loss(answer, truths)
    boxes, _ = decode_yolox(answer)
    found = assign(boxes, rows[1][..., 0], rows[2], truths, grid())
    assert set((found.anchors // 84).tolist()) == {0, 2}
    for frame, first in ((0, 0), (2, 1)):
        alone = assign(
            boxes[frame : frame + 1], rows[1][None, frame, :, 0], rows[2][None, frame], [truths[frame]], grid()
        )
        here = found.anchors // 84 == frame
        assert (found.anchors[here] - frame * 84).tolist() == alone.anchors.tolist()
        assert (found.boxes[here] - first).tolist() == alone.boxes.tolist()
    assert float(together["box"]) < 1e-4


def test_a_perfect_answer_costs_nothing_and_is_matched_to_the_right_boxes() -> None:
    truth = truth_of((4, 4, 28, 30), (34, 6, 60, 22), (8, 40, 20, 58), (30, 30, 62, 62), ids=[0, 1, 2, 1])
    regression, objectness, classes = perfect_rows(truth)
    loss = YoloxLoss(classes=CLASSES, with_l1=True)
    boxes, _ = decode_yolox(levels(regression, objectness, classes))
    found = assign(boxes, objectness[..., 0], classes, [truth], grid())
    assert set(found.boxes.tolist()) == {0, 1, 2, 3}
    assert float(found.ious.min()) > 0.999
    assert len(found.anchors) > 20  # a box that many anchors answer well has many
    assert classes[0, found.anchors].argmax(dim=1).tolist() == truth.class_ids[found.boxes].tolist()

    sure = torch.full_like(objectness, -20.0)
    sure[0, found.anchors] = 20.0
    parts = loss(levels(regression, sure, classes), [truth])
    assert set(parts) == {"box", "objectness", "class", "l1"}
    assert float(sum(parts.values())) < 1e-3

    worse = loss(levels(regression + 0.3, sure, classes), [truth])
    assert float(worse["box"]) > 0.5
    assert float(worse["l1"]) == pytest.approx(4 * 0.3, rel=1e-3)
    assert float(loss(levels(regression, sure, classes.roll(1, dims=2)), [truth])["class"]) > 10
    assert float(loss(levels(regression, -sure, classes), [truth])["objectness"]) > 10


def test_one_cell_by_hand() -> None:
    """A cell of 8 pixels answers 8 x 8 around its corner; the box is 8 x 4 around it: IoU 1/2."""
    answer = [(torch.zeros(1, 4, 1, 1), torch.full((1, 1, 1, 1), 2.0), torch.tensor([1.0, -1.0])[None, :, None, None])]
    loss = YoloxLoss(classes=2, strides_px=[8], with_l1=True)
    parts = loss(answer, [truth_of((-4, -2, 4, 2), ids=[1])])

    def softplus(x: float) -> float:
        return math.log(1 + math.exp(x))

    assert float(parts["box"]) == pytest.approx(5 * (1 - 0.25))
    assert float(parts["objectness"]) == pytest.approx(softplus(-2))
    assert float(parts["class"]) == pytest.approx(softplus(1) + 0.5 * softplus(1) + 0.5 * softplus(-1))
    assert float(parts["l1"]) == pytest.approx(math.log(2), rel=1e-5)


def test_a_batch_twice_has_the_same_loss() -> None:
    truths = [truth_of((4, 4, 28, 30), (34, 6, 60, 22)), truth_of()]
    answer = random_levels(2)
    twice = [(torch.cat((r, r)), torch.cat((o, o)), torch.cat((c, c))) for r, o, c in answer]
    loss = YoloxLoss(classes=CLASSES, with_l1=True)
    once = loss(answer, truths)
    for name, value in loss(twice, truths * 2).items():
        torch.testing.assert_close(value, once[name])


def test_frames_without_boxes_train_objectness_alone() -> None:
    answer = random_levels(2)
    for level in answer:
        for part in level:
            part.requires_grad_()
    parts = YoloxLoss(classes=CLASSES, with_l1=True)(answer, [truth_of(), truth_of()])
    assert [name for name, value in parts.items() if float(value.detach())] == ["objectness"]
    background = sum(float(functional.softplus(level[1].detach()).sum()) for level in answer)
    assert float(parts["objectness"].detach()) == pytest.approx(background, rel=1e-5)
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    for regression, objectness, classes in answer:
        assert objectness.grad is not None and bool((objectness.grad > 0).all())
        for other in (regression, classes):
            assert other.grad is None or not other.grad.any()


def test_gradients_go_to_all_objectness_and_to_the_boxes_and_classes_of_matched_anchors() -> None:
    truth = truth_of((4, 4, 28, 30), (34, 6, 60, 22), ids=[0, 2])
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(1, 84, width, generator=generator).requires_grad_() for width in (4, 1, CLASSES)]
    answer = levels(*rows)
    found = assign(decode_yolox(answer)[0], rows[1][..., 0], rows[2], [truth], grid())
    parts = YoloxLoss(classes=CLASSES)(answer, [truth])
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    regression, objectness, classes = (row.grad for row in rows)
    assert regression is not None and objectness is not None and classes is not None
    assert bool(objectness.all())
    matched = set(found.anchors.tolist())
    assert set(regression[0].abs().sum(dim=1).nonzero()[:, 0].tolist()) <= matched
    assert set(classes[0].abs().sum(dim=1).nonzero()[:, 0].tolist()) == matched
    assert bool(regression.any())
    assert not found.ious.requires_grad


@pytest.mark.parametrize("part", [0, 1, 2], ids=["box", "objectness", "class"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("everywhere", [True, False], ids=["everywhere", "once"])
def test_what_is_not_finite_in_the_answer_is_not_finite_in_the_loss(part: int, value: float, everywhere: bool) -> None:
    answer = random_levels(2)
    for level in answer:
        if everywhere:
            level[part].fill_(value)
    answer[0][part][0, 0, 2, 2] = value
    truths = [truth_of((4, 4, 28, 30), (34, 6, 60, 22)), truth_of()]
    parts = YoloxLoss(classes=CLASSES)(answer, truths)
    assert not math.isfinite(float(sum(parts.values())))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_boxes_find_anchors_if_the_answer_is_nan(value: float) -> None:
    truth = truth_of((4, 4, 28, 30), (34, 6, 60, 22))
    nothing = torch.full((1, 84, 4), value)
    found = assign(nothing, nothing[..., 0], nothing[..., 1:], [truth], grid())
    assert sorted(found.boxes.tolist()) == [0, 1]
    assert found.ious.tolist() == [0.0, 0.0]

    generator = torch.Generator().manual_seed(0)
    boxes = truth.boxes_xyxy_px[:1].expand(1, 84, 4).clone()
    boxes[0, torch.randperm(84, generator=generator)[:60]] = value
    flat = torch.zeros(1, 84, CLASSES)
    found = assign(boxes, flat[..., 0], flat, [truth], grid())
    assert bool(boxes[0, found.anchors[found.boxes == 0]].isfinite().all())  # those that can be judged come first
    assert bool(found.ious.isfinite().all())


def test_a_size_beyond_any_frame_does_not_overflow() -> None:
    answer = random_levels(1)
    answer[2][0][0, 2] = 100.0  # e to the power of it is no float32
    parts = YoloxLoss(classes=CLASSES)(answer, [truth_of((4, 4, 60, 60))])
    assert all(math.isfinite(float(value)) for value in parts.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_answers_are_judged_in_float32(dtype: torch.dtype) -> None:
    truths = [truth_of((4, 4, 28, 30), (34, 6, 60, 22)), truth_of((20, 20, 50, 60))]
    half = [(r.to(dtype), o.to(dtype), c.to(dtype)) for r, o, c in random_levels(2)]
    full = [(r.float(), o.float(), c.float()) for r, o, c in half]
    loss = YoloxLoss(classes=CLASSES, with_l1=True)
    expected = loss(full, truths)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        parts = loss(half, truths)
    for name, value in parts.items():
        assert value.dtype == torch.float32
        assert value.shape == ()
        torch.testing.assert_close(value, expected[name])


@thorough
@given(crowds(least=2))
def test_iou_of_pairs_is_torchvisions(truth: FrameBoxTruth) -> None:
    boxes = truth.boxes_xyxy_px
    torch.testing.assert_close(pair_iou(boxes, boxes.roll(1, 0)), box_iou(boxes, boxes.roll(1, 0)).diagonal())


@pytest.mark.parametrize("anchor", [9, 70, 83], ids=["of 8 pixels", "of 16 pixels", "of 32 pixels"])
def test_boxes_are_those_that_the_exported_network_answers(anchor: int) -> None:
    """What the export decodes, taken as the truth, costs nothing; all other anchors answer specks."""
    regression = torch.full((1, 84, 4), -4.0)
    regression[0, anchor] = torch.tensor([0.3, 0.6, 0.9, 0.2])
    answer = levels(regression, torch.zeros(1, 84, 1), torch.zeros(1, 84, CLASSES))
    boxes, _ = decode_yolox(answer)
    parts = YoloxLoss(classes=CLASSES, with_l1=True)(answer, [FrameBoxTruth(boxes[0, anchor, None], torch.tensor([0]))])
    assert float(parts["box"]) < 1e-4
    assert float(parts["l1"]) < 1e-4


def test_wrong_use_is_reported() -> None:
    answer, loss = random_levels(2), YoloxLoss(classes=CLASSES)
    with pytest.raises(SpecError, match="3 levels"):
        loss(answer[:2], [truth_of(), truth_of()])
    with pytest.raises(SpecError, match=r"4, 1 and 5 channels.*\[4, 1, 3\]"):
        YoloxLoss(classes=5)(answer, [truth_of(), truth_of()])
    with pytest.raises(SpecError, match="2 frames, found 1"):
        loss(answer, [truth_of()])
    with pytest.raises(DataError, match=r"0 to 2, found 1 to 3 in frame 1"):
        loss(answer, [truth_of(), truth_of((1, 1, 9, 9), (2, 2, 8, 8), ids=[3, 1])])
    with pytest.raises(DataError, match="found -1"):
        loss(answer, [truth_of((1, 1, 9, 9), ids=[-1]), truth_of()])


def test_a_small_network_learns_a_batch() -> None:
    torch.manual_seed(0)
    network = Yolox(depth=0.33, width=0.125, depthwise=False, classes=2)
    truths = [
        truth_of((6, 10, 34, 30), ids=[0]),
        truth_of((24, 20, 58, 60), ids=[1]),
        truth_of(),
        truth_of((4, 34, 28, 58)),
    ]
    frames = torch.rand(4, 3, 64, 64) * 0.2
    for frame, truth in zip(frames, truths, strict=True):
        for (left, top, right, bottom), class_id in zip(
            truth.boxes_xyxy_px.int().tolist(), truth.class_ids, strict=True
        ):
            frame[class_id, top:bottom, left:right] = 1.0
    loss = YoloxLoss(classes=2)
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    history: list[float] = []
    for _ in range(45):
        total = torch.stack(list(loss(network(frames), truths).values())).sum()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        history.append(float(total.detach()))
    assert history[-1] < history[0] / 4
    with torch.no_grad():
        boxes, scores = decode_yolox(network(frames))  # in training mode: 45 steps are too few for averages
    for index, truth in enumerate(truths):
        best = int(scores[index].max(dim=1).values.argmax())
        if not len(truth.class_ids):
            assert float(scores[index].max()) < 0.5
            continue
        assert int(scores[index, best].argmax()) == int(truth.class_ids[0])
        assert float(box_iou(boxes[index, best][None], truth.boxes_xyxy_px)) > 0.6
