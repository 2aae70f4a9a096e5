"""Statistics of a TFLite network's activations on the calibration frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import LayerRanges
from edgecnn.converters.int8.base import Progress
from edgecnn.converters.int8.layer_inputs import SAMPLES
from edgecnn.converters.int8.search.equalisation import ChannelSamples
from edgecnn.converters.int8.search.plan import RangeMethod
from edgecnn.converters.int8.search.ranges import TensorHistogram, choose_range
from edgecnn.converters.int8.search.rounding import InputMoments
from edgecnn.converters.int8.tflite.graph import WITH_WEIGHTS, Graph
from edgecnn.converters.int8.tflite.placement import activation_after, range_source
from edgecnn.converters.int8.tflite.weights import sample_inputs
from edgecnn.errors import ConversionError
from edgecnn.results import UInt8Array
from edgecnn.runners.litert.file import Operator
from edgecnn.tool_output import quiet

# Fixed output ranges of the runtime's int8 kernels.
_FIXED_RANGES = {"LOGISTIC": (0.0, 255 / 256), "TANH": (-1.0, 127 / 128)}

RANGE_METHODS: Sequence[RangeMethod] = ("least-error", "percentile", "min-max")  # the usual one first

_SAMPLE = 2**16  # values counted per tensor and frame, in addition to the smallest and largest


class Statistics:
    """Histograms of the tensors that may be int8, and moments of the layers' inputs.

    Args:
        graph: the float file's graph.
        operators: indices of all operators that may compute in int8.
        learned: the layers' ranges from training for int8, by their operator's index.
        sampled: layers whose outputs are sampled by channel, for equalisation.
    """

    def __init__(
        self,
        graph: Graph,
        operators: Iterable[int],
        learned: Mapping[int, LayerRanges] | None = None,
        sampled: Iterable[Operator] = (),
    ) -> None:
        self._graph = graph
        chosen = [graph.operators[index] for index in operators]
        tensors = {t for operator in chosen for t in (*graph.activations(operator), *operator.outputs)}
        self._sources = {tensor: range_source(graph, tensor) for tensor in sorted(tensors)}
        self._histograms = {t: TensorHistogram() for t in self._sources.values() if self._fixed_range(t) is None}
        self._layers = [operator for operator in chosen if operator.kind in WITH_WEIGHTS]
        self._moments: dict[int, InputMoments] = {}
        self._samples = {o.outputs[0]: ChannelSamples(graph.tensors[o.outputs[0]].shape[-1]) for o in sampled}
        self._rng = np.random.default_rng(0)
        self._frames = 0
        self._ranges: dict[tuple[int, RangeMethod], tuple[float, float]] = {}
        self._learned = self._learned_ranges(learned or {})

    def collect(
        self, file: bytes, frames: Sequence[UInt8Array], *, threads: int, progress: Progress | None = None
    ) -> None:
        """Run the float file once per frame.

        Raises:
            ConversionError: no frames, frames of another shape, or activations that are not finite.
        """
        if not frames:
            raise ConversionError("calibration needs at least one frame, got none: give some pictures")
        interpreter = open_interpreter(file, threads=threads)
        for done, frame in enumerate(frames):
            if progress is not None:
                progress(done, len(frames))
            run(interpreter, frame)
            for tensor, histogram in self._histograms.items():
                histogram.add(_sample(interpreter.get_tensor(tensor), done))
            for tensor, samples in self._samples.items():
                samples.add(interpreter.get_tensor(tensor), len(frames), self._rng)
            for layer in self._layers:
                values = interpreter.get_tensor(layer.inputs[WITH_WEIGHTS[layer.kind].input])
                columns = sample_inputs(self._graph, layer, values, max(SAMPLES // len(frames), 1), self._rng)
                groups, inputs, _ = columns.shape
                self._moments.setdefault(layer.index, InputMoments(groups, inputs)).add(columns)
        self._frames += len(frames)
        if progress is not None:
            progress(len(frames), len(frames))

    @property
    def collected(self) -> bool:
        """Whether statistics were collected."""
        return self._frames > 0

    def is_zero(self, tensor: int) -> bool:
        """Whether a tensor was always zero, so that it has no scale."""
        histogram = self._histograms.get(self._sources[tensor])
        return histogram is not None and histogram.high <= histogram.low

    def range_of(self, tensor: int, method: RangeMethod) -> tuple[float, float]:
        """Low and high of a tensor.

        Raises:
            ConversionError: the tensor was always zero.
        """
        source = self._sources[tensor]
        fixed = self._fixed_range(source)
        if fixed is not None:
            return fixed
        if method == "learned":
            if source in self._learned:
                return self._learned[source]
            method = RANGE_METHODS[0]
        if (source, method) not in self._ranges:
            self._ranges[source, method] = choose_range(
                self._histograms[source], method, activation=activation_after(self._graph, source)
            )
        return self._ranges[source, method]

    def ranges(self, method: RangeMethod, operators: Iterable[int]) -> dict[int, tuple[float, float]]:
        """Low and high of every tensor that these operators read or write."""
        chosen: Iterable[Operator] = (self._graph.operators[index] for index in operators)
        tensors = {t for operator in chosen for t in (*self._graph.activations(operator), *operator.outputs)}
        return {tensor: self.range_of(tensor, method) for tensor in tensors}

    def moments(self, operator: Operator) -> InputMoments:
        """Moments of the inputs of a layer's weights."""
        return self._moments[operator.index]

    def samples(self, layer: Operator) -> ChannelSamples:
        """Samples of a sampled layer's output."""
        return self._samples[layer.outputs[0]]

    def source_of(self, tensor: int) -> int:
        """The tensor whose range this one shares."""
        return self._sources[tensor]

    def _learned_ranges(self, learned: Mapping[int, LayerRanges]) -> dict[int, tuple[float, float]]:
        found: dict[int, tuple[float, float]] = {}
        for index, ranges in learned.items():
            operator = self._graph.operators[index]
            for tensor, ends in (
                (operator.inputs[WITH_WEIGHTS[operator.kind].input], ranges.reads),
                (operator.outputs[0], ranges.writes),
            ):
                if ends is not None and tensor in self._sources:
                    found[self._sources[tensor]] = ends
        return found

    def _fixed_range(self, tensor: int) -> tuple[float, float] | None:
        producer = self._graph.producer.get(tensor)
        return _FIXED_RANGES.get(producer.kind) if producer is not None else None


