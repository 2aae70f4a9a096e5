"""A network on disk, as training and pruning leave it: a description that builds it again, and its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

import edgecnn
from edgecnn._staging import move_into_place, staging_folder, write_durably
from edgecnn.bundle import FileRecord, LayerRanges, SourceRecord, sha256_of, store_files
from edgecnn.errors import SourceError, SpecError
from edgecnn.evidence import Record, Stage
from edgecnn.frame import FrameSpec
from edgecnn.sources import SAVED_SUFFIX, ModelOptions, TrainedModel
from edgecnn.sources._options import apply
from edgecnn.sources.blueprint import Blueprint
from edgecnn.sources.shapes import reshape_like
from edgecnn.sources.weights import fit_weights, read_weights
from edgecnn.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor

DESCRIPTION = "model.json"
_SCHEMA = 1


class Description(Record, frozen=True, kw_only=True):
    """What `model.json` holds."""

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
    """Write a NAME.model folder; what is there before is replaced as a whole.

    Args:
        model: with a blueprint; its stages say what was done to it.
        folder: its name ends in ".model".
        more: other files for the folder, by name.
        half: store weights in float16, for half the size; loading brings them back to float32, rounded. Vectors
            (biases, and the statistics of batch normalisations, which know no bound) stay as they are.

    Raises:
        SpecError: another ending, something else is there, or a network without a blueprint.
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
        (staging / "weights.safetensors").chmod(0o644)  # it comes private; a network is there to be copied
        (weights,) = store_files(staging, "weights", [staging / "weights.safetensors"])
        description = Description(
            edgecnn=edgecnn.__version__,
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
        write_durably(staging / DESCRIPTION, msgspec.json.format(msgspec.json.encode(description), indent=1))
        move_into_place(staging, folder, marker=DESCRIPTION, wanted={weights.path, *(more or {})})
    return folder


def _halved(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.dim() < 2:
        return tensor
    rounded = tensor.half()
    return rounded if rounded.isfinite().all() else tensor  # beyond 65504 float16 knows infinity only


def check_out(folder: str | Path) -> Path:
    """The path, if a model can be saved there.

    Raises:
        SpecError: another ending, or something else is there.
    """
    folder = Path(folder)
    if folder.suffix != SAVED_SUFFIX:
        raise SpecError(f"a network is saved as NAME{SAVED_SUFFIX}, got {folder}")
    if folder.exists() and not (folder / DESCRIPTION).is_file():
        raise SpecError(f"{folder} exists and is no saved network: choose another --out, or remove it")
    return folder


def check_saveable(model: TrainedModel) -> Blueprint:
    """How to build the network again.

    Raises:
        SpecError: nobody knows.
    """
    if model.blueprint is None:
        raise SpecError(
            f"{model.name} came as a Python object or a program and cannot be built again from words: name it as "
            "package.module:factory to train and save it"
        )
    return model.blueprint


def describe(folder: str | Path) -> Description:
    """What a NAME.model folder holds.

    Raises:
        SourceError: absent, damaged, or from a newer version.
    """
    file = Path(folder) / DESCRIPTION
    if not file.is_file():
        raise SourceError(f"{folder} is no saved network: there is no {DESCRIPTION} in it")
    try:
        description = msgspec.json.decode(file.read_bytes(), type=Description)
    except (msgspec.DecodeError, OSError) as damaged:
        raise SourceError(f"{file} is damaged: {damaged}; copy the folder again") from damaged
    if description.schema > _SCHEMA:
        raise SourceError(f"{folder} was written by a newer edgecnn ({description.edgecnn}): install that")
    return description


def load(model: str, options: ModelOptions) -> TrainedModel:
    """Build what a NAME.model folder describes, and give it its weights.

    Raises:
        SourceError: absent, damaged, or of a network that is no longer what it was.
        SpecError: --weights was given.
    """
    folder = Path(model)
    description = describe(folder)
    if options.weights is not None:
        raise SpecError(f"{folder} brings its own weights: leave --weights out")
    blueprint = description.blueprint
    if options.size is not None:
        blueprint = msgspec.structs.replace(blueprint, size=options.size)
    file = folder / description.weights.path
    tensors = read_weights(file)
    if sha256_of(file) != description.weights.sha256:
        raise SourceError(f"{file} is not the file that was saved (its SHA-256 differs): copy the folder again")
    built = blueprint.build()
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
