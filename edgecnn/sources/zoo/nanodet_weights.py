"""NanoDet-Plus' published files under our names: checkpoints as they were trained, and exports for deployment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from edgecnn.errors import WeightsError
from edgecnn.sources.zoo.nanodet import BINS, SIDES

_AVERAGED: Final = "avg_model."
# What takes part in training alone, and the constants of the reference's decoding.
_LEFT_OUT: Final = re.compile(r"(model\.)?(aux_fpn|aux_head|head\.distribution_project)\.")
_EXPORTED: Final = re.compile(r"Conv_(\d+)\.(weight|bias)")
_PREDICTION: Final = re.compile(r"(.*head\.gfl_)cls(\.\d+\.(?:weight|bias))")


def published_weights(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a published file as the network holds them; those that are not of such a file stay as they are.

    Of a checkpoint's averaged and raw weights the averaged are taken, as the publisher's tools do. In an export the
    batch norms are in the convolutions, which are numbered in the order of execution ("Conv_31.weight"): the norms get
    statistics and factors that leave everything as it is, and the convolutions' biases as their shift.

    Args:
        tensors: by name.
        module: the `NanoDetPlus` that they are for; is not changed.

    Raises:
        WeightsError: an export with another number of convolutions than the network has.
    """
    if tensors and all(_EXPORTED.fullmatch(name) for name in tensors):
        return _split_predictions(_unfolded(tensors, module))
    averaged = {name.removeprefix(_AVERAGED): t for name, t in tensors.items() if name.startswith(_AVERAGED)}
    return _split_predictions({n: t for n, t in (averaged or tensors).items() if not _LEFT_OUT.match(n)})


def _unfolded(tensors: Mapping[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    numbers = sorted({int(match[1]) for name in tensors if (match := _EXPORTED.fullmatch(name))})
    names = list(_execution_order(module))
    if len(numbers) != len(names):
        raise WeightsError(
            f"this export has {len(numbers)} convolutions, and the network {len(names)}: is it of a NanoDet-Plus?"
        )
    layers, found = dict(module.named_modules()), {}
    for number, (name, norm_name) in zip(numbers, names, strict=True):
        weight, bias = (tensors.get(f"Conv_{number}.{part}") for part in ("weight", "bias"))
        if weight is None or bias is None:
            raise WeightsError(f"this export has no weight or no bias of Conv_{number}: it was cut off or changed")
        found[f"{name}.weight"] = weight
        norm = layers.get(norm_name)
        if isinstance(norm, nn.BatchNorm2d):
            found[f"{norm_name}.weight"] = torch.ones_like(bias)
            found[f"{norm_name}.bias"] = bias
            found[f"{norm_name}.running_mean"] = torch.zeros_like(bias)
            found[f"{norm_name}.running_var"] = torch.full_like(bias, 1 - norm.eps)
        else:
            found[f"{name}.bias"] = bias
    return found


def _execution_order(module: nn.Module) -> Iterable[tuple[str, str]]:
    """Names of convolutions as they run, and of the norm after each; "" for none."""
    layers = [
        (name, isinstance(layer, nn.Conv2d))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.BatchNorm2d) and ".gfl_" not in name
    ]
    convs = [name for name, is_conv in layers if is_conv]
    norms = [name for name, is_conv in layers if not is_conv]
    pairs = list(zip(convs, norms, strict=True))
    by_part = {"backbone": 0, "fpn.reduce": 1, "fpn.top": 2, "fpn.downsamples.0": 3, "fpn.bottom_up_blocks.0": 4}
    by_part |= {"fpn.downsamples.1": 5, "fpn.bottom_up_blocks.1": 6, "fpn.extra": 7}
    body = [pair for pair in pairs if not pair[0].startswith("head.")]
    yield from sorted(body, key=lambda pair: next(n for part, n in by_part.items() if pair[0].startswith(part)))
    levels = 1 + max(int(name.split(".")[2]) for name in convs if name.startswith("head."))
    for level in range(levels):
        yield from (pair for pair in pairs if pair[0].startswith(f"head.cls_convs.{level}."))
        yield f"head.gfl_cls.{level}", ""


def _split_predictions(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each last convolution as two, for classes and for distances; where there are two, as they are."""
    if any(".gfl_reg." in name for name in tensors):
        return dict(tensors)
    found = {}
    for name, tensor in tensors.items():
        match = _PREDICTION.fullmatch(name)
        if match is None:
            found[name] = tensor
        else:
            found[name] = tensor[: -SIDES * BINS]
            found[f"{match[1]}reg{match[2]}"] = tensor[-SIDES * BINS :]
    return found
