"""Learning from a teacher: what an answer and a feature map cost, and which networks can teach which."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")

import msgspec
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_iou

from edgecnn import Classify, Detect, FrameSpec, Segment, TrainedModel
from edgecnn.converters.deployable.decoders.yolox import decode_yolox
from edgecnn.errors import SpecError
from edgecnn.sources.activations import replace_activations
from edgecnn.sources.grow import grow_head
from edgecnn.sources.normalise import normalise
from edgecnn.sources.zoo.yolox import STRIDES_PX, Level, Yolox
from edgecnn.training.attention import attention, attention_loss, layers_in_common, watching
from edgecnn.training.distill import Distiller
from edgecnn.training.settings import Distillation
from edgecnn.training.teacher_answers import (
    classes_answer_loss,
    map_answer_loss,
    softened_divergence,
    ssd_answer_loss,
    yolox_answer_loss,
)

pytestmark = pytest.mark.torch

SIZE_PX, CLASSES = 64, 3
FRAME = FrameSpec(height_px=SIZE_PX, width_px=SIZE_PX, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
LABELS = ("red", "green", "blue")
ANCHORS = torch.tensor([[0.0, 0, 20, 20], [20, 20, 50, 60], [30, 0, 60, 30], [5, 5, 9, 9]])


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def yolox_answer(seed: int, frames: int = 2) -> list[Level]:
    def level(size: int) -> Level:
        box, sure, classes = (noise(frames, width, size, size, seed=seed + size) for width in (4, 1, CLASSES))
        return box, sure, classes

    return [level(SIZE_PX // stride) for stride in STRIDES_PX]


def ssd_answer(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    return noise(2, 4, 4, seed=seed), noise(2, 4, 1 + CLASSES, seed=seed + 1), ANCHORS


# The task's loss, and an answer for each seed.
TASKS: dict[str, tuple[Callable[..., dict[str, Tensor]], Callable[[int], Any]]] = {
    "classify": (
        lambda s, t: classes_answer_loss(s, t, temperature=2.0),
        lambda seed: noise(5, CLASSES, seed=seed),
    ),
    "auxiliary": (
        lambda s, t: classes_answer_loss(s, t[0], temperature=2.0),
        lambda seed: (noise(5, CLASSES, seed=seed), torch.zeros(5, CLASSES)),
    ),
    "segment": (
        lambda s, t: map_answer_loss(s, t, temperature=2.0),
        lambda seed: noise(2, CLASSES, 6, 8, seed=seed),
    ),
    "yolox": (yolox_answer_loss, yolox_answer),
    "ssd": (lambda s, t: ssd_answer_loss(s, t, temperature=2.0), ssd_answer),
}


def each(answer: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest of tensors, each changed; anchors stay."""
    if answer is ANCHORS:
        return answer
    return change(answer) if isinstance(answer, Tensor) else type(answer)(each(part, change) for part in answer)


@pytest.mark.parametrize("task", TASKS)
def test_a_student_that_answers_as_its_teacher_has_nothing_to_learn(task: str) -> None:
    loss_of, answer_of = TASKS[task]
    leaves: list[Tensor] = []

    def leaf(tensor: Tensor) -> Tensor:
        leaves.append(tensor.clone().requires_grad_())
        return leaves[-1]

    teacher = answer_of(7)
    parts = loss_of(each(teacher, leaf), teacher)
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    for name, value in parts.items():
        assert value.shape == () and value.dtype == torch.float32
        assert float(value.detach()) == pytest.approx(0, abs=1e-5), name
    for tensor in leaves:
        if tensor.grad is not None:
            torch.testing.assert_close(tensor.grad, torch.zeros_like(tensor), atol=1e-5, rtol=0)


