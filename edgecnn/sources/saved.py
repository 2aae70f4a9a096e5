"""Saves and loads a network: a description to build it again, and its weights."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgecnn._version import __version__
from edgecnn.atomic import move_into_place, staging_folder, write_durably
from edgecnn.bounded import read_bounded
from edgecnn.bundle import FileRecord, LayerRanges, SourceRecord, sha256_of, store_files
from edgecnn.bundle.contract import check_file
from edgecnn.bundle.evidence import Record, Stage
from edgecnn.errors import SourceError, SpecError
from edgecnn.frame import FrameSpec
from edgecnn.json_text import encode_json
from edgecnn.locks import changing
from edgecnn.sources.blueprint import Blueprint
from edgecnn.sources.model import ModelOptions, TrainedModel
from edgecnn.sources.own_code import check_allowed, names_code
from edgecnn.sources.rebuild import build
from edgecnn.sources.shapes import reshape_like
from edgecnn.sources.table import SAVED
from edgecnn.sources.user_options import apply
from edgecnn.sources.weights import fit_weights, read_weights
from edgecnn.tasks import Task, task_from_json

if TYPE_CHECKING:
    from torch import Tensor

DESCRIPTION = "model.json"
_WEIGHTS = re.compile(r"weights-[0-9a-f]{10}\.safetensors")
_DRAWN = frozenset({"training.csv", "training.png", "pruning.csv", "pruning.png"})  # its history's plots
_SCHEMA = 1
_LARGEST_DESCRIPTION = 64 << 20  # enough for 100,000 labels, and stages


class Description(Record, frozen=True, kw_only=True):
    """The content of `model.json`."""

    schema: int = _SCHEMA
    edgecnn: str = ""
    name: str
    blueprint: Blueprint
    frame: FrameSpec
    task: Task
    source: SourceRecord
    weights: FileRecord
    stages: tuple[Stage, ...] = ()
    ranges: dict[str, LayerRanges] = msgspec.field(default_factory=dict)


def save(
    model: TrainedModel,
    folder: str | Path,
    *,
    more: Mapping[str, bytes] | None = None,
    half: bool = False,
) -> Path:
    """Write a NAME.model folder; an existing one is replaced as a whole.

    Args:
        model: a network with a blueprint; its stages record its history.
        folder: its name must end in ".model".
        more: other files for the folder, by name.
        half: store weights in float16, for half the size; loading converts them back to float32, rounded. Vectors
            (biases and batch-norm statistics, whose values may be too large) are stored unchanged.

    Raises:
        SpecError: another suffix, other content at that path, or a network without a blueprint.
        StorageError: disk full, or not writable.
    """
    folder = check_out(folder)
    blueprint = check_saveable(model)
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in model.module.state_dict().items()}
    if half:
        tensors = {name: _halved(tensor) for name, tensor in tensors.items()}
    with staging_folder(folder, marker=DESCRIPTION, what="saved network") as staging:
        save_file(tensors, staging / "weights.safetensors")
        (staging / "weights.safetensors").chmod(0o644)  # created as private; others must be able to copy a network
        (weights,) = store_files(staging, "weights", [staging / "weights.safetensors"])
        description = Description(
            edgecnn=__version__,
            name=model.name,
            blueprint=blueprint,
            frame=model.frame,
            task=model.task,
            source=model.source,
            weights=weights,
            stages=model.stages,
            ranges=dict(model.ranges),
        )
        for name, content in (more or {}).items():
            (staging / name).write_bytes(content)
        write_durably(staging / DESCRIPTION, encode_json(description, indent=1))
        with changing(Path(os.path.realpath(folder))):
            wanted = {weights.path, *(more or {})}
            move_into_place(staging, folder, marker=DESCRIPTION, wanted=wanted, unwanted=_own_files(folder) - wanted)
    return folder


def _own_files(folder: Path) -> set[str]:
    """The files that edgecnn wrote there; all others are the user's."""
    names = {path.name for path in folder.glob("*")} if folder.is_dir() else set()
    return {name for name in names if name in _DRAWN or _WEIGHTS.fullmatch(name)}


def _halved(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.dim() < 2:
        return tensor
    rounded = tensor.half()
    return rounded if rounded.isfinite().all() else tensor  # above 65504, float16 has only infinity


def check_out(folder: str | Path) -> Path:
    """The path, if a model can be saved there.

    Raises:
        SpecError: another suffix, or other content at that path.
    """
    folder = Path(folder)
    if folder.suffix != SAVED.suffix:
        raise SpecError(f"expected a path NAME{SAVED.suffix} to save a network, got {folder}")
    if folder.exists() and not (folder / DESCRIPTION).is_file():
        raise SpecError(f"{folder} exists and is not a saved network: choose another --out, or remove it")
    return folder


def check_saveable(model: TrainedModel) -> Blueprint:
    """The blueprint of the network.

    Raises:
        SpecError: it has none.
    """
    if model.blueprint is None:
        raise SpecError(
            f"{model.name} was given as a Python object or a program and cannot be built again from a name: give it as "
            "package.module:factory to train and save it"
        )
    return model.blueprint


def describe(folder: str | Path) -> Description:
    """The description in a NAME.model folder.

    Raises:
        SourceError: missing, damaged, or from a newer version.
    """
    file = Path(folder) / DESCRIPTION
    if not file.is_file():
        raise SourceError(f"{folder} is not a saved network: it has no {DESCRIPTION}")
    try:
        content = read_bounded(file, _LARGEST_DESCRIPTION)
        description = msgspec.json.decode(content, type=Description, dec_hook=task_from_json)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OSError, SpecError) as damaged:
        raise SourceError(f"{file} is damaged: {damaged}; copy the folder again") from damaged
    if description.schema > _SCHEMA:
        raise SourceError(f"{folder} was written by a newer edgecnn ({description.edgecnn}): install that")
    try:
        check_file("weights", description.weights)
    except SpecError as wrong:
        raise SourceError(f"{file} is damaged: {wrong}; copy the folder again") from wrong
    return description


def load(model: str, options: ModelOptions) -> TrainedModel:
    """Build the network described in a NAME.model folder, and load its weights.

    Raises:
        SourceError: missing, damaged, or its network has changed since.
        SpecError: --weights was given.
    """
    folder = Path(model)
    description = describe(folder)
    if options.weights is not None:
        raise SpecError(f"{folder} has its own weights: leave out --weights")
    blueprint = description.blueprint
    if names_code(blueprint.model):
        if options.factory is None:
            check_allowed(blueprint.model, by=str(folder))
        else:
            blueprint = msgspec.structs.replace(blueprint, model=options.factory)
    if options.size is not None:
        blueprint = msgspec.structs.replace(blueprint, size=options.size)
    file = folder / description.weights.path
    tensors = read_weights(file)
    if sha256_of(file) != description.weights.sha256:
        raise SourceError(f"{file} was changed after it was saved (its SHA-256 differs): copy the folder again")
    built = build(blueprint)
    reshape_like(built.module, tensors)
    fit_weights(built.module, tensors, origin=str(folder))
    trained = replace(
        built,
        frame=description.frame,
        task=description.task,
        name=description.name,
        source=description.source,
        reference=None,
        blueprint=blueprint,
        stages=description.stages,
        ranges=description.ranges,
    )
    return apply(trained, options)
