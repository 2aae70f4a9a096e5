"""Where trained networks come from: torchvision, our zoo, the user's own module, an exported program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgecnn._shipped import DEFAULTS, shipped_model
from edgecnn.bundle import LayerRanges, SourceRecord
from edgecnn.errors import MissingDependencyError, SpecError, UnknownNameError
from edgecnn.evidence import Stage
from edgecnn.frame import Alignment, ColourOrder, Fit, FrameSpec, Interpolation
from edgecnn.results import FloatArray, UInt8Array
from edgecnn.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgecnn.sources.blueprint import Blueprint

Decode: TypeAlias = "Callable[[Any], tuple[Tensor, ...]]"
Preprocess: TypeAlias = Callable[[UInt8Array], FloatArray]


@dataclass(frozen=True)
class ReferencePreprocess:
    """The source's own pre-processing, which ours is compared with.

    Attributes:
        name: what it is ("torchvision ImageClassification").
        apply: uint8 [height, width, 3] RGB picture → float32 [3, H, W] as the network sees it.
        square_only: it keeps the aspect and its output's size follows the picture: compare on square pictures.
    """

    name: str
    apply: Preprocess
    square_only: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained network, what it eats, and what its answer means.

    Attributes:
        module: answers a float32 [batch, 3, height, width] tensor, normalised as `frame` says.
        frame: its input.
        task: its answer.
        decode: the module's raw answer → the task's output tensors (design: scores; boxes and scores; logits; …);
            it becomes part of the graph; or the name of one of ours ("yolox", "ssd"). None: the module already
            answers so; a classifier's logits are noticed.
        name: for file names and tables.
        source: where it came from.
        reference: the source's own pre-processing, to compare ours with; None where there is none.
        warnings: what the user should know, in sentences.
        blueprint: how to build it again; None for networks that came as Python objects or programs.
        stages: what was done to it here, first one first.
        ranges: of layers, learned with these very weights by training for int8.
    """

    module: nn.Module
    frame: FrameSpec
    task: Task
    decode: Decode | str | None = None
    name: str = "network"
    source: SourceRecord = field(default_factory=lambda: SourceRecord(model="python"))
    reference: ReferencePreprocess | None = None
    warnings: tuple[str, ...] = ()
    blueprint: Blueprint | None = None
    stages: tuple[Stage, ...] = ()
    ranges: Mapping[str, LayerRanges] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What the user says about a network beyond its name; None leaves what the source says.

    Attributes:
        weights: a file, or "DEFAULT" for the source's own published weights.
        size: (height, width) of the frame in px.
        task: "classify", "detect", "segment" or "instances"; for networks that don't say.
        head: name of a decoding of ours ("yolox", "ssd"), for modules that answer raw maps.
        labels: class names, or a file with one a line.
        fit, alignment, interpolation, color, scale, mean, std, pad_value: parts of the FrameSpec.
        replace_activations: "relu" or "relu6" for activations that quantize badly; see
            `edgecnn.sources.activations.replace_activations`.
    """

    weights: str | Path | None = None
    size: tuple[int, int] | None = None
    task: str | None = None
    head: str | None = None
    labels: str | Path | Sequence[str] | None = None
    fit: Fit | None = None
    alignment: Alignment | None = None
    interpolation: Interpolation | None = None
    color: ColourOrder | None = None
    scale: float | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    pad_value: int | None = None
    replace_activations: str | None = None


PREFIXES = {"torchvision": "edgecnn.sources.torchvision"}
SAVED_SUFFIX = ".model"
_REBUILDABLE = frozenset({*PREFIXES.values(), "edgecnn.sources.zoo.load", "edgecnn.sources.module"})


def load_model(model: str | Path | TrainedModel | nn.Module, **options: Any) -> TrainedModel:
    """Load a network by name, or take one that is there, and apply what the user says about it.

    Args:
        model: "torchvision:NAME", a name of our zoo, "default-detector" or "default-segmenter" (they ship with
            edgecnn), "package.module:factory", a NAME.model folder that training wrote, a .pt2 file, a TrainedModel,
            or a torch module (with task, size and labels among the options).
        options: the fields of `ModelOptions`.

    Raises:
        UnknownNameError: no such network.
        SourceError, WeightsError: it cannot be loaded.
        SpecError: the options contradict each other or the network.
        MissingDependencyError: torch is not installed.
    """
    wanted = ModelOptions(**options)
    if isinstance(model, Path):
        model = str(model)
    try:
        import torch  # noqa: F401 - every source needs it, and the message names the extra
    except ModuleNotFoundError as missing:
        raise MissingDependencyError("loading a network", "torch", extra="convert") from missing
    loaded: TrainedModel
    if isinstance(model, str):
        model = str(shipped_model(model) or model)
        home = _home(model)
        loaded = import_module(home).load(model, wanted)
        if home in _REBUILDABLE:
            from edgecnn.sources.blueprint import Blueprint

            size = (loaded.frame.height_px, loaded.frame.width_px)
            blueprint = Blueprint(
                model=model,
                labels=loaded.task.labels,
                size=size,
                task=wanted.task or "",
                decode=wanted.head or "",
            )
            loaded = replace(loaded, blueprint=blueprint)
    else:
        from edgecnn.sources import module as source

        loaded = source.adopt(model, wanted)
    if wanted.replace_activations is None:
        return loaded
    from edgecnn.sources.activations import replace_activations

    return replace_activations(loaded, wanted.replace_activations)


def _home(model: str) -> str:
    """The module whose `load` knows this name."""
    from edgecnn.sources.zoo import ZOO

    prefix, colon, rest = model.partition(":")
    if colon and prefix in PREFIXES:
        return PREFIXES[prefix]
    if model in ZOO:
        return "edgecnn.sources.zoo.load"
    if model.rstrip("/").endswith(SAVED_SUFFIX):
        return "edgecnn.sources.saved"
    if model.endswith(".pt2"):
        return "edgecnn.sources.exported"
    if colon and rest.isidentifier() and prefix.replace(".", "_").isidentifier():
        return "edgecnn.sources.module"
    if Path(model).suffix in {".pth", ".pt", ".ckpt", ".safetensors"}:
        raise SpecError(
            f"{model} holds weights, not a network: name the network and give the file as --weights, as in "
            f"`edgecnn convert yolox-nano --weights {model}`"
        )
    raise UnknownNameError(
        "model", model, [*ZOO, *DEFAULTS, "torchvision:NAME", "package.module:factory", "NAME.model"]
    )
