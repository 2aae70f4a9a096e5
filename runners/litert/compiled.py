"""TFLite files compiled by LiteRT for a GPU or an NPU.

LiteRT ends the process if a GPU's compiler meets an operator that it cannot handle, so a file is first opened in a
child process, which runs this module (see `edgecnn.child`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.bundle import TensorSpec
from edgecnn.bundle.evidence import Opened
from edgecnn.child import Child, serve
from edgecnn.errors import DeviceError, EdgeCnnError, Fault
from edgecnn.formats import Executor
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import Arrays
from edgecnn.runners.litert.interpreter import PACKAGE, argmax_channels, count_operators, output_order
from edgecnn.runners.proof import check_execution
from edgecnn.runners.vulkan import vulkan_devices
from edgecnn.tool_output import quiet

_GPU_CHANNELS = 4
_TRIAL_TIMEOUT_S = 600.0  # long enough to compile a large network for a slow GPU
_ADAPTER = re.compile(r"Selected adapter: (?P<name>.+?), arch=.*adapterType=(?P<type>.+)")
_SHARED = re.compile(r"(\d+) operations will run on the GPU, and the remaining (\d+) operations will run on the CPU")
# The lines of LiteRT's log that report errors; the rest is not useful.
_TELLING = re.compile(
    r"^(?!INFO|WARNING|.*[Pp]lugin)(?:[A-Z_0-9]+: (?!\[)\S.*|E\d{4} .*\] .*|└ (?!ERROR).*)$", re.MULTILINE
)


class CompiledEngine:
    """A TFLite file in LiteRT's CompiledModel."""

    opened: Opened

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], executor: Executor, precision: str, threads: int
    ) -> None:
        _compile_in_child(path, executor.provider, precision, threads)
        _refuse_known_faults(path, executor.kind)
        with quiet(PACKAGE) as output:
            try:
                self._model: Any = _compile(path, executor.provider, precision, threads)
            except Exception as failed:
                raise DeviceError(f"{PACKAGE} cannot compile {path.name} for the {executor.provider}") from failed
            signature, names = next(iter(self._model.get_signature_list().items()))
            details = self._model.get_output_tensor_details(signature)
            self._inputs = self._model.create_input_buffers(0)
            self._buffers = self._model.create_output_buffers(0)
            _run_on_zeros(self._model, self._inputs, self._buffers)  # the first run writes to the log too
        if len(names["outputs"]) != len(outputs):
            raise DeviceError(f"{path.name} has {len(names['outputs'])} outputs, but the manifest names {len(outputs)}")
        places = {name: index for index, name in enumerate(names["outputs"])}
        self._outputs = [
            (spec.name, places[name], tuple(details[name]["shape"]), np.dtype(details[name]["dtype"]))
            for spec, name in zip(outputs, sorted(names["outputs"], key=output_order), strict=True)
        ]
        operators = count_operators(path)
        elsewhere = 0 if self._model.is_fully_accelerated() else _left_to_cpu(output.text, operators)
        adapter = _ADAPTER.search(output.text)
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
        """Release the model and its buffers."""
        self._inputs, self._buffers = [], []
        with quiet(PACKAGE):  # its destructors write to the log
            self.__dict__.pop("_model", None)


def has_gpu() -> bool:
    """Whether LiteRT includes its GPU accelerator, and, on Linux, whether Vulkan has a device for it."""
    return _has_library("libLiteRt*GpuAccelerator.*") and (sys.platform != "linux" or bool(vulkan_devices()))


def gpu_name() -> str:
    """Name of the GPU that would be used; "GPU" where Vulkan doesn't give one."""
    return next((device.name for device in vulkan_devices()), "GPU")


def has_npu() -> bool:
    """Whether an NPU's dispatch library is installed next to LiteRT and can be loaded."""
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
        # A GPU computes float32 files in half precision unless this is set.
        gpu_options=GpuOptions(enforce_f32=precision != "fp16"),
    )
    return CompiledModel.from_file(str(path), options=options)


def _refuse_known_faults(path: Path, kind: str) -> None:
    """Raise DeviceError for operators that the GPU accelerator silently computes wrong.

    It pads channels to a multiple of four with zeros, and its ARG_MAX includes those: where all scores are negative, it
    returns a class that does not exist (ai-edge-litert 2.3).
    """
    channels = argmax_channels(path) if kind == "gpu" else []
    if odd := [count for count in channels if count % _GPU_CHANNELS]:
        raise DeviceError(
            f"{path.name} picks the best of {odd[0]} classes in its graph, which LiteRT's GPU accelerator computes "
            f"wrongly unless the number is a multiple of {_GPU_CHANNELS}; run it on the CPU, or use another format"
        )


def _compile_in_child(path: Path, provider: str, precision: str, threads: int) -> None:
    """Open the file in a child process first.

    Raises:
        DeviceError: the runtime refused the file or crashed there.
    """
    child = Child(__name__, timeout_s=_TRIAL_TIMEOUT_S)
    try:
        child.ask("compile", path=str(path), provider=provider, precision=precision, threads=threads)
        child.close()
    except EdgeCnnError as failed:
        fault = Fault.of(failed)
        if fault.crash == "timeout":
            raise DeviceError(
                f"{PACKAGE} did not finish compiling {path.name} for the {provider} in {_TRIAL_TIMEOUT_S:.0f} s"
            ) from failed
        output = child.output
        telling = "; ".join(line.strip() for line in dict.fromkeys(_TELLING.findall(output)))
        how = f"the process crashed: {fault.crash}" if fault.crash else "it was refused"
        why = telling or (fault.reason if not fault.crash else output[-400:])
        raise DeviceError(f"{PACKAGE} cannot compile {path.name} for the {provider} ({how}): {why}") from failed
    finally:
        child.release()


def _left_to_cpu(text: str, operators: int) -> int:
    """Number of operators that the log says run on the CPU; all of them where it doesn't say."""
    shared = _SHARED.search(text)
    return int(shared[2]) if shared else operators


def _run_on_zeros(model: Any, inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
    (detail,) = model.get_input_tensor_details(next(iter(model.get_signature_list()))).values()
    inputs[0].write(np.zeros(detail["shape"], detail["dtype"]))
    model.run_by_index(0, inputs, outputs)
    outputs[0].read(1, np.uint8)


def _compile_and_run(path: str, provider: str, precision: str, threads: int) -> dict[str, Any]:
    model = _compile(Path(path), provider, precision, threads)
    _run_on_zeros(model, model.create_input_buffers(0), model.create_output_buffers(0))
    return {}


if __name__ == "__main__":
    serve({"compile": _compile_and_run})
