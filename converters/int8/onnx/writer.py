"""Writes int8 ONNX files for ONNX Runtime: QDQ graphs with ranges from our own calibration."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from edgecnn.bundle import LayerRecord
from edgecnn.converters.base import Converted
from edgecnn.converters.int8.base import Progress, with_learned
from edgecnn.converters.int8.onnx import rules
from edgecnn.converters.int8.onnx.calibration import collect, open_session, run, with_outputs
from edgecnn.converters.int8.onnx.correction import Corrections
from edgecnn.converters.int8.onnx.forms import EqualisedForm, choose_equalisations
from edgecnn.converters.int8.onnx.graph import Graph
from edgecnn.converters.int8.onnx.qdq import Scale, quantized
from edgecnn.converters.int8.onnx.units import Unit, find_units
from edgecnn.converters.int8.search.equalisation import ChannelSamples, Equalisation
from edgecnn.converters.int8.search.plan import Plan, RangeMethod
from edgecnn.converters.int8.search.ranges import ACTIVATIONS, TensorHistogram, choose_range
from edgecnn.errors import ConversionError
from edgecnn.results import UInt8Array

# The operators that ONNX Runtime makes of int8 layers; the last is a matrix product that writes float.
_INT8_OPERATORS = frozenset({"QLinearConv", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat"})

_FORMS_KEPT = 3  # each holds a copy of the graph


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
        once = {name: nodes[0] for name, nodes in self._nodes.items() if len(nodes) == 1}
        units = {unit.layer: unit for unit in find_units(self._graph, once.values())}
        self._units = {name: units[index] for name, index in once.items() if index in units}
        self._samples: dict[str, ChannelSamples] = {}
        self._equalisations: dict[Unit, Equalisation] | None = None
        self._equalised: dict[frozenset[str], EqualisedForm] = {}
        self._opened: tuple[Path, int, onnxruntime.InferenceSession, Mapping[str, NDArray[Any]]] | None = None

    def calibrate(self, frames: Sequence[UInt8Array], progress: Progress | None = None) -> None:
        """Run the float network over the frames and build its tensors' histograms."""
        self._scales.clear()
        layers = [index for nodes in self._nodes.values() for index in nodes]
        self._corrections = corrections = Corrections(self._graph, layers, frames=len(frames))
        outputs = {self._graph.nodes[unit.layer].output[0]: unit.layer for unit in self._units.values()}
        self._samples = {
            tensor: ChannelSamples(self._graph.array(self._graph.nodes[layer].input[1]).shape[0])
            for tensor, layer in outputs.items()
        }
        self._equalisations = None
        self._equalised.clear()
        rng = np.random.default_rng(0)

        def observe(tensor: str, values: NDArray[Any]) -> None:
            corrections.observe(tensor, values)
            if tensor in self._samples:
                self._samples[tensor].add(np.moveaxis(values, 1, -1), len(frames), rng)

        self._histograms = collect(
            self._graph, self._tensors_with_ranges(), frames, threads=self._threads, observe=observe, progress=progress
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
        form = self._form_of(plan)
        graph, corrections = (self._graph, self._corrections) if form is None else (form.graph, form.corrections)
        if form is not None:
            layers = frozenset(form.index(self._graph, index) for index in layers)
        model = quantized(
            graph,
            layers,
            rules.int8_operators(graph, layers),
            scale_of=lambda tensor: self._scale(tensor, plan.ranges, form),
            corrections=corrections if plan.correct_weights else None,
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
            self._opened = file, stamp, open_session(exposed, threads=self._threads), _scales_in(model)
        session = self._opened[2]
        there = {output.name for output in session.get_outputs()}
        tensors = {name: tensor for name, tensor in tensors.items() if tensor in there}
        values = dict(zip(tensors, run(session, list(tensors.values()), frame), strict=True))
        scales = self._opened[3]
        return {name: each * scales.get(tensors[name], 1) for name, each in values.items()}

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

    @property
    def equalisable(self) -> Sequence[str]:
        """Layers that can be equalised, after `calibrate`."""
        chosen = self._chosen_equalisations()
        return [name for name, unit in self._units.items() if unit in chosen]

    def _chosen_equalisations(self) -> Mapping[Unit, Equalisation]:
        if self._equalisations is None:
            histograms = self._histograms or {}
            largest = {}
            for unit in self._units.values():
                histogram = histograms.get(self._graph.nodes[unit.product].output[0])
                if histogram is not None and histogram.high > histogram.low:
                    largest[unit] = choose_range(histogram, "least-error")[1]
            self._equalisations = choose_equalisations(self._graph, self._samples, largest, largest)
        return self._equalisations

    def _form_of(self, plan: Plan) -> EqualisedForm | None:
        """The graph that a plan's file is written from; None for the graph as it was converted."""
        names = frozenset(plan.equalised & plan.int8_layers)
        if not names or self._corrections is None:
            return None
        unknown = sorted(names.difference(self.equalisable))
        if unknown:
            raise ConversionError(f"the plan equalises layers that cannot be equalised here: {', '.join(unknown)}")
        if names not in self._equalised:
            while len(self._equalised) >= _FORMS_KEPT:
                self._equalised.pop(next(iter(self._equalised)))
            chosen = {self._units[name]: self._chosen_equalisations()[self._units[name]] for name in names}
            self._equalised[names] = EqualisedForm(self._graph, self._corrections, chosen)
        return self._equalised[names]

    def _scale(self, tensor: str, method: RangeMethod, form: EqualisedForm | None = None) -> Scale:
        if form is not None:
            usual = (0.0, 0.0) if form.is_added(tensor) else self._range(tensor, method)
            return Scale.of(tensor, *form.range_of(tensor, usual))
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


def _scales_in(model: Any) -> dict[str, NDArray[Any]]:
    """Layer's output → what its channels were divided by, float32 [1, channels, 1, 1], in an int8 file."""
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for name in constants:
        if name.endswith(f"{rules.SCALES}.int8"):
            scales = name.removesuffix(".int8")
            step = onnx.numpy_helper.to_array(constants[f"{scales}.scale"])
            levels = onnx.numpy_helper.to_array(constants[name])
            found[scales.removesuffix(rules.SCALES)] = levels[:, :, :, :1].astype(np.float32) * step
    return found
