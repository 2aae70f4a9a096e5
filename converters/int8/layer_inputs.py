"""Samples of the inputs of a layer's weights, for every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLES = 8192  # positions sampled per layer, over all frames


@dataclass(frozen=True)
class Geometry:
    """Geometry of a convolution; pairs are rows and columns, pads are top, left, bottom, right."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1


def sample_patches(
    values: NDArray[Any], geometry: Geometry, count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The inputs of a convolution's weights at random positions.

    Args:
        values: the convolution's input, [batch, channels, height, width].
        geometry: the convolution's geometry.
        count: how many positions; all of them where there are fewer.
        rng: chooses the positions.

    Returns:
        [groups, channels of a group × rows × columns, positions].
    """
    rows, columns = geometry.kernel
    strides, dilations = geometry.strides, geometry.dilations
    top, left, bottom, right = geometry.pads
    padded = np.pad(values, ((0, 0), (0, 0), (top, bottom), (left, right)))
    height = (padded.shape[2] - dilations[0] * (rows - 1) - 1) // strides[0] + 1
    width = (padded.shape[3] - dilations[1] * (columns - 1) - 1) // strides[1] + 1
    places = len(values) * height * width
    picture, y, x = np.unravel_index(_chosen(places, count, rng), (len(values), height, width))
    patches = [
        padded[picture, :, y * strides[0] + row * dilations[0], x * strides[1] + column * dilations[1]]
        for row in range(rows)
        for column in range(columns)
    ]
    stacked = np.stack(patches, axis=2)  # [positions, channels, rows * columns]
    return stacked.reshape(len(stacked), geometry.groups, -1).transpose(1, 2, 0)


def sample_vectors(values: NDArray[Any], length: int, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Some of the input vectors of a matrix product, [1, length, positions]."""
    vectors = values.reshape(-1, length)
    return np.asarray(vectors[_chosen(len(vectors), count, rng)].T[None])


def _chosen(places: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.choice(places, count, replace=False) if count < places else np.arange(places)
