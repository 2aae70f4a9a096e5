"""Converts to OpenVINO IR, with OpenVINO's own PyTorch front end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import openvino
import torch
from openvino._offline_transformations import apply_moc_transformations
from openvino.frontend import FrontEndManager
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

from edgecnn.converters.base import Converted
from edgecnn.converters.deployable.wrapper import Deployable
from edgecnn.errors import ConversionError
from edgecnn.tool_output import quiet

_ROOM_BYTES = 1 << 20


class OpenVinoConverter:
    """Writes OpenVINO IR: an .xml with the graph and a .bin with the weights."""

    precisions: Sequence[str] = ("fp32", "fp16", "bf16")

    def __init__(self, deployable: Deployable, *, batch: int) -> None:
        self._deployable = deployable
        self._batch = batch
        self._model: openvino.Model | None = None

    def write(self, precision: str, folder: Path) -> Converted:
        """Write `model.xml` and `model.bin`; fp16 stores the weights in half precision.

        bf16 uses the fp32 file: OpenVINO rounds at run time.
        """
        path = folder / "model.xml"
        try:
            openvino.save_model(self._converted(), path, compress_to_fp16=precision == "fp16")
        except RuntimeError as failed:  # OpenVINO doesn't report a full disk; Python does
            (folder / "room").write_bytes(bytes(_ROOM_BYTES))
            raise ConversionError(f"OpenVINO cannot write {path.name}: {_first_line(failed)}") from failed
        return Converted([path, path.with_suffix(".bin")], f"openvino {openvino.__version__.split('-')[0]}")

    def _converted(self) -> openvino.Model:
        if self._model is None:
            example = self._deployable.example(self._batch)
            try:
                with quiet("OpenVINO's converter"), torch.inference_mode():
                    traced = torch.jit.trace(self._deployable, example, check_trace=False)  # type: ignore[no-untyped-call]
                    # openvino.convert_model does the same, but adds usage reports.
                    front_end = FrontEndManager().load_by_framework("pytorch")
                    decoder = TorchScriptPythonDecoder(traced)  # the front end keeps no reference to it
                    model = front_end.convert(front_end.load(decoder))
                    model.inputs[0].get_node().set_element_type(openvino.Type.u8)
                    model.reshape(list(example.shape))
                    # Shapes are fixed now: remove the operators that compute them.
                    apply_moc_transformations(model, cf=True)
            except Exception as failed:
                raise ConversionError(f"OpenVINO failed on this graph: {_first_line(failed)}") from failed
            model.inputs[0].get_tensor().set_names({"frame"})
            for output, name in zip(model.outputs, self._deployable.task.outputs, strict=True):
                output.get_tensor().set_names({name})
            _name_by_place(model)
            self._model = model
        return self._model


def _name_by_place(model: openvino.Model) -> None:
    """Replace OpenVINO's process-wide numbers ("Constant_8462") by positions, so that one network gives one file."""
    model.set_friendly_name("network")
    for place, node in enumerate(model.get_ordered_ops()):
        if re.fullmatch(r"[A-Z][A-Za-z]*_\d+", node.get_friendly_name()):  # other names come from torch
            node.set_friendly_name(f"{node.get_type_name()}_{place}")


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
