"""TFLite files compiled by LiteRT for a GPU or an NPU.

LiteRT ends the process where a GPU's compiler meets an operator that it cannot handle, so a file is first opened in
a process of its own: `python -m edgecnn.runners.litert_compiled FILE PROVIDER PRECISION THREADS`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import edgecnn
from edgecnn._devices import Executor
from edgecnn._quiet import quiet
from edgecnn.bundle import TensorSpec
from edgecnn.errors import DeviceError
from edgecnn.evidence import Opened
from edgecnn.results import UInt8Array
from edgecnn.runners.base import Arrays, check_execution
from edgecnn.runners.litert_interpreter import PACKAGE, argmax_channels, count_operators, output_order
from edgecnn.runners.vulkan import vulkan_devices

_GPU_CHANNELS = 4
_TRIAL_TIMEOUT_S = 600.0  # compiling a large network for a slow GPU
_ADAPTER = re.compile(r"Selected adapter: (?P<name>.+?), arch=.*adapterType=(?P<type>.+)")
_SHARED = re.compile(r"(\d+) operations will run on the GPU, and the remaining (\d+) operations will run on the CPU")
# What its log says when something is wrong; the rest is of no use to anybody.
_TELLING = re.compile(
    r"^(?!INFO|WARNING|.*[Pp]lugin)(?:[A-Z_0-9]+: (?!\[)\S.*|E\d{4} .*\] .*|└ (?!ERROR).*)$", re.MULTILINE
)


class Compiled:
    """A TFLite file in LiteRT's CompiledModel."""

    opened: Opened

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], executor: Executor, precision: str, threads: int
    ) -> None:
        _try_apart(path, executor.provider, precision, threads)
        _refuse_known_faults(path, executor.kind)
        with quiet(PACKAGE) as said:
            try:
                self._model: Any = _compile(path, executor.provider, precision, threads)
            except Exception as failed:
                raise DeviceError(f"{PACKAGE} cannot compile {path.name} for the {executor.provider}") from failed
            signature, names = next(iter(self._model.get_signature_list().items()))
            details = self._model.get_output_tensor_details(signature)
            self._inputs = self._model.create_input_buffers(0)
            self._buffers = self._model.create_output_buffers(0)
            _run_on_zeros(self._model, self._inputs, self._buffers)  # the first run says things, too
        if len(names["outputs"]) != len(outputs):
            raise DeviceError(f"{path.name} has {len(names['outputs'])} outputs, the manifest names {len(outputs)}")
        places = {name: index for index, name in enumerate(names["outputs"])}
        self._outputs = [
            (spec.name, places[name], tuple(details[name]["shape"]), np.dtype(details[name]["dtype"]))
            for spec, name in zip(outputs, sorted(names["outputs"], key=output_order), strict=True)
        ]
        operators = count_operators(path)
        elsewhere = 0 if self._model.is_fully_accelerated() else _left_to_cpu(said.text, operators)
        adapter = _ADAPTER.search(said.text)
        self.opened = check_execution(
            Opened(
                runtime=f"{PACKAGE} {version(PACKAGE)}",
                provider=executor.provider,
                device_name=adapter["name"] if adapter else gpu_name() if executor.kind == "gpu" else executor.provider,
                precision=precision,
                threads=threads,
                operators=operators,
                operators_on_device=operators - elsewhere,
                operators_elsewhere={"XNNPACK": elsewhere} if elsewhere else {},
                simulated=bool(adapter) and "software" in adapter["type"].lower() if adapter else False,
            ),
            path,
        )

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR."""
        try:
            self._inputs[0].write(frame)
            self._model.run_by_index(0, self._inputs, self._buffers)
            return {
                name: np.asarray(self._buffers[place].read(int(np.prod(shape)), kind.type), kind).reshape(shape)
                for name, place, shape, kind in self._outputs
            }
        except Exception as failed:
            raise DeviceError(f"{PACKAGE} failed on a frame of shape {list(frame.shape)}: {failed}") from failed

    def close(self) -> None:
        """Give the model and its buffers back."""
        self._inputs, self._buffers = [], []
        with quiet(PACKAGE):  # its destructors talk
            self.__dict__.pop("_model", None)


def has_gpu() -> bool:
    """Whether LiteRT brings its GPU accelerator, and, on Linux, whether Vulkan has a device for it."""
    return _has_library("libLiteRt*GpuAccelerator.*") and (sys.platform != "linux" or bool(vulkan_devices()))


def gpu_name() -> str:
    """The GPU that would be used; "GPU" where Vulkan doesn't say."""
    return next((device.name for device in vulkan_devices()), "GPU")


