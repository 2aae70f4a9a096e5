"""torch as a back end: the reference for all comparisons. Never used on a device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from edgecnn.bundle.evidence import Opened
from edgecnn.errors import DeviceError
from edgecnn.formats import REFERENCE
from edgecnn.formats.devices import DeviceName, parse_device
from edgecnn.processor import processor_name
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import Arrays, FoundDevice, choose_executor
from edgecnn.targets import threads_here


class TorchBackend:
    """A torch module with the same interface as the runtimes' back ends."""

    opened: Opened

    @classmethod
    def devices(cls) -> Sequence[FoundDevice]:
        """The CPU, and every CUDA device."""
        gpus = range(torch.cuda.device_count())
        return [
            FoundDevice(word="torch:cpu", kind="cpu", provider="cpu", device_name=processor_name()),
            *(
                FoundDevice(
                    word=f"torch:cuda.{gpu}",
                    kind="gpu",
                    provider="cuda",
                    device_name=torch.cuda.get_device_name(gpu),
                )
                for gpu in gpus
            ),
        ]

    def __init__(
        self,
        answer: Callable[[UInt8Array], dict[str, Any]],
        *,
        threads: int | None,
        device: torch.device | None = None,
    ) -> None:
        """Wrap a function from a uint8 [batch, height, width, 3] BGR frame to output arrays by name.

        Args:
            answer: the function; computes on `device`.
            threads: threads per inference on the CPU; by default, the cores that this process may use.
            device: from `torch_device`; by default the CPU.
        """
        self._answer = answer
        self._threads = threads or threads_here()
        self._device = device or torch.device("cpu")
        torch.set_num_threads(self._threads)
        on_gpu = self._device.type != "cpu"
        if on_gpu:
            torch.backends.cudnn.allow_tf32 = False  # a reference of float32 computes in float32
            torch.backends.cuda.matmul.allow_tf32 = False
        self.opened = Opened(
            runtime=f"torch {torch.__version__}",
            provider="torch" if not on_gpu else f"torch {self._device}",
            device_name=torch.cuda.get_device_name(self._device) if on_gpu else processor_name(),
            precision="fp32",
            threads=self._threads,
        )

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR."""
        try:
            return self._answer(frame)
        except RuntimeError as failed:
            if self._device.type == "cpu":
                raise
            raise DeviceError(f"torch failed on {self._device}: {failed}") from failed

    def close(self) -> None:
        """Nothing to release."""


def torch_device(device: str) -> torch.device:
    """The torch device that a device name selects.

    Raises:
        UnknownNameError: there is no such device.
        DeviceError: torch cannot use it here.
    """
    name: DeviceName = parse_device(device)
    found = TorchBackend.devices()
    row = choose_executor(
        name,
        REFERENCE,
        available=[there.provider for there in found],
        listed=[there.word for there in found],
    )
    return torch.device(row.provider, name.index or 0) if row.kind != "cpu" else torch.device("cpu")
