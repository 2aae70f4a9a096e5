"""Makes a network round while it trains, and takes the result apart: weights, and the ranges that were learned."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from edgecnn.bundle import LayerRanges
from edgecnn.compression.quantize_aware.correction import correct_means
from edgecnn.compression.quantize_aware.fake_quantize import LearnedRange
from edgecnn.compression.quantize_aware.layers import AbsorbedNorm, RoundingConv2d, RoundingLinear, make_rounding
from edgecnn.compression.quantize_aware.placement import LayerPlace, find_places
from edgecnn.errors import ConversionError, SourceError, UnknownNameError
from edgecnn.results import UInt8Array
from edgecnn.sources import TrainedModel
from edgecnn.sources.normalise import normalise

# Which targets' convolutions write 8 bits, before an activation that is no ReLU; OpenVINO's write float into it.
_WRITES_INT8 = {"openvino": False, "onnx": True, "tflite": True}
TARGETS = tuple(_WRITES_INT8)
_SMALLEST_GROUP = 32  # channels; ONNX Runtime's int8 is slower than float with fewer, so they stay float there

# Frames whose means are looked at, as one batch: so many that each takes its share of memory and of time.
_PIXELS_FOR_MEANS, _FEWEST_FOR_MEANS = 3_000_000, 4


def make_quantize_aware(model: TrainedModel, target: str, frames: Sequence[UInt8Array]) -> TrainedModel:
    """A copy of a network that rounds where the target's int8 artifacts do, from ranges that fit what it sees.

    Weights are rounded with their batch norms in them, whose statistics stay as they are. The first layer reads the
    frame, which has 256 levels as it is. What the rounding of its weights adds to the mean of a layer's channels is
    taken from its bias.

    Args:
        model: trained; it is not changed.
        target: "openvino", "onnx" or "tflite".
        frames: uint8 [height, width, 3] BGR each, to start the ranges from: some pictures as it will see them.

    Raises:
        UnknownNameError: another target.
        SourceError: no layer that can round was found.
    """
    if target not in _WRITES_INT8:
        raise UnknownNameError("target of quantization-aware training", target, TARGETS)
    module = copy.deepcopy(model.module).eval()
    inputs = [normalise(torch.from_numpy(frame[None].copy()), model.frame) for frame in frames]
    named = dict(module.named_modules())
    places = {
        name: place for name, place in find_places(module, inputs[0]).items() if _can_round(named.get(name), target)
    }
    if not places:
        raise SourceError(
            f"{model.name} has no convolution or matrix product, as a module that runs once, to train for int8"
        )
    _insert(module, places, writes_int8=_WRITES_INT8[target])
    with torch.no_grad():
        for x in inputs:
            module(x)
    _start(module)
    enough = max(_PIXELS_FOR_MEANS // inputs[0][0, 0].numel(), _FEWEST_FOR_MEANS)
    correct_means(module, torch.cat(inputs[:enough]))
    return replace(model, module=module, ranges={})


def learned_ranges(model: TrainedModel) -> dict[str, LayerRanges]:
    """The ranges of a network that `make_quantize_aware` made, by layer, as its weights are now."""
    found = {}
    for name, layer in model.module.named_modules():
        if isinstance(layer, RoundingConv2d | RoundingLinear):
            reads, writes = (None if side is None else side.levels() for side in (layer.reads, layer.writes))
            if reads is not None or writes is not None:
                found[name] = LayerRanges(reads=reads, writes=writes)
    return found


def without_rounding(trained: TrainedModel, plain: TrainedModel) -> TrainedModel:
    """The network that rounded, as a plain one with its weights and the ranges that it learned.

    Args:
        trained: what `make_quantize_aware` made of `plain`, trained.
        plain: gives the modules.
    """
    module = copy.deepcopy(plain.module)
    weights = trained.module.state_dict()
    module.load_state_dict({name: weights[name] for name in module.state_dict()})
    return replace(plain, module=module.eval(), ranges=learned_ranges(trained))


def _can_round(layer: nn.Module | None, target: str) -> bool:
    if isinstance(layer, nn.Conv2d):
        inputs = layer.in_channels // layer.groups
        return type(layer) is nn.Conv2d and not (target == "onnx" and layer.groups > 1 and 1 < inputs < _SMALLEST_GROUP)
    return type(layer) is nn.Linear


def _insert(module: nn.Module, places: Mapping[str, LayerPlace], *, writes_int8: bool) -> None:
    """Ranges on what layers read and, where the target does that, on what they make: one for each tensor."""
    named = dict(module.named_modules())
    writes = {
        name: LearnedRange(place.bounds)
        for name, place in places.items()
        if writes_int8 and isinstance(named[name], nn.Conv2d)
    }
    reads: dict[int, LearnedRange] = {}
    for name, place in places.items():
        layer = named[name]
        norm = named.get(place.norm) if place.norm else None
        absorbed = AbsorbedNorm(norm) if isinstance(norm, nn.BatchNorm2d) else None
        if absorbed is not None:
            _put(module, place.norm, absorbed)
        rounded_already = place.from_layer in writes
        # OpenVINO reads a depthwise convolution's channels through a range each, which lose next to nothing.
        by_channel = not writes_int8 and isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
        wants = not (place.from_frame or rounded_already or by_channel)
        make_rounding(
            layer,
            reads=reads.setdefault(place.reads, LearnedRange()) if wants else None,
            writes=writes.get(name),
            norm=absorbed,
        )


def _start(module: nn.Module) -> None:
    """End watching; a tensor that held nothing but zeros stays float."""
    for layer in module.modules():
        if isinstance(layer, RoundingConv2d | RoundingLinear):
            for side in ("reads", "writes"):
                watched: LearnedRange | None = getattr(layer, side)
                try:
                    if watched is not None:
                        watched.observe()
                except ConversionError:
                    setattr(layer, side, None)


def _put(module: nn.Module, name: str, child: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, child)
