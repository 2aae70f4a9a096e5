"""Rounds a layer's weights so that its output changes least for its inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# With more inputs, the covariance matrix is too large, and many errors cancel out anyway.
WIDEST = 1536
_UNCERTAIN = 1e-5  # of the mean square: products are summed in float32
_DAMPING = 0.01  # of the mean variance, as in the reference's code
_DAMPING_BY_RATIO = 0.1  # times inputs / samples: correlations from few samples may not hold for others


class InputMoments:
    """Mean and covariance of the inputs of a layer's weights, from samples.

    Args:
        groups: the layer's groups; usually 1, for a depthwise convolution one per channel.
        inputs: weights per output in one group.
    """

    def __init__(self, groups: int, inputs: int) -> None:
        self.groups, self.samples = groups, 0
        self._sums = np.zeros((groups, inputs))
        self._products = np.zeros((groups, inputs, inputs)) if inputs <= WIDEST else None

    def add(self, columns: NDArray[np.float32]) -> None:
        """Add samples, float [groups, inputs, samples]."""
        self.samples += columns.shape[2]
        self._sums += columns.sum(axis=2, dtype=np.float64)
        if self._products is not None:
            self._products += columns @ columns.transpose(0, 2, 1)

    @property
    def mean(self) -> NDArray[np.float64]:
        """[groups, inputs]."""
        return self._sums / max(self.samples, 1)

    def second_moment(self, centre: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """E[(x - c)(x - c)ᵀ] [groups, inputs, inputs]; None where the layer has too many inputs.

        The centre c is the mean where a bias corrects the mean error, and zero otherwise. The diagonal is raised by
        float32's rounding error: the difference of two large numbers could otherwise be negative.
        """
        if self._products is None:
            return None
        second = self._products / max(self.samples, 1)
        cross = self.mean[:, :, None] * centre[:, None, :]
        uncertain = _UNCERTAIN * np.diagonal(second, axis1=1, axis2=2).mean(axis=1)
        about = second - cross - cross.transpose(0, 2, 1) + centre[:, :, None] * centre[:, None, :]
        return np.asarray(about + uncertain[:, None, None] * np.eye(second.shape[1]))

    def scaled(self, factors: NDArray[np.float64]) -> InputMoments:
        """The moments of inputs that were multiplied by these factors, float64 [groups, inputs]."""
        other = InputMoments.__new__(InputMoments)
        other.groups, other.samples = self.groups, self.samples
        other._sums = self._sums * factors
        products = self._products
        other._products = None if products is None else products * factors[:, :, None] * factors[:, None, :]
        return other

    def round(self, weights: NDArray[np.floating[Any]], *, has_bias: bool, most: int = 127) -> NDArray[np.int8]:
        """Round a layer's weights jointly; each to the nearest level where the layer has too many inputs.

        Args:
            weights: float [groups, outputs, inputs], in steps of each output's scale.
            has_bias: whether a bias corrects the mean error.
            most: levels go from -most to most.
        """
        covariance = self.second_moment(self.mean if has_bias else np.zeros_like(self.mean))
        if covariance is None:
            return round_nearest(weights, most)
        return round_together(weights, covariance, samples=self.samples, most=most)

    def mean_output(self, weights: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Mean output of weights [groups, outputs, inputs], float64 [groups × outputs].

        For the error of rounded weights, this is the change of each channel's mean.
        Source: Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction, section 4.2,
        with means from calibration instead of those predicted from batch normalisation.
        """
        return np.asarray(np.einsum("goi,gi->go", weights, self.mean).reshape(-1), np.float64)


def round_nearest(weights: NDArray[np.floating[Any]], most: int) -> NDArray[np.int8]:
    """Each weight rounded to the nearest level; weights in steps, levels from -most to most."""
    return np.clip(np.round(weights), -most, most).astype(np.int8)


def round_together(
    weights: NDArray[np.floating[Any]], covariance: NDArray[np.float64], *, samples: int, most: int = 127
) -> NDArray[np.int8]:
    """Round weights one after the other; later ones compensate errors of earlier ones where their inputs correlate.

    Source: Frantar et al. 2022, GPTQ, section 3 (without its blocks of columns), largest variance first as in its code.

    Args:
        weights: float [groups, outputs, inputs], in steps of each output's scale.
        covariance: of the inputs, float64 [groups, inputs, inputs].
        samples: number of samples behind the covariance; the fewer, the less it is used.
        most: levels go from -most to most.

    Returns:
        Levels, int8 [groups, outputs, inputs].
    """
    groups, _, inputs = weights.shape
    variance = np.diagonal(covariance, axis1=1, axis2=2)
    order = np.argsort(-variance, axis=1, kind="stable")
    rows = np.arange(groups)[:, None]
    damping = (_DAMPING + _DAMPING_BY_RATIO * inputs / max(samples, 1)) * variance.mean(axis=1)
    sorted_covariance = covariance[rows[:, :, None], order[:, :, None], order[:, None, :]]
    sorted_covariance += np.where(damping > 0, damping, 1.0)[:, None, None] * np.eye(inputs)
    try:
        follow = np.linalg.cholesky(np.linalg.inv(sorted_covariance)).transpose(0, 2, 1)  # upper triangle
    except np.linalg.LinAlgError:  # only rounding noise in the covariance: nothing to use
        return round_nearest(weights, most)
    left = np.take_along_axis(weights.astype(np.float64), order[:, None, :], axis=2)
    sorted_levels = np.empty(weights.shape, np.int8)
    for column in range(inputs):
        level = round_nearest(left[:, :, column], most)
        sorted_levels[:, :, column] = level
        error = (left[:, :, column] - level) / follow[:, column, column, None]
        left[:, :, column + 1 :] -= error[:, :, None] * follow[:, None, column, column + 1 :]
    levels = np.empty_like(sorted_levels)
    np.put_along_axis(levels, order[:, None, :], sorted_levels, axis=2)
    return levels
