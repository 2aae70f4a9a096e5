"""torchvision's classifiers, segmenters and SSD detectors, with the metadata of their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import URLError

import msgspec
import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights, list_models
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification, SemanticSegmentation

from edgecnn.bundle import SourceRecord, sha256_of
from edgecnn.errors import UnknownNameError, WeightsError
from edgecnn.frame import FrameSpec, Interpolation
from edgecnn.results import FloatArray, UInt8Array
from edgecnn.sources import torchvision_ssd
from edgecnn.sources.model import ModelOptions, ReferencePreprocess, TrainedModel
from edgecnn.sources.user_options import apply, read_labels
from edgecnn.sources.weights import Weights, fit_weights, read_weights, reproducible_weights, weights_file
from edgecnn.tasks import Classify, Segment

_INTERPOLATIONS: dict[InterpolationMode, Interpolation] = {
    InterpolationMode.BILINEAR: "bilinear",
    InterpolationMode.BICUBIC: "bicubic",
}


# Networks whose published weights were trained elsewhere, on pixels of -1 to 1; and the names of their heads that are
# used only in training.
_TRANSFORMED = ("googlenet", "inception_v3")
_AUXILIARY = frozenset({"aux1", "aux2", "AuxLogits"})
_HALF = (0.5, 0.5, 0.5)


def names() -> list[str]:
    """All networks that `torchvision:NAME` accepts."""
    return [
        *list_models(torchvision.models),
        *list_models(torchvision.models.segmentation),
        *torchvision_ssd.NAMES,
    ]


def load(model: str, options: ModelOptions) -> TrainedModel:
    """Load `torchvision:NAME`; `--weights DEFAULT` means torchvision's own file, from its cache or its site.

    With `--labels` of another number than the published weights', the network is built for that many classes.

    Raises:
        UnknownNameError: torchvision has no such network.
        WeightsError: the file doesn't fit, or can't be downloaded.
    """
    name = model.partition(":")[2]
    if name not in names():
        raise UnknownNameError("torchvision network", name, names())
    published = get_model_weights(name).DEFAULT
    categories = tuple(published.meta["categories"])
    if options.labels is not None:
        categories = _as_categories(read_labels(options.labels), name)
    preset: Any = published.transforms()
    module, source, notes = _with_weights(model, name, published, options, classes=len(categories))
    if name in torchvision_ssd.NAMES:
        frame = torchvision_ssd.frame_of(module)
        height, width = options.size or (frame.height_px, frame.width_px)
        trained = TrainedModel(
            module=torchvision_ssd.SsdNetwork(module, height, width),
            frame=frame,
            task=torchvision_ssd.task_of(module, categories),
            decode="ssd",
            name=name,
            source=source,
            reference=torchvision_ssd.reference_of(module),
        )
    elif isinstance(preset, SemanticSegmentation):
        trained = TrainedModel(
            module=_OnlyOut(module),
            frame=_segmentation_frame(preset),
            task=Segment(labels=categories),
            decode=_as_tuple,
            name=name,
            source=source,
            reference=_reference(preset, square_only=True),
        )
    else:
        trained = TrainedModel(
            module=module,
            frame=_classification_frame(preset),
            task=Classify(labels=categories),
            decode=_softmax,
            name=name,
            source=source,
            reference=_reference(preset, square_only=False),
        )
        if name in _TRANSFORMED and is_published(published, source):
            trained = _on_transformed_input(trained)
    trained = replace(trained, warnings=(*trained.warnings, *notes))
    return apply(trained, replace(options, labels=None))


def is_published(published: WeightsEnum, source: SourceRecord) -> bool:
    """Whether weights are the published ones: by name, or as a file with the hash in their URL."""
    mark = re.search(r"-([0-9a-f]{8})\.pth$", str(published.url))
    known = mark is not None and source.weights_sha256.startswith(mark[1])
    return not source.random and (source.weights == published.name or known)


def _on_transformed_input(trained: TrainedModel) -> TrainedModel:
    """The network with a frame of -1 to 1, the result of its transform_input on torchvision's frame."""
    frame, reference = trained.frame, trained.reference
    assert reference is not None
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) for values in (frame.mean, frame.std))

    def transformed(picture: UInt8Array) -> FloatArray:
        values: FloatArray = ((reference.apply(picture) * std + mean) - 0.5) / 0.5
        return values

    return replace(
        trained,
        frame=msgspec.structs.replace(frame, mean=_HALF, std=_HALF),
        reference=replace(reference, apply=transformed),
    )


def _as_categories(labels: tuple[str, ...], name: str) -> tuple[str, ...]:
    """Labels in torchvision's order: its SSDs have the background first."""
    return ("__background__", *labels) if name in torchvision_ssd.NAMES else labels


