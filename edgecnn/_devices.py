"""The words that name a device, the processor's name, and how many threads a machine really gives."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
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


# Each runtime's format.
RUNTIMES = {"openvino": "openvino", "onnxruntime": "onnx", "litert": "tflite", "torch": "torch"}


@dataclass(frozen=True, kw_only=True)
class Executor:
    """One way in which a runtime uses a device; a row of the table.

    Attributes:
        runtime: "openvino", "onnxruntime", "litert", or "torch", which is the reference on a workstation.
        word: what stands behind the colon in "onnxruntime:cuda".
        kind: "cpu", "gpu" or "npu".
        provider: the runtime's own name for it.
        extra: pip install "edgecnn[extra]".
        needs: what the machine must have besides.
        options: what the runtime is told, in its own words.
        by_name_only: the kind's word alone never chooses it.
    """

    runtime: str
    word: str
    kind: str
    provider: str
    extra: str
    needs: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    by_name_only: bool = False

    @property
    def word_in_full(self) -> str:
        """What asks for exactly this."""
        return f"{self.runtime}:{self.word}"


# Of one kind, in order of preference.
EXECUTORS: tuple[Executor, ...] = (
    Executor(runtime="openvino", word="cpu", kind="cpu", provider="CPU", extra="openvino"),
    Executor(
        runtime="openvino",
        word="gpu",
        kind="gpu",
        provider="GPU",
        extra="openvino",
        needs="an Intel GPU with its OpenCL driver (Debian: intel-opencl-icd)",
    ),
    Executor(
        runtime="openvino",
        word="npu",
        kind="npu",
        provider="NPU",
        extra="openvino",
        needs="an Intel Core Ultra with the driver intel_vpu and its compiler (linux-npu-driver)",
    ),
    Executor(runtime="onnxruntime", word="cpu", kind="cpu", provider="CPUExecutionProvider", extra="onnx"),
    Executor(
        runtime="onnxruntime",
        word="cuda",
        kind="gpu",
        provider="CUDAExecutionProvider",
        extra="cuda",
        needs="an NVIDIA GPU with its driver, CUDA and cuDNN",
    ),
    Executor(
        runtime="onnxruntime",
        word="tensorrt",
        kind="gpu",
        provider="TensorrtExecutionProvider",
        extra="cuda",
        needs="an NVIDIA GPU with its driver, CUDA and TensorRT",
        by_name_only=True,  # it builds its engine for minutes at every start
    ),
    Executor(
        runtime="onnxruntime",
        word="directml",
        kind="gpu",
        provider="DmlExecutionProvider",
        extra="directml",
        needs="Windows and a GPU with DirectX 12",
    ),
    Executor(
        runtime="onnxruntime",
        word="coreml",
        kind="gpu",
        provider="CoreMLExecutionProvider",
        extra="onnx",
        needs="macOS on Apple silicon",
        options={"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndGPU"},
    ),
    Executor(
        runtime="onnxruntime",
        word="webgpu",
        kind="gpu",
        provider="WebGpuExecutionProvider",
        extra="webgpu",
        needs="a GPU with Vulkan (Debian: libvulkan1 and the GPU's driver), Metal or DirectX 12",
    ),
    Executor(
        runtime="onnxruntime",
        word="qnn",
        kind="npu",
        provider="QNNExecutionProvider",
        extra="qnn",
        needs="a Qualcomm NPU, or its simulator on an x86-64 PC",
    ),
    Executor(
        runtime="onnxruntime",
        word="coreml-npu",
        kind="npu",
        provider="CoreMLExecutionProvider",
        extra="onnx",
        needs="macOS on Apple silicon",
        options={"ModelFormat": "MLProgram", "MLComputeUnits": "CPUAndNeuralEngine"},
    ),
    Executor(runtime="litert", word="cpu", kind="cpu", provider="XNNPACK", extra="tflite"),
    Executor(
        runtime="litert",
        word="gpu",
        kind="gpu",
        provider="GPU",
        extra="tflite",
        needs="a GPU with Vulkan (Debian: libvulkan1 and the GPU's driver), Metal or OpenCL",
    ),
    Executor(
        runtime="litert",
        word="npu",
        kind="npu",
        provider="NPU",
        extra="tflite",
        needs="an NPU whose maker's dispatch library is installed beside LiteRT",
    ),
    Executor(
        runtime="litert",
        word="edgetpu",
        kind="npu",
        provider="EdgeTPU",
        extra="tflite-runtime",
        needs="a Coral Edge TPU with libedgetpu1-std, and a file compiled for it",
        by_name_only=True,  # it runs no other files
    ),
    Executor(runtime="torch", word="cpu", kind="cpu", provider="cpu", extra="convert"),
    Executor(
        runtime="torch",
        word="cuda",
        kind="gpu",
        provider="cuda",
        extra="convert",
        needs="an NVIDIA GPU with its driver, or an AMD one with ROCm",
    ),
)


@dataclass(frozen=True)
class DeviceName:
    """A device as asked for: "cpu", "gpu", "npu", "auto", or exactly, as in "openvino:GPU.0" or "onnxruntime:cuda".

    Attributes:
        text: as it was written.
        runtime: the runtime in front of the colon; "" where there was none.
        device: the word behind it, or the whole one, as the table has it.
        index: which of several, as in "GPU.1"; None where nobody said.
    """

    text: str
    runtime: str
    device: str
    index: int | None = None

    def executors(self, runtime: str) -> tuple[Executor, ...]:
        """The ways in which this runtime could do what was asked for, the preferred one first; may be none."""
        kind = "cpu" if self.device == "auto" else self.device
        return tuple(
            row
            for row in EXECUTORS
            if row.runtime == runtime
            and self.runtime in ("", runtime)
            and (row.word == kind or (row.kind == kind and not row.by_name_only))
        )

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of device that would be what was asked for."""
        return frozenset(row.kind for name in RUNTIMES for row in self.executors(name))


def parse_device(text: str) -> DeviceName:
    """Read a device name; case doesn't matter, and a runtime's own name for its device is as good as ours.

    Raises:
        UnknownNameError: not in the table; says what is near.
    """
    runtime, colon, rest = text.partition(":")
    if not colon and text.lower() in (*KINDS, "auto"):
        return DeviceName(text, "", text.lower())
    if runtime.lower() in RUNTIMES:
        found = _exact(text, runtime.lower(), rest)
        if found is not None:
            return found
    raise UnknownNameError("device", text, device_words())


def _exact(text: str, runtime: str, rest: str) -> DeviceName | None:
    word, dot, number = rest.lower().partition(".")
    if dot and not number.isdigit():
        return None
    index = int(number) if dot else None
    rows = [row for row in EXECUTORS if row.runtime == runtime]
    for row in rows:
        if word in (row.word, row.provider.lower()):
            return DeviceName(text, runtime, row.word, index)
    if word in KINDS and any(row.kind == word for row in rows):
        return DeviceName(text, runtime, word, index)
    return None


def device_words() -> list[str]:
    """Every word that `parse_device` knows, but for numbered devices."""
    return [*KINDS, "auto", *(row.word_in_full for row in EXECUTORS)]


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


def board_model() -> str:
    """The board's name as its firmware gives it, as in "Raspberry Pi 4 Model B Rev 1.4"; "" where there is none."""
    try:
        text = Path("/sys/firmware/devicetree/base/model").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return text.strip("\0 \n")


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
