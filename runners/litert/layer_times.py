"""Times layers with LiteRT's profiler, through its C interface, because the Python package has none.

Functions, the option's name and the event's layout come from LiteRT's public headers (litert/c/litert_profiler.h,
litert_profiler_event.h, litert_compiled_model.h); the library is the one in the Python package.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgecnn.bundle.evidence import LayerTime
from edgecnn.errors import DeviceError
from edgecnn.results import UInt8Array
from edgecnn.runners.backend import LayerRequest, layer_times
from edgecnn.runners.litert.interpreter import multipliers_in
from edgecnn.tool_output import quiet

_RUNTIME_OPTIONS, _CPU_OPTIONS = b"runtime_options_string", b"cpu_options_string"
_ON_CPU = 1
_WRITE = 1  # lock mode of a buffer
_TYPE_BYTES = 512  # more than a LiteRtRankedTensorType takes
_MULTIPLIERS = re.compile(
    r"Convolution|Deconvolution|Fully Connected|Batch Matrix|CONV_2D|TRANSPOSE_CONV|FULLY_CONNECTED|BATCH_MATMUL"
)
_ARITHMETIC = {
    "QD8": "int8",
    "QC8": "int8",
    "QS8": "int8",
    "QU8": "int8",
    "F16": "fp16",
    "F32": "fp32",
}

# LiteRtProfilerEventType: an operator of the interpreter, and one inside a delegate.
_OPERATOR, _IN_DELEGATE = 1 << 1, 1 << 3
_DELEGATE_NODE = "Delegate"  # the operator that holds a delegate's others


class _Event(ctypes.Structure):
    """ProfiledEventData."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_size_t * 6),
        ("metadata", ctypes.c_uint64 * 2),
        ("source", ctypes.c_int),
    )


def time_layers(path: Path, request: LayerRequest, frame: UInt8Array) -> list[LayerTime]:
    """The operators that LiteRT ran on the CPU, with the median of their times.

    Raises:
        DeviceError: another device is requested, or this LiteRT has no such interface.
    """
    if not request.device.is_cpu:
        raise DeviceError("LiteRT times layers on the CPU only: give --device cpu")
    with quiet("LiteRT"):
        runs = _profile(path, request, frame)
    operators = [(kind, where) for kind, where, _ in runs[0]]
    if not operators or any([(kind, where) for kind, where, _ in run] != operators for run in runs):
        raise DeviceError(f"LiteRT's profile of {path.name} differs from one inference to the next; run it again")
    names = iter(multipliers_in(path))
    multiplying = [bool(_MULTIPLIERS.search(kind)) for kind, _ in operators]
    # XNNPACK gives no names, but runs a graph in order: layers are identified by position, if all are listed.
    known = sum(multiplying) == len(multipliers_in(path))
    layers = [
        LayerTime(
            name=next(names) if known and multiplies else "",
            kind=kind,
            where=where,
            computes=_computes_in(kind) if multiplies else "",
            time_ms=0,
        )
        for (kind, where), multiplies in zip(operators, multiplying, strict=True)
    ]
    samples = [[run[place][2] for run in runs] for place in range(len(operators))]
    return layer_times(layers, samples, request.calls)


def _computes_in(kind: str) -> str:
    return next((word for mark, word in _ARITHMETIC.items() if mark in kind), "")


def _profile(path: Path, request: LayerRequest, frame: UInt8Array) -> list[list[tuple[str, str, float]]]:
    """For each inference, its operators in the order of execution: (kind, executor, ms)."""
    with _opened(path, request.threads) as (call, model, compiled, environment):
        profiler = ctypes.c_void_p()
        call("LiteRtCompiledModelGetProfiler", compiled, ctypes.byref(profiler))
        signature = ctypes.c_void_p()
        call("LiteRtGetModelSignature", model, ctypes.c_size_t(0), ctypes.byref(signature))
        buffers: dict[str, ctypes.Array[ctypes.c_void_p]] = {}
        for kind in ("Input", "Output"):
            count = ctypes.c_size_t()
            call(f"LiteRtGetNumSignature{kind}s", signature, ctypes.byref(count))
            buffers[kind] = (ctypes.c_void_p * count.value)(
                *(_buffer(call, kind, index, signature, compiled, environment) for index in range(count.value))
            )
        _write(call, buffers["Input"][0], frame)

        def run(times: int) -> None:
            for _ in range(times):
                call(
                    "LiteRtRunCompiledModel",
                    compiled,
                    ctypes.c_size_t(0),
                    *(part for made in buffers.values() for part in (ctypes.c_size_t(len(made)), made)),
                )

        run(request.warmup)
        runs = []
        for _ in range(request.calls):
            call("LiteRtResetProfiler", profiler)
            call("LiteRtStartProfiler", profiler)
            run(1)
            call("LiteRtStopProfiler", profiler)
            runs.append(_operators(call, profiler))
        for made in buffers.values():
            for buffer in made:
                call.library.LiteRtDestroyTensorBuffer(ctypes.c_void_p(buffer))
        return runs


