"""TFLite, through litert-torch."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgecnn.converters._quiet import quiet
from edgecnn.converters.base import Converted
from edgecnn.converters.deployable import Deployable
from edgecnn.errors import ConversionError


_WITH_WEIGHTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED")


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
        return Converted([path], tool, _count_transposes(path))

    def _converted(self) -> bytes:
        if self._flatbuffer is None:
            try:
                with quiet("litert-torch"):
                    import litert_torch

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
            for operation in _WITH_WEIGHTS:
                tool.update_quantization_recipe(
                    regex=".*",
                    operation_name=qtyping.TFLOperationName(operation),
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


def _count_transposes(path: Path) -> int:
    from ai_edge_litert.schema_py_generated import BuiltinOperator, Model

    model = Model.GetRootAs(path.read_bytes(), 0)
    codes = [model.OperatorCodes(i).BuiltinCode() for i in range(model.OperatorCodesLength())]
    graph = model.Subgraphs(0)
    return sum(
        codes[graph.Operators(i).OpcodeIndex()] == BuiltinOperator.TRANSPOSE for i in range(graph.OperatorsLength())
    )
