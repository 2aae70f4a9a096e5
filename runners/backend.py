"""The interface of a back end: one artifact, open on one device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import TensorSpec
from edgecnn.bundle.evidence import LayerTime, Opened
from edgecnn.errors import DeviceError, EdgeCnnError
from edgecnn.formats import FORMATS, Executor, Runtime
from edgecnn.formats.devices import DeviceName, parse_device
from edgecnn.printable import shortened
from edgecnn.results import UInt8Array
from edgecnn.targets import threads_here

Arrays = Mapping[str, NDArray[Any]]


class Backend(Protocol):
    """One artifact, open on one device: arrays in, arrays out.

    Must not be used by two threads at once; `Runner` prevents that. The arrays that `infer` returns may be the
    runtime's own memory: they are valid until the next `infer` or `close`.
    """

    opened: Opened

    @classmethod
    def devices(cls) -> Sequence[FoundDevice]:
        """The devices that the runtime sees now; opens nothing."""
        ...

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], device: DeviceName, precision: str, threads: int
    ) -> None:
        """Open the file.

        Raises:
            DeviceError: the device does not exist, the runtime fails on the file, or it would use another device or
                precision than requested.
        """
        ...

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR, C-contiguous."""
        ...

    def close(self) -> None:
        """Release the file and the device; a second call does nothing."""
        ...


@dataclass(frozen=True, kw_only=True)
class FoundDevice:
    """A device that a runtime sees on this machine.

    Attributes:
        word: the text that selects exactly this device: "openvino:GPU.0".
        kind: "cpu", "gpu" or "npu".
        provider: the runtime's name for it.
        device_name: name of the CPU, GPU or NPU; "" where it is known only after opening something.
    """

    word: str
    kind: str
    provider: str
    device_name: str


@dataclass(frozen=True, kw_only=True)
class LayerRequest:
    """Settings for timing layers.

    Attributes:
        device, precision, threads: as for a back end.
        warmup, calls: inferences before the measurement, and measured inferences.
    """

    device: DeviceName
    precision: str
    threads: int
    warmup: int = 3
    calls: int = 20


def layer_times(layers: Sequence[LayerTime], samples_ms: Sequence[Sequence[float]], calls: int) -> list[LayerTime]:
    """The layers with their times and shares, slowest first.

    Args:
        layers: the layers, without times.
        samples_ms: times of each layer; a layer that runs several times per inference has several per call.
        calls: number of measured inferences.
    """
    times = [float(np.median(taken)) * len(taken) / calls for taken in samples_ms]
    total = sum(times) or 1.0
    timed = [
        msgspec.structs.replace(layer, time_ms=round(taken, 6), share=round(taken / total, 6))
        for layer, taken in zip(layers, times, strict=True)
    ]
    return sorted(timed, key=lambda layer: -layer.time_ms)


def open_backend(
    format: str,  # noqa: A002 - the field's word
    path: Path,
    *,
    outputs: Sequence[TensorSpec],
    device: DeviceName | None = None,
    precision: str = "fp32",
    threads: int | None = None,
) -> Backend:
    """Open a file, of a bundle or not; every back end is created here.

    Args:
        format: the file's format.
        path: the file to open.
        outputs: names and shapes of its outputs.
        device: the device; by default, the CPU.
        precision: the precision to run it in.
        threads: threads per inference; by default, `threads_here`.

    Raises:
        UnknownNameError: no such format.
        MissingDependencyError, DeviceError, SpecError: its runtime is not installed or fails, or has no back end.
    """
    row = FORMATS.get(format)
    kind = row.load_backend()
    try:
        return kind(
            path,
            outputs=outputs,
            device=device or parse_device("cpu"),
            precision=precision,
            threads=threads or threads_here(),
        )
    except EdgeCnnError:
        raise
    except Exception as failed:  # a malformed file makes a runtime raise anything, a UnicodeDecodeError of a name too
        reason = shortened(f"{type(failed).__name__}: {failed}", length=500)
        raise DeviceError(f"{row.runtime.title} cannot open {path}: {reason}") from failed


def choose_executor(
    device: DeviceName,
    runtime: Runtime,
    *,
    available: Sequence[str],
    listed: Sequence[str] = (),
    called: str = "",
    why: str = "",
) -> Executor:
    """The runtime's preferred available executor that fits the requested device.

    Args:
        device: the requested device.
        runtime: the runtime whose executors are searched.
        available: the runtime's names of the available providers.
        listed: devices to list in the error message; by default, `available`.
        called: name of the runtime in the error message; by default, its own name.
        why: for the error message, why a device is not available.

    Raises:
        DeviceError: no executor fits; lists the available ones and what to install for others.
    """
    wanted = device.executors(runtime)
    for row in wanted:
        if row.provider in available:
            return row
    raise absent_device(device, runtime=called or runtime.name, available=listed or available, wanted=wanted, why=why)


def absent_device(
    device: DeviceName, *, runtime: str, available: Sequence[str], wanted: Sequence[Executor] = (), why: str = ""
) -> DeviceError:
    """The error for a device that a runtime doesn't have."""
    text = f"device {device.text!r} is not available in {runtime}; available here: {', '.join(available) or 'none'}."
    if why:
        text += f" {why[0].upper()}{why[1:].rstrip('.')}."
    ways = [f"{row.full_name} needs {row.needs or 'only its package'} ({row.how_to_install})" for row in wanted]
    return DeviceError(f"{text} {'; '.join(ways) or 'Give one of these, or auto to let edgecnn choose'}")
