"""The words that name a device, and how many threads a machine really gives."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from edgecnn.errors import UnknownNameError

KINDS = ("cpu", "gpu", "npu")


@dataclass(frozen=True)
class DeviceName:
    """A device as asked for: "cpu", "gpu", "npu", "auto", or exactly, as in "openvino:GPU.0".

    Attributes:
        text: as it was written.
        runtime: the runtime in front of the colon; "" where there was none.
        device: what stands behind it, or the whole word.
    """

    text: str
    runtime: str
    device: str


RUNTIMES = {"openvino": "openvino", "onnxruntime": "onnx", "litert": "tflite"}


def parse_device(text: str) -> DeviceName:
    """Read a device name.

    Raises:
        UnknownNameError: neither a kind of device nor RUNTIME:DEVICE.
    """
    runtime, colon, device = text.partition(":")
    if colon and runtime in RUNTIMES and device:
        return DeviceName(text, runtime, device)
    if not colon and text in (*KINDS, "auto"):
        return DeviceName(text, "", text)
    raise UnknownNameError("device", text, [*KINDS, "auto", *(f"{name}:DEVICE" for name in RUNTIMES)])


def default_threads() -> int:
    """Cores that this process may use: its affinity and its control group's quota, never the machine's count."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            allowed = min(allowed, max(1, int(quota) // int(period)))
    except (OSError, ValueError):
        pass  # no control group here
    return allowed
