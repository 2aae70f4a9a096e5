"""Compiles a network for Qualcomm's HTP: quantizes every operator, then runs QNN's compiler (in onnxruntime-qnn)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx

from edgecnn.child import Child
from edgecnn.converters.base import Compiled, Converted, Progress
from edgecnn.converters.int8.float_artifact import FloatArtifact
from edgecnn.converters.int8.onnx import rules
from edgecnn.converters.int8.onnx.calibration import collect, open_session, run
from edgecnn.converters.int8.onnx.correction import Corrections
from edgecnn.converters.int8.onnx.graph import Graph
from edgecnn.converters.int8.onnx.whole_graph import layers_with_weights, quantized_whole, tensors_with_ranges
from edgecnn.converters.int8.search.plan import RangeMethod
from edgecnn.converters.int8.search.ranges import TensorHistogram, choose_range
from edgecnn.errors import ConversionError, DeviceError, Fault, MissingDependencyError
from edgecnn.measure.damage import damage
from edgecnn.results import UInt8Array
from edgecnn.runners.onnxruntime import qnn
from edgecnn.targets import Target

CHILD = "edgecnn.runners.onnxruntime.qnn_compile_child"
logger = logging.getLogger(__name__)

_BITS = {"int8": 8, "int8-a16": 16}
# 16 bits cover all values; in 8 bits, cutting rare values off may give less noise.
_METHODS: Mapping[int, Sequence[RangeMethod]] = {8: ("percentile", "least-error", "min-max"), 16: ("min-max",)}
_TRIED_ON = 8  # frames
_COMPILE_TIMEOUT_S = 3600.0


class QualcommHtpCompiler:
    """Writes QNN contexts, each in one ONNX file, which onnxruntime-qnn opens."""

    slow_device = True

    def __init__(self, source: FloatArtifact, target: Target, *, threads: int) -> None:
        self._source, self._target, self._threads = source, target, threads
        self._graph = Graph(onnx.load(source.file))
        self._histograms: dict[str, TensorHistogram] = {}
        self._corrections: Corrections | None = None
        self._frames: Sequence[UInt8Array] = ()

    def calibrate(self, frames: Sequence[UInt8Array], progress: Progress | None = None) -> None:
        """Run the float network over the frames; build its tensors' histograms and sample its layers' inputs."""
        graph, layers = self._graph, layers_with_weights(self._graph)
        self._corrections = Corrections(graph, layers, frames=len(frames))
        observed = [*tensors_with_ranges(graph), *(graph.nodes[index].input[0] for index in layers)]
        self._histograms = collect(
            graph,
            list(dict.fromkeys(observed)),
            frames,
            threads=self._threads,
            observe=self._corrections.observe,
            progress=None if progress is None else lambda done, total: progress(done, total, "calibrating"),
        )
        self._frames = frames[:: max(len(frames) // _TRIED_ON, 1)][:_TRIED_ON]

    def write(self, precision: str, folder: Path) -> Compiled:
        """Write `model.onnx`, a context compiled for one architecture."""
        bits = _BITS[precision]
        with_least_noise, method = self._quantized(bits)
        quantized = folder / "quantized.onnx"
        quantized.write_bytes(with_least_noise.SerializeToString())
        path = folder / "model.onnx"
        report = self._compiled(quantized, path)
        quantized.unlink()
        # Operators that the compiler's own front end added outside the NPU are counted too.
        off = Counter(report["elsewhere"].values())
        operators = len(self._graph.nodes)
        _write_counts(path, operators=operators, on_npu=operators - off.total())
        layers = rules.find_layers(self._graph, self._source.layers)
        off_layers = {
            name for name, nodes in layers.items() if any(self._name(index) in report["elsewhere"] for index in nodes)
        }
        return Compiled(
            Converted([path], f"edgecnn QDQ, onnx {onnx.__version__}; {qnn.runtime_name()}, {self._target.name}"),
            recipe=f"static_wi8_ai{bits}, whole graph, {method} ranges, weights corrected",
            operators=operators,
            off_device=dict(off),
            off_layers=frozenset(off_layers),
            conversions=report["conversions"],
            compile_s=round(report["compile_s"], 2),
        )

    def _quantized(self, bits: int) -> tuple[Any, RangeMethod]:
        """The quantized graph with the least noise against the float one, in ONNX Runtime on the CPU."""
        methods = _METHODS[bits]
        made = {method: self._with_ranges(bits, method) for method in methods}
        if len(made) == 1:
            return made[methods[0]], methods[0]
        expected = self._answers(self._graph.model)
        noise = {method: damage(self._answers(model), expected) for method, model in made.items()}
        best = min(noise, key=lambda method: noise[method])
        return made[best], best

    def _with_ranges(self, bits: int, method: RangeMethod) -> Any:
        def range_of(tensor: str, bits_of_it: int) -> tuple[float, float]:
            histogram = self._histograms[tensor]
            if histogram.high <= histogram.low:
                return 0.0, 0.0  # always zero
            return choose_range(histogram, method if bits_of_it == bits else "min-max")

        if not self._histograms:
            raise ConversionError("no ranges yet: call calibrate with some frames before write")
        return quantized_whole(self._graph, activation_bits=bits, range_of=range_of, corrections=self._corrections)

    def _answers(self, model: Any) -> list[dict[str, Any]]:
        session = open_session(model.SerializeToString(), threads=self._threads)
        names = [spec.name for spec in self._source.outputs]
        return [dict(zip(names, run(session, names, frame), strict=True)) for frame in self._frames]

    def _compiled(self, quantized: Path, context: Path) -> dict[str, Any]:
        """Compile in a child process; returns its report, see `edgecnn.runners.onnxruntime.qnn_compile_child`."""
        architecture = self._target.architecture.removeprefix("v")
        try:
            with Child(CHILD, timeout_s=_COMPILE_TIMEOUT_S) as child:
                report = child.ask(
                    "compile",
                    model=str(quantized),
                    context=str(context),
                    architecture=architecture,
                    threads=self._threads,
                )
                logger.debug("QNN's compiler said: %s", child.output)
        except (DeviceError, MissingDependencyError) as failed:
            fault = Fault.of(failed)
            if not fault.crash:
                raise ConversionError(
                    f"QNN's compiler refuses the network for {self._target.name}: {fault.reason}"
                ) from failed
            _, _, message = fault.reason.partition("it said: ")
            raise ConversionError(
                f"QNN's compiler crashed on this network, for {self._target.name}: {fault.crash}"
                + (f"; it said: {message}" if message else "")
            ) from failed
        if not context.exists():
            raise ConversionError(f"QNN's compiler wrote nothing for {self._target.name}")
        return report

    def _name(self, index: int) -> str:
        return str(self._graph.nodes[index].output[0])


def _write_counts(context: Path, *, operators: int, on_npu: int) -> None:
    """Write a file next to a context with its operator counts, which the runtime cannot tell from the context."""
    model = onnx.load(context)
    onnx.helper.set_model_props(model, {qnn.OPERATORS: str(operators), qnn.OPERATORS_ON_NPU: str(on_npu)})
    context.write_bytes(model.SerializeToString())
