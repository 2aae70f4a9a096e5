"""The weights file of ncnn: what lies where, so that layers get the torch network's names and weights half precision.

pnnx could write half precision itself, but sets what is too small for a normal half (below 6.1e-5) to zero: with the
scale of pixels in its first convolution, a detector's scores were off by 0.2. numpy rounds to the nearest half.

Layout: ncnn's src/layer/*.cpp (`load_model`) and src/modelbin.cpp, BSD-3-Clause.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgecnn.bundle import LayerRecord
from edgecnn.converters.layers import weights_fingerprint
from edgecnn.runners.ncnn.param import Layer

_HALF = (0x01306B47).to_bytes(4, "little")  # before weights in half precision
_FLOAT = bytes(4)
# Of each kind: which parameter counts its weights, which says that a bias follows, which counts that bias.
_WEIGHTED = {
    "Convolution": (6, 5, 0),
    "ConvolutionDepthWise": (6, 5, 0),
    "Deconvolution": (6, 5, 0),
    "DeconvolutionDepthWise": (6, 5, 0),
    "Convolution1D": (6, 5, 0),
    "ConvolutionDepthWise1D": (6, 5, 0),
    "InnerProduct": (2, 1, 0),
}


@dataclass(frozen=True)
class Block:
    """A piece of the file.

    Attributes:
        layer: whose it is, by its place in the graph.
        weights: float32, flat; None of what has no mark before it: biases and constants.
        data: the piece as it is, its mark included.
    """

    layer: int
    weights: NDArray[np.float32] | None
    data: bytes


def read_blocks(layers: Sequence[Layer], data: bytes) -> list[Block] | None:
    """The file in pieces, in order; None where a layer's layout is not known here."""
    blocks, at = [], 0
    for index, layer in enumerate(layers):
        for marked, count in _arrays(layer):
            end = at + 4 * (count + marked)
            if end > len(data) or (marked and data[at : at + 4] != _FLOAT):
                return None
            piece = data[at:end]
            blocks.append(Block(index, np.frombuffer(piece[4:], "<f4") if marked else None, piece))
            at = end
    return blocks if at == len(data) else None


def _arrays(layer: Layer) -> Iterator[tuple[bool, int]]:
    """Whether a mark stands before it, and how many float32 values it has, of each array of a layer."""
    number = layer.number
    if layer.kind in _WEIGHTED:
        weights, has_bias, bias = _WEIGHTED[layer.kind]
        yield True, number(weights)
        if number(has_bias):
            yield False, number(bias)
    elif layer.kind == "MemoryData":
        yield False, math.prod(max(1, number(axis)) for axis in (0, 1, 2, 11))
    elif layer.kind == "PReLU":
        yield False, number(0)
    elif layer.kind == "BatchNorm":
        yield False, 4 * number(0)
    elif layer.kind == "Scale":
        yield False, number(0) * (2 if number(1) else 1)


def in_half(blocks: Sequence[Block]) -> bytes:
    """The file with weights in half precision; biases, constants and what overflows stay as they are."""
    return b"".join(_half(block) for block in blocks)


def _half(block: Block) -> bytes:
    if block.weights is None or not np.abs(block.weights).max(initial=0) < np.finfo(np.float16).max:
        return block.data
    values = block.weights.astype("<f2").tobytes()
    return _HALF + values + bytes(-len(values) % 4)


def torch_names(blocks: Sequence[Block], records: Sequence[LayerRecord]) -> Mapping[int, str]:
    """The torch network's names of layers, by their place in the graph: those with the same weights."""
    left: dict[str, list[str]] = {}
    for record in records:
        left.setdefault(record.weights, []).append(record.name)
    names = {}
    for block in blocks:
        same = left.get(weights_fingerprint(block.weights), []) if block.weights is not None else []
        if same:  # equal weights are told apart by the order in which they run
            names[block.layer] = same.pop(0) if len(same) > 1 else same[0]
    return names
