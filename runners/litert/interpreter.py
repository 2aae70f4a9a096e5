"""Runs TFLite files in an interpreter: on the CPU with XNNPACK, or on a Coral Edge TPU with its delegate."""

from __future__ import annotations

import ctypes.util
import functools
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgecnn.bundle import TensorSpec
from edgecnn.bundle.evidence import Opened
from edgecnn.errors import DeviceError
from edgecnn.formats import Executor
from edgecnn.processor import processor_name
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import Arrays
from edgecnn.runners.litert.file import read_file
from edgecnn.runners.proof import check_execution
from edgecnn.tool_output import quiet

try:
    from ai_edge_litert.interpreter import Interpreter, load_delegate

    PACKAGE = "ai-edge-litert"
except ModuleNotFoundError:
    from tflite_runtime.interpreter import Interpreter, load_delegate

    PACKAGE = "tflite-runtime"

_EDGE_TPU = "edgetpu"
_EDGE_TPU_LIBRARY = "libedgetpu.so.1"
_EDGE_TPU_OPERATOR = "edgetpu-custom-op"
_DELEGATE = "DELEGATE"  # operators that a delegate replaced are listed in addition
_MULTIPLIERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL")
# The first of an operator's types that is listed here is its precision.
_ARITHMETIC = {"int16": "int16", "int8": "int8", "uint8": "int8", "float16": "fp16", "float32": "fp32"}


class InterpreterEngine:
    """A TFLite file in an interpreter."""

    opened: Opened

    def __init__(
        self, path: Path, *, outputs: Sequence[TensorSpec], executor: Executor, precision: str, threads: int
    ) -> None:
        on_tpu = executor.word == _EDGE_TPU
        try:
            with quiet(PACKAGE):
                delegates = [load_delegate(_EDGE_TPU_LIBRARY)] if on_tpu else None
                self._interpreter: Any = Interpreter(
                    model_path=str(path), num_threads=threads, experimental_delegates=delegates
                )
                self._interpreter.allocate_tensors()
        except Exception as failed:
            where = " on the Edge TPU" if on_tpu else ""
            raise DeviceError(f"{PACKAGE} cannot open {path.name}{where}: {failed}") from failed
        self._input = self._interpreter.get_input_details()[0]["index"]
        # A signature's outputs are named output_0, output_1, … in the network's order; the interpreter's own
        # list may be in another.
        signature = self._interpreter.get_signature_list()
        details = self._interpreter.get_output_details()
        if signature:
            names = next(iter(signature.values()))["outputs"]
            runner = self._interpreter.get_signature_runner(next(iter(signature)))
            by_name = runner.get_output_details()
            indices = [by_name[name]["index"] for name in sorted(names, key=output_order)]
        else:
            indices = [detail["index"] for detail in details]
        if len(indices) != len(outputs):
            raise DeviceError(f"{path.name} has {len(indices)} outputs, but the manifest names {len(outputs)}")
        self._outputs = [(spec.name, index) for spec, index in zip(outputs, indices, strict=True)]
        operators = operators_of(self._interpreter)
        on_device = [name for name, _ in operators if not on_tpu or name == _EDGE_TPU_OPERATOR]
        elsewhere = len(operators) - len(on_device)
        self.opened = check_execution(
            Opened(
                runtime=f"{PACKAGE} {version(PACKAGE)}",
                provider=executor.provider,
                device_name="Coral Edge TPU" if on_tpu else processor_name(),
                precision=precision,
                threads=threads,
                operators=len(operators) or None,
                operators_on_device=len(on_device) if operators else None,
                operators_elsewhere={"CPU": elsewhere} if elsewhere else {},
                arithmetic=dict(Counter(name for _, name in operators if name).most_common()),
            ),
            path,
        )

    def infer(self, frame: UInt8Array) -> Arrays:
        """Run one batch of frames, uint8 [batch, height, width, 3] BGR."""
        try:
            self._interpreter.set_tensor(self._input, frame)
            self._interpreter.invoke()
            return {name: self._interpreter.get_tensor(index) for name, index in self._outputs}
        except Exception as failed:
            raise DeviceError(f"{PACKAGE} failed on a frame of shape {list(frame.shape)}: {failed}") from failed

    def close(self) -> None:
        """Release the interpreter."""
        self.__dict__.pop("_interpreter", None)


@functools.cache  # asking starts ldconfig, gcc and ld
def has_edge_tpu() -> bool:
    """Whether the Edge TPU's library is installed."""
    return ctypes.util.find_library("edgetpu") is not None


def count_operators(path: Path) -> int:
    """Number of operators in a file."""
    return len(read_file(path)[0])


def argmax_channels(path: Path) -> list[int]:
    """Number of classes for each ARG_MAX in a file."""
    operators, tensors = read_file(path)
    return [tensors[operator.inputs[0]].shape[-1] for operator in operators if operator.kind == "ARG_MAX"]


def multipliers_in(path: Path) -> list[str]:
    """The torch names of a file's convolutions and matrix products, in the order of execution."""
    operators, tensors = read_file(path)
    return [_torch_name(tensors[operator.outputs[0]].name) for operator in operators if operator.kind in _MULTIPLIERS]


def _torch_name(tensor: str) -> str:
    """As "body.0" from "….Deployable/….Net_network/torch.nn.modules.container.Sequential_body/….Conv2d_0;1".

    A tensor that several layers were fused into has all their names: the convolution's is used.
    """
    names = [[part.rpartition(".")[2] for part in name.split(";")[0].split("/")] for name in tensor.split(";;")]
    chosen = next((name for name in names if name[-1].startswith(("Conv", "Linear"))), names[0])
    words = [word for part in chosen if (word := part.partition("_")[2])]
    return ".".join(words).removeprefix("network.")


def operators_of(interpreter: Any) -> list[tuple[str, str]]:
    """(name, precision) of each operator; the precision is "" for operators without a multiplication.

    Empty in versions of the runtime that don't list operators.
    """
    if not hasattr(interpreter, "_get_ops_details"):
        return []
    return [
        (operator["op_name"], _computes_in(operator))
        for operator in interpreter._get_ops_details()
        if operator["op_name"] != _DELEGATE
    ]


def _computes_in(operator: dict[str, Any]) -> str:
    if operator["op_name"] not in _MULTIPLIERS:
        return ""
    # Not the bias, which is int32 in an integer operator, nor the shape, the first input of a transposed convolution.
    types = operator.get("operand_types", ())  # tflite-runtime does not give this
    kinds = {str(kind.__name__) for kind in types[:3]} - {"int32", "int64"}
    # With float activations and int8 weights, XNNPACK quantizes the activations at run time.
    return next((word for kind, word in _ARITHMETIC.items() if kind in kinds), "")


def output_order(name: str) -> tuple[str, int]:
    """Sort key that puts output_2 before output_10."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number)) if number.isdigit() else (name, 0)
