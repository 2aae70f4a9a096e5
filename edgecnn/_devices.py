"""The words that name a device, the processor's name, and how many threads a machine really gives."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

from edgecnn.errors import UnknownNameError

KINDS = ("cpu", "gpu", "npu")

# 64-bit Arm kernels name no model, only implementer and part. Source: Arm's MIDR_EL1 part numbers, as in
# util-linux, sys-utils/lscpu-arm.c.
_ARM_PARTS = {
    0xD03: "Cortex-A53",
    0xD04: "Cortex-A35",
    0xD05: "Cortex-A55",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD09: "Cortex-A73",
    0xD0A: "Cortex-A75",
    0xD0B: "Cortex-A76",
    0xD0C: "Neoverse-N1",
    0xD0D: "Cortex-A77",
    0xD40: "Neoverse-V1",
    0xD41: "Cortex-A78",
    0xD42: "Cortex-A78AE",
    0xD46: "Cortex-A510",
    0xD47: "Cortex-A710",
    0xD49: "Neoverse-N2",
    0xD4F: "Neoverse-V2",
}
_ARM_LTD = 0x41


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


def processor_name() -> str:
    """The processor of this machine; on Arm the kinds of core."""
    try:
        return cpu_model(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return platform.processor() or platform.machine()


def cpu_model(cpuinfo: str) -> str:
    """The processor's name from the text of /proc/cpuinfo; on Arm the kinds of core, as in "4 x Cortex-A76"."""
    named = re.search(r"^model name\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    if named:
        return named.group(1).strip()
    implementers = [int(value, 16) for value in re.findall(r"CPU implementer\s*:\s*(0x[0-9a-f]+)", cpuinfo)]
    parts = [int(value, 16) for value in re.findall(r"CPU part\s*:\s*(0x[0-9a-f]+)", cpuinfo)]
    kinds = [
        _ARM_PARTS.get(part, f"Arm part {part:#x}") if maker == _ARM_LTD else f"maker {maker:#x} part {part:#x}"
        for maker, part in zip(implementers, parts, strict=False)
    ]
    if kinds:
        return " + ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
    return platform.processor() or platform.machine()
