"""OpenVINO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openvino

from edgecnn.bundle import TensorSpec
from edgecnn.bundle.evidence import Opened
from edgecnn.errors import DeviceError
from edgecnn.formats.devices import DeviceName
from edgecnn.formats.openvino import RUNTIME
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import Arrays, FoundDevice, absent_device, choose_executor
from edgecnn.runners.openvino.core import CORE
from edgecnn.runners.proof import check_execution

# By default OpenVINO runs float files in bf16 where the CPU has it, and in f16 on GPUs (relative
# error 2e-3 to 7e-3): the requested precision is always set.
_HINTS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}
_ACCELERATOR_HINTS = {**_HINTS, "fp16": "f16"}  # GPUs and NPUs compute in half precision
# Without a check, OpenVINO would silently use another precision; an NPU has no fp32.
_CAPABILITIES = {"fp32": "FP32", "bf16": "BF16"}
# The ends of the names of OpenVINO's kernels ("brgconv_avx512_1x1_f32"). The graph's "runtimePrecision" is the input's,
# which for weights stored in f16 is not the precision of the computation.
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
    def devices(cls) -> Sequence[FoundDevice]:
        """Devices that OpenVINO's plug-ins find."""
        return [
            FoundDevice(
                word=f"{RUNTIME.name}:{name}",
                kind=name.partition(".")[0].lower(),
                provider=name,
                device_name=_device_name(name),
            )
            for name in CORE.available_devices
        ]

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], device: DeviceName, precision: str, threads: int
    ) -> None:
        provider, compiled = compile_file(path, device=device, precision=precision, threads=threads)
        try:
            self._request = compiled.create_infer_request()
        except Exception as failed:
            raise DeviceError(f"openvino cannot run {path.name} on {provider}: {failed}") from failed
        named = {name: port for port in compiled.outputs for name in port.names}
        absent = [spec.name for spec in outputs if spec.name not in named]
        if absent:
            raise DeviceError(f"{path.name} has the outputs {sorted(named)}, but the manifest also names {absent}")
        self._outputs = [(spec.name, named[spec.name]) for spec in outputs]
        used = compiled.get_property("EXECUTION_DEVICES")
        operators, arithmetic = _graph(compiled)
        self.opened = check_execution(
            Opened(
                runtime=f"openvino {openvino.__version__.split('-')[0]}",
                provider=provider,
                device_name=_device_name(provider),
                precision=precision,
                threads=threads,
                operators=operators,
                operators_on_device=operators if _only(used, provider) else 0,
                operators_elsewhere={} if _only(used, provider) else {", ".join(used): operators},
                arithmetic=arithmetic,
            ),
            path,
        )

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR."""
        try:
            values = self._request.infer(frame, share_inputs=True, share_outputs=True)
            return {name: values[port] for name, port in self._outputs}
        except Exception as failed:
            raise DeviceError(f"openvino failed on a frame of shape {list(frame.shape)}: {failed}") from failed

    def close(self) -> None:
        """Release the request and the compiled model."""
        self.__dict__.pop("_request", None)
        self._outputs = []


def compile_file(
    path: Path, *, device: DeviceName, precision: str, threads: int, profiling: bool = False
) -> tuple[str, Any]:
    """OpenVINO's name of the device, and the file compiled for it.

    Raises:
        DeviceError: the device does not exist, can't compute in this precision, or OpenVINO fails on the file.
    """
    provider = _provider(device)
    wanted = _CAPABILITIES.get(precision)
    capabilities = CORE.get_property(provider, "OPTIMIZATION_CAPABILITIES") if wanted is not None else ()
    if wanted is not None and wanted not in capabilities:
        known = ", ".join(capabilities).lower()
        raise DeviceError(f"openvino's {provider} cannot compute in {precision} here: choose one of {known}")
    on_cpu = provider == "CPU"
    hint = (_HINTS if on_cpu else _ACCELERATOR_HINTS).get(precision, "f32")
    config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": hint}
    if on_cpu:
        config["INFERENCE_NUM_THREADS"] = str(threads)
    if profiling:
        config["PERF_COUNT"] = "YES"
    try:
        return provider, CORE.compile_model(path, provider, config)
    except Exception as failed:
        raise DeviceError(f"openvino cannot compile {path.name} for {provider}: {failed}") from failed


def computes_in(kernel: str) -> str:
    """The precision of a kernel, from its name; "" where the name doesn't show it."""
    return _ARITHMETIC.get(kernel.rpartition("_")[2].lower(), "")


def _provider(device: DeviceName) -> str:
    """OpenVINO's name of the device: "CPU", "GPU", "GPU.1"."""
    available = CORE.available_devices
    kinds = list(dict.fromkeys(name.partition(".")[0] for name in available))
    why = "" if available else _why_none()
    row = choose_executor(device, RUNTIME, available=kinds, listed=available, why=why)
    if device.index is None:
        return row.provider
    numbered = f"{row.provider}.{device.index}"
    # A machine's only GPU is listed without its number.
    if numbered not in available and not (device.index == 0 and row.provider in available):
        raise absent_device(device, runtime=RUNTIME.name, available=available)
    return row.provider if row.provider in available else numbered


def _why_none() -> str:
    """Why not even the processor is listed: OpenVINO leaves out a device whose plug-in fails, and says nothing."""
    try:
        CORE.get_property("CPU", "FULL_DEVICE_NAME")
    except RuntimeError as failed:
        lines = [line.strip() for line in str(failed).splitlines()]
        return next((line for line in reversed(lines) if line and not line.startswith("Exception from")), "")
    return ""


def _device_name(provider: str) -> str:
    return str(CORE.get_property(provider, "FULL_DEVICE_NAME")).strip()


def _only(used: Sequence[str], provider: str) -> bool:
    return all(name.partition(".")[0] == provider.partition(".")[0] for name in used)


def _graph(compiled: Any) -> tuple[int, dict[str, int]]:
    """Number of operators in the compiled graph, and the precisions of its convolutions and matrix products."""
    operators = 0
    arithmetic: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        if node.get_type_name() in _NO_OPERATORS:
            continue
        info = node.get_rt_info()
        layer = info["layerType"].astype(str)
        if layer in _NO_OPERATORS:
            continue
        operators += 1
        if layer in MULTIPLIERS:
            computes = computes_in(info["primitiveType"].astype(str))
            if computes:
                arithmetic[computes] += 1
    return operators, dict(arithmetic.most_common())