def has_npu() -> bool:
    """Whether an NPU's dispatch library is beside LiteRT, and can be loaded."""
    return any(_can_load(library) for library in _libraries("vendors/*/dispatch/libLiteRtDispatch_*.so"))


def _has_library(pattern: str) -> bool:
    return bool(_libraries(pattern))


def _libraries(pattern: str) -> list[Path]:
    found = find_spec("ai_edge_litert")
    if found is None or found.origin is None:
        return []
    return sorted(Path(found.origin).parent.glob(pattern))


def _can_load(library: Path) -> bool:
    import ctypes

    try:
        ctypes.CDLL(str(library))
    except OSError:
        return False
    return True


def _compile(path: Path, provider: str, precision: str, threads: int) -> Any:
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.hardware_accelerator import HardwareAccelerator
    from ai_edge_litert.options import CpuOptions, GpuOptions, Options

    accelerator = getattr(HardwareAccelerator, provider)
    options = Options(
        hardware_accelerators=accelerator | HardwareAccelerator.CPU,
        cpu_options=CpuOptions(num_threads=threads),
        # A GPU computes float32 files in half precision unless told otherwise.
        gpu_options=GpuOptions(enforce_f32=precision != "fp16"),
    )
    return CompiledModel.from_file(str(path), options=options)


def _refuse_known_faults(path: Path, kind: str) -> None:
    """Raise DeviceError for what the GPU accelerator computes wrong, without a word.

    It pads channels to a multiple of four with zeros, and its ARG_MAX counts those: where all scores are negative, it
    answers a class that does not exist (ai-edge-litert 2.3).
    """
    channels = argmax_channels(path) if kind == "gpu" else []
    if odd := [count for count in channels if count % _GPU_CHANNELS]:
        raise DeviceError(
            f"{path.name} decides between {odd[0]} classes in its graph, which LiteRT's GPU accelerator does wrong "
            f"unless there are a multiple of {_GPU_CHANNELS}; run it on the CPU, or in another format"
        )


def _try_apart(path: Path, provider: str, precision: str, threads: int) -> None:
    """Open the file in another process first.

    Raises:
        DeviceError: it refused or died there.
    """
    home = str(Path(edgecnn.__file__).resolve().parents[1])
    command = [sys.executable, "-P", "-m", __name__, str(path), provider, precision, str(threads)]
    paths = os.pathsep.join([home, *filter(None, [os.environ.get("PYTHONPATH")])])
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_TRIAL_TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": paths},
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        raise DeviceError(
            f"{PACKAGE} did not finish compiling {path.name} for the {provider} in {_TRIAL_TIMEOUT_S:.0f} s"
        ) from late
    if done.returncode == 0:
        return
    telling = "; ".join(line.strip() for line in dict.fromkeys(_TELLING.findall(done.stdout))) or done.stdout[-400:]
    how = f"its process died of {signal.Signals(-done.returncode).name}" if done.returncode < 0 else "it refused"
    raise DeviceError(f"{PACKAGE} cannot compile {path.name} for the {provider} ({how}): {telling}")


def _left_to_cpu(text: str, operators: int) -> int:
    """How many operators the log says are left to the CPU; all where it doesn't say."""
    shared = _SHARED.search(text)
    return int(shared[2]) if shared else operators


def _run_on_zeros(model: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    (detail,) = model.get_input_tensor_details(next(iter(model.get_signature_list()))).values()
    inputs[0].write(np.zeros(detail["shape"], detail["dtype"]))
    model.run_by_index(0, inputs, outputs)
    outputs[0].read(1, np.uint8)


def _main() -> None:
    path, provider, precision, threads = sys.argv[1:]
    model = _compile(Path(path), provider, precision, int(threads))
    _run_on_zeros(model, model.create_input_buffers(0), model.create_output_buffers(0))


if __name__ == "__main__":
    _main()
