"""Writes int8 ONNX files for ONNX Runtime: QDQ graphs with ranges from our own calibration."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from numpy.typing import NDArray

from edgecnn.bundle import LayerRecord
from edgecnn.converters.base import Converted
from edgecnn.converters.int8.base import Progress, with_learned
from edgecnn.converters.int8.onnx import rules
from edgecnn.converters.int8.onnx.calibration import collect, open_session, run, with_outputs
from edgecnn.converters.int8.onnx.correction import Corrections
from edgecnn.converters.int8.onnx.graph import Graph
from edgecnn.converters.int8.onnx.qdq import Scale, quantized
from edgecnn.converters.int8.search.plan import Plan, RangeMethod
from edgecnn.converters.int8.search.ranges import ACTIVATIONS, TensorHistogram, choose_range
from edgecnn.errors import ConversionError
from edgecnn.results import UInt8Array

# The operators that ONNX Runtime makes of int8 layers; the last is a matrix product that writes float.
_INT8_OPERATORS = frozenset({"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat"})


class OnnxInt8Writer:
    """Writes int8 ONNX files for ONNX Runtime.

    A Relu or Clip that is a convolution's only reader is part of that layer: int8 saturates where it clips, and the
    tensor between the two does not exist. Convolutions write int8, so their output is rounded before any other
    activation; matrix products write float.

    onnxruntime's quant_pre_process is not run: our files already have its constants, shapes and folded batch norms, it
    would rename the tensors by which layers are found, and it takes seconds.
    """

    # Percentile first: for YOLOX-nano, all layers int8, AP is .225 with it, .221 with least-error, .141 with min-max.
    usual_range_methods: Sequence[RangeMethod] = ("percentile", "least-error", "min-max")
    corrects_weights = True
    whole_precisions: Sequence[str] = ()
    equalisable: Sequence[str] = ()

    def __init__(self, float_file: Path, layers: Sequence[LayerRecord], *, threads: int) -> None:
        self._graph = Graph(onnx.load(float_file))
        self._nodes = rules.find_layers(self._graph, layers)
        self.layers: Sequence[str] = tuple(self._nodes)
        self.range_methods = with_learned(self.usual_range_methods, layers)
        self._learned = self._learned_ranges(layers)
        self._threads = threads
        self._histograms: dict[str, TensorHistogram] | None = None
        self._corrections: Corrections | None = None
        self._scales: dict[tuple[RangeMethod, str], Scale] = {}
        self._opened: tuple[Path, int, onnxruntime.InferenceSession] | None = None

    def calibrate(self, frames: Sequence[UInt8Array], progress: Progress | None = None) -> None:
        """Run the float network over the frames and build its tensors' histograms."""
        self._scales.clear()
        layers = [index for nodes in self._nodes.values() for index in nodes]
        self._corrections = Corrections(self._graph, layers, frames=len(frames))
        self._histograms = collect(
            self._graph,
            self._tensors_with_ranges(),
            frames,
            threads=self._threads,
            observe=self._corrections.observe,
            progress=progress,
        )

    def write(self, plan: Plan, folder: Path) -> Converted:
        """Write `model.onnx`."""
        unknown = sorted(plan.int8_layers - set(self.layers))
        if unknown:
            raise ConversionError(
                f"the plan has int8 layers that are not in the ONNX file or cannot be int8 there: "
                f"{', '.join(unknown[:5])}; choose among the writer's {len(self.layers)} layers"
            )
        layers = frozenset(index for name in plan.int8_layers for index in self._nodes[name])
        if layers and self._histograms is None:
            raise ConversionError("there are no activation ranges yet: call calibrate with some frames before write")
        model = quantized(
            self._graph,
            layers,
            rules.int8_operators(self._graph, layers),
            scale_of=lambda tensor: self._scale(tensor, plan.ranges),
            corrections=self._corrections if plan.correct_weights else None,
        )
        path = folder / "model.onnx"
        path.write_bytes(model.SerializeToString())
        opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        transposes = sum(node.op_type == "Transpose" for node in model.graph.node)
        return Converted([path], f"edgecnn QDQ, onnx {onnx.__version__}, opset {opset}", transposes)

    def write_whole(self, precision: str, folder: Path) -> Converted:
        """Always fails: `whole_precisions` is empty."""
        raise ConversionError(f"onnx cannot be written in {precision} here")

    def int8_layers(self, file: Path) -> frozenset[str]:
        """Layers whose every node is an int8 operator in ONNX Runtime's optimised graph of the file."""
        with tempfile.TemporaryDirectory() as folder:
            optimized = Path(folder) / "optimized.onnx"
            open_session(file, threads=self._threads, optimized=optimized)
            model = onnx.load(optimized)
        read = Counter(name for node in model.graph.node if node.op_type in _INT8_OPERATORS for name in set(node.input))
        # The optimizer renames nodes and tensors, but not constants.
        return frozenset(
            name
            for name, nodes in self._nodes.items()
            if all(read[f"{self._graph.nodes[index].output[0]}.weight.scale"] for index in nodes)
        )

    def layer_outputs(self, file: Path, frame: UInt8Array) -> Mapping[str, NDArray[Any]]:
        """Each layer's output, NCHW; the first output of a layer that runs more than once."""
        tensors = {name: rules.outputs(self._graph, nodes[0])[0] for name, nodes in self._nodes.items()}
        stamp = file.stat().st_mtime_ns
        if self._opened is None or self._opened[:2] != (file, stamp):
            model = onnx.load(file)
            made = {name for node in model.graph.node for name in node.output}
            exposed = with_outputs(model, [tensor for tensor in tensors.values() if tensor in made])
            self._opened = file, stamp, open_session(exposed, threads=self._threads)
        session = self._opened[2]
        there = {output.name for output in session.get_outputs()}
        tensors = {name: tensor for name, tensor in tensors.items() if tensor in there}
        return dict(zip(tensors, run(session, list(tensors.values()), frame), strict=True))

    def _tensors_with_ranges(self) -> list[str]:
        """All tensors whose range a plan may need: inputs of layers, outputs of convolutions and operators."""
        graph = self._graph
        layers = frozenset(index for nodes in self._nodes.values() for index in nodes)
        tensors: dict[str, None] = {}
        for index in sorted(layers | rules.int8_operators(graph, layers)):  # more int8 layers give more int8 operators
            node = graph.nodes[index]
            if rules.is_layer(node):
                tensors[node.input[0]] = None
            if rules.quantizes_output(node) and not rules.keeps_range(node) and node.op_type not in rules.FIXED_RANGES:
                tensors |= dict.fromkeys(rules.outputs(graph, index))
        return list(tensors)

    def _scale(self, tensor: str, method: RangeMethod) -> Scale:
        if (method, tensor) not in self._scales:
            self._scales[method, tensor] = Scale.of(tensor, *self._range(tensor, method))
        return self._scales[method, tensor]

    def _learned_ranges(self, layers: Sequence[LayerRecord]) -> dict[str, tuple[float, float]]:
        found: dict[str, tuple[float, float]] = {}
        for layer in layers:
            for index in self._nodes.get(layer.name, ()) if layer.learned else ():
                reads, writes = layer.learned.reads, layer.learned.writes  # type: ignore[union-attr]
                if reads is not None:
                    found[self._graph.nodes[index].input[0]] = reads
                if writes is not None:
                    found[rules.outputs(self._graph, index)[0]] = writes
        return found

    def _range(self, tensor: str, method: RangeMethod) -> tuple[float, float]:
        if method == "learned":
            if tensor in self._learned:
                return self._learned[tensor]
            method = self.usual_range_methods[0]
        maker = self._graph.maker(tensor)
        kind = "" if maker is None else self._graph.nodes[maker].op_type
        if kind in rules.FIXED_RANGES:
            return rules.FIXED_RANGES[kind]
        assert self._histograms is not None  # `write` checks this first
        activation = rules.activation_after(self._graph, tensor)
        try:
            return choose_range(
                self._histograms[tensor], method, activation=ACTIVATIONS[activation] if activation else None
            )
        except ConversionError as failed:
            raise ConversionError(
                f"tensor {tensor!r}: {failed}; keep the layer that reads or computes it float"
            ) from failed
