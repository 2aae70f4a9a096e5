"""NanoDet-Plus in the zoo: published files load strictly, and it answers as its published graph does."""

from __future__ import annotations

import math
import re
from pathlib import Path

import cv2
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from edgecnn.converters.deployable.decoders.nanodet import decode_nanodet
from edgecnn.converters.deployable.wrapper import Deployable
from edgecnn.errors import WeightsError
from edgecnn.sources.load import load_model
from edgecnn.sources.normalise import normalise
from edgecnn.sources.zoo import ZOO
from edgecnn.sources.zoo.nanodet import STRIDES_PX, Level, NanoDetPlus
from edgecnn.sources.zoo.nanodet_weights import published_weights
from edgecnn.training.folded_norms import has_folded_norms, with_unfolded_norms
from tests.builders.ncnn_text import run_ncnn_text

pytestmark = pytest.mark.torch

FILE = "models/nanodet-plus-m/nanodet_plus_m_416.safetensors"


def small(classes: int = 3) -> NanoDetPlus:
    return NanoDetPlus(channels=(16, 32, 48), width=16, classes=classes).eval()


def checkpoint(network: NanoDetPlus) -> dict[str, Tensor]:
    """Its tensors under the names of the publisher's checkpoints: one last convolution for both, parts for training."""
    state = network.state_dict()
    tensors = {name: tensor for name, tensor in state.items() if ".gfl_" not in name}
    for name, tensor in state.items():
        if ".gfl_cls." in name:
            tensors[name] = torch.cat((tensor, state[name.replace("gfl_cls", "gfl_reg")]))
    return {
        **tensors,
        "aux_fpn.reduce_layers.0.conv.weight": torch.zeros(3),
        "aux_head.scales.0.scale": torch.ones(()),
        "head.distribution_project.project": torch.arange(8.0),
    }


def differs(a: nn.Module, b: nn.Module) -> list[str]:
    theirs = b.state_dict()
    return [name for name, tensor in a.state_dict().items() if not torch.equal(tensor, theirs[name])]


def test_the_published_export_loads_and_answers_as_its_own_graph_does(shared: Path) -> None:
    model = load_model("nanodet-plus-m", weights=shared / FILE)
    picture = cv2.imread(str(sorted((shared / "data/coco128/val/images").glob("*.jpg"))[0]))
    assert picture is not None
    frame = torch.from_numpy(cv2.resize(picture, (416, 416)))[None]
    mean, deviation = torch.tensor([103.53, 116.28, 123.675]), torch.tensor([57.375, 57.12, 58.395])
    x = ((frame.float() - mean) / deviation).permute(0, 3, 1, 2)
    with torch.inference_mode():
        rows = run_ncnn_text((shared / FILE).with_suffix(".param"), load_file(shared / FILE), x)
        boxes, scores = Deployable(model)(frame)
    torch.testing.assert_close(scores, rows[..., :80], rtol=0, atol=1e-5)
    points = [(x * s, y * s, s) for s in STRIDES_PX for y in range(-(-416 // s)) for x in range(-(-416 // s))]
    for anchor in range(0, len(points), 41):
        x_px, y_px, stride = points[anchor]
        sides = rows[0, anchor, 80:].double().reshape(4, 8).exp()
        left, top, right, bottom = [float((side * torch.arange(8)).sum() / side.sum()) * stride for side in sides]
        expected = [x_px - left, y_px - top, x_px + right, y_px + bottom]
        assert boxes[0, anchor].tolist() == pytest.approx(expected, abs=0.01)


def test_an_export_is_for_the_size_of_its_network(shared: Path) -> None:
    with pytest.raises(WeightsError, match="another shape"):
        load_model("nanodet-plus-m-1.5x", weights=shared / FILE)


@pytest.mark.parametrize("prefix", ["", "model.", "avg_model."])
def test_the_publishers_checkpoints_load_strictly(prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    trained = NanoDetPlus(**ZOO["nanodet-plus-m"].arguments)
    tensors = {f"{prefix}{name}": tensor for name, tensor in checkpoint(trained).items()}
    if prefix == "avg_model.":  # such files have the raw weights, too
        tensors |= {f"model.{name}": torch.zeros_like(tensor) for name, tensor in checkpoint(trained).items()}
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "nanodet.ckpt")
    assert not differs(load_model("nanodet-plus-m", weights=tmp_path / "nanodet.ckpt").module, trained)


def test_weights_saved_by_us_load_again(tmp_path: Path) -> None:
    network = NanoDetPlus(**ZOO["nanodet-plus-m"].arguments)
    torch.save(network.state_dict(), tmp_path / "own.pth")
    assert not differs(load_model("nanodet-plus-m", weights=tmp_path / "own.pth").module, network)


def test_a_cut_off_export_is_refused(shared: Path) -> None:
    tensors = load_file(shared / FILE)
    module = NanoDetPlus(**ZOO["nanodet-plus-m"].arguments)
    with pytest.raises(WeightsError, match=r"no weight or no bias of Conv_513"):
        published_weights({name: t for name, t in tensors.items() if name != "Conv_513.bias"}, module)
    with pytest.raises(WeightsError, match=r"109 convolutions, and the network 110"):
        published_weights({name: t for name, t in tensors.items() if not name.startswith("Conv_513.")}, module)


# Without the guiding part, which the published 4.7 and 2.44 M (m-1.5x) don't count either.
@pytest.mark.parametrize(("size", "millions"), [("m", 1.17), ("m-1.5x", 2.44)])
def test_it_has_as_many_parameters_as_published(size: str, millions: float) -> None:
    with torch.device("meta"):
        network = NanoDetPlus(**ZOO[f"nanodet-plus-{size}"].arguments)
    assert sum(parameter.numel() for parameter in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.03)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 160), (416, 320)])