class _OnlyOut(nn.Module):
    """A segmentation network without the auxiliary output, which is used only in training."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        if hasattr(network, "aux_classifier"):
            del network.aux_classifier
            network.aux_classifier = None  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, classes, height, width]."""
        return self.network(x)["out"]  # type: ignore[no-any-return]


def _with_weights(
    model: str, name: str, published: WeightsEnum, options: ModelOptions, *, classes: int
) -> tuple[nn.Module, SourceRecord, tuple[str, ...]]:
    versions = {"torchvision": torchvision.__version__, "torch": str(torch.__version__)}
    if options.weights is None:
        return _build(name, {}, classes), SourceRecord(model=model, random=True, versions=versions), ()
    if str(options.weights) == "DEFAULT":
        file, tensors = published.name, Weights(_published_weights(published))
        digest = ""
    else:
        path = Path(options.weights)
        file, tensors = path.name, read_weights(path)
        digest = sha256_of(weights_file(path))
    notes = tensors.notes
    if name in _TRANSFORMED:  # remove heads that are used only in training
        tensors = Weights({key: t for key, t in tensors.items() if not _AUXILIARY & set(key.split("."))})
    module = _build(name, tensors, classes)
    fit_weights(module, tensors, origin=f"{options.weights}")
    source = SourceRecord(model=model, weights=file, weights_sha256=digest, versions=versions)
    if name in _TRANSFORMED and not is_published(published, source):
        note = (
            f"{name} gets torchvision's input for training from scratch; weights that were fine-tuned from the "
            "published ones need --mean 0.5,0.5,0.5 --std 0.5,0.5,0.5 (as its transform_input does)"
        )
        notes = (*notes, note)
    return module, source, notes


@reproducible_weights()
def _build(name: str, tensors: Mapping[str, Tensor], classes: int) -> nn.Module:
    """The plain network; settings of the published files' training follow from the given tensors."""
    arguments: dict[str, Any] = {"weights": None, "num_classes": classes}
    if name in _TRANSFORMED:
        # Random initialisation takes a minute through scipy. The published weights' input transform is part of the
        # frame, which is saved with the network, and not of the network.
        arguments |= {"init_weights": False, "transform_input": False, "aux_logits": False}
    if name in torchvision_ssd.NAMES:
        arguments |= {"weights_backbone": None}
    if name in list_models(torchvision.models.segmentation):
        arguments |= {"weights_backbone": None, "aux_loss": any("aux_classifier" in key for key in tensors)}
    network: nn.Module = get_model(name, **arguments)
    return network


def _published_weights(published: WeightsEnum) -> dict[str, Tensor]:
    try:
        return dict(published.get_state_dict(progress=False, check_hash=True))
    except (URLError, OSError, RuntimeError) as failed:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsError(
            f"torchvision's weights {published.name} cannot be downloaded ({failed}): fetch {published.url} elsewhere "
            f"and put it into {folder}, or give the file as --weights"
        ) from failed


def _classification_frame(preset: ImageClassification) -> FrameSpec:
    return FrameSpec(
        height_px=preset.crop_size[0],
        width_px=preset.crop_size[0],
        fit="centre-crop",
        resize_short_px=preset.resize_size[0],
        interpolation=_INTERPOLATIONS[preset.interpolation],
        antialias=True,
        mean=_triple(preset.mean),
        std=_triple(preset.std),
    )


def _segmentation_frame(preset: SemanticSegmentation) -> FrameSpec:
    """Torchvision lets the size follow the picture; a fixed graph gets a square, with the aspect ratio kept."""
    side = preset.resize_size[0]
    return FrameSpec(
        height_px=side,
        width_px=side,
        fit="letterbox",
        interpolation=_INTERPOLATIONS[preset.interpolation],
        antialias=True,
        mean=_triple(preset.mean),
        std=_triple(preset.std),
    )


def _triple(values: list[float]) -> tuple[float, float, float]:
    red, green, blue = values
    return red, green, blue


def _reference(preset: nn.Module, *, square_only: bool) -> ReferencePreprocess:
    def transform(picture: UInt8Array) -> FloatArray:
        from PIL import Image

        tensor: Tensor = preset(Image.fromarray(np.ascontiguousarray(picture)))
        array: FloatArray = tensor.numpy()
        return array

    return ReferencePreprocess(f"torchvision {type(preset).__name__}", transform, square_only)


def _softmax(logits: Tensor) -> tuple[Tensor, ...]:
    return (torch.softmax(logits, dim=1),)


def _as_tuple(logits: Tensor) -> tuple[Tensor, ...]:
    return (logits,)