@pytest.mark.parametrize("task", TASKS)
def test_every_part_falls_as_the_student_comes_nearer(task: str) -> None:
    loss_of, answer_of = TASKS[task]
    teacher = answer_of(7)
    steps = []
    for away in (0.5, 0.25, 0.1):
        generator = torch.Generator().manual_seed(1)

        def moved(tensor: Tensor, away: float = away, generator: torch.Generator = generator) -> Tensor:
            return tensor + away * torch.randn(tensor.shape, generator=generator)

        steps.append(loss_of(each(teacher, moved), teacher))
    for name in steps[0]:
        far, nearer, near = (float(parts[name]) for parts in steps)
        assert far > nearer > near > 0, name


@pytest.mark.parametrize("task", TASKS)
def test_half_precision_answers_are_compared_in_full(task: str) -> None:
    loss_of, answer_of = TASKS[task]
    student, teacher = each(answer_of(1), Tensor.half), each(answer_of(7), Tensor.half)
    for value in loss_of(student, teacher).values():
        assert value.dtype == torch.float32 and torch.isfinite(value)


def test_a_temperature_softens_and_its_square_keeps_the_gradients_size() -> None:
    student, teacher = noise(4, 10).requires_grad_(), noise(4, 10, seed=1)
    softened = functional.kl_div(
        (student / 3).log_softmax(1), (teacher / 3).softmax(1), reduction="batchmean", log_target=False
    )
    ours = softened_divergence(student, teacher, temperature=3.0, dim=1).mean()
    torch.testing.assert_close(ours, 9 * softened)
    sizes = []
    for temperature in (20.0, 40.0):  # so high that the divergence is that of logits, whatever the temperature
        loss = softened_divergence(student, teacher, temperature=temperature, dim=1).sum()
        (gradient,) = torch.autograd.grad(loss, student)
        sizes.append(float(gradient.norm()))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_maps_of_other_sizes_are_compared_at_the_smaller_one() -> None:
    small = noise(1, CLASSES, 4, 6)
    large = functional.interpolate(small, size=(8, 12), mode="nearest")
    for student, teacher in ((small, large), (large, small)):
        assert float(map_answer_loss(student, teacher, temperature=1.0)["class"]) == pytest.approx(0, abs=1e-6)
    assert float(map_answer_loss(small, -large, temperature=1.0)["class"]) > 0.1


@given(st.integers(0, 2**20))
@settings(max_examples=25, deadline=None)
def test_yoloxs_boxes_cost_by_their_overlap_in_the_frame(seed: int) -> None:
    student, teacher = yolox_answer(seed, 1), yolox_answer(seed + 1, 1)
    boxes, sure = [], []
    for answer in (student, teacher):
        boxes.append(decode_yolox(answer)[0][0])
        sure.append(torch.cat([level[1].sigmoid().flatten() for level in answer]))
    overlaps = box_iou(*boxes).diagonal()
    weights = sure[1]
    expected = 5 * (weights * (1 - overlaps**2)).sum() / weights.sum()
    torch.testing.assert_close(yolox_answer_loss(student, teacher)["box"], expected, rtol=1e-3, atol=1e-3)


def test_of_what_a_yolox_teacher_takes_for_ground_only_that_is_learned() -> None:
    teacher = [(box, torch.full_like(sure, -40.0), classes) for box, sure, classes in yolox_answer(0)]
    parts = yolox_answer_loss(yolox_answer(5), teacher)
    assert [float(parts[name]) for name in ("box", "class")] == pytest.approx([0, 0], abs=1e-6)
    assert float(parts["objectness"]) > 1


def test_of_what_an_ssd_teacher_takes_for_ground_only_that_is_learned() -> None:
    codes, logits, anchors = ssd_answer(0)
    ground = torch.tensor([40.0, 0, 0, 0]).expand_as(logits)
    parts = ssd_answer_loss(ssd_answer(5), (codes, ground, anchors), temperature=1.0)
    assert float(parts["box"]) == pytest.approx(0, abs=1e-6)
    assert float(parts["class"]) > 1


