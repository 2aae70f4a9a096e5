"""TFLite files, in LiteRT or, where that is what is installed, tflite-runtime."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgecnn._devices import DeviceName, processor_name
from edgecnn._quiet import quiet
from edgecnn.bundle import TensorSpec
from edgecnn.errors import DeviceError
from edgecnn.results import UInt8Array
from edgecnn.runners.base import Arrays, Opened, absent_device

try:
    from ai_edge_litert.interpreter import Interpreter

    _RUNTIME = "ai-edge-litert"
except ModuleNotFoundError:
    from tflite_runtime.interpreter import Interpreter

    _RUNTIME = "tflite-runtime"


class LiteRtBackend:
    """A TFLite file in an interpreter, on XNNPACK."""

    opened: Opened

    @classmethod
    def precisions(cls, artifact_precision: str) -> Sequence[str]:
        """A TFLite file runs as it is."""
        return (artifact_precision,)

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], device: DeviceName, precision: str, threads: int
    ) -> None:
        if device.device not in ("cpu", "auto"):
            raise absent_device(device, runtime=_RUNTIME, available=["cpu"])
        try:
            with quiet(_RUNTIME):
                self._interpreter: Any = Interpreter(model_path=str(path), num_threads=threads)
                self._interpreter.allocate_tensors()
        except Exception as failed:
            raise DeviceError(f"{_RUNTIME} cannot open {path.name}: {failed}") from failed
        self._input = self._interpreter.get_input_details()[0]["index"]
        # A signature's outputs are named output_0, output_1, … in the network's order; the interpreter's own
        # list may be in another.
        signature = self._interpreter.get_signature_list()
        details = self._interpreter.get_output_details()
        if signature:
            names = next(iter(signature.values()))["outputs"]
            runner = self._interpreter.get_signature_runner(next(iter(signature)))
            by_name = runner.get_output_details()
            indices = [by_name[name]["index"] for name in sorted(names, key=_natural)]
        else:
            indices = [detail["index"] for detail in details]
        if len(indices) != len(outputs):
            raise DeviceError(f"{path.name} has {len(indices)} outputs, the manifest names {len(outputs)}")
        self._outputs = [(spec.name, index) for spec, index in zip(outputs, indices, strict=True)]
        self.opened = Opened(
            runtime=f"{_RUNTIME} {version(_RUNTIME)}",
            provider="XNNPACK",
            device_name=processor_name(),
            precision=precision,
            threads=threads,
        )

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR."""
        try:
            self._interpreter.set_tensor(self._input, frame)
            self._interpreter.invoke()
        except Exception as failed:
            raise DeviceError(f"{_RUNTIME} failed on a frame of shape {list(frame.shape)}: {failed}") from failed
        return {name: self._interpreter.get_tensor(index) for name, index in self._outputs}

    def close(self) -> None:
        """Give the interpreter back."""
        self.__dict__.pop("_interpreter", None)


def _natural(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition("_")
    return (stem, int(number)) if number.isdigit() else (name, 0)
