"""Quantizes every layer of a float OpenVINO graph with NNCF, with NNCF's usage reports turned off."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Collection, Sequence
from typing import Any

from edgecnn.converters.int8.openvino.graph import LAYER_TYPES, Model
from edgecnn.errors import ConversionError
from edgecnn.results import UInt8Array
from edgecnn.runners.openvino.core import kept_signal_stack
from edgecnn.tool_output import quiet

_REPORTER = "openvino_telemetry"
_REPORTING = ("nncf.telemetry", "nncf.telemetry.wrapper", "nncf.telemetry.decorator")


class _Silence:
    """Replaces NNCF's usage reporter: accepts every call and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def import_nncf() -> Any:
    """The nncf module, with its usage reports turned off.

    NNCF sends reports through another package as soon as that is installed, and no setting turns this off everywhere.
    So nncf is imported as if that package were missing; if the program has imported nncf before, its reporter is
    replaced.
    """
    absent = object()
    reporter = sys.modules.get(_REPORTER, absent)
    sys.modules[_REPORTER] = None  # type: ignore[assignment] # makes its import fail
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
        frames: frames for NNCF's own ranges.
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
        # Use all 8 bits for the first layer's weights too. NNCF leaves one bit unused there for CPUs without VNNI,
        # whose 16-bit sums may overflow; YOLOX-nano's AP would be .318 instead of .332.
        overflow_fix=nncf.OverflowFix.DISABLE,
        # NNCF's fast bias correction skips depthwise layers, and made EfficientNet-Lite0 worse: scores at 22.2 dB,
        # without it 23.4, with edgecnn's own 24.4 (32 frames, NNCF's ranges for all three).
        disable_bias_correction=True,
    )
    try:
        # NNCF's progress bar writes to Python's stdout, which may not be the process's.
        with quiet("NNCF"), contextlib.redirect_stdout(io.StringIO()), kept_signal_stack():
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
        del quantized.rt_info["nncf"]  # NNCF's settings: its ranges are replaced later, so they would be wrong
    return quantized
