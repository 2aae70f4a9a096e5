"""Converts to ONNX, with torch's exporter and OnnxSlim."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxslim
import torch

from edgecnn.converters.base import Converted
from edgecnn.converters.deployable.wrapper import Deployable
from edgecnn.errors import ConversionError
from edgecnn.tool_output import quiet

# The exporter's own opset, which ONNX Runtime reads from 1.14 (2023) on. For another opset, it converts the graph
# afterwards: one more risk, and no gain for convolutions.
OPSET = 18
_WEIGHT = ".weight"
_SMALLEST_WEIGHT = 64  # values; for smaller ones, a cast costs more than it saves


class OnnxConverter:
    """Writes ONNX files."""

    precisions: Sequence[str] = ("fp32", "fp16")

    def __init__(self, deployable: Deployable, *, batch: int) -> None:
        self._deployable = deployable
        self._batch = batch
        self._graph: Any = None

    def write(self, precision: str, folder: Path) -> Converted:
        """Write `model.onnx`; fp16 stores the weights in half precision."""
        graph = self._converted()
        if precision == "fp16":
            graph = _with_half_weights(graph)
        path = folder / "model.onnx"
        path.write_bytes(graph.SerializeToString())
        tool = f"torch {torch.__version__.split('+')[0]} exporter, onnxslim {onnxslim.__version__}, opset {OPSET}"
        return Converted([path], tool, sum(node.op_type == "Transpose" for node in graph.graph.node))

    def _converted(self) -> Any:
        if self._graph is None:
            deployable = self._deployable
            try:
                with quiet("the ONNX exporter"):
                    program = torch.onnx.export(
                        deployable,
                        (deployable.example(self._batch),),
                        input_names=["frame"],
                        output_names=list(deployable.task.outputs),
                        opset_version=OPSET,
                        dynamo=True,
                        verbose=False,
                    )
                    assert program is not None
                    graph = onnxslim.slim(program.model_proto)
                    _drop_notes(graph)
                    _name_after_layers(graph)
                    onnx.checker.check_model(graph)
            except Exception as failed:
                raise ConversionError(f"torch's ONNX exporter failed on this graph: {_first_line(failed)}") from failed
            self._graph = graph
        return self._graph


def _with_half_weights(graph: Any) -> Any:
    """The graph with half-precision weights behind a cast, which the runtime folds when it opens the file.

    The device chooses whether to compute in half precision, as with OpenVINO's and TFLite's fp16 files.
    """
    half = onnx.ModelProto()
    half.CopyFrom(graph)
    kept, casts = [], []
    for initializer in half.graph.initializer:
        array = onnx.numpy_helper.to_array(initializer)
        if array.dtype != np.float32 or array.size < _SMALLEST_WEIGHT or not _fits_half(array):
            kept.append(initializer)
            continue
        stored = f"{initializer.name}.half"
        kept.append(onnx.numpy_helper.from_array(array.astype(np.float16), stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [initializer.name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *half.graph.node]
    del half.graph.node[:], half.graph.initializer[:]
    half.graph.node.extend(nodes)
    half.graph.initializer.extend(kept)
    onnx.checker.check_model(half)
    return half


def _fits_half(array: Any) -> bool:
    return bool(np.abs(array).max(initial=0) < np.finfo(np.float16).max)


def _drop_notes(graph: Any) -> None:
    """Remove stack traces and local paths, which the exporter leaves in every node."""
    for node in graph.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
    graph.graph.ClearField("metadata_props")
    graph.ClearField("metadata_props")


def _name_after_layers(graph: Any) -> None:
    """Name nodes and their outputs after the torch network's layers, so that a runtime's profile shows them.

    A node with weights gets its layer's name ("network.body.0"), a node after it "network.body.0/Relu".
    """
    outputs = {value.name for value in graph.graph.output}
    taken = {value.name for value in (*graph.graph.input, *graph.graph.initializer)} | outputs
    layer_of: dict[str, str] = {}
    renamed: dict[str, str] = {}
    for node in graph.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        own = next((name.removesuffix(_WEIGHT) for name in node.input if name.endswith(_WEIGHT)), "")
        layer = own or next((layer_of[name] for name in node.input if layer_of.get(name)), "")
        node.name = _unused(own or "/".join(filter(None, (layer, node.op_type))), taken)
        for place, name in enumerate(node.output):
            if name and name not in outputs:
                renamed[name] = node.name if place == 0 else _unused(f"{node.name}:{place}", taken)
                node.output[place] = renamed[name]
            layer_of[node.output[place]] = layer
    for value in graph.graph.value_info:
        value.name = renamed.get(value.name, value.name)


def _unused(name: str, taken: set[str]) -> str:
    """The name, with a number appended where it is already used."""
    found, number = name, 2
    while found in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found)
    return found


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
