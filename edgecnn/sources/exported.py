"""Exported programs: .pt2 files, as torch.export.save writes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from edgecnn.bundle import SourceRecord, sha256_of
from edgecnn.errors import SourceError, SpecError
from edgecnn.sources.model import ModelOptions, TrainedModel
from edgecnn.sources.module import adopt
from edgecnn.sources.program_archive import load_program

if TYPE_CHECKING:
    from torch.export import ExportedProgram

_AGAIN = "torch.export.export(model.eval(), (torch.zeros(1, 3, HEIGHT, WIDTH),))"
# Operators that differ in training: position of the flag among their arguments, and its name.
_TRAINING_FLAGS = {
    "batch_norm": (5, "training"),
    "native_batch_norm": (5, "training"),
    "cudnn_batch_norm": (5, "training"),
    "miopen_batch_norm": (5, "training"),
    "_native_batch_norm_legit": (5, "training"),
    "_native_batch_norm_legit_functional": (5, "training"),
    "_batch_norm_impl_index": (5, "training"),
    "dropout": (2, "train"),
    "dropout_": (2, "train"),
    "native_dropout": (2, "train"),
    "alpha_dropout": (2, "train"),
    "feature_dropout": (2, "train"),
    "feature_alpha_dropout": (2, "train"),
    "rrelu": (3, "training"),
    "rrelu_with_noise": (4, "training"),
}
_ALWAYS_TRAINING = frozenset({"_batch_norm_with_update", "_batch_norm_with_update_functional"})
_RANDOM = frozenset(
    {"bernoulli", "rand", "rand_like", "randn", "randn_like", "randint", "randperm", "normal", "uniform"}
)


def load(model: str, options: ModelOptions) -> TrainedModel:
    """Load an exported program with one input, float32 [1, 3, height, width]; the batch size may be dynamic.

    Raises:
        SourceError: missing, damaged, with another kind of input, exported for training, or it could only be read by
            running code from it.
        SpecError: --size differs from the size it was exported for, or --weights was given.
    """
    path = Path(model)
    if options.weights is not None:
        raise SpecError(f"{path} has its own weights: leave out --weights")
    program = load_program(path)
    height, width = _checked_input(path, program).shape[2:]
    _check_evaluates(path, program)
    if isinstance(height, int) and isinstance(width, int):
        if options.size not in (None, (height, width)):
            raise SpecError(f"{path} was exported for {width}x{height} px: leave out --size, or export it again")
        options = replace(options, size=(height, width))
    loaded = adopt(program.module(), options, model=path.name)
    source = SourceRecord(model=path.name, weights=path.name, weights_sha256=sha256_of(path))
    return replace(loaded, name=path.stem, source=source)


def _checked_input(path: Path, program: ExportedProgram) -> Tensor:
    """The input's placeholder value, for its shape.

    Raises:
        SourceError: it has another form, or there are several; describes them.
    """
    inputs = [
        node.meta.get("val")
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    ]
    found = ", ".join(_in_words(value) for value in inputs) or "nothing"
    wanted = f"{path} takes {found}; expected one float32 [1, 3, height, width]"
    tensors: list[Tensor] = [value for value in inputs if isinstance(value, Tensor)]
    if len(inputs) != 1 or len(tensors) != 1:
        raise SourceError(f"{wanted}. Wrap it so that the picture is its only input, and export that: {_AGAIN}")
    (value,) = tensors
    if value.dim() != 4 or value.shape[1] != 3:
        order = "; channels come second" if value.dim() == 4 and value.shape[-1] == 3 else ""
        raise SourceError(f"{wanted}{order}. Export it so: {_AGAIN}")
    if value.dtype != torch.float32:
        way = {
            torch.float16: "it was exported in half precision: export model.float(); --precision fp16 stores halves",
            torch.bfloat16: "it was exported in bfloat16: export model.float(); --precision bf16 runs in it",
            torch.uint8: "it does its own pre-processing: export the network without it, and give --mean and --std",
        }.get(value.dtype, "export it in float32")
        raise SourceError(f"{wanted}: {way}")
    batch: Any = value.shape[0]
    if isinstance(batch, int) and batch != 1:
        raise SourceError(f"{wanted}: it was exported for batches of {batch}. Export it for one picture: {_AGAIN}")
    return value


def _in_words(value: object) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} [{', '.join(map(str, value.shape))}]"
    return f"a {type(value).__name__}"


def _check_evaluates(path: Path, program: ExportedProgram) -> None:
    """Check that the graph computes as in evaluation: each picture separately, with the same result every time.

    Raises:
        SourceError: it was exported in training mode, or draws random numbers; names the first node.
    """
    for module in [program.graph_module, *program.graph_module.modules()]:
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            operator = _operator(node.target) if node.op == "call_function" else ""
            if operator in _ALWAYS_TRAINING or _is_set(operator, node.args, node.kwargs):
                raise SourceError(
                    f"{path} was exported in training mode: {node.name} ({operator}) computes as in training, so "
                    f"answers depend on other pictures too. Call model.eval() and export it again: {_AGAIN}"
                )
            if operator in _RANDOM:
                raise SourceError(
                    f"{path} draws random numbers at {node.name} ({operator}): its answers are not reproducible. "
                    f"Call model.eval(), remove that from forward, and export it again: {_AGAIN}"
                )
    changed = [*program.graph_signature.buffers_to_mutate.values(), *_written_in_place(program)]
    if changed:
        raise SourceError(
            f"{path} changes its buffer {changed[0]!r} with every picture: it was exported in training mode, or keeps "
            f"a state. Call model.eval() and export it again: {_AGAIN}"
        )


def _written_in_place(program: ExportedProgram) -> list[str]:
    """Buffers and parameters that an operator such as aten.add_ writes to."""
    signature = program.graph_signature
    kept = {**signature.inputs_to_buffers, **signature.inputs_to_parameters}
    writing = [
        node
        for node in program.graph.nodes
        if node.op == "call_function" and re.fullmatch(r"\w*[a-z0-9]_", str(getattr(node.target, "_opname", "")))
    ]
    return [kept[node.args[0].name] for node in writing if getattr(node.args[0], "name", "") in kept]


def _operator(operation: object) -> str:
    name = str(getattr(operation, "_opname", "")) or str(getattr(operation, "__name__", operation)).partition(".")[0]
    return name.removesuffix("_") if name.removesuffix("_") in _RANDOM else name


def _is_set(operator: str, args: Sequence[object], kwargs: dict[str, object]) -> bool:
    if operator == "instance_norm":  # with running statistics, but without using them
        use_input = args[5] if len(args) > 5 else kwargs.get("use_input_stats")
        return bool(use_input) and len(args) > 3 and args[3] is not None
    if operator not in _TRAINING_FLAGS:
        return False
    place, name = _TRAINING_FLAGS[operator]
    flag = args[place] if len(args) > place else kwargs.get(name, False)
    is_dropout = "dropout" in operator
    share = args[1] if is_dropout and len(args) > 1 else kwargs.get("p", 1)
    return bool(flag) and not (is_dropout and share == 0)
