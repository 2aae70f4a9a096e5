"""Detectors and segmenters grown on classifiers: where they are cut, what they keep, and that they convert."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'edgecnn[convert]'")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision import models
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import StochasticDepth

import edgecnn
from edgecnn import Classify, Detect, FrameSpec, Segment, TrainedModel
from edgecnn.errors import SourceError, SpecError, UnknownNameError
from edgecnn.sources import load_model
from edgecnn.sources.grow import HEADS, grow_head
from edgecnn.sources.grow.backbone import find_backbone
from edgecnn.sources.grow.ssdlite import ANCHORS_PER_CELL, SsdliteDetector, anchor_boxes
from edgecnn.sources.rebuild import build

pytestmark = pytest.mark.torch

LABELS = ("cat", "dog", "bird")
SMALL = (96, 128)


def classifier(module: nn.Module) -> TrainedModel:
    frame = FrameSpec(height_px=64, width_px=64, fit="centre-crop", resize_short_px=72, mean=(0.5, 0.4, 0.3))
    return TrainedModel(module=module, frame=frame, task=Classify(labels=("a", "b")), name="own")


def strided(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())


class Plain(nn.Module):
    """Five maps, each half as large as the one before, and a layer that fits one size of frame."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(*(strided(a, b) for a, b in zip((3, 4, 8, 8, 12), (4, 8, 8, 12, 16), strict=True)))
        self.classifier = nn.Linear(16 * 2 * 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(x).flatten(1))  # type: ignore[no-any-return]


