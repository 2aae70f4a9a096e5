"""Converts to ncnn, with pnnx."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pnnx
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgecnn.converters.base import Converted
from edgecnn.converters.deployable.wrapper import Deployable
from edgecnn.converters.layers import record_layers
from edgecnn.converters.ncnn_weights import in_half, read_blocks, torch_names
from edgecnn.errors import ConversionError
from edgecnn.runners.ncnn.param import read_layers
from edgecnn.tool_output import quiet

_TIMEOUT_S = 600
_LONGEST_NAME = 255  # of a layer, in a .param file
_FRAME, _LOGITS = "frame", "logits"
_UNKNOWN = re.compile(r"^((?:torch|aten|nn|F|Tensor|pnnx|prim)\.\S+)\s", re.MULTILINE)


class NcnnConverter:
    """Writes a .param (the graph as text) and a .bin (the weights).

    The graph takes float planes and returns a segmenter's logits: ncnn has no uint8 tensors, so its back end does the
    cast before and the choice of the best class after.
    """

    precisions: Sequence[str] = ("fp32", "fp16")

    def __init__(self, deployable: Deployable, *, batch: int) -> None:
        self._deployable = deployable  # ncnn has no batches: its back end runs one frame after the other

    def write(self, precision: str, folder: Path) -> Converted:
        """Write `model.param` and `model.bin`; fp16 stores the weights in half precision."""
        text, data = self._by_pnnx(folder, half=False)
        graph, weights = folder / "model.param", folder / "model.bin"
        graph.write_text(text, encoding="ascii")
        blocks = read_blocks(read_layers(graph), data)
        if blocks is not None:
            names = torch_names(blocks, record_layers(self._deployable, self._deployable.example()))
            text = _renamed(text, names)
        if precision == "fp16" and blocks is not None:
            data = in_half(blocks)
        elif precision == "fp16":
            text, data = self._by_pnnx(folder, half=True)
        graph.write_text(self._named(text), encoding="ascii")
        weights.write_bytes(data)
        return Converted([graph, weights], f"pnnx {version('pnnx')}")

    def _by_pnnx(self, folder: Path, *, half: bool) -> tuple[str, bytes]:
        """The text of the graph and the weights; nothing stays in the folder."""
        with tempfile.TemporaryDirectory(prefix="pnnx-", dir=folder) as place:
            program = Path(place) / "model.pt"
            self._trace().save(str(program))
            spec = self._deployable.frame_spec
            shape = f"inputshape=[1,3,{spec.height_px},{spec.width_px}]"
            command = [pnnx.EXEC_PATH, program.name, shape, f"fp16={int(half)}", "optlevel=2"]
            try:
                done = subprocess.run(
                    command,
                    cwd=place,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=_TIMEOUT_S,
                    check=False,
                )
            except subprocess.TimeoutExpired as late:
                raise ConversionError(f"pnnx did not end within {_TIMEOUT_S} s") from late
            graph = program.with_name("model.ncnn.param")
            if done.returncode != 0 or not graph.is_file():
                messages = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
                raise ConversionError(
                    f"pnnx failed on this graph (exit {done.returncode}): {messages[-1] if messages else 'no message'}"
                )
            text = graph.read_text(encoding="ascii")
            if unknown := sorted(set(_UNKNOWN.findall(text))):
                raise ConversionError(f"ncnn has no operator for {', '.join(unknown)}")
            return text, graph.with_suffix(".bin").read_bytes()

    def _trace(self) -> Any:
        spec = self._deployable.frame_spec
        planes = torch.randint(0, 256, (1, 3, spec.height_px, spec.width_px)).float()
        try:
            with quiet("torch's tracer"), torch.inference_mode(), NcnnForms():
                return torch.jit.trace(_Planes(self._deployable), planes, check_trace=False)  # type: ignore[no-untyped-call]
        except Exception as failed:
            line = str(failed).strip().splitlines()[0] if str(failed).strip() else "no message"
            raise ConversionError(f"torch's tracer failed on this graph: {type(failed).__name__}: {line}") from failed

    def _named(self, text: str) -> str:
        """The graph with the task's names for its inputs and outputs."""
        names = self._deployable.task.outputs
        if self._deployable.task.decides_in_graph:
            names = (_LOGITS, *names[1:])
        for number, name in enumerate(names):
            text = re.sub(rf"(?<=\s)out{number}(?=\s)", name, text)
        return re.sub(r"(?<=\s)in0(?=\s)", _FRAME, text)


def _renamed(text: str, names: Mapping[int, str]) -> str:
    """The graph with other names for the layers at these places; what follows a layer is called after it."""
    magic, counts, *lines = text.splitlines()
    makers: dict[str, str] = {}  # of each blob, the named layer behind it
    for index, line in enumerate(lines):
        kind, name, reads, writes, *rest = line.split()
        read, written = rest[: int(reads)], rest[int(reads) : int(reads) + int(writes)]
        own = names.get(index)
        behind = own or next((makers[blob] for blob in read if blob in makers), None)
        if behind is not None:
            makers.update(dict.fromkeys(written, behind))
        if own is None and behind is not None and kind not in ("Split", "MemoryData", "Input"):
            own = f"{behind}/{kind}"
        name = "_".join((own or name).encode("ascii", "replace").decode().split())[:_LONGEST_NAME]
        lines[index] = f"{kind:<24} {name:<24} {reads} {writes} {' '.join(rest)}"
    return "\n".join([magic, counts, *lines, ""])


class _Planes(nn.Module):
    """A Deployable without the cast and without the choice of the best class."""

    def __init__(self, deployable: Deployable) -> None:
        super().__init__()
        self.deployable = deployable

    def forward(self, planes: Tensor) -> tuple[Tensor, ...]:
        """The answer to float [1, 3, height, width] BGR, 0..255."""
        return self.deployable.from_planes(planes)


class NcnnForms(TorchFunctionMode):
    """Context in which picking rows and columns by constant indices becomes a product with zeros and ones.

    ncnn has no such gather; the product gives exactly the same values.
    """

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (Tensor.index_select, torch.index_select) and not kwargs and len(args) == 3:
            values, dim, index = args
            if values.ndim == 4 and dim % 4 in (2, 3):
                return _picked(values, dim % 4, index)
        return function(*args, **kwargs)


def _picked(values: Tensor, dim: int, index: Tensor) -> Tensor:
    choice = torch.zeros(values.shape[dim], len(index), dtype=values.dtype)
    choice[index, torch.arange(len(index))] = 1
    if dim == 3:
        return values @ choice
    return (values.transpose(2, 3) @ choice).transpose(2, 3)
