"""Runs OpenVINO graphs, and returns values of inner tensors and statistics of layers' inputs over many frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.converters.int8.base import Progress
from edgecnn.converters.int8.openvino.graph import Model, Output, by_name, channel_axis, layers_before, quantizer_of
from edgecnn.converters.int8.openvino.statistics import TensorStatistics
from edgecnn.errors import ConversionError
from edgecnn.results import UInt8Array
from edgecnn.runners.openvino.core import CORE

Watched = Callable[[UInt8Array], dict[str, NDArray[Any]]]


class GraphRunner:
    """Reads and runs graphs as edgecnn's runner does: on the CPU, with float layers in 32 bits."""

    def __init__(self, threads: int) -> None:
        self._threads = threads

    def read(self, file: Path) -> Model:
        """The file's graph.

        Raises:
            ConversionError: OpenVINO cannot read it.
        """
        try:
            return CORE.read_model(file)
        except RuntimeError as failed:
            raise ConversionError(f"OpenVINO cannot read {file}: {first_line(failed)}; convert again") from failed

    def compile(self, model: Model) -> Any:
        """The compiled graph, ready to run.

        Raises:
            ConversionError: OpenVINO failed on it.
        """
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": str(self._threads),
        }
        try:
            return CORE.compile_model(model, "CPU", config)
        except RuntimeError as failed:
            raise ConversionError(f"OpenVINO cannot compile this graph: {first_line(failed)}") from failed

    def watch(self, model: Model, ports: Mapping[str, Output]) -> Watched:
        """A function that runs `model` on a frame and returns the values at `ports`, valid until the next run.

        The ports become outputs of `model`.
        """
        model.add_outputs(list(ports.values()))
        # Several names for one port, or a port that is already an output, give one output.
        places = {_place(output.get_node().input_value(0)): index for index, output in enumerate(model.outputs)}
        indices = {name: places[_place(port)] for name, port in ports.items()}
        request = self.compile(model).create_infer_request()

        def run(frame: UInt8Array) -> dict[str, NDArray[Any]]:
            request.infer(frame, share_inputs=True, share_outputs=True)
            return {name: request.get_output_tensor(index).data for name, index in indices.items()}

        return run


def collect_statistics(
    runner: GraphRunner,
    model: Model,
    quantized: Model,
    operators: Sequence[str],
    frames: Sequence[UInt8Array],
    progress: Progress | None,
) -> dict[str, TensorStatistics]:
    """Name of each quantizer → statistics of the float tensor that it quantizes.

    Args:
        runner: runs the graph.
        model: the float graph; not changed.
        quantized: the same graph with quantizers before the layers.
        operators: names of the layers' operators.
        frames: uint8 [1, height, width, 3] each.
        progress: called with (done, total) frames.

    Raises:
        ConversionError: a value is not finite.
    """
    watched = model.clone()
    floats, nodes = by_name(watched), by_name(quantized)
    sources: dict[str, Output] = {}
    statistics: dict[str, TensorStatistics] = {}
    for operator in operators:
        quantizer = quantizer_of(nodes[operator])
        if quantizer is not None:
            name = quantizer.get_friendly_name()
            sources[name] = floats[operator].input_value(0)
            known = statistics.setdefault(name, TensorStatistics(_range_axis(quantizer)))
            known.mean_axes.add(channel_axis(floats[operator]))
    frame_name = watched.inputs[0].get_node().get_friendly_name()
    from_frame = [name for name, source in sources.items() if {*layers_before(source.get_node())} <= {frame_name}]
    run = runner.watch(watched, sources)
    _set_frame_bounds(run, frames[0].shape, [(name, statistics[name]) for name in from_frame])
    for done, frame in enumerate(frames):
        if progress is not None:
            progress(done, len(frames))
        for name, values in run(frame).items():
            statistics[name].add(values)
    if progress is not None:
        progress(len(frames), len(frames))
    return statistics


def _set_frame_bounds(run: Watched, shape: Sequence[int], statistics: Sequence[tuple[str, TensorStatistics]]) -> None:
    """Tensors computed directly from the frame get the range of their values for black and white, whatever was seen."""
    for level in (0, 255):
        values = run(np.full(shape, level, np.uint8))
        for name, one in statistics:
            one.set_bounds(values[name])


def _range_axis(quantizer: Any) -> int | None:
    """The axis along which NNCF gave a range for each index; None where there is one range."""
    axes = [axis for axis, length in enumerate(quantizer.get_input_shape(1)) if length > 1]
    return axes[0] if axes else None


def _place(port: Output) -> tuple[str, int]:
    return port.get_node().get_friendly_name(), port.get_index()


def first_line(error: BaseException) -> str:
    """The first line of a tool's error message, with the error's type."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
