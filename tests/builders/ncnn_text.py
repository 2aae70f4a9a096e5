"""Runs a network that is written down in ncnn's text form, layer by layer in torch: shares no code with ours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, cat
from torch.nn import functional

Options = dict[int, list[float]]


def run_ncnn_text(param: Path, tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    """What the last layer makes of a batch of one; only the layers that NanoDet-Plus has are known."""
    blobs: dict[str, Tensor] = {}
    last = ""
    for line in param.read_text().splitlines()[2:]:
        kind, name, inputs, outputs, *words = line.split()
        given, made = words[: int(inputs)], words[int(inputs) : int(inputs) + int(outputs)]
        options = _options(words[int(inputs) + int(outputs) :])
        if kind == "Input":
            results = [x]
        elif kind.startswith("Convolution"):
            results = [_convolved(blobs[given[0]], tensors[f"{name}.weight"], tensors[f"{name}.bias"], options)]
        else:
            results = _answer(kind, [blobs[each] for each in given], options, len(made))
        blobs.update(zip(made, results, strict=True))
        last = made[0]
    return blobs[last]


def _options(words: list[str]) -> Options:
    """Numbers by their key; those of an array, whose key is -23300 less its own."""
    options: Options = {}
    for word in words:
        key, _, value = word.partition("=")
        numbers = [float(part) for part in value.split(",")]
        if int(key) <= -23300:
            options[-23300 - int(key)] = numbers[1:]
        else:
            options[int(key)] = numbers
    return options


def _convolved(x: Tensor, weight: Tensor, bias: Tensor, options: Options) -> Tensor:
    stride, padding, groups = (int(options.get(key, [default])[0]) for key, default in ((3, 1), (4, 0), (7, 1)))
    y = functional.conv2d(x, weight.float(), bias.float(), stride, padding, groups=groups)
    return functional.leaky_relu(y, options[10][0]) if options.get(9) == [2.0] else y


def _answer(kind: str, x: list[Tensor], options: Options, count: int) -> list[Tensor]:
    first = x[0]
    if kind == "Split":
        return [first] * count
    if kind == "Pooling":
        return [functional.max_pool2d(first, 3, 2, 1)]
    if kind == "Concat":
        return [cat(x, dim=1 + int(options.get(0, [0])[0]))]
    if kind == "ShuffleChannel":
        order = [half * first.shape[1] // 2 + i for i in range(first.shape[1] // 2) for half in range(2)]
        return [first[:, order]]
    if kind == "Crop":
        return [first[:, int(options[9][0]) : int(options[10][0])]]
    if kind == "BinaryOp":
        return [first + x[1]]
    if kind == "Interp":
        return [functional.interpolate(first, scale_factor=2.0, mode="bilinear", align_corners=False)]
    if kind == "Slice":
        return [first[:, : int(options[0][0])], first[:, int(options[0][0]) :]]
    if kind == "Sigmoid":
        return [first.sigmoid()]
    if kind == "Reshape":
        return [first.flatten(2)]
    if kind == "Permute":
        return [first.mT]
    raise ValueError(f"a layer of the kind {kind}")
