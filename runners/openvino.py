"""OpenVINO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino

from edgecnn._devices import DeviceName
from edgecnn.bundle import TensorSpec
from edgecnn.errors import DeviceError
from edgecnn.evidence import Opened
from edgecnn.results import UInt8Array
from edgecnn.runners.base import Arrays, FoundDevice, absent_device, check_execution, choose_executor

# OpenVINO runs float files in bf16 where the processor has it, and in f16 on GPUs, unless told otherwise (relative
# error 2e-3 to 7e-3): the precision that was asked for is set, never left to chance.
_HINTS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}
_ACCELERATOR_HINTS = {**_HINTS, "fp16": "f16"}  # what a GPU or NPU is for
# Without it, OpenVINO would run another and say nothing; an NPU has no fp32.
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16"}
# The ends of the names of OpenVINO's kernels ("brgconv_avx512_1x1_f32"). The graph's "runtimePrecision" is that of
# what goes in, which for weights stored in f16 is not what is computed in.
_ARITHMETIC = {
    "f32": "fp32",
    "fp32": "fp32",
    "f16": "fp16",
    "fp16": "fp16",
    "bf16": "bf16",
    "i8": "int8",
    "u8": "int8",
}
MULTIPLIERS = (
    "Convolution",
    "GroupConvolution",
    "ConvolutionBackpropData",
    "GroupConvolutionBackpropData",
    "Deconvolution",
    "FullyConnected",
    "MatMul",
    "Gemm",
    "convolution",
    "fully_connected",
)
_NO_OPERATORS = ("Const", "Constant", "Input", "Parameter", "Output", "Result")


class OpenVinoBackend:
    """An OpenVINO IR, compiled for a device."""

    opened: Opened

    @classmethod
    def precisions(cls, artifact_precision: str) -> Sequence[str]:
        """Float files can also be run in bf16."""
        return ("fp32", "bf16") if artifact_precision == "fp32" else (artifact_precision,)

    @classmethod
    def devices(cls) -> Sequence[FoundDevice]:
        """What OpenVINO's plug-ins find."""
        core = openvino.Core()
        return [
            FoundDevice(
                word=f"openvino:{name}",
                kind=name.partition(".")[0].lower(),
                provider=name,
                device_name=_device_name(core, name),
            )
            for name in core.available_devices
        ]

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], device: DeviceName, precision: str, threads: int
    ) -> None:
        core, target, compiled = compile_file(path, device=device, precision=precision, threads=threads)
        try:
            self._request = compiled.create_infer_request()
        except Exception as failed:
            raise DeviceError(f"openvino cannot run {path.name} on {target}: {failed}") from failed
        named = {name: port for port in compiled.outputs for name in port.names}
        absent = [spec.name for spec in outputs if spec.name not in named]
        if absent:
            raise DeviceError(f"{path.name} has the outputs {sorted(named)}, the manifest names {absent} too")
        self._outputs = [(spec.name, named[spec.name]) for spec in outputs]
        used = compiled.get_property("EXECUTION_DEVICES")
        operators, arithmetic = _graph(compiled)
        self.opened = check_execution(
            Opened(
                runtime=f"openvino {openvino.__version__.split('-')[0]}",
                provider=target,
                device_name=_device_name(core, target),
                precision=precision,
                threads=threads,
                operators=operators,
                operators_on_device=operators if _only(used, target) else 0,
                operators_elsewhere={} if _only(used, target) else {", ".join(used): operators},
                arithmetic=arithmetic,
            ),
            path,
        )

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR."""
        try:
            values = self._request.infer(frame, share_inputs=True, share_outputs=True)
        except Exception as failed:
            raise DeviceError(f"openvino failed on a frame of shape {list(frame.shape)}: {failed}") from failed
        return {name: values[port] for name, port in self._outputs}

    def close(self) -> None:
        """Give the request and the compiled model back."""
        self.__dict__.pop("_request", None)
        self._outputs = []


def compile_file(
    path: Path, *, device: DeviceName, precision: str, threads: int, profiling: bool = False
) -> tuple[Any, str, Any]:
    """The core, OpenVINO's name of the device, and the file compiled for it.

    Raises:
        DeviceError: the device is not there, can't compute in this precision, or OpenVINO fails on the file.
    """
    core = openvino.Core()
    target = _target(core, device)
    wanted = _CAPABILITIES.get(precision)
    capabilities = core.get_property(target, "OPTIMIZATION_CAPABILITIES") if wanted is not None else ()
    if wanted is not None and wanted not in capabilities:
        known = ", ".join(capabilities).lower()
        raise DeviceError(f"openvino's {target} here cannot compute in {precision}: ask for another (it has {known})")
    on_cpu = target == "CPU"
    hint = (_HINTS if on_cpu else _ACCELERATOR_HINTS).get(precision, "f32")
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if on_cpu:
        config["INFERENCE_NUM_THREADS"] = str(threads)
    if profiling:
        config["PERF_COUNT"] = "YES"
    try:
        return core, target, core.compile_model(path, target, config)
    except Exception as failed:
        raise DeviceError(f"openvino cannot compile {path.name} for {target}: {failed}") from failed


def computes_in(kernel: str) -> str:
    """What a kernel computes in, by its name; "" where the name doesn't say."""
    return _ARITHMETIC.get(kernel.rpartition("_")[2].lower(), "")


def _target(core: Any, device: DeviceName) -> str:
    """OpenVINO's name of the device: "CPU", "GPU", "GPU.1"."""
    available = core.available_devices
    kinds = list(dict.fromkeys(name.partition(".")[0] for name in available))
    row = choose_executor(device, runtime="openvino", package="openvino", available=kinds, listed=available)
    if device.index is None:
        return row.provider
    numbered = f"{row.provider}.{device.index}"
    # A machine's only GPU is listed without its number.
    if numbered not in available and not (device.index == 0 and row.provider in available):
        raise absent_device(device, runtime="openvino", available=available)
    return row.provider if row.provider in available else numbered


def _device_name(core: Any, target: str) -> str:
    return str(core.get_property(target, "FULL_DEVICE_NAME")).strip()


def _only(used: Sequence[str], target: str) -> bool:
    return all(name.partition(".")[0] == target.partition(".")[0] for name in used)


def _graph(compiled: Any) -> tuple[int, dict[str, int]]:
    """How many operators the compiled graph has, and in what its convolutions and matrix products compute."""
    operators = 0
    arithmetic: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        if node.get_type_name() in _NO_OPERATORS:
            continue
        told = node.get_rt_info()
        layer = told["layerType"].astype(str)
        if layer in _NO_OPERATORS:
            continue
        operators += 1
        if layer in MULTIPLIERS:
            computes = computes_in(told["primitiveType"].astype(str))
            if computes:
                arithmetic[computes] += 1
    return operators, dict(arithmetic.most_common())