@pytest.mark.parametrize("task", ["yolox", "ssd"])
def test_more_frames_of_the_same_cost_the_same(task: str) -> None:
    """Many are sure here, so that the sum they are divided by is above 1."""
    loss_of, answer_of = TASKS[task]
    student, teacher = answer_of(1), answer_of(2)

    def twice(tensor: Tensor) -> Tensor:
        return torch.cat((tensor, tensor))

    once, again = loss_of(student, teacher), loss_of(each(student, twice), each(teacher, twice))
    for name, value in once.items():
        torch.testing.assert_close(again[name], value)


@pytest.mark.parametrize(
    ("task", "teacher"),
    [
        ("classify", noise(5, CLASSES + 1)),
        ("segment", noise(2, CLASSES + 1, 6, 8)),
        ("yolox", noise(2, 84, 5 + CLASSES)),  # boxes already decoded, as some networks do outside training
        ("yolox", yolox_answer(0)[:2]),
        ("ssd", (noise(2, 5, 4), noise(2, 5, 1 + CLASSES), noise(5, 4))),
    ],
)
def test_answers_of_another_form_are_refused(task: str, teacher: Any) -> None:
    loss_of, answer_of = TASKS[task]
    with pytest.raises(SpecError, match=r"the teacher must answer as the student does, \[.*\]; it answers \["):
        loss_of(answer_of(0), teacher)


def test_other_anchors_are_refused() -> None:
    codes, logits, anchors = ssd_answer(0)
    with pytest.raises(SpecError, match="other anchors"):
        ssd_answer_loss((codes, logits, anchors), (codes, logits, anchors + 8), temperature=1.0)


# Features


def test_attention_does_not_care_about_count_order_and_scale_of_channels() -> None:
    features = noise(2, 6, 4, 5)
    shuffled = torch.cat((features.flip(1) * 3, torch.zeros(2, 2, 4, 5)), dim=1)
    torch.testing.assert_close(attention(features), attention(shuffled))
    torch.testing.assert_close(attention(features).norm(dim=1), torch.ones(2))
    assert attention(features).shape == (2, 20)


def test_looking_elsewhere_costs_two_at_most_and_looking_at_the_same_nothing() -> None:
    here, there = torch.zeros(1, 3, 2, 2), torch.zeros(1, 5, 2, 2)
    here[:, :, 0, 0], there[:, :, 1, 1] = 1.0, 7.0
    maps = {"a": attention(here), "more": attention(there)}
    assert float(attention_loss({"a": attention(here)}, maps)) == 0
    assert float(attention_loss({"a": attention(there)}, maps)) == pytest.approx(2)


def test_a_map_of_zeros_has_a_gradient_that_is_a_number() -> None:
    features = torch.zeros(1, 3, 2, 2, requires_grad=True)
    attention_loss({"a": attention(features)}, {"a": attention(noise(1, 3, 2, 2))}).backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None and torch.isfinite(features.grad).all()


class Unit(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, stride: int, activation: nn.Module) -> None:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        super().__init__(convolution, nn.BatchNorm2d(outputs), activation)


