"""Converts to TFLite, with litert-torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgecnn.converters.base import Converted
from edgecnn.converters.deployable.wrapper import Deployable
from edgecnn.converters.tflite_forms import TfliteForms
from edgecnn.errors import ConversionError
from edgecnn.runners.litert.file import read_file
from edgecnn.tool_output import quiet

# Name of an operator with weights in the schema → in ai-edge-quantizer.
_WEIGHT_NAMES = {
    "CONV_2D": "CONV_2D",
    "DEPTHWISE_CONV_2D": "DEPTHWISE_CONV_2D",
    "TRANSPOSE_CONV": "CONV_2D_TRANSPOSE",
    "FULLY_CONNECTED": "FULLY_CONNECTED",
}


class TfliteConverter:
    """Writes TFLite files."""

    precisions: Sequence[str] = ("fp32", "fp16")

    def __init__(self, deployable: Deployable, *, batch: int) -> None:
        self._deployable = deployable
        self._batch = batch
        self._flatbuffer: bytes | None = None

    def write(self, precision: str, folder: Path) -> Converted:
        """Write `model.tflite`; fp16 stores the weights in half precision."""
        path = folder / "model.tflite"
        float_file = self._converted()
        path.write_bytes(float_file)
        if precision == "fp16":
            _store_half_weights(path)
        tool = f"litert-torch {version('litert-torch')}"
        return Converted([path], tool, Graph.read(path).count("TRANSPOSE"))

    def _converted(self) -> bytes:
        if self._flatbuffer is None:
            try:
                with quiet("litert-torch"):
                    import litert_torch

                    with TfliteForms():
                        edge_model: Any = litert_torch.convert(
                            self._deployable, (self._deployable.example(self._batch),)
                        )
                    self._flatbuffer = bytes(edge_model.model_content())
            except Exception as failed:
                line = str(failed).strip().splitlines()[0] if str(failed).strip() else "no message"
                raise ConversionError(f"litert-torch failed on this graph: {type(failed).__name__}: {line}") from failed
        return self._flatbuffer


def _store_half_weights(path: Path) -> None:
    try:
        with quiet("ai-edge-quantizer"):
            from ai_edge_quantizer import qtyping, quantizer
            from ai_edge_quantizer.algorithm_manager import AlgorithmName

            tool = quantizer.Quantizer(str(path))
            half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
            for name in Graph.read(path).with_unshared_weights():
                tool.update_quantization_recipe(
                    regex=".*",
                    operation_name=qtyping.TFLOperationName(_WEIGHT_NAMES[name]),
                    op_config=qtyping.OpQuantizationConfig(
                        weight_tensor_config=half,
                        compute_precision=qtyping.ComputePrecision.FLOAT,
                        explicit_dequantize=True,
                    ),
                    algorithm_key=AlgorithmName.FLOAT_CASTING,
                )
            written = tool.quantize().quantized_model
    except Exception as failed:
        raise ConversionError(f"the weights cannot be stored in fp16: {failed}") from failed
    path.write_bytes(bytes(written))


@dataclass(frozen=True)
class Graph:
    """Look-ups in a TFLite file: each operator's name, and the tensors that it reads."""

    operators: list[tuple[str, list[int]]]

    @classmethod
    def read(cls, path: Path) -> Graph:
        """The graph of a file."""
        operators, _ = read_file(path)
        return cls([(operator.kind, list(operator.inputs)) for operator in operators])

    def count(self, name: str) -> int:
        """How many operators of this name there are."""
        return sum(found == name for found, _ in self.operators)

    def with_unshared_weights(self) -> list[str]:
        """Operators with weights that no other operator reads.

        ai-edge-quantizer 0.10 fails on shared ones (it mixes str and bytes in the copied tensor's name).
        """
        readers = Counter(tensor for _, inputs in self.operators for tensor in inputs if tensor >= 0)
        shared = {name for name, inputs in self.operators if len(inputs) > 1 and readers[inputs[1]] > 1}
        return [name for name in _WEIGHT_NAMES if self.count(name) and name not in shared]
