"""NanoDet-Plus' loss: which points are trained, against a slow plain reference, and what for."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_iou, generalized_box_iou

from edgecnn import Detect, FrameSpec, TrainedModel
from edgecnn.bundle import SourceRecord
from edgecnn.converters.deployable.decoders.nanodet import decode_nanodet
from edgecnn.errors import DataError, SpecError
from edgecnn.sources.zoo.nanodet import STRIDES_PX, Level, NanoDetPlus
from edgecnn.training.frame_truth import FrameBoxTruth
from edgecnn.training.matching import Anchors
from edgecnn.training.nanodet_assignment import assign
from edgecnn.training.nanodet_loss import GuidedAnswer, NanoDetLoss, distribution_loss, integral
from edgecnn.training.objective import guide_of
from edgecnn.training.teacher_answers import nanodet_answer_loss

pytestmark = pytest.mark.torch

SIZE_PX, CLASSES = 64, 3
POINTS = [(x * s, y * s, s) for s in STRIDES_PX for y in range(SIZE_PX // s) for x in range(SIZE_PX // s)]
COUNT = len(POINTS)


def grid() -> Anchors:
    table = torch.tensor(POINTS, dtype=torch.float32)
    return Anchors(table[:, :2], table[:, 2])


def target(*boxes: tuple[float, float, float, float], ids: Sequence[int] = ()) -> FrameBoxTruth:
    class_ids = torch.tensor(list(ids) or [0] * len(boxes), dtype=torch.int64)
    return FrameBoxTruth(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), class_ids)


def levels(classes: Tensor, distances: Tensor) -> list[Level]:
    """Rows [N, A, channels] as the maps they come from."""
    sizes = [SIZE_PX // s for s in STRIDES_PX]

    def maps(rows: Tensor) -> list[Tensor]:
        parts = torch.split(rows, [size * size for size in sizes], dim=1)
        return [part.mT.reshape(len(part), -1, size, size) for part, size in zip(parts, sizes, strict=True)]

    return list(zip(maps(classes), maps(distances), strict=True))


def random_rows(frames: int, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    classes, distances = (torch.randn(frames, COUNT, width, generator=generator) * spread for width in (CLASSES, 32))
    return classes, distances


def perfect_rows(truth: FrameBoxTruth) -> tuple[Tensor, Tensor]:
    """Every point in a box answers it as well as its bins can, and is sure of its class; of several, the last."""
    classes = torch.full((1, COUNT, CLASSES), -20.0)
    distances = torch.full((1, COUNT, 4, 8), -20.0)
    for box, class_id in zip(truth.boxes_xyxy_px.tolist(), truth.class_ids.tolist(), strict=True):
        for point, (x, y, stride) in enumerate(POINTS):
            far = [(x - box[0]) / stride, (y - box[1]) / stride, (box[2] - x) / stride, (box[3] - y) / stride]
            if min(far) <= 0:
                continue
            classes[0, point] = -20.0
            classes[0, point, class_id] = 20.0
            for side, strides in enumerate(far):
                below = min(int(strides), 6)
                share = min(strides - below, 1.0)
                distances[0, point, side] = -40.0
                distances[0, point, side, below] = math.log(max(1 - share, 1e-12))
                distances[0, point, side, below + 1] = math.log(max(share, 1e-12))
    return classes, distances.flatten(2)


@st.composite
def crowds(draw: st.DrawFn, least: int = 0) -> FrameBoxTruth:
    """Boxes on a coarse grid, some equal, some beyond the frame's edge, some between all points."""
    boxes = []
    for _ in range(draw(st.integers(least, 7))):
        x, y = draw(st.integers(-1, 9)), draw(st.integers(-1, 9))
        boxes.append((x, y, x + draw(st.integers(1, 6)), y + draw(st.integers(1, 6))))
    ids = draw(st.lists(st.integers(0, CLASSES - 1), min_size=len(boxes), max_size=len(boxes)))
    scaled = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4) * 6.5 + 0.7
    return FrameBoxTruth(scaled, torch.tensor(ids, dtype=torch.int64))


def candidates(wanted: Tensor) -> list[int]:
    left, top, right, bottom = wanted.tolist()
    inside = [a for a, (x, y, _) in enumerate(POINTS) if left < x < right and top < y < bottom]
    middle = ((left + right) / 2, (top + bottom) / 2)
    return inside or [min(range(COUNT), key=lambda a: math.dist(POINTS[a][:2], middle))]


