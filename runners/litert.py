"""TFLite files, in LiteRT or, where that is what is installed, tflite-runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from edgecnn._devices import EXECUTORS, DeviceName, processor_name
from edgecnn.bundle import TensorSpec
from edgecnn.evidence import Opened
from edgecnn.results import UInt8Array
from edgecnn.runners import litert_compiled, litert_interpreter
from edgecnn.runners.base import Arrays, FoundDevice, choose_executor


class Engine(Protocol):
    """What runs a file; see `Backend`."""

    opened: Opened

    def infer(self, frame: UInt8Array) -> Arrays:
        """See `Backend.infer`."""
        ...

    def close(self) -> None:
        """See `Backend.close`."""
        ...


# What runs each of the table's rows, and whether that is there.
_ENGINES: dict[str, tuple[Callable[..., Engine], Callable[[], bool]]] = {
    "XNNPACK": (litert_interpreter.Interpreted, lambda: True),
    "EdgeTPU": (litert_interpreter.Interpreted, litert_interpreter.has_edge_tpu),
    "GPU": (litert_compiled.Compiled, litert_compiled.has_gpu),
    "NPU": (litert_compiled.Compiled, litert_compiled.has_npu),
}


class LiteRtBackend:
    """A TFLite file on XNNPACK, a GPU or an NPU."""

    opened: Opened

    @classmethod
    def precisions(cls, artifact_precision: str) -> Sequence[str]:
        """A TFLite file runs as it is."""
        return (artifact_precision,)

    @classmethod
    def devices(cls) -> Sequence[FoundDevice]:
        """What there is; of a GPU, what its driver says."""
        names: dict[str, Any] = {"cpu": processor_name, "gpu": litert_compiled.gpu_name}
        return [
            FoundDevice(
                word=row.word_in_full,
                kind=row.kind,
                provider=row.provider,
                device_name=names[row.kind]() if row.kind in names else "",
            )
            for row in EXECUTORS
            if row.runtime == "litert" and _ENGINES[row.provider][1]()
        ]

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], device: DeviceName, precision: str, threads: int
    ) -> None:
        there = [found.provider for found in self.devices()]
        words = [found.word.partition(":")[2] for found in self.devices()]
        row = choose_executor(
            device, runtime="litert", package=litert_interpreter.PACKAGE, available=there, listed=words
        )
        engine, _ = _ENGINES[row.provider]
        self._engine = engine(path, outputs=outputs, executor=row, precision=precision, threads=threads)
        self.opened = self._engine.opened

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR."""
        return self._engine.infer(frame)

    def close(self) -> None:
        """Give the file back."""
        self._engine.close()