class Bottleneck(Plain):
    """A residual block whose narrow inside has the stride of the map before it."""

    def __init__(self) -> None:
        super().__init__()
        self.narrow, self.wide, self.shortcut = nn.Conv2d(12, 3, 1), strided(3, 16), strided(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body[:4](x)
        return self.classifier((self.wide(self.narrow(x)) + self.shortcut(x)).flatten(1))  # type: ignore[no-any-return]


class OtherForLargeFrames(Plain):
    """Decides by its input's size."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] > 100:
            x = torch.nn.functional.max_pool2d(x, 2)
        return super().forward(x)


class DecidesByValues(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Flat(nn.Module):
    """No map of stride 8: from 4 to 16 at once."""

    def __init__(self, stride: int = 4) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 8, 4, stride=stride)
        self.classifier = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.b(self.a(x)).mean((2, 3)))  # type: ignore[no-any-return]


# Of MobileNets and EfficientNets the expansions in front of the strided convolutions count, as the paper has it.
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("torchvision:mobilenet_v2", {8: 192, 16: 576, 32: 1280}),
        ("torchvision:mobilenet_v3_small", {8: 96, 16: 288, 32: 576}),
        ("torchvision:resnet18", {8: 128, 16: 256, 32: 512}),
        ("torchvision:efficientnet_b0", {8: 240, 16: 672, 32: 1280}),
        ("torchvision:mnasnet0_5", {8: 144, 16: 288, 32: 1280}),
        ("torchvision:shufflenet_v2_x0_5", {8: 48, 16: 96, 32: 1024}),
        ("torchvision:regnet_y_400mf", {8: 104, 16: 208, 32: 440}),
        ("torchvision:squeezenet1_1", {8: 256, 16: 512}),
        ("torchvision:densenet121", {8: 256, 16: 512, 32: 1024}),
        ("torchvision:googlenet", {8: 480, 16: 832, 32: 1024}),
        ("efficientnet-lite0", {8: 240, 16: 672, 32: 1280}),
    ],
)
def test_the_last_map_of_each_stride_is_found(name: str, channels: dict[int, int]) -> None:
    size_px = (128, 192)
    backbone = find_backbone(load_model(name), size_px=size_px)
    found = {stride: shape for stride, shape in backbone.shapes.items() if stride >= 8}
    assert {stride: shape[0] for stride, shape in found.items()} == channels
    features = backbone.features(list(channels))
    with torch.no_grad():
        maps = features(torch.zeros(2, 3, *size_px))
    assert [tuple(map_.shape) for map_ in maps] == [(2, *shape) for shape in found.values()]
    if name != "torchvision:squeezenet1_1":  # which doesn't pad
        assert [(h, w) for _, h, w in found.values()] == [(128 // s, 192 // s) for s in channels]


def test_the_maps_are_the_classifiers_own() -> None:
    model = load_model("torchvision:resnet18", size=(96, 96))
    resnet = model.module.eval()
    assert isinstance(resnet, models.ResNet)
    found = find_backbone(model, size_px=(96, 96)).features([16, 32])
    frames, seen = torch.randn(2, 3, 96, 96), []
    for layer in (resnet.layer3, resnet.layer4):
        layer.register_forward_hook(lambda _, __, answer: seen.append(answer))
    with torch.no_grad():
        resnet(frames)
        maps = found(frames)
    for expected, map_ in zip(seen, maps, strict=True):
        torch.testing.assert_close(map_, expected)


def test_a_network_that_pads_for_its_frame_pads_for_the_new_one() -> None:
    """97 px want other padding than the 224 px it was made for."""
    small, large = (load_model("efficientnet-lite0", size=(side, side)) for side in (97, 224))
    small.module.load_state_dict(large.module.state_dict())
    small.module.eval()
    frames, seen = torch.randn(1, 3, 97, 97), []
    last = small.module.get_submodule("act")
    last.register_forward_hook(lambda _, __, answer: seen.append(answer))
    with torch.no_grad():
        small.module(frames)
        (found,) = find_backbone(large, size_px=(97, 97)).features([32]).eval()(frames)
    torch.testing.assert_close(found, seen[-1])


def test_the_inside_of_a_residual_block_is_not_a_feature_map() -> None:
    backbone = find_backbone(classifier(Bottleneck()), size_px=(64, 64))
    assert {stride: shape[0] for stride, shape in backbone.shapes.items()} == {1: 3, 2: 4, 4: 8, 8: 8, 16: 12, 32: 16}


def test_last_layers_made_for_one_size_do_not_matter() -> None:
    grown = grow_head(classifier(Plain()), "ssdlite", labels=LABELS, size=(160, 96))
    with torch.no_grad():
        codes, _, anchors = grown.module(torch.zeros(1, 3, 160, 96))
    assert codes.shape[1] == len(anchors)


def test_what_a_network_decides_by_size_is_decided_for_the_frame() -> None:
    model = classifier(OtherForLargeFrames())
    assert find_backbone(model, size_px=(96, 96)).shapes[16][1:] == (6, 6)
    assert find_backbone(model, size_px=(96, 96)).shapes[16][0] == 12
    assert find_backbone(model, size_px=(128, 128)).shapes[16][0] == 8


@pytest.mark.parametrize(
    ("name", "last"), [("resnet18", "fc"), ("squeezenet1_1", "classifier"), ("vgg11", "classifier")]
)
def test_nothing_of_the_classifiers_last_layers_is_kept(name: str, last: str) -> None:
    with torch.device("meta"):
        whole = getattr(models, name)(num_classes=7, **({"init_weights": False} if name == "vgg11" else {}))
    kept = find_backbone(classifier(whole.to_empty(device="cpu")), size_px=(64, 64))
    features = kept.features([max(kept.shapes)])
    assert not any(isinstance(module, nn.Dropout) for module in features.modules())
    assert set(features.state_dict()) == {key for key in whole.state_dict() if not key.startswith(f"{last}.")}


@pytest.mark.parametrize("head", HEADS)
def test_grown_again_on_other_weights_it_has_the_same_tensors(head: str) -> None:
    model = load_model("torchvision:mobilenet_v3_small")
    given = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    other = load_model("torchvision:mobilenet_v3_small")
    with torch.no_grad():
        for tensor in other.module.parameters():
            tensor.add_(1.0)
    torch.manual_seed(1)
    one = grow_head(model, head, labels=LABELS, size=SMALL).module.state_dict()
    two = grow_head(other, head, labels=LABELS, size=SMALL).module.state_dict()
    assert {name: tensor.shape for name, tensor in one.items()} == {name: tensor.shape for name, tensor in two.items()}
    for name, tensor in one.items():
        _, _, inside = name.partition("body.")
        if inside:
            assert torch.equal(tensor, given[inside]), name
        else:
            assert torch.equal(tensor, two[name]), name
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, given[name])
    assert model.module.training


def test_training_the_grown_network_leaves_the_classifier_alone() -> None:
    model = classifier(Plain())
    before = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    grown = grow_head(model, "lraspp", labels=LABELS, size=(64, 64)).module.train()
    with torch.no_grad():
        grown(torch.randn(2, 3, 64, 64))
        for tensor in grown.parameters():
            tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.module.state_dict().items())


def test_what_it_sees_and_answers() -> None:
    model = load_model("torchvision:mobilenet_v3_small")
    found = grow_head(model, "ssdlite", labels=LABELS)
    assert (found.frame.height_px, found.frame.width_px, found.frame.fit) == (320, 320, "letterbox")
    assert (found.frame.mean, found.frame.std, found.frame.colour) == (
        model.frame.mean,
        model.frame.std,
        model.frame.colour,
    )
    assert found.frame.resize_short_px is None
    assert isinstance(found.task, Detect)
    assert found.task.labels == LABELS
    assert found.task.multi_label
    assert (found.decode, found.name, found.source) == ("ssd", "mobilenet_v3_small-ssdlite", model.source)
    assert found.reference is None
    assert not found.module.training
    assert found.blueprint is not None
    assert (found.blueprint.head, found.blueprint.labels, found.blueprint.size) == ("ssdlite", LABELS, (320, 320))
    segmented = grow_head(model, "lraspp", labels=LABELS, size=SMALL)
    assert (segmented.frame.height_px, segmented.frame.width_px, segmented.frame.fit) == (*SMALL, "stretch")
    assert segmented.task == Segment(labels=LABELS)
    assert segmented.name == "mobilenet_v3_small-lraspp"


def test_its_blueprint_builds_it_again() -> None:
    grown = grow_head(load_model("torchvision:mobilenet_v3_small"), "ssdlite", labels=LABELS, size=SMALL)
    assert grown.blueprint is not None
    again = build(grown.blueprint)
    assert again.blueprint == grown.blueprint
    assert again.frame == grown.frame
    for (name, one), (other, two) in zip(
        grown.module.state_dict().items(), again.module.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(one, two)


def detector(size: tuple[int, int]) -> SsdliteDetector:
    module = grow_head(classifier(Plain()), "ssdlite", labels=LABELS, size=size).module
    assert isinstance(module, SsdliteDetector)
    return module


def test_the_maps_go_down_to_one_cell() -> None:
    module = detector((320, 320))
    with torch.no_grad():
        codes, logits, anchors = module(torch.zeros(2, 3, 320, 320))
    count = ANCHORS_PER_CELL * sum(side**2 for side in (20, 10, 5, 3, 2, 1))
    assert codes.shape == (2, count, 4)
    assert logits.shape == (2, count, 1 + len(LABELS))
    assert anchors.shape == (count, 4)


def test_a_square_frames_anchors_are_torchvisions() -> None:
    grids = [(side, side) for side in (20, 10, 5, 3, 2, 1)]
    reference = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.2, max_ratio=0.95)
    frame = ImageList(torch.zeros(1, 3, 320, 320), [(320, 320)])
    (expected,) = reference(frame, [torch.zeros(1, 1, *grid) for grid in grids])
    torch.testing.assert_close(anchor_boxes((320, 320), grids), expected, atol=1e-3, rtol=0)


@given(
    st.tuples(st.integers(64, 640), st.integers(64, 640)),
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=4),
)
@settings(deadline=None, max_examples=50)
def test_anchors_stand_about_the_centres_of_the_cells_and_squares_are_square(
    size_px: tuple[int, int], grids: list[tuple[int, int]]
) -> None:
    anchors = anchor_boxes(size_px, grids)
    centres = [
        ((column + 0.5) * size_px[1] / columns, (row + 0.5) * size_px[0] / rows)
        for rows, columns in grids
        for row in range(rows)
        for column in range(columns)
    ]
    found = ((anchors[:, :2] + anchors[:, 2:]) / 2).reshape(-1, ANCHORS_PER_CELL, 2)
    torch.testing.assert_close(found, torch.tensor(centres)[:, None].expand_as(found), atol=1e-2, rtol=0)
    width, height = (anchors[:, 2:] - anchors[:, :2]).reshape(-1, ANCHORS_PER_CELL, 2).unbind(dim=2)
    aspect = (width / height)[0].sort().values
    torch.testing.assert_close(aspect, torch.tensor([1 / 3, 1 / 2, 1, 1, 2, 3]), atol=1e-3, rtol=0)


def test_each_answer_belongs_to_its_own_anchor() -> None:
    """A change in one corner of the frame changes answers whose anchors are near that corner first."""
    module = detector((128, 256))
    torch.manual_seed(0)
    frames = torch.zeros(2, 3, 128, 256)
    frames[1, :, 112:, 240:] = torch.randn(3, 16, 16)
    with torch.no_grad():
        codes, logits, anchors = module(frames)
    of_first_map = ANCHORS_PER_CELL * 8 * 16
    for answer in (codes, logits):
        changed = (answer[0] - answer[1]).abs().amax(dim=1)[:of_first_map] > 1e-7
        assert changed.any()
        centres = (anchors[:of_first_map, :2] + anchors[:of_first_map, 2:])[changed] / 2
        assert centres[:, 0].min() > 256 - 5 * 16
        assert centres[:, 1].min() > 128 - 5 * 16


def test_a_batch_of_one_can_be_trained_on() -> None:
    module = detector((96, 96)).train()
    codes, logits, _ = module(torch.randn(1, 3, 96, 96))
    (codes.sum() + logits.sum()).backward()
    assert all(tensor.grad is not None for tensor in module.parameters())


def test_what_a_body_does_in_training_only_is_kept() -> None:
    body = find_backbone(load_model("torchvision:efficientnet_b0"), size_px=(64, 64)).features([8])
    assert any(isinstance(module, StochasticDepth) for module in body.modules())
    assert body.train().training
    assert all(module.training for module in body.modules())


@pytest.mark.parametrize("size", [(64, 64), (100, 180)])
def test_a_segmenter_answers_for_every_pixel(size: tuple[int, int]) -> None:
    grown = grow_head(load_model("torchvision:mobilenet_v3_small"), "lraspp", labels=LABELS, size=size)
    with torch.no_grad():
        logits = grown.module(torch.randn(2, 3, *size))
    assert logits.shape == (2, len(LABELS), *size)
    assert callable(grown.decode)
    assert grown.decode(logits) == (logits,)


@pytest.mark.parametrize("head", HEADS)
def test_it_converts(head: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'edgecnn[convert]'")
    pytest.importorskip("onnxscript", reason="needs onnxscript: pip install 'edgecnn[convert]'")
    grown = grow_head(load_model("torchvision:mobilenet_v3_small"), head, labels=LABELS, size=(96, 96))
    conversion = edgecnn.convert(grown, to=["onnx"], out=tmp_path / "grown.edge")
    assert not conversion.refused, conversion.refused
    assert conversion.bundle is not None
    evidence = conversion.bundle.artifact("onnx", "fp32").evidence.parity
    assert evidence is not None
    assert evidence.ok


def test_only_a_classifier_gets_a_new_head() -> None:
    model = classifier(Plain())
    with pytest.raises(UnknownNameError, match="did you mean ssdlite"):
        grow_head(model, "ssd-lite", labels=LABELS)
    with pytest.raises(SpecError, match="the task of own is segment"):
        grow_head(replace(model, task=Segment(labels=LABELS)), "ssdlite", labels=LABELS)
    with pytest.raises(SpecError, match="needs the names of its classes"):
        grow_head(model, "ssdlite", labels=())
    with pytest.raises(SpecError, match="at least 64 px, got 96x32"):
        grow_head(model, "ssdlite", labels=LABELS, size=(32, 96))
    with pytest.raises(SpecError, match="at most 256 classes, got 257"):
        grow_head(model, "lraspp", labels=[str(i) for i in range(257)], size=(64, 64))


def test_a_network_that_decides_by_values_cannot_be_followed() -> None:
    with pytest.raises(SourceError, match=r"torch.fx cannot trace its forward \(TraceError.*bring-your-own-network"):
        grow_head(classifier(DecidesByValues()), "ssdlite", labels=LABELS, size=(64, 64))


def test_a_network_without_the_maps_says_which_it_has() -> None:
    with pytest.raises(SourceError, match=r"stride 16 or 32 .*strides found: 1, 4, 8"):
        grow_head(classifier(Flat(2)), "ssdlite", labels=LABELS, size=(64, 64))
    with pytest.raises(SourceError, match=r"no map of stride 8 .*strides found: 1, 4, 16"):
        grow_head(classifier(Flat()), "lraspp", labels=LABELS, size=(64, 64))
    assert grow_head(classifier(Flat()), "ssdlite", labels=LABELS, size=(64, 64)).name == "own-ssdlite"


def test_a_network_that_cannot_run_says_why() -> None:
    broken = nn.Sequential(nn.Conv2d(4, 8, 3, stride=2), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(SourceError, match=r"strides found: 1\); its run ended early: .*channels"):
        grow_head(classifier(broken), "ssdlite", labels=LABELS, size=(64, 64))