class Net(nn.Module):
    """Two maps of 32, one of 16 (with a gate from the whole frame), and a prediction for each class and place."""

    def __init__(self, width: int = 8, *, body: str = "body", classes: int = CLASSES) -> None:
        super().__init__()
        torch.manual_seed(width)
        units = (Unit(3, width, 2, nn.SiLU()), Unit(width, width, 1, nn.SiLU()), Unit(width, 2 * width, 2, nn.SiLU()))
        setattr(self, body, nn.Sequential(*units))
        self.body_name = body
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2 * width, 2 * width, 1), nn.Sigmoid())
        self.predict = nn.Conv2d(2 * width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = getattr(self, self.body_name)(x)
        features *= self.gate(features)  # in place: the gradient of what was kept must not mind
        return self.predict(features)  # type: ignore[no-any-return]


class Pooled(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(dim=(2, 3))


def segmenter(width: int = 8, **options: Any) -> TrainedModel:
    return TrainedModel(module=Net(width, **options).eval(), frame=FRAME, task=Segment(labels=LABELS), name=f"n{width}")


def classifier(width: int = 8) -> TrainedModel:
    return TrainedModel(module=Pooled(width).eval(), frame=FRAME, task=Classify(labels=LABELS), name=f"c{width}")


def yolox(width: float = 0.125, *, size_px: int = SIZE_PX) -> TrainedModel:
    torch.manual_seed(int(width * 1000))
    module = Yolox(depth=0.33, width=width, depthwise=False, classes=CLASSES).eval()
    frame = msgspec.structs.replace(FRAME, height_px=size_px, width_px=size_px)
    return TrainedModel(module=module, frame=frame, task=Detect(labels=LABELS), decode="yolox", name=f"y{width}")


def ssd(width: int = 8) -> TrainedModel:
    torch.manual_seed(width)
    units = [Unit(3 if stride == 0 else width, width, 2, nn.ReLU()) for stride in range(4)]
    body = nn.Sequential(*units, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 2)).eval()
    task = Classify(labels=("a", "b"))
    return grow_head(TrainedModel(module=body, frame=FRAME, task=task), "ssdlite", labels=LABELS, size=(64, 64))


def test_the_last_named_norm_or_activation_of_each_size_is_compared() -> None:
    layers = layers_in_common(Net(8), Net(16), torch.zeros(1, 3, 64, 64))
    assert layers == ("body.1.2", "body.2.2")


def test_channels_where_a_map_has_its_width_are_not_taken_for_places() -> None:
    class ChannelsLast(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm = nn.Conv2d(3, 96, 4, 4), nn.LayerNorm(96)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.first(x).permute(0, 2, 3, 1))  # type: ignore[no-any-return]

    assert layers_in_common(ChannelsLast(), ChannelsLast(), torch.zeros(1, 3, 64, 64)) == ()


def test_watching_leaves_nothing_on_the_network() -> None:
    network = Net().train()
    network.gate.eval()
    before = copy.deepcopy(network.state_dict())
    layers = layers_in_common(network, Net(), torch.zeros(1, 3, 64, 64))
    for name, tensor in network.state_dict().items():
        assert tensor.equal(before[name]), name
    with watching(network, layers) as seen:
        network(noise(2, 3, 64, 64)).sum().backward()
    assert {name: tuple(looked.shape) for name, looked in seen.items()} == {"body.1.2": (2, 1024), "body.2.2": (2, 256)}
    assert network.training and not network.gate.training
    assert not any(layer._forward_hooks for layer in network.modules())


# Distiller


def frames(count: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (count, 3, 8, 8), generator=generator).float()
    return functional.interpolate(coarse, scale_factor=8.0).permute(0, 2, 3, 1).to(torch.uint8)


PAIRS: dict[str, Callable[[], tuple[TrainedModel, TrainedModel]]] = {
    "classify": lambda: (classifier(8), classifier(16)),
    "segment": lambda: (segmenter(8), segmenter(16)),
    "yolox": lambda: (yolox(0.125), yolox(0.25)),
    "ssd": lambda: (ssd(8), ssd(16)),
    "other activations": lambda: (replace_activations(yolox(0.125), "relu6"), yolox(0.25)),
}
PARTS = {
    "classify": {"teacher_class"},
    "segment": {"teacher_class"},
    "yolox": {"teacher_box", "teacher_objectness", "teacher_class"},
    "ssd": {"teacher_box", "teacher_class"},
    "other activations": {"teacher_box", "teacher_objectness", "teacher_class"},
}


@pytest.mark.parametrize("learned", [{}, {"outputs": 0.0}], ids=["all", "features alone"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_narrower_student_comes_nearer_to_its_teacher(pair: str, learned: dict[str, float]) -> None:
    student, teacher = PAIRS[pair]()
    distiller = Distiller(teacher, student, Distillation(**learned))
    network = copy.deepcopy(student.module).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(16):
        with distiller.watching(network):
            answer = network(normalise(frames(), student.frame))
        parts = distiller(frames(), answer)
        assert set(parts) == {*(() if learned else PARTS[pair]), "teacher_features"}
        losses.append(torch.stack(list(parts.values())).sum())
        optimizer.zero_grad()
        losses[-1].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert float(losses[-1].detach()) < 0.95 * float(losses[0].detach())


def test_the_network_itself_as_teacher_has_nothing_to_teach() -> None:
    model = yolox()
    distiller = Distiller(model, model, Distillation())
    with distiller.watching(model.module):
        answer = model.module(normalise(frames(), model.frame))
    for name, value in distiller(frames(), answer).items():
        assert float(value.detach()) == pytest.approx(0, abs=1e-4), name


def test_a_teacher_sees_the_students_frames_in_its_own_normalisation_and_does_not_change() -> None:
    student, teacher = classifier(8), classifier(16)
    teacher = replace(teacher, frame=msgspec.structs.replace(FRAME, colour="bgr", scale=1.0, mean=(0.0,) * 3))
    before = copy.deepcopy(teacher.module.state_dict())
    distiller = Distiller(teacher, student, Distillation())
    seen: list[Tensor] = []
    distiller._network.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0]))
    network = student.module.train()
    with distiller.watching(network):
        answer = network(noise(4, 3, 64, 64))
    torch.stack(list(distiller(frames(), answer).values())).sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(seen[0], frames().permute(0, 3, 1, 2).float() / 0.25)
    for name, tensor in teacher.module.state_dict().items():
        assert tensor.equal(before[name]), name
    assert all(parameter.grad is None for parameter in distiller._network.parameters())


