"""What a training is told."""

from __future__ import annotations

import math
from typing import Literal, get_args

import msgspec

from edgecnn.errors import SpecError

OptimizerName = Literal["sgd", "adam", "adamw", "rmsprop"]
Schedule = Literal["cosine", "step", "constant"]
Target = Literal["openvino", "onnx", "tflite"]


class Augmentation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How pictures are varied; 0 leaves a thing out.

    Attributes:
        flip: chance to mirror a picture left to right.
        flip_vertical: chance to mirror it top to bottom, for pictures that have no up.
        smallest_crop: share of a picture's area that a crop leaves at least; 1 for no crops.
        largest_zoom_out: how many times as wide as a picture the grey field may be that it is put on (detectors).
        brightness, contrast, saturation, hue: as torchvision's ColorJitter takes them.
        mosaic: chance to show four pictures in one (detectors); none in the last tenth of the epochs.
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
    """What is learned from a teacher, where one is given.

    Attributes:
        outputs: factor on what its answers add to the loss.
        features: factor on what the places that it looks at add.
        labels: factor on the loss on the labels; 0 learns from the teacher alone, which forgets less where the pictures
            are few beside those that it was trained on.
        temperature: what class logits are divided by before a softmax; higher shows more of what the teacher thinks
            of the other classes. YOLOX heads, which have no softmax, take none.
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
            raise SpecError("distillation.outputs and distillation.features are both 0: nothing is learned then")


class TrainSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to train.

    Attributes:
        epochs: passes over the pictures.
        batch: frames a step.
        optimizer: one of torch's.
        learning_rate: at its highest.
        schedule: of the learning rate after the warm-up: "cosine" falls to a hundredth, "step" to a tenth after 60 %
            and again after 85 % of the steps.
        warmup_epochs: over which the rate rises from zero.
        momentum: of SGD and RMSprop.
        weight_decay: not of biases and norms.
        l1: factor on the sum of all decayed weights' magnitudes.
        dropout: rate for the network's dropout layers; None leaves them.
        freeze_backbone: train the new head alone; norms in the frozen part keep their statistics.
        freeze_norms: norms keep their statistics and train their scale and shift: for few pictures, whose statistics
            are not those of all.
        ema_decay: the network that counts is a moving average of the trained one, over about 1 / (1 - decay) steps;
            0 takes the trained one itself.
        clip_gradient_norm: largest norm of all gradients together; 0 for no limit.
        early_stop_epochs: stop when the metric has not risen for so many epochs; None never stops early.
        evaluate_every: epochs between measurements of the metric.
        augmentation: how pictures are varied.
        distillation: what is learned from a teacher; used only where one is given.
        quantize_for: "openvino", "onnx" or "tflite": train with the rounding that this format's int8 does, and learn
            its ranges; the statistics of batch norms stay as they are then.
        workers: processes that read pictures; None takes one where there is more than one core.
        seed: of the new weights, the order of pictures and their variation.
    """

    epochs: int = 50
    batch: int = 16
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 1e-3
    schedule: Schedule = "cosine"
    warmup_epochs: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 5e-4
    l1: float = 0.0
    dropout: float | None = None
    freeze_backbone: bool = False
    freeze_norms: bool = False
    ema_decay: float = 0.998
    clip_gradient_norm: float = 10.0
    early_stop_epochs: int | None = None
    evaluate_every: int = 1
    augmentation: Augmentation = msgspec.field(default_factory=Augmentation)
    distillation: Distillation = msgspec.field(default_factory=Distillation)
    quantize_for: Target | None = None
    workers: int | None = None
    seed: int = 0

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
        if self.quantize_for not in (None, *get_args(Target)):
            known = ", ".join(get_args(Target))
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
