"""A trained network with its input and answer, and the user's options for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from edgecnn.bundle import LayerRanges, SourceRecord
from edgecnn.bundle.evidence import Stage
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
    """The source's own pre-processing, with which ours is compared.

    Attributes:
        name: its name ("torchvision ImageClassification").
        apply: uint8 [height, width, 3] RGB picture → float32 [3, H, W], the network's input.
        square_only: True if it keeps the aspect ratio and its output's size follows the picture: compare on square
            pictures.
    """

    name: str
    apply: Preprocess
    square_only: bool = False


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained network, its input, and the meaning of its answer.

    Attributes:
        module: takes a float32 [batch, 3, height, width] tensor, normalised as `frame` says.
        frame: its input.
        task: its task.
        decode: the module's raw answer → the task's output tensors (design: scores; boxes and scores; logits; …);
            it becomes part of the graph; or the name of one of ours ("yolox", "nanodet", "ssd"). None: the module
            already gives them; a classifier's logits are detected.
        name: name in files and tables.
        source: the network's source.
        reference: the source's own pre-processing, to compare ours with; None where there is none.
        warnings: warnings for the user, in sentences.
        blueprint: how to build it again; None for networks given as Python objects or programs.
        stages: its history here, in order.
        ranges: ranges of layers, learned with exactly these weights in training for int8.
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

    @property
    def is_random(self) -> bool:
        """Whether it has learned nothing: it started with random weights and was not trained here since."""
        return self.source.random and not any(stage.what == "train" for stage in self.stages)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The user's options for a network; None uses the source's value.

    Attributes:
        weights: a file, or "DEFAULT" for the source's own published weights.
        size: (height, width) of the frame in px.
        task: its name ("classify", "detect", …); for networks that don't give one.
        head: name of one of our decoders ("yolox", "nanodet", "ssd"), for modules that return raw maps.
        labels: class names, or a file with one per line.
        fit, alignment, interpolation, color, scale, mean, std, pad_value: parts of the FrameSpec.
        factory: package.module:callable, for a NAME.model made from the user's own code; must be given by the user.
        replace_activations: "relu" or "relu6" instead of activations that quantize badly; see
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
    factory: str | None = None
    replace_activations: str | None = None
