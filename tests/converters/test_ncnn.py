"""ncnn: what its converter rewrites and refuses, and what its back end makes of files and frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import edgecnn
from edgecnn.errors import DeviceError
from edgecnn.frame import FrameSpec
from edgecnn.sources import TrainedModel
from edgecnn.tasks import Classify, Segment

pytest.importorskip("ncnn")
pytest.importorskip("pnnx")

from edgecnn.converters.ncnn import NcnnForms
from edgecnn.converters.ncnn_weights import in_half, read_blocks
from edgecnn.formats.devices import parse_device
from edgecnn.runners.ncnn.backend import open_net, planes_of
from edgecnn.runners.ncnn.param import Layer, read_layers

pytestmark = pytest.mark.torch

SPEC = FrameSpec(height_px=24, width_px=32, fit="stretch")


class Gathers(nn.Module):
    """A segmenter that picks rows and columns by index, as ESPNetv2's pyramid does."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.register_buffer("rows", torch.tensor([0, 5, 5, 9]))
        self.register_buffer("columns", torch.tensor([31, 2, 2]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        picked: torch.Tensor = self.body(x).index_select(2, self.rows).index_select(3, self.columns)
        return picked


def model(module: nn.Module, *, task: Segment | Classify) -> TrainedModel:
    return TrainedModel(module=module.eval(), frame=SPEC, task=task, name="toy")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    out = tmp_path_factory.mktemp("ncnn") / "toy.edge"
    made = edgecnn.convert(model(Gathers(), task=Segment(labels=tuple("abcd"))), to=["ncnn"], out=out)
    assert made.refused == ()
    return out


def test_rows_and_columns_by_index_are_a_product_of_the_same_numbers() -> None:
    torch.manual_seed(0)
    network, x = Gathers(), torch.rand(1, 3, 24, 32)
    expected = network(x)
    with NcnnForms():
        assert torch.equal(network(x), expected)


def test_a_segmenter_answers_as_torch_does_and_its_file_names_its_blobs(segmenter: Path) -> None:
    bundle = edgecnn.Bundle.open(segmenter)
    artifact = bundle.artifact("ncnn", "fp32")
    assert [Path(file.path).suffix for file in artifact.files] == [".param", ".bin"]
    assert artifact.evidence.parity is not None and artifact.evidence.parity.ok
    layers = read_layers(bundle.checked_path(artifact))
    assert layers[0].writes == ("frame",)
    assert "logits" in layers[-1].writes


def test_layers_are_timed_in_the_order_in_which_they_run(segmenter: Path) -> None:
    report = edgecnn.bench(segmenter, format="ncnn", iterations=3, layers=True, record=False)
    assert report.failures == ()
    layers = report.results[0].layers
    assert {"Convolution"} <= {layer.kind for layer in layers}
    assert sum(layer.share for layer in layers) == pytest.approx(1, abs=1e-3)


class Mixed(nn.Module):
    """Layers of each kind that has weights, two of them with the same; its first has weights below 6e-5."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.slope = nn.PReLU(8)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.one, self.two = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.two.weight = nn.Parameter(self.one.weight.detach().clone())
        self.head = nn.Linear(8, 4)
        nn.init.normal_(self.stem.weight, std=0.03)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.slope(self.depthwise(50 * self.stem(x)))
        x = self.two(torch.relu(self.one(self.up(x))))
        answer: torch.Tensor = self.head(10 * x.mean(dim=(2, 3)))
        return answer


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> edgecnn.Bundle:
    torch.manual_seed(3)
    out = tmp_path_factory.mktemp("mixed") / "mixed.edge"
    toy = model(Mixed(), task=Classify(labels=tuple("abcd")))
    made = edgecnn.convert(toy, to=["ncnn", "onnx"], precision=("fp32", "fp16"), out=out)
    assert made.refused == ()
    assert made.bundle is not None
    return made.bundle


def test_layers_have_the_torch_networks_names_as_in_other_formats(mixed: edgecnn.Bundle) -> None:
    report = edgecnn.bench(mixed, iterations=2, precision="fp32", threads=1, layers=True, record=False)
    assert report.failures == ()
    expected = {"stem", "depthwise", "up", "one", "two", "head"}
    for result in report.results:
        shared = {"two"} if result.format == "onnx" else set()  # an ONNX file holds equal weights once
        assert expected - shared <= {layer.name for layer in result.layers}, result.format


def test_half_precision_keeps_small_weights(mixed: edgecnn.Bundle) -> None:
    # What pnnx itself stores in half precision has zeros where a weight is below the smallest normal half.
    fp32, fp16 = (mixed.checked_path(mixed.artifact("ncnn", precision)) for precision in ("fp32", "fp16"))
    layers = read_layers(fp32)
    blocks = read_blocks(layers, fp32.with_suffix(".bin").read_bytes())
    assert blocks is not None
    stem = next(block.weights for block in blocks if block.weights is not None)
    assert (np.abs(stem) < 6e-5).any()
    assert in_half(blocks) == fp16.with_suffix(".bin").read_bytes()
    assert len(in_half(blocks)) < 0.7 * fp32.with_suffix(".bin").stat().st_size
    parity = mixed.artifact("ncnn", "fp16").evidence.parity
    assert parity is not None and parity.max_rel_err < 5e-3


def test_a_weights_file_of_an_unknown_layout_is_left_as_it_is() -> None:
    layer = Layer("Convolution", "a", ("x",), ("y",), {0: "2", 5: "1", 6: "4"})
    whole = bytes(4) + np.arange(6, dtype="<f4").tobytes()
    assert read_blocks([layer], whole) is not None
    assert read_blocks([layer], whole + bytes(4)) is None  # a layer that is not known here has weights
    assert read_blocks([layer], whole[:-4]) is None
    assert read_blocks([layer], b"quan" + whole[4:]) is None


def test_a_weight_that_half_precision_cannot_hold_stays_float() -> None:
    layer = Layer("InnerProduct", "a", ("x",), ("y",), {0: "1", 2: "3"})
    whole = bytes(4) + np.array([1, 7e4, 3], "<f4").tobytes()
    blocks = read_blocks([layer], whole)
    assert blocks is not None and in_half(blocks) == whole


def test_a_frame_becomes_float_planes_in_its_own_order() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(np.array(planes_of(frame)), frame.transpose(2, 0, 1).astype(np.float32))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7767517",
        "1234567\n1 1\nInput in0 0 1 frame\n",
        "7767517\n1 1\nInput in0 0 9 frame\n",
        "7767517\n1 1\nInput x\n",
    ],
    ids=["empty", "cut off", "another magic", "too few blobs", "no counts"],
)
def test_a_damaged_graph_is_refused_with_its_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "model.param"
    path.write_text(text)
    with pytest.raises(DeviceError, match=r"model\.param is not an ncnn graph"):
        read_layers(path)


def test_an_operator_that_ncnn_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.param"
    path.write_text("7767517\n2 2\nInput in0 0 1 frame\ntorch.fancy f 1 1 frame out0\n")
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(DeviceError, match=r"torch\.fancy"):
        open_net(path, device=parse_device("cpu"), threads=1)


def test_int8_is_refused_with_the_reason(segmenter: Path) -> None:
    with pytest.raises(edgecnn.EdgeCnnError, match="ncnn"):
        edgecnn.quantize(segmenter, to=["ncnn"], calibration=segmenter)
