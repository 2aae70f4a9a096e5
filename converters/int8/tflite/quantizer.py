"""Runs ai-edge-quantizer with a separate instruction for each operator."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.converters.int8.tflite.graph import Graph
from edgecnn.errors import ConversionError
from edgecnn.tool_output import quiet

# Tensor → smallest and largest value; arrays with as many dimensions as the tensor, as ai-edge-quantizer needs them.
Table = dict[str, dict[str, NDArray[np.float64]]]

# Names of operators in the schema that differ in ai-edge-quantizer.
_OTHER_NAMES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}


class OperatorQuantizer:
    """Quantizes chosen operators of one float file, any number of times; the file is read once.

    Args:
        file: the float file's content.
        graph: the float file's graph.
    """

    def __init__(self, file: bytes, graph: Graph) -> None:
        with quiet("ai-edge-quantizer"):
            from ai_edge_quantizer import quantizer

            self._tool: Any = quantizer.Quantizer(file)
        self._graph = graph
        self._endings = _unique_endings(graph)

    def static(self, operators: Iterable[int], table: Table, *, activation_bits: int = 8) -> bytearray:
        """The file with these operators (indices) in int8 weights and `activation_bits` activations.

        Raises:
            ConversionError: the tool failed.
        """

        def add_rule(regex: str, operation: Any) -> None:
            self._tool.add_static_config(regex, operation, activation_num_bits=activation_bits, weight_num_bits=8)

        return self._write(operators, add_rule, table)

    def dynamic(self, operators: Iterable[int]) -> bytearray:
        """The file with these operators' weights in int8 and activations that are quantized at run time.

        Raises:
            ConversionError: the tool failed.
        """

        def add_rule(regex: str, operation: Any) -> None:
            self._tool.add_dynamic_config(regex, operation, num_bits=8)

        return self._write(operators, add_rule, None)

    def _write(self, operators: Iterable[int], add_rule: Any, table: Table | None) -> bytearray:
        kinds = defaultdict(list)
        for index in operators:
            kinds[self._graph.operators[index].kind].append(self._endings[index])
        try:
            with quiet("ai-edge-quantizer"):
                from ai_edge_quantizer import qtyping

                self._tool.load_quantization_recipe([])
                for kind, endings in kinds.items():
                    regex = f"(?:{'|'.join(endings)})$"
                    add_rule(regex, qtyping.TFLOperationName(_OTHER_NAMES.get(kind, kind)))
                # A copy, because the tool changes the table. With a table, its own calibration never runs.
                result = self._tool.quantize(None if table is None else dict(table), enable_progress_report=False)
                return bytearray(result.quantized_model)
        except Exception as failed:
            line = next(iter(str(failed).splitlines()), "no message")
            raise ConversionError(
                f"ai-edge-quantizer failed on this graph: {type(failed).__name__}: {line}"
            ) from failed


def _unique_endings(graph: Graph) -> Mapping[int, str]:
    """For each operator, a regular expression of the shortest suffix of its scope that no other operator has.

    The tool's scope is the output names, each followed by ";". Whole scopes have thousands of characters in total and
    would take a second to compile.
    """
    scopes = ((o.index, "".join(graph.tensors[tensor].name + ";" for tensor in o.outputs)) for o in graph.operators)
    in_order = sorted((scope[::-1], index) for index, scope in scopes)
    endings = {}
    for place, (backwards, index) in enumerate(in_order):
        neighbours = [in_order[i][0] for i in (place - 1, place + 1) if 0 <= i < len(in_order)]
        length = 1 + max((_common_length(backwards, other) for other in neighbours), default=0)
        ending = re.escape(backwards[:length][::-1])
        endings[index] = ending if length <= len(backwards) else "^" + ending  # the whole scope is a suffix of another
    return endings


def _common_length(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
