"""OpenVINO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import openvino

from edgecnn._devices import DeviceName
from edgecnn.bundle import TensorSpec
from edgecnn.errors import DeviceError
from edgecnn.results import UInt8Array
from edgecnn.runners.base import Arrays, Opened, absent_device

_DEVICES = {"cpu": "CPU", "gpu": "GPU", "npu": "NPU", "auto": "CPU"}
# OpenVINO runs float files in bf16 where the processor has it, unless told otherwise (relative error 2e-3 to
# 7e-3): the precision that was asked for is set, never left to chance.
_HINTS = {"fp32": "f32", "fp16": "f32", "bf16": "bf16", "int8": "f32"}
_CAPABILITIES = {"bf16": "BF16"}  # without it, OpenVINO would run f32 and say nothing


class OpenVinoBackend:
    """An OpenVINO IR, compiled for a device."""

    opened: Opened

    @classmethod
    def precisions(cls, artifact_precision: str) -> Sequence[str]:
        """Float files can also be run in bf16."""
        return ("fp32", "bf16") if artifact_precision == "fp32" else (artifact_precision,)

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], device: DeviceName, precision: str, threads: int
    ) -> None:
        core = openvino.Core()
        target = _DEVICES.get(device.device, device.device)
        if target not in core.available_devices:
            raise absent_device(device, runtime="openvino", available=core.available_devices)
        wanted = _CAPABILITIES.get(precision)
        if wanted is not None and wanted not in core.get_property(target, "OPTIMIZATION_CAPABILITIES"):
            raise DeviceError(f"openvino's {target} here cannot compute in {precision}: ask for fp32")
        config = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": _HINTS.get(precision, "f32")}
        if target == "CPU":
            config["INFERENCE_NUM_THREADS"] = str(threads)
        try:
            compiled = core.compile_model(path, target, config)
            self._request = compiled.create_infer_request()
        except Exception as failed:
            raise DeviceError(f"openvino cannot compile {path.name} for {target}: {failed}") from failed
        named = {name: port for port in compiled.outputs for name in port.names}
        absent = [spec.name for spec in outputs if spec.name not in named]
        if absent:
            raise DeviceError(f"{path.name} has the outputs {sorted(named)}, the manifest names {absent} too")
        self._outputs = [(spec.name, named[spec.name]) for spec in outputs]
        self.opened = Opened(
            runtime=f"openvino {openvino.__version__.split('-')[0]}",
            provider=target,
            device_name=str(core.get_property(target, "FULL_DEVICE_NAME")).strip(),
            precision=precision,
            threads=threads,
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