def focal(logit: float, wanted: float) -> float:
    score = 1 / (1 + math.exp(-logit))
    entropy = -wanted * math.log(score) - (1 - wanted) * math.log(1 - score)
    return entropy * (wanted - score) ** 2


def assignment_of_one_frame(boxes: Tensor, classes: Tensor, truth: FrameBoxTruth) -> dict[int, int]:
    """Point to box, one after the other; boxes that lose all their points choose again among what is free."""
    costs: list[dict[int, float]] = []
    shares: list[int] = []
    for wanted, class_id in zip(truth.boxes_xyxy_px, truth.class_ids.tolist(), strict=True):
        cost, ious = {}, []
        for a in candidates(wanted):
            iou = float(box_iou(boxes[a : a + 1], wanted[None]))
            logits = classes[a].tolist()
            of_classes = sum(focal(logit, iou if c == class_id else 0.0) for c, logit in enumerate(logits))
            cost[a] = of_classes - 3 * math.log(iou + 1e-7)
            ious.append(iou)
        costs.append(cost)
        shares.append(max(1, int(sum(sorted(ious)[-13:]))))
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


@settings(max_examples=30, deadline=None, derandomize=True)  # what ties but for rounding may go either way
@given(st.data())
def test_assignment_agrees_with_a_plain_one(data: st.DataObject) -> None:
    truths = [data.draw(crowds()), data.draw(crowds())]
    rows = random_rows(2, seed=data.draw(st.integers(0, 2**30)), spread=data.draw(st.sampled_from([1.0, 3.0])))
    boxes, _ = decode_nanodet(levels(*rows))
    found = assign(boxes, rows[0], truths, grid())
    expected: dict[int, int] = {}
    for frame, truth in enumerate(truths):
        owner = assignment_of_one_frame(boxes[frame], rows[0][frame], truth)
        first = frame * len(truths[0].class_ids)
        expected |= {frame * COUNT + point: first + box for point, box in owner.items()}
    assert dict(zip(found.anchors.tolist(), found.boxes.tolist(), strict=True)) == expected


def test_the_loss_agrees_with_a_plain_one() -> None:
    truths = [target((4, 4, 28, 30), (34, 6, 60, 22), ids=[0, 2]), target(), target((20, 30, 60, 50), ids=[1])]
    classes, distances = random_rows(3)
    answer = levels(classes, distances)
    boxes, _ = decode_nanodet(answer)
    parts = NanoDetLoss(classes=CLASSES)(answer, truths)
    owners = [assignment_of_one_frame(boxes[f], classes[f], truth) for f, truth in enumerate(truths)]
    positives = sum(len(owner) for owner in owners)
    quality = box = distribution = sureness = 0.0
    for frame, (owner, truth) in enumerate(zip(owners, truths, strict=True)):
        for point in range(COUNT):
            wanted = [0.0] * CLASSES
            if point in owner:
                b = owner[point]
                truth_box, own = truth.boxes_xyxy_px[b][None], boxes[frame, point][None]
                wanted[int(truth.class_ids[b])] = float(box_iou(own, truth_box))
                sure = float(classes[frame, point].sigmoid().max())
                sureness += sure
                box += sure * (1 - float(generalized_box_iou(own, truth_box)))
                x, y, stride = POINTS[point]
                left, top, right, bottom = truth_box[0].tolist()
                for side, far in enumerate([x - left, y - top, right - x, bottom - y]):
                    strides = min(max(far / stride, 0.0), 6.9)
                    log = distances[frame, point, 8 * side : 8 * side + 8].log_softmax(0).tolist()
                    low = int(strides)
                    distribution -= sure / 4 * (log[low] * (low + 1 - strides) + log[low + 1] * (strides - low))
            quality += sum(focal(logit, w) for logit, w in zip(classes[frame, point].tolist(), wanted, strict=True))
    assert float(parts["class"]) == pytest.approx(quality / positives, rel=1e-4)
    assert float(parts["box"]) == pytest.approx(2 * box / max(sureness, 1), rel=1e-4)
    assert float(parts["distribution"]) == pytest.approx(0.25 * distribution / max(sureness, 1), rel=1e-4)


