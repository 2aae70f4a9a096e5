"""Runs TFLite files in LiteRT or, if that is installed instead, in tflite-runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgecnn.bundle import TensorSpec
from edgecnn.bundle.evidence import Opened
from edgecnn.formats.devices import DeviceName
from edgecnn.formats.tflite import RUNTIME
from edgecnn.processor import processor_name
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import Arrays, FoundDevice, choose_executor
from edgecnn.runners.litert import compiled as litert_compiled
from edgecnn.runners.litert import interpreter as litert_interpreter
from edgecnn.runners.litert.file import read_file


class Engine(Protocol):
    """Runs a file on one kind of device; see `Backend`."""

    opened: Opened

    def infer(self, frame: UInt8Array) -> Arrays:
        """See `Backend.infer`."""
        ...

    def close(self) -> None:
        """See `Backend.close`."""
        ...


# The engine for each executor of the format, and how to find out whether the device is available.
_ENGINES: dict[str, tuple[Callable[..., Engine], Callable[[], bool]]] = {
    "XNNPACK": (litert_interpreter.InterpreterEngine, lambda: True),
    "EdgeTPU": (litert_interpreter.InterpreterEngine, litert_interpreter.has_edge_tpu),
    "GPU": (litert_compiled.CompiledEngine, litert_compiled.has_gpu),
    "NPU": (litert_compiled.CompiledEngine, litert_compiled.has_npu),
}


class LiteRtBackend:
    """A TFLite file on XNNPACK, a GPU or an NPU."""

    opened: Opened

    @classmethod
    def devices(cls) -> Sequence[FoundDevice]:
        """Available devices; a GPU is listed with its driver's name for it."""
        names: dict[str, Any] = {"cpu": processor_name, "gpu": litert_compiled.gpu_name}
        return [
            FoundDevice(
                word=row.full_name,
                kind=row.kind,
                provider=row.provider,
                device_name=names[row.kind]() if row.kind in names else "",
            )
            for row in RUNTIME.executors
            if _ENGINES[row.provider][1]()
        ]

    @staticmethod
    def check_file(path: Path) -> None:
        """Check a file, because LiteRT follows its offsets unchecked.

        Raises:
            MalformedFile: it has an impossible value.
        """
        read_file(path)

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], device: DeviceName, precision: str, threads: int
    ) -> None:
        found = self.devices()
        there = [each.provider for each in found]
        words = [each.word.partition(":")[2] for each in found]
        row = choose_executor(device, RUNTIME, available=there, listed=words, called=litert_interpreter.PACKAGE)
        engine, _ = _ENGINES[row.provider]
        self._engine = engine(path, outputs=outputs, executor=row, precision=precision, threads=threads)
        self.opened = self._engine.opened

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR."""
        return self._engine.infer(frame)

    def close(self) -> None:
        """Release the file."""
        self._engine.close()