def test_factors_scale_their_parts_and_zero_leaves_them_out() -> None:
    student, teacher = classifier(8), classifier(16)

    def parts(**words: float) -> dict[str, float]:
        distiller = Distiller(teacher, student, Distillation(**words))
        with distiller.watching(student.module):
            answer = student.module(noise(4, 3, 64, 64))
        return {name: float(value.detach()) for name, value in distiller(frames(), answer).items()}

    plain, scaled = parts(), parts(outputs=3.0, features=0.5)
    assert scaled["teacher_class"] == pytest.approx(3 * plain["teacher_class"])
    assert scaled["teacher_features"] == pytest.approx(0.5 * plain["teacher_features"])
    assert set(parts(outputs=0.0)) == {"teacher_features"}
    assert set(parts(features=0.0)) == {"teacher_class"}


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (classifier, segmenter, "must classify as c8 does, but n8 is to segment"),
        (
            classifier,
            lambda: replace(classifier(16), task=Classify(labels=("green", "red", "blue"))),
            r"classes of c8 in their order, 3 \(red, green, blue\); c16 has 3 \(green, red, blue\)",
        ),
        (
            yolox,
            lambda: replace(yolox(), decode="ssd"),
            r"decode as those of y0.125 do \(yolox\).* differently \(ssd\)",
        ),
        (yolox, lambda: yolox(size_px=96), "frames of 64x64 px as y0.125 does, but y0.125 takes 96x96"),
        (segmenter, lambda: segmenter(body="trunk"), r"no features of n8 can be compared.*features = 0"),
        (segmenter, lambda: segmenter(classes=4), r"must answer as the student does, \[1, 3, 16, 16\]"),
    ],
)
def test_a_network_that_cannot_teach_is_refused(
    student: Callable[[], TrainedModel], teacher: Callable[[], TrainedModel], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        Distiller(teacher(), student(), Distillation())


def test_networks_without_a_layer_in_common_learn_from_answers() -> None:
    distiller = Distiller(segmenter(body="trunk"), segmenter(), Distillation(features=0.0))
    assert distiller.layers == ()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"outputs": -1.0}, r"distillation\.outputs must be 0 or more, got -1.0"),
        ({"features": float("inf")}, r"distillation\.features must be 0 or more, got inf"),
        ({"temperature": 0.0}, r"distillation\.temperature must be positive, got 0.0"),
        ({"outputs": 0.0, "features": 0.0}, "nothing would be learned"),
    ],
)
def test_settings_that_cannot_be_are_refused(words: dict[str, float], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Distillation(**words)
