"""What `bench` asks of an accelerator before it measures: the processor's answers, and int8 where int8 was promised."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgecnn import Bundle, open_runner
from edgecnn.bundle import record_evidence
from edgecnn.bundle.evidence import ParityEvidence, QuantizationEvidence
from edgecnn.errors import DeviceError, ParityError
from edgecnn.formats import runnable
from edgecnn.measure._timing_child import TimingChild
from edgecnn.photographs import photographs
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import Arrays
from tests.builders.formats import require_format

pytestmark = pytest.mark.runtime


@pytest.fixture
def child(tiny_bundle: Path, tmp_path: Path) -> TimingChild:
    """Open on the processor, which stands for an accelerator whose answers a test may spoil."""
    pictures = tmp_path / "pictures.npz"
    np.savez(pictures, *photographs().values())
    opened = TimingChild(spawned_ns=0)
    opened.open(str(tiny_bundle), [runnable()[0], "fp32"], "fp32", "cpu", 1, str(pictures))
    return opened


def spoil(child: TimingChild, change: Callable[[np.ndarray], np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    assert child._runner is not None
    backend = child._runner.backend
    infer = backend.infer

    def spoiled(frame: UInt8Array) -> Arrays:
        return {name: change(values) for name, values in infer(frame).items()}

    monkeypatch.setattr(backend, "infer", spoiled)


def test_the_same_answers_pass_and_are_reported(child: TimingChild) -> None:
    evidence = msgspec.convert(child.agree()["evidence"], ParityEvidence)
    child.close()
    assert evidence.ok
    assert evidence.max_rel_err == 0
    assert evidence.ran_on is not None
    assert evidence.versions["reference"]


def test_answers_in_bfloat16_are_refused_where_fp32_was_asked_for(
    child: TimingChild, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(child, lambda values: (values.view(np.uint32) & 0xFFFF0000).view(np.float32), monkeypatch)
    with pytest.raises(ParityError, match="output 'scores' differs from the CPU by"):
        child.agree()
    child.close()


def test_nonsense_is_refused(child: TimingChild, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(child, lambda values: np.full_like(values, np.nan), monkeypatch)
    with pytest.raises(ParityError, match="inf"):
        child.agree()
    child.close()


@pytest.mark.parametrize("format_name", ["openvino", "tflite"])
def test_an_artifact_that_promises_int8_and_computes_in_float_is_refused(
    format_name: str, tiny_bundle: Path, tmp_path: Path
) -> None:
    require_format(format_name)
    bundle = Bundle.open(shutil.copytree(tiny_bundle, tmp_path / "own.edge"))
    evidence = bundle.artifact(format_name, "fp32").evidence
    made = QuantizationEvidence(
        recipe="static_wi8_ai8", calibration=None, float_layers=(), int8_mac_share=0.9, snr_db={}
    )
    promising = record_evidence(bundle, {(format_name, "fp32"): msgspec.structs.replace(evidence, quantization=made)})
    with pytest.raises(DeviceError, match=r"computes in another precision .*in fp32"):
        open_runner(promising, format=format_name)