def _operators(call: _Call, profiler: ctypes.c_void_p) -> list[tuple[str, str, float]]:
    count = ctypes.c_int()
    call("LiteRtGetNumProfilerEvents", profiler, ctypes.byref(count))
    events = (_Event * count.value)()
    call("LiteRtGetProfilerEvents", profiler, count, events)
    found = []
    for event in events:
        tag = (event.tag or b"").decode(errors="replace")
        if event.type == _IN_DELEGATE:
            found.append((tag, "XNNPACK", event.elapsed_us / 1e3))
        elif event.type == _OPERATOR and _DELEGATE_NODE not in tag:
            found.append((tag, "LiteRT", event.elapsed_us / 1e3))
    return found


class _Call:
    """Calls a function of the library; a result other than 0 is an error."""

    def __init__(self) -> None:
        package = find_spec("ai_edge_litert")
        if package is None or package.origin is None:
            raise DeviceError("tflite-runtime cannot time layers; install LiteRT: pip install 'edgecnn[tflite]'")
        import ai_edge_litert.compiled_model  # noqa: F401 - loads the libraries that this one needs

        try:
            self.library = ctypes.CDLL(str(next(Path(package.origin).parent.glob("libLiteRt.*"))))
        except (OSError, StopIteration) as failed:
            raise DeviceError(f"this LiteRT has no library that times layers: {failed}") from failed

    def __call__(self, name: str, *arguments: Any) -> None:
        if not hasattr(self.library, name):
            raise DeviceError(f"this LiteRT has no function {name}, needed to time layers: upgrade ai-edge-litert")
        status = getattr(self.library, name)(*arguments)
        if status:
            raise DeviceError(f"LiteRT's {name} failed with status {status}")


@contextmanager
def _opened(path: Path, threads: int) -> Iterator[tuple[_Call, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]]:
    """A file compiled for the CPU with profiling on: (call, model, compiled model, environment)."""
    call = _Call()
    keep: list[Any] = []  # callbacks that LiteRT calls while it deletes its options
    with ExitStack() as stack:

        def made(name: str, kind: str, *arguments: Any) -> ctypes.c_void_p:
            handle = ctypes.c_void_p()
            call(name, *arguments, ctypes.byref(handle))
            stack.callback(getattr(call.library, f"LiteRtDestroy{kind}"), handle)
            return handle

        environment = made("LiteRtCreateEnvironment", "Environment", ctypes.c_int(0), None)
        model = made("LiteRtCreateModelFromFile", "Model", environment, str(path).encode())
        options = made("LiteRtCreateOptions", "Options")
        call("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(_ON_CPU))
        texts = {
            _RUNTIME_OPTIONS: b"enable_profiling = true\n",
            _CPU_OPTIONS: b"num_threads = %d\n" % threads,
        }
        for identifier, text in texts.items():
            payload = ctypes.create_string_buffer(text)
            nothing = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda pointer: None)
            keep += [payload, nothing]
            option = ctypes.c_void_p()
            call("LiteRtCreateOpaqueOptions", identifier, payload, nothing, ctypes.byref(option))
            call("LiteRtAddOpaqueOptions", options, option)
        compiled = made("LiteRtCreateCompiledModel", "CompiledModel", environment, model, options)
        yield call, model, compiled, environment


def _buffer(
    call: _Call,
    kind: str,
    index: int,
    signature: ctypes.c_void_p,
    compiled: ctypes.c_void_p,
    environment: ctypes.c_void_p,
) -> ctypes.c_void_p:
    tensor, requirements, buffer = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    place = ctypes.c_size_t(index)
    call(f"LiteRtGetSignature{kind}TensorByIndex", signature, place, ctypes.byref(tensor))
    described = ctypes.create_string_buffer(_TYPE_BYTES)
    call("LiteRtGetRankedTensorType", tensor, described)
    call(
        f"LiteRtGetCompiledModel{kind}BufferRequirements",
        compiled,
        ctypes.c_size_t(0),
        place,
        ctypes.byref(requirements),
    )
    call("LiteRtCreateManagedTensorBufferFromRequirements", environment, described, requirements, ctypes.byref(buffer))
    return buffer


def _write(call: _Call, buffer: Any, frame: UInt8Array) -> None:
    place = ctypes.c_void_p()
    call("LiteRtLockTensorBuffer", ctypes.c_void_p(buffer), ctypes.byref(place), ctypes.c_int(_WRITE))
    ctypes.memmove(place, frame.ctypes.data, frame.nbytes)
    call("LiteRtUnlockTensorBuffer", ctypes.c_void_p(buffer))
