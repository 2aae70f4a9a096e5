"""Settings of a training run."""

from __future__ import annotations

import math
from typing import Annotated, Literal, get_args

import msgspec

from edgecnn.errors import SpecError
from edgecnn.formats import FORMATS
from edgecnn.options import Option, kinds

OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop"]
Schedule = Literal["cosine", "step", "constant"]
_GROUP = "Training"


class Augmentation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How pictures are varied; 0 turns a variation off.

    Attributes:
        flip: probability of mirroring a picture left to right.
        flip_vertical: probability of mirroring it top to bottom, for pictures without a fixed orientation.
        smallest_crop: smallest share of a picture's area that a crop keeps; 1 for no crops.
        largest_zoom_out: largest width of the grey field around a picture, in widths of the picture (detectors).
        brightness, contrast, saturation, hue: as in torchvision's ColorJitter.
        mosaic: probability of showing four pictures in one (detectors); 0 in the last tenth of the epochs.
    """

    flip: float = 0.5
    flip_vertical: float = 0.0
    smallest_crop: float = 0.3
    largest_zoom_out: float = 2.0
    brightness: float = 0.3
    contrast: float = 0.3
    saturation: float = 0.4
    hue: float = 0.015
    mosaic: float = 0.5

    def __post_init__(self) -> None:
        _check_shares(self, ("flip", "flip_vertical", "mosaic"))
        if not 0 < self.smallest_crop <= 1:
            raise SpecError(f"augmentation.smallest_crop must be above 0 and at most 1, got {self.smallest_crop}")
        if not self.largest_zoom_out >= 1:
            raise SpecError(f"augmentation.largest_zoom_out must be 1 or more, got {self.largest_zoom_out}")


class Distillation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings for learning from a teacher, where one is given.

    Attributes:
        outputs: factor of the loss on the teacher's answers.
        features: factor of the loss on the teacher's attention maps.
        labels: factor of the loss on the labels; 0 learns from the teacher only, which forgets less if there are
            few pictures compared with its training data.
        temperature: divides class logits before a softmax; a higher value shows more of the teacher's scores for
            other classes. Not used for YOLOX heads, which have no softmax.
    """

    outputs: float = 1.0
    features: float = 1.0
    labels: float = 1.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        for name in ("outputs", "features", "labels"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SpecError(f"distillation.{name} must be 0 or more, got {getattr(self, name)}")
        if not 0 < self.temperature < math.inf:
            raise SpecError(f"distillation.temperature must be positive, got {self.temperature}")
        if self.outputs == self.features == 0:
            raise SpecError("distillation.outputs and distillation.features are both 0: nothing would be learned")


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a training run.

    Attributes:
        epochs: passes over the pictures.
        batch: frames per step.
        optimizer: torch's optimizer.
        learning_rate: the learning rate at its highest.
        schedule: how the learning rate falls after the warm-up: "cosine" to a hundredth, "step" to a tenth after 60 %
            and again after 85 % of the steps.
        warmup_epochs: epochs over which the rate rises from zero.
        momentum: momentum of SGD and RMSprop.
        weight_decay: weight decay, not applied to biases and norms.
        l1: factor of the sum of all decayed weights' magnitudes.
        dropout: rate for the network's dropout layers; by default they are unchanged.
        freeze_backbone: train only the new head; norms in the frozen part keep their statistics.
        freeze_norms: norms keep their statistics and train only scale and shift: for few pictures, whose statistics
            are not representative.
        ema_decay: the final network is a moving average of the trained one, over about 1 / (1 - decay) steps;
            0 uses the trained one itself.
        clip_gradient_norm: largest norm of all gradients together; 0 for no limit.
        early_stop_epochs: stop when the metric has not improved for so many epochs; by default never.
        evaluate_every: epochs between measurements of the metric.
        augmentation: how pictures are varied.
        distillation: settings for learning from a teacher; used only where one is given.
        quantize_for: a format, such as "openvino": train with the rounding of its int8 files, and learn their
            ranges; batch-norm statistics are fixed then.
        workers: processes that read pictures; by default one, where there is more than one core.
        seed: seed for the new weights, the order of pictures and their variation.
    """

    epochs: Annotated[int, Option(group=_GROUP)] = 50
    batch: Annotated[int, Option(group=_GROUP)] = 16
    optimizer: Annotated[OptimizerName, Option(kind=kinds.one_of(*get_args(OptimizerName)), group=_GROUP)] = "adamw"
    learning_rate: Annotated[float, Option(group=_GROUP)] = 1e-3
    schedule: Annotated[Schedule, Option(kind=kinds.one_of(*get_args(Schedule)), group=_GROUP)] = "cosine"
    warmup_epochs: float = 1.0
    momentum: float = 0.9
    weight_decay: Annotated[float, Option(group=_GROUP)] = 5e-4
    l1: Annotated[float, Option(group=_GROUP)] = 0.0
    dropout: Annotated[float | None, Option(group=_GROUP)] = None
    freeze_backbone: Annotated[bool, Option(group=_GROUP)] = False
    freeze_norms: bool = False
    ema_decay: float = 0.998
    clip_gradient_norm: float = 10.0
    early_stop_epochs: Annotated[int | None, Option(group=_GROUP)] = None
    evaluate_every: int = 1
    augmentation: Augmentation = msgspec.field(default_factory=Augmentation)
    distillation: Distillation = msgspec.field(default_factory=Distillation)
    quantize_for: Annotated[
        str | None,
        Option(
            help="Train for int8 in {int8_formats}, with the rounding of this format.",
            kind=kinds.TEXT,
            metavar="FORMAT",
            group=_GROUP,
        ),
    ] = None
    workers: Annotated[int | None, Option(group=_GROUP)] = None
    seed: Annotated[int, Option(group=_GROUP)] = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "evaluate_every"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.learning_rate < math.inf:
            raise SpecError(f"learning_rate must be positive, got {self.learning_rate}")
        for name in ("warmup_epochs", "momentum", "weight_decay", "l1", "clip_gradient_norm"):
            if not 0 <= getattr(self, name) < math.inf:
                raise SpecError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.dropout is not None:
            _check_shares(self, ("dropout",))
        if not 0 <= self.ema_decay < 1:
            raise SpecError(f"ema_decay must be at least 0 and below 1, got {self.ema_decay}")
        if self.quantize_for is not None and FORMATS.get(self.quantize_for).int8_rounding is None:
            known = ", ".join(row.name for row in FORMATS if row.int8_rounding is not None)
            raise SpecError(f"quantize_for must be one of {known}, got {self.quantize_for!r}")
        if self.early_stop_epochs is not None and self.early_stop_epochs < 1:
            raise SpecError(f"early_stop_epochs must be at least 1, got {self.early_stop_epochs}")


def _check_shares(settings: msgspec.Struct, names: tuple[str, ...]) -> None:
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise SpecError(f"{name} must be between 0 and 1, got {getattr(settings, name)}")


NO_AUGMENTATION = Augmentation(
    flip=0.0,
    smallest_crop=1.0,
    largest_zoom_out=1.0,
    brightness=0.0,
    contrast=0.0,
    saturation=0.0,
    hue=0.0,
    mosaic=0.0,
)
