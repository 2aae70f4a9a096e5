"""Makes a network round while it trains, and returns the plain network and its learned ranges afterwards."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from edgecnn.bundle import LayerRanges
from edgecnn.errors import ConversionError, SourceError, UnknownNameError
from edgecnn.formats import FORMATS, Int8Rounding
from edgecnn.results import UInt8Array
from edgecnn.sources.model import TrainedModel
from edgecnn.sources.normalise import normalise
from edgecnn.training.quantize_aware.correction import correct_means
from edgecnn.training.quantize_aware.fake_quantize import LearnedRange
from edgecnn.training.quantize_aware.layers import AbsorbedNorm, RoundingConv2d, RoundingLinear, make_rounding
from edgecnn.training.quantize_aware.placement import LayerPlace, find_places

# Number of frames for the means, as one batch: enough for stable means, few enough for memory and time.
_PIXELS_FOR_MEANS, _FEWEST_FOR_MEANS = 3_000_000, 4


def make_quantize_aware(model: TrainedModel, format_name: str, frames: Sequence[UInt8Array]) -> TrainedModel:
    """A copy of a network that rounds where the format's int8 artifacts do, with ranges fitted to some pictures.

    Batch norms are merged into the weights before rounding, and their statistics are fixed. The first layer reads the
    frame, which has 256 levels already. The mean error of a layer's rounded weights is subtracted from its
    bias.

    Args:
        model: a trained network; not changed.
        format_name: name of a format with int8 files, such as "openvino".
        frames: uint8 [height, width, 3] BGR each, for the initial ranges: some typical pictures.

    Raises:
        UnknownNameError: no such format, or one without support for this training.
        SourceError: no layer that can round was found.
    """
    known = {row.name: row.int8_rounding for row in FORMATS if row.int8_rounding is not None}
    if format_name not in known:
        raise UnknownNameError("format to train for", format_name, known)
    rounding = known[format_name]
    module = copy.deepcopy(model.module).eval()
    inputs = [normalise(torch.from_numpy(frame[None].copy()), model.frame) for frame in frames]
    named = dict(module.named_modules())
    places = {
        name: place for name, place in find_places(module, inputs[0]).items() if _can_round(named.get(name), rounding)
    }
    if not places:
        raise SourceError(
            f"{model.name} has no convolution or matrix product that is a module and runs once: it cannot be trained "
            f"for int8"
        )
    _insert(module, places, rounding)
    with torch.no_grad():
        for x in inputs:
            module(x)
    _start(module)
    enough = max(_PIXELS_FOR_MEANS // inputs[0][0, 0].numel(), _FEWEST_FOR_MEANS)
    correct_means(module, torch.cat(inputs[:enough]))
    return replace(model, module=module, ranges={})


def learned_ranges(model: TrainedModel) -> dict[str, LayerRanges]:
    """The current ranges of a network from `make_quantize_aware`, by layer."""
    found = {}
    for name, layer in model.module.named_modules():
        if isinstance(layer, RoundingConv2d | RoundingLinear):
            reads, writes = (None if side is None else side.levels() for side in (layer.reads, layer.writes))
            if reads is not None or writes is not None:
                found[name] = LayerRanges(reads=reads, writes=writes)
    return found


def without_rounding(trained: TrainedModel, plain: TrainedModel) -> TrainedModel:
    """The plain network with the trained weights and the learned ranges.

    Args:
        trained: the trained result of `make_quantize_aware` for `plain`.
        plain: gives the modules.
    """
    module = copy.deepcopy(plain.module)
    weights = trained.module.state_dict()
    module.load_state_dict({name: weights[name] for name in module.state_dict()})
    return replace(plain, module=module.eval(), ranges=learned_ranges(trained))


def _can_round(layer: nn.Module | None, rounding: Int8Rounding) -> bool:
    if isinstance(layer, nn.Conv2d):
        inputs = layer.in_channels // layer.groups
        return type(layer) is nn.Conv2d and not (layer.groups > 1 and 1 < inputs < rounding.smallest_group)
    return type(layer) is nn.Linear


def _insert(module: nn.Module, places: Mapping[str, LayerPlace], rounding: Int8Rounding) -> None:
    """Add ranges to layers' inputs and, if the format rounds there, outputs: one for each tensor."""
    named = dict(module.named_modules())
    writes = {
        name: LearnedRange(place.bounds)
        for name, place in places.items()
        if rounding.writes_int8 and isinstance(named[name], nn.Conv2d)
    }
    reads: dict[int, LearnedRange] = {}
    for name, place in places.items():
        layer = named[name]
        norm = named.get(place.norm) if place.norm else None
        absorbed = AbsorbedNorm(norm) if isinstance(norm, nn.BatchNorm2d) else None
        if absorbed is not None:
            _put(module, place.norm, absorbed)
        rounded_already = place.from_layer in writes
        depthwise = isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
        by_channel = rounding.depthwise_by_channel and depthwise
        wants = not (place.from_frame or rounded_already or by_channel)
        make_rounding(
            layer,
            reads=reads.setdefault(place.reads, LearnedRange()) if wants else None,
            writes=writes.get(name),
            norm=absorbed,
        )


def _start(module: nn.Module) -> None:
    """End the statistics; a tensor that was always zero stays float."""
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
