"""Samples of what a layer's weights are multiplied by, in every format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAMPLES = 8192  # places of a layer that are looked at, over all frames


@dataclass(frozen=True)
class Geometry:
    """How a convolution goes over its input; pairs are rows and columns, pads are top, left, bottom, right."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1


def sample_patches(
    values: NDArray[Any], geometry: Geometry, count: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """What a convolution multiplies at some random places.

    Args:
        values: of its input, [batch, channels, height, width].
        geometry: of the convolution.
        count: how many places; all, where there are fewer.
        rng: chooses them.

    Returns:
        [groups, channels of a group × rows × columns, places].
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
    stacked = np.stack(patches, axis=2)  # [places, channels, rows * columns]
    return stacked.reshape(len(stacked), geometry.groups, -1).transpose(1, 2, 0)


def sample_vectors(values: NDArray[Any], length: int, count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """What a matrix product multiplies, [1, length, places]: some of the vectors that the values are."""
    vectors = values.reshape(-1, length)
    return np.asarray(vectors[_chosen(len(vectors), count, rng)].T[None])


def _chosen(places: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return rng.choice(places, count, replace=False) if count < places else np.arange(places)
