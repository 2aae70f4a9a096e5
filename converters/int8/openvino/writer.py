"""Writes int8 OpenVINO IR: NNCF quantizes every layer once; then the layers that a plan keeps float are restored.

Only the inputs of layers are quantized. Activation functions stay float (8 bits hurt SiLU most: with its Sigmoid and
Multiply in int8, YOLOX-nano's AP falls from .336 to .185), and so do Concat, Add and all decoding. The runtime
itself moves a quantizer through Concat where that costs nothing. Two more cost little or nothing: see
`openvino_graph`'s `share_inputs_with_skips` and `quantize_before_pooling`.

Levels are asymmetric: SiLU's values begin at -0.28, and symmetric levels would waste half (YOLOX-nano, all layers int8
with NNCF's own ranges: AP .332, symmetric .290, float .336). After ReLU the two are the same. The input of a depthwise
convolution gets a range for each channel, as in NNCF (with percentile ranges for both, AP .333; with one range .245).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from edgecnn.bundle import LayerRecord
from edgecnn.converters.base import Converted
from edgecnn.converters.int8.base import Progress, with_learned
from edgecnn.converters.int8.openvino.graph import (
    Model,
    Node,
    add_to_bias,
    by_name,
    channel_axis,
    find_layers,
    float_weights,
    layer_output,
    make_float,
    output_shift,
    quantize_before_pooling,
    quantized_weights,
    quantizer_of,
    set_range,
    share_inputs_with_skips,
)
from edgecnn.converters.int8.openvino.nncf import quantize_layers
from edgecnn.converters.int8.openvino.statistics import Float32Array, Ranges, TensorStatistics, whole_levels
from edgecnn.converters.int8.openvino.tensor_values import GraphRunner, collect_statistics, first_line
from edgecnn.converters.int8.search.plan import Plan, RangeMethod
from edgecnn.errors import ConversionError
from edgecnn.results import UInt8Array

_EIGHT_BITS = {"i8", "u8"}
# The runtime's types of a layer; helper operators of a layer (reorders) carry its name too.
_RUNTIME_LAYERS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")
_CONVOLUTIONS = _RUNTIME_LAYERS[:2]
_RUNTIME_KEYS = ("layerType", "primitiveType", "runtimePrecision", "originalLayersNames")
# Parts of the names of fallback kernels for convolutions.
_FALLBACKS = ("gemm", "ref")


class OpenVinoInt8Writer:
    """Writes int8 OpenVINO IR: an .xml with the graph and a .bin with int8 weights."""

    usual_range_methods: Sequence[RangeMethod] = ("percentile", "min-max", "least-error")
    corrects_weights = True
    whole_precisions: Sequence[str] = ()
    equalisable: Sequence[str] = ()

    def __init__(self, float_file: Path, layers: Sequence[LayerRecord], *, threads: int) -> None:
        """Read the file and find the layers in it.

        Raises:
            ConversionError: the file cannot be read, or contains none of the layers.
        """
        self._runner = GraphRunner(threads)
        self._float = self._runner.read(float_file)
        self._operators = find_layers(self._float, layers)
        if not self._operators:
            raise ConversionError(
                f"none of the network's {len(layers)} layers is in {float_file.name}: the file and the layer records "
                "must come from one conversion; convert again"
            )
        self.range_methods = with_learned(self.usual_range_methods, layers)
        self._learned = {layer.name: layer.learned.reads for layer in layers if layer.learned is not None}
        self._statistics: dict[str, TensorStatistics] = {}
        self._ranges: dict[tuple[str, RangeMethod], Ranges] = {}
        self._shifts: dict[str, NDArray[np.float64]] = {}

    @cached_property
    def layers(self) -> Sequence[str]:
        """The layers that the CPU plug-in computes in int8 without a fallback kernel, if all are quantized.

        The fallback (for grouped convolutions with few channels per group, and PReLU after them) is ten times slower
        than float: ESPNetv2 with seven of those in int8 takes twice as long as float, without them 1.1 times.
        """
        return tuple(self._running_int8(self._quantized, but=_FALLBACKS))

    @cached_property
    def _quantized(self) -> Model:
        """The graph with every layer in int8; its ranges are replaced later, so any frame will do."""
        shape = self._float.inputs[0].get_shape()
        noise = np.random.default_rng(0).integers(0, 256, tuple(shape), np.uint8)
        return quantize_layers(self._float, [noise], list(self._names(self._operators)))

    def calibrate(self, frames: Sequence[UInt8Array], progress: Progress | None = None) -> None:
        """Run the float file on each frame, and collect statistics of its layers' inputs.

        Raises:
            ConversionError: no frames, frames of another shape, activations that are not finite, or NNCF failed.
        """
        expected = tuple(self._float.inputs[0].get_shape())
        if not frames:
            raise ConversionError("int8 needs calibration frames, got none: give pictures as the network will see them")
        for frame in frames:
            if frame.shape != expected or frame.dtype != np.uint8:
                raise ConversionError(
                    f"expected calibration frames uint8 {list(expected)}, got {frame.dtype} {list(frame.shape)}: "
                    "fit them to the network's frame first"
                )
        operators = list(self._names(self._operators))
        self._statistics = collect_statistics(self._runner, self._float, self._quantized, operators, frames, progress)
        self._ranges = {}
        self._shifts = self._find_shifts()

    def write(self, plan: Plan, folder: Path) -> Converted:
        """Write `model.xml` and `model.bin`.

        Raises:
            ConversionError: not calibrated, an impossible plan, a layer's input without a range, or a full disk.
        """
        if not self._statistics:
            raise ConversionError("there are no activation ranges yet: call calibrate with some frames before write")
        unknown = sorted(plan.int8_layers - set(self.layers))
        if unknown:
            raise ConversionError(
                f"{', '.join(unknown[:3])}: not among the {len(self.layers)} layers that can be int8 in OpenVINO"
            )
        model = self._quantized.clone()
        self._apply(plan, model)
        share_inputs_with_skips(model, frozenset(self._names(plan.int8_layers)))
        quantize_before_pooling(model)
        path = folder / "model.xml"
        try:
            openvino.save_model(model, path, compress_to_fp16=False)
        except RuntimeError as failed:
            raise ConversionError(
                f"OpenVINO cannot write {path}: {first_line(failed)}; check the folder and the free disk space"
            ) from failed
        tool = f"nncf {version('nncf')}, openvino {openvino.__version__.split('-')[0]}, {plan.recipe}"
        return Converted([path, path.with_suffix(".bin")], tool)

    def write_whole(self, precision: str, folder: Path) -> Converted:
        """Always fails: `whole_precisions` is empty."""
        raise ConversionError(f"openvino cannot be written in {precision} here")

    def int8_layers(self, file: Path) -> frozenset[str]:
        """Layers that the CPU plug-in computes in int8, from its compiled graph of the file."""
        return frozenset(self._running_int8(self._runner.read(file)))

    def layer_outputs(self, file: Path, frame: UInt8Array) -> Mapping[str, NDArray[Any]]:
        """Each layer's output with its bias, float32, for one frame; the first output of a layer that runs twice."""
        model = self._runner.read(file)
        nodes = by_name(model)
        firsts = {layer: names[0] for layer, names in self._operators.items()}
        ports = {layer: layer_output(nodes[name]) for layer, name in firsts.items() if name in nodes}
        return {layer: values.copy() for layer, values in self._runner.watch(model, ports)(frame).items()}

    def _running_int8(self, model: Model, *, but: tuple[str, ...] = ()) -> list[str]:
        """Layers whose operators all run in 8 bits, except in a kernel whose name contains one of `but`."""
        running: set[str] = set()
        for node in self._runner.compile(model).get_runtime_model().get_ops():
            info = {key: node.get_rt_info()[key].astype(str) for key in _RUNTIME_KEYS}
            if info["layerType"] not in _RUNTIME_LAYERS or info["runtimePrecision"] not in _EIGHT_BITS:
                continue
            if info["layerType"] in _CONVOLUTIONS and any(word in info["primitiveType"] for word in but):
                continue
            # The runtime's parts of a split operator keep its name with a suffix: "fc/MatMul/DequantizationMultiply".
            names = info["originalLayersNames"].split(",")
            running.update(name.partition("/Dequantization")[0] for name in names)
        return [layer for layer, names in self._operators.items() if running.issuperset(names)]

    def _names(self, layers: Iterable[str]) -> Iterator[str]:
        return (name for layer in layers for name in self._operators[layer])

    def _find_shifts(self) -> dict[str, NDArray[np.float64]]:
        """Operator's name → the mean error of its output caused by its rounded weights."""
        nodes, floats = by_name(self._quantized), by_name(self._float)
        shifts = {}
        for name in self._names(self._operators):
            node, quantizer, weights = nodes[name], quantizer_of(nodes[name]), quantized_weights(nodes[name])
            if quantizer is not None and weights is not None:
                means = self._statistics[quantizer.get_friendly_name()].means[channel_axis(node)]
                shifts[name] = output_shift(node, weights - float_weights(floats[name]), means)
        return shifts

    def _apply(self, plan: Plan, model: Model) -> None:
        """Give the plan's int8 layers their ranges and biases; make the others float again."""
        nodes, floats = by_name(model), by_name(self._float)
        for layer, names in self._operators.items():
            for name in names:
                if layer not in plan.int8_layers or name not in self._shifts:  # NNCF may have left it float
                    make_float(nodes[name], float_weights(floats[name]))
                    continue
                set_range(*self._range(quantizer_of(nodes[name]), plan.ranges, layer))
                if plan.correct_weights:
                    add_to_bias(nodes[name], -self._shifts[name])

    def _range(self, quantizer: Node, method: RangeMethod, layer: str) -> tuple[Node, Float32Array, Float32Array]:
        name = quantizer.get_friendly_name()
        if method == "learned":
            learned = self._learned.get(layer)
            if learned is not None and self._statistics[name].range_axis is None:
                return quantizer, *whole_levels(np.array([learned]))
            method = self.usual_range_methods[0]
        if (name, method) not in self._ranges:
            try:
                self._ranges[name, method] = self._statistics[name].ranges(method)
            except ConversionError as failed:
                raise ConversionError(
                    f"the input of {layer} cannot be int8: {failed}; calibrate on other pictures, or keep {layer} float"
                ) from failed
        return quantizer, *self._ranges[name, method]
