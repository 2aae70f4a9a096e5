"""torch as a back end: the reference that everything is compared with. Never on a device's path."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from edgecnn._devices import default_threads, processor_name
from edgecnn.results import UInt8Array
from edgecnn.runners.base import Arrays, Opened


class TorchBackend:
    """A torch module behind the same protocol as the runtimes."""

    opened: Opened

    @classmethod
    def precisions(cls, artifact_precision: str) -> Sequence[str]:
        """The network runs as it was trained."""
        return ("fp32",)

    def __init__(self, answer: Callable[[UInt8Array], dict[str, Any]], *, threads: int | None) -> None:
        """Wrap a function from a uint8 [batch, height, width, 3] BGR frame to output arrays by name."""
        self._answer = answer
        self._threads = threads or default_threads()
        torch.set_num_threads(self._threads)
        self.opened = Opened(
            runtime=f"torch {torch.__version__}",
            provider="torch",
            device_name=processor_name(),
            precision="fp32",
            threads=self._threads,
        )

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR."""
        return self._answer(frame)

    def close(self) -> None:
        """Nothing to give back."""
