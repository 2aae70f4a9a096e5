"""ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnxruntime

from edgecnn._devices import DeviceName, processor_name
from edgecnn.bundle import TensorSpec
from edgecnn.errors import DeviceError
from edgecnn.results import UInt8Array
from edgecnn.runners.base import Arrays, Opened, absent_device

_PROVIDERS = {"cpu": "CPUExecutionProvider", "gpu": "CUDAExecutionProvider", "auto": "CPUExecutionProvider"}


class OnnxRuntimeBackend:
    """An ONNX file in an ONNX Runtime session."""

    opened: Opened

    @classmethod
    def precisions(cls, artifact_precision: str) -> Sequence[str]:
        """An ONNX file runs as it is."""
        return (artifact_precision,)

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], device: DeviceName, precision: str, threads: int
    ) -> None:
        available = onnxruntime.get_available_providers()
        provider = _PROVIDERS.get(device.device, device.device)
        if provider not in available:
            raise absent_device(device, runtime="onnxruntime", available=available)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # warnings about graph details are not for users
        try:
            # Providers outside the list are never used; one inside it that fails must not fall back in silence.
            self._session = onnxruntime.InferenceSession(path, options, providers=[provider], disable_fallback=True)
        except Exception as failed:
            raise DeviceError(f"onnxruntime cannot open {path.name}: {failed}") from failed
        if self._session.get_providers()[0] != provider:
            raise absent_device(device, runtime="onnxruntime", available=self._session.get_providers())
        self._input = self._session.get_inputs()[0].name
        self._outputs = [spec.name for spec in outputs]
        found = [output.name for output in self._session.get_outputs()]
        if not set(self._outputs) <= set(found):
            raise DeviceError(f"{path.name} has the outputs {found}, the manifest names {self._outputs}")
        self.opened = Opened(
            runtime=f"onnxruntime {onnxruntime.__version__}",
            provider=provider,
            device_name=processor_name() if provider == "CPUExecutionProvider" else provider,
            precision=precision,
            threads=threads,
        )

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR."""
        try:
            values = self._session.run(self._outputs, {self._input: frame})
        except Exception as failed:
            raise DeviceError(f"onnxruntime failed on a frame of shape {list(frame.shape)}: {failed}") from failed
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        """Give the session back."""
        self.__dict__.pop("_session", None)
