"""Runs an ONNX graph and collects the values of its inner tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray

from edgecnn.converters.int8.onnx.graph import Graph
from edgecnn.converters.int8.search.ranges import TensorHistogram
from edgecnn.errors import ConversionError
from edgecnn.results import UInt8Array
from edgecnn.runners.onnxruntime.backend import open_model, session_options

VALUES_AT_ONCE = 1 << 26  # float32 values that one run returns: 256 MB


def collect(
    graph: Graph,
    tensors: Sequence[str],
    frames: Sequence[UInt8Array],
    *,
    threads: int,
    observe: Callable[[str, NDArray[Any]], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, TensorHistogram]:
    """Histograms of a float graph's tensors over all frames.

    Args:
        tensors: names of the tensors.
        frames: uint8 [batch, height, width, 3] BGR each.
        observe: called with each tensor's values too.
        progress: called with (done, total) runs.

    Raises:
        ConversionError: no frame, a frame of another shape or dtype, or values that are not finite.
    """
    if not frames:
        raise ConversionError("calibration needs at least one frame, got none: give some pictures")
    histograms = {tensor: TensorHistogram() for tensor in tensors}
    chunks = _chunks(graph, tensors)
    for number, chunk in enumerate(chunks):
        session = open_session(with_outputs(graph.model, chunk), threads=threads)
        for done, frame in enumerate(frames):
            for tensor, values in zip(chunk, run(session, chunk, frame), strict=True):
                _count(histograms[tensor], tensor, values)
                if observe is not None:
                    observe(tensor, values)
            if progress is not None:
                progress(number * len(frames) + done + 1, len(chunks) * len(frames))
    return histograms


def with_outputs(model: Any, tensors: Sequence[str]) -> bytes:
    """The serialized model, with float32 inner tensors among its outputs."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    there = {output.name for output in exposed.graph.output}
    exposed.graph.output.extend(
        onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None)
        for tensor in dict.fromkeys(tensors)
        if tensor not in there
    )
    return exposed.SerializeToString()  # type: ignore[no-any-return]


def open_session(model: Path | bytes, *, threads: int, optimized: Path | None = None) -> onnxruntime.InferenceSession:
    """Open a model as `edgecnn.runners.onnxruntime.backend` does, on the CPU.

    Args:
        optimized: file into which the runtime writes its optimised graph, in which constants keep their names.

    Raises:
        ConversionError: the runtime cannot open the model.
    """
    options = session_options(threads)
    disabled = []
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
        disabled = ["ConstantSharing"]  # merges small equal constants: they would lose their names
    try:
        return open_model(model, options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled)
    except Exception as failed:
        raise ConversionError(f"onnxruntime {onnxruntime.__version__} cannot open the file: {failed}") from failed


def run(session: onnxruntime.InferenceSession, tensors: Sequence[str], frame: UInt8Array) -> list[NDArray[Any]]:
    """The named outputs for one frame.

    Raises:
        ConversionError: the frame has another shape or dtype, or the runtime fails.
    """
    wanted = session.get_inputs()[0]
    try:
        return list(session.run(list(tensors), {wanted.name: frame}))
    except Exception as failed:
        raise ConversionError(
            f"onnxruntime failed on a frame {frame.dtype} {list(frame.shape)}; the file expects {wanted.type} "
            f"{wanted.shape}: {failed}"
        ) from failed


def _count(histogram: TensorHistogram, tensor: str, values: NDArray[Any]) -> None:
    try:
        histogram.add(values)
    except ConversionError as failed:
        raise ConversionError(f"tensor {tensor!r}: {failed}") from failed


def _chunks(graph: Graph, tensors: Sequence[str]) -> list[list[str]]:
    """Groups of tensors that fit into memory together, by their shapes in the file."""
    chunks: list[list[str]] = [[]]
    used = 0
    for tensor in tensors:
        size = math.prod(graph.shape(tensor) or ())
        if used + size > VALUES_AT_ONCE and chunks[-1]:
            chunks.append([])
            used = 0
        chunks[-1].append(tensor)
        used += size
    return chunks