def test_a_perfect_answer_costs_next_to_nothing_and_a_worse_one_more() -> None:
    truth = target((5, 5, 27, 29), (34, 6, 60, 22), ids=[0, 1])
    classes, distances = perfect_rows(truth)
    loss = NanoDetLoss(classes=CLASSES)
    boxes, _ = decode_nanodet(levels(classes, distances))
    found = assign(boxes, classes, [truth], grid())
    assert set(found.boxes.tolist()) == {0, 1}
    assert float(found.ious.min()) > 0.99
    assert classes[0, found.anchors].argmax(dim=1).tolist() == truth.class_ids[found.boxes].tolist()
    only = torch.full_like(classes, -20.0)
    only[0, found.anchors] = classes[0, found.anchors]
    parts = loss(levels(only, distances), [truth])
    assert set(parts) == {"class", "box", "distribution"}
    assert float(parts["class"]) < 1e-2
    assert float(parts["box"]) < 1e-2
    worse = loss(levels(only, distances.roll(1, dims=2)), [truth])
    assert float(worse["box"]) > 0.5
    assert float(worse["distribution"]) > float(parts["distribution"]) + 0.5
    assert float(loss(levels(only.roll(1, dims=2), distances), [truth])["class"]) > 1


def test_the_mean_of_a_distribution_is_nearest_where_its_loss_is_least() -> None:
    logits = torch.zeros(1, 4, 8, requires_grad=True)
    wanted = torch.tensor([[0.0, 2.25, 5.5, 6.9]])
    optimizer = torch.optim.Adam([logits], lr=0.3)
    for _ in range(150):
        optimizer.zero_grad()
        distribution_loss(logits, wanted).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.testing.assert_close(integral(logits.detach()), wanted, atol=0.05, rtol=0)


def test_frames_without_boxes_train_classes_alone() -> None:
    rows = [row.requires_grad_() for row in random_rows(2)]
    parts = NanoDetLoss(classes=CLASSES)(levels(*rows), [target(), target()])
    assert [name for name, value in parts.items() if float(value.detach())] == ["class"]
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    classes, distances = (row.grad for row in rows)
    assert classes is not None and bool((classes > 0).all())
    assert distances is None or not distances.any()


def test_boxes_between_all_points_take_the_nearest_one() -> None:
    rows = random_rows(1)
    boxes, _ = decode_nanodet(levels(*rows))
    found = assign(boxes, rows[0], [target((9, 17, 12, 20))], grid())
    assert found.anchors.tolist() == [2 * 8 + 1]


@pytest.mark.parametrize("part", [0, 1], ids=["classes", "distances"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_in_the_answer_is_not_finite_in_the_loss(part: int, value: float) -> None:
    answer = levels(*random_rows(2))
    answer[0][part][0, 0, 2, 2] = value
    parts = NanoDetLoss(classes=CLASSES)(answer, [target((4, 4, 28, 30), (34, 6, 60, 22)), target()])
    assert not math.isfinite(float(sum(parts.values())))


def test_half_precision_answers_are_judged_in_float32() -> None:
    truths = [target((4, 4, 28, 30), (34, 6, 60, 22)), target((20, 20, 50, 60))]
    half = [(c.half(), d.half()) for c, d in levels(*random_rows(2))]
    full = [(c.float(), d.float()) for c, d in half]
    loss = NanoDetLoss(classes=CLASSES)
    expected = loss(full, truths)
    for name, value in loss(half, truths).items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name])


def test_wrong_use_is_said() -> None:
    answer, loss = levels(*random_rows(2)), NanoDetLoss(classes=CLASSES)
    with pytest.raises(SpecError, match="4 levels"):
        loss(answer[:2], [target(), target()])
    with pytest.raises(SpecError, match=r"5 and 32 channels.*\[3, 32\]"):
        NanoDetLoss(classes=5)(answer, [target(), target()])
    with pytest.raises(SpecError, match="2 frames, found 1"):
        loss(answer, [target()])
    with pytest.raises(DataError, match=r"0 to 2, found 1 to 3 in frame 1"):
        loss(answer, [target(), target((1, 1, 9, 9), (2, 2, 8, 8), ids=[3, 1])])


def test_the_guides_answer_decides_for_both() -> None:
    truth = target((5, 5, 27, 29), (34, 6, 60, 22), ids=[0, 1])
    own, perfect = levels(*random_rows(1)), levels(*perfect_rows(truth))
    loss = NanoDetLoss(classes=CLASSES)
    parts = loss(GuidedAnswer(own, perfect), [truth])
    assert set(parts) == {"class", "box", "distribution", "guide_class", "guide_box", "guide_distribution"}
    alone = loss(perfect, [truth])
    for name, value in alone.items():
        torch.testing.assert_close(parts[f"guide_{name}"], value)
    assert float(parts["class"]) != pytest.approx(float(loss(own, [truth])["class"]), rel=1e-3)