def test_maps_follow_the_input_size(height: int, width: int) -> None:
    with torch.no_grad():
        levels = small()(torch.rand(2, 3, height, width))
    for (classes, distances), stride in zip(levels, STRIDES_PX, strict=True):
        cells = (math.ceil(height / stride), math.ceil(width / stride))
        assert classes.shape == (2, 3, *cells)
        assert distances.shape == (2, 32, *cells)


def test_decoded_boxes_and_scores_agree_with_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    levels: list[Level] = [
        (torch.randn(2, 3, h, w, generator=generator), torch.randn(2, 32, h, w, generator=generator) * 3)
        for h, w in ((8, 12), (4, 6), (2, 3), (1, 2))
    ]
    boxes, scores = decode_nanodet(levels)
    expected_boxes, expected_scores = [], []
    for (classes, distances), stride in zip(levels, STRIDES_PX, strict=True):
        for y in range(classes.shape[2]):
            for x in range(classes.shape[3]):
                far = []
                for side in range(4):
                    weights = [math.exp(logit) for logit in distances[1, 8 * side : 8 * side + 8, y, x].tolist()]
                    far.append(sum(bin_ * w for bin_, w in enumerate(weights)) / sum(weights) * stride)
                expected_boxes.append(
                    [x * stride - far[0], y * stride - far[1], x * stride + far[2], y * stride + far[3]]
                )
                expected_scores.append([1 / (1 + math.exp(-logit)) for logit in classes[1, :, y, x].tolist()])
    torch.testing.assert_close(boxes[1], torch.tensor(expected_boxes), rtol=1e-5, atol=1e-3)
    torch.testing.assert_close(scores[1], torch.tensor(expected_scores), rtol=1e-5, atol=1e-6)


def test_norms_from_an_export_norm_again_for_training_and_answer_as_before(shared: Path) -> None:
    model = load_model("nanodet-plus-m", weights=shared / FILE, size=(96, 96))
    assert has_folded_norms(model.module)
    frames = [torch.randint(0, 256, (96, 96, 3), dtype=torch.uint8).numpy() for _ in range(4)]
    again = with_unfolded_norms(model, frames)
    assert not has_folded_norms(again.module)
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        for before, after in zip(model.module.eval()(x), again.module(x), strict=True):
            for a, b in zip(before, after, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    seen = torch.cat([normalise(torch.from_numpy(frame[None]), model.frame) for frame in frames])
    with torch.no_grad():
        settled, learning = again.module(seen), again.module.train()(seen)
    for level in range(4):  # the statistics of the batch are those that the norms have
        torch.testing.assert_close(learning[level][0], settled[level][0], rtol=1e-2, atol=1e-2)


def test_names_are_those_of_the_publishers_files() -> None:
    """A sample of them, by what kind of part they are of."""
    names = set(small().state_dict())
    published = """backbone.conv1.0.weight backbone.stage2.0.branch1.3.running_mean backbone.stage4.3.branch2.6.bias
        fpn.reduce_layers.2.bn.weight fpn.top_down_blocks.1.blocks.0.ghost2.cheap_operation.0.weight
        fpn.bottom_up_blocks.0.blocks.0.shortcut.3.bias fpn.downsamples.1.pwnorm.weight
        fpn.extra_lvl_out_conv.0.depthwise.weight head.cls_convs.3.1.pointwise.weight head.gfl_cls.2.bias"""
    assert set(re.split(r"\s+", published)) <= names
