"""NNCF, without its usage reports: a float OpenVINO graph in, the same with every layer quantized out."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Collection, Sequence
from typing import Any

from edgecnn._quiet import quiet
from edgecnn.converters.int8.openvino_graph import LAYER_TYPES, Model
from edgecnn.errors import ConversionError
from edgecnn.results import UInt8Array

_REPORTER = "openvino_telemetry"
_REPORTING = ("nncf.telemetry", "nncf.telemetry.wrapper", "nncf.telemetry.decorator")


class _Silence:
    """Stands where NNCF has what reports its use: takes every call, does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def import_nncf() -> Any:
    """The nncf module, which cannot report its use.

    NNCF reports through another package as soon as that is installed, and has no setting against it that works
    everywhere. Here it is imported as if that package weren't there; if the program has imported it before, its
    reporter is replaced.
    """
    absent = object()
    reporter = sys.modules.get(_REPORTER, absent)
    sys.modules[_REPORTER] = None  # type: ignore[assignment] # an import of it now fails
    try:
        with quiet("NNCF's import"):
            nncf = importlib.import_module("nncf")
    finally:
        if reporter is absent:
            del sys.modules[_REPORTER]
        else:
            sys.modules[_REPORTER] = reporter  # type: ignore[assignment]
    silence = _Silence()
    for name in _REPORTING:
        vars(importlib.import_module(name))["telemetry"] = silence
    return nncf


def quantize_layers(model: Model, frames: Sequence[UInt8Array], operators: Collection[str]) -> Model:
    """A copy of `model` in which every layer reads a FakeQuantize and int8 weights, symmetric, one scale a channel.

    Args:
        model: float32.
        frames: for NNCF's own ranges.
        operators: names of the layers' operators; nothing else is quantized.

    Raises:
        ConversionError: NNCF failed.
    """
    nncf = import_nncf()
    nodes = model.get_ops()
    weightless = {node.get_type_name() for node in nodes} - LAYER_TYPES
    unknown = [
        node.get_friendly_name()
        for node in nodes
        if node.get_type_name() in LAYER_TYPES and node.get_friendly_name() not in operators
    ]
    settings = nncf.AdvancedQuantizationParameters(
        # All 8 bits for the first layer's weights too. NNCF leaves one unused there for processors without VNNI, whose
        # 16-bit sums may overflow; YOLOX-nano's AP would be .318 instead of .332.
        overflow_fix=nncf.OverflowFix.DISABLE,
        # Its fast bias correction leaves out depthwise layers, and made EfficientNet-Lite0 worse: scores at 22.2 dB,
        # without it 23.4, with edgecnn's own 24.4 (32 frames, NNCF's ranges for all three).
        disable_bias_correction=True,
    )
    try:
        # Its progress bar goes where Python's stdout is, which need not be the process's.
        with quiet("NNCF"), contextlib.redirect_stdout(io.StringIO()):
            quantized = nncf.quantize(
                model,
                nncf.Dataset(list(frames)),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(frames),
                ignored_scope=nncf.IgnoredScope(types=sorted(weightless), names=unknown, validate=False),
                advanced_parameters=settings,
            )
    except Exception as failed:
        lines = str(failed).strip().splitlines() or ["no message"]
        raise ConversionError(f"NNCF failed on this graph: {type(failed).__name__}: {lines[0]}") from failed
    if quantized.has_rt_info("nncf"):
        del quantized.rt_info["nncf"]  # its settings, of which the ranges' don't hold for what becomes of this
    return quantized