def pictures() -> tuple[Tensor, list[FrameBoxTruth]]:
    truths = [target((6, 10, 34, 30), ids=[0]), target((24, 20, 58, 60), ids=[1]), target(), target((4, 34, 28, 58))]
    frames = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.2
    for frame, truth in zip(frames, truths, strict=True):
        for box, class_id in zip(truth.boxes_xyxy_px.int().tolist(), truth.class_ids, strict=True):
            left, top, right, bottom = box
            frame[class_id, top:bottom, left:right] = 1.0
    return frames, truths


def small_model(*, random: bool) -> TrainedModel:
    torch.manual_seed(0)
    network = NanoDetPlus(channels=(16, 32, 48), width=16, classes=2)
    network.start_with_low_scores()
    return TrainedModel(
        module=network,
        frame=FrameSpec(height_px=64, width_px=64),
        task=Detect(labels=("red", "green")),
        decode="nanodet",
        source=SourceRecord(model="nanodet", random=random),
    )


@pytest.mark.parametrize("guided", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_small_network_learns_a_batch(guided: bool) -> None:
    model = small_model(random=guided)
    network, guide = model.module.train(), guide_of(model)
    assert (guide is not None) is guided
    before = copy.deepcopy(network.state_dict())
    frames, truths = pictures()
    loss = NanoDetLoss(classes=2)
    trained = [*network.parameters(), *(guide.parameters() if guide is not None else ())]
    optimizer = torch.optim.Adam(trained, lr=4e-3)
    for step in range(120):
        if guide is None:
            answer = network(frames)
        else:
            guide.begin_epoch(step, 120)
            with guide.watching(network):
                answer = network(frames)
            answer = guide(answer)
        total = torch.stack(list(loss(answer, truths).values())).sum()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert set(network.state_dict()) == set(before)  # the guide is no part of it
    with torch.no_grad():
        boxes, scores = decode_nanodet(network(frames))  # in training mode: so few steps are too few for averages
    found = 0
    for index, truth in enumerate(truths):
        best = int(scores[index].max(dim=1).values.argmax())
        if not len(truth.class_ids):
            assert float(scores[index].max()) < 0.4
            continue
        is_there = float(box_iou(boxes[index, best][None], truth.boxes_xyxy_px)) > 0.5
        found += is_there and int(scores[index, best].argmax()) == int(truth.class_ids[0])
    assert found >= 2, "of 3: after so few steps, one may go either way with how a processor rounds"


def test_a_guide_that_no_longer_joins_moves_nothing_in_the_network() -> None:
    model = small_model(random=True)
    guide = guide_of(model)
    assert guide is not None
    frames, _ = pictures()
    for epoch, moves in ((0, True), (50, False)):
        guide.begin_epoch(epoch, 100)
        model.module.zero_grad()
        with guide.watching(model.module):
            answer = model.module(frames)
        sum(part.sum() for level in guide(answer).guide for part in level).backward()
        gradients = [p.grad for p in model.module.get_submodule("backbone").parameters()]
        assert any(grad is not None and bool(grad.any()) for grad in gradients) is moves


def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn_from_it() -> None:
    same, other = levels(*random_rows(2)), levels(*random_rows(2, seed=1))
    nothing = nanodet_answer_loss(same, same, temperature=2.0)
    assert {name: round(float(value), 5) for name, value in nothing.items()} == {"class": 0.0, "distribution": 0.0}
    assert all(float(value) > 0.01 for value in nanodet_answer_loss(other, same, temperature=2.0).values())
    with pytest.raises(SpecError, match="as the student does"):
        nanodet_answer_loss([(c[:, :2], d) for c, d in same], same, temperature=2.0)


def test_sure_points_of_the_teacher_count_most() -> None:
    classes, distances = random_rows(1)
    classes[0, :, :] = -8.0
    classes[0, 5, 1] = 4.0
    teacher = levels(classes, distances)
    elsewhere, there = distances.clone(), distances.clone()
    elsewhere[0, 6] += functional.one_hot(torch.tensor(3), 32) * 5.0
    there[0, 5] += functional.one_hot(torch.tensor(3), 32) * 5.0
    far = [
        float(nanodet_answer_loss(levels(classes, d), teacher, temperature=2.0)["distribution"])
        for d in (there, elsewhere)
    ]
    assert far[0] > 100 * far[1] > 0
