"""Times layers with ONNX Runtime's profiler."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from edgecnn.bundle.evidence import LayerTime
from edgecnn.errors import DeviceError
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import LayerRequest, layer_times
from edgecnn.runners.onnxruntime.backend import kernels_in, open_session
from edgecnn.tool_output import quiet

_ENDINGS = ("_kernel_time", "_nchwc")
_MULTIPLIERS = ("Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "QLinearConv")
_ARITHMETIC = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "int8": "int8", "uint8": "int8"}


def time_layers(path: Path, request: LayerRequest, frame: UInt8Array) -> list[LayerTime]:
    """The kernels that ONNX Runtime ran, with their median times.

    Raises:
        DeviceError: an accelerator is requested: there, the profile shows when kernels started, not how long they ran.
    """
    if not request.device.is_cpu:
        raise DeviceError("ONNX Runtime times layers on the CPU only: give --device cpu")
    with tempfile.TemporaryDirectory(prefix="edgecnn-") as folder, quiet("onnxruntime"):
        _, session = open_session(
            path, device=request.device, precision=request.precision, threads=request.threads, profile=Path(folder)
        )
        inputs = {session.get_inputs()[0].name: frame}
        for _ in range(request.warmup + request.calls):
            session.run(None, inputs)
        session.end_profiling()
        (profile,) = Path(folder).glob("*.json")
        kernels = kernels_in(json.loads(profile.read_text(encoding="utf-8")))
    times: dict[tuple[str, str, str, str], list[float]] = defaultdict(list)
    for kernel in kernels:
        event = kernel["args"]
        key = (_torch_name(kernel["name"], event["op_name"]), event["op_name"], event["provider"], _computes_in(event))
        times[key].append(kernel["dur"] / 1e3)
    runs = request.warmup + request.calls
    after_warmup = [taken[len(taken) * request.warmup // runs :] for taken in times.values()]
    return layer_times(
        [LayerTime(name=name, kind=kind, where=where, computes=c, time_ms=0) for name, kind, where, c in times],
        after_warmup,
        request.calls,
    )


def _computes_in(event: dict[str, Any]) -> str:
    """Precision of a convolution or matrix product, from its first input."""
    if event["op_name"] not in _MULTIPLIERS:
        return ""
    shapes = event.get("input_type_shape") or [{}]
    return _ARITHMETIC.get(next(iter(shapes[0]), ""), "")


def _torch_name(name: str, kind: str) -> str:
    """Gets "body.0" from "network.body.0/Relu_nchwc_kernel_time", a convolution with a fused ReLU."""
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
    name = name.removeprefix("network.")
    return name.partition("/")[0] if kind in _MULTIPLIERS else name