def _sample(values: NDArray[np.float32], turn: int) -> NDArray[np.float32]:
    """The extremes of a tensor, and evenly spaced values of a large tensor, different ones in each turn.

    Counting every value of every tensor would take ten times as long as running the network.
    """
    flat = values.ravel()
    step = flat.size // _SAMPLE | 1  # odd, so that it reaches all of 2ⁿ channels
    if step == 1:
        return flat
    return np.concatenate([flat[turn % step :: step], [flat.min(), flat.max()]], dtype=np.float32)


def open_interpreter(file: bytes, *, threads: int = 1, keep_all: bool = True) -> Any:
    """An interpreter for a file's content, as it runs on a device (XNNPACK).

    Args:
        file: the file's content.
        threads: threads per inference.
        keep_all: keep every tensor readable after a run, not only the outputs.

    Raises:
        ConversionError: the runtime cannot open it.
    """
    try:
        with quiet("ai-edge-litert"):
            from ai_edge_litert.interpreter import Interpreter

            interpreter = Interpreter(
                model_content=file, num_threads=threads, experimental_preserve_all_tensors=keep_all
            )
            interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as failed:
        raise ConversionError(f"LiteRT cannot open this file: {failed}") from failed
    return interpreter


def run(interpreter: Any, frame: UInt8Array) -> None:
    """Run one frame, uint8 [1, height, width, 3] BGR.

    Raises:
        ConversionError: a frame of another shape or dtype, or the runtime fails.
    """
    wanted = interpreter.get_input_details()[0]
    if list(frame.shape) != wanted["shape"].tolist() or frame.dtype != wanted["dtype"]:
        raise ConversionError(
            f"the network expects frames {wanted['dtype'].__name__} {wanted['shape'].tolist()}, "
            f"got {frame.dtype} {list(frame.shape)}: fit the frame to the network first"
        )
    try:
        interpreter.set_tensor(wanted["index"], frame)
        interpreter.invoke()
    except (RuntimeError, ValueError) as failed:
        raise ConversionError(f"LiteRT failed on a frame of shape {list(frame.shape)}: {failed}") from failed


def tensor_values(interpreter: Any, details: Mapping[str, Any]) -> NDArray[np.float32]:
    """A tensor after a run, as float32; quantized values are dequantized."""
    values = interpreter.get_tensor(details["index"]).astype(np.float32)
    scales, zeros = details["quantization_parameters"]["scales"], details["quantization_parameters"]["zero_points"]
    if not scales.size:
        return np.asarray(values, np.float32)
    return np.asarray((values - np.float32(zeros[0])) * np.float32(scales[0]), np.float32)
