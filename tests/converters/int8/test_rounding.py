"""Rounding weights together: errors that cancel where inputs go together."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgecnn.converters.int8.search.rounding import WIDEST, InputMoments, round_nearest, round_together


def layer(groups: int, outputs: int, inputs: int, *, samples: int = 2000) -> tuple[NDArray[np.float32], InputMoments]:
    """Weights in steps, and what inputs that go together (a few causes, and noise) look like."""
    rng = np.random.default_rng(0)
    weights = rng.uniform(-100, 100, (groups, outputs, inputs)).astype(np.float32)
    causes = rng.normal(0, 1, (groups, inputs, 3)) @ rng.normal(1, 1, (groups, 3, samples))
    columns = (causes + rng.normal(0, 0.2, (groups, inputs, samples))).astype(np.float32)
    moments = InputMoments(groups, inputs)
    for part in np.array_split(columns, 3, axis=2):
        moments.add(part)
    return weights, moments


def noise(weights: NDArray[np.float32], levels: NDArray[np.int8], covariance: NDArray[np.float64]) -> float:
    """Mean squared error of a layer's answers."""
    error = levels - weights
    return float(np.einsum("goi,gij,goj->", error, covariance, error))


@pytest.mark.parametrize(("groups", "outputs", "inputs"), [(1, 16, 32), (8, 1, 9), (2, 4, 12)])
def test_a_layers_answer_changes_less_than_with_each_weight_rounded_for_itself(
    groups: int, outputs: int, inputs: int
) -> None:
    weights, moments = layer(groups, outputs, inputs)
    covariance = moments.second_moment(moments.mean)
    assert covariance is not None
    levels = round_together(weights, covariance, samples=moments.samples)
    assert noise(weights, levels, covariance) < noise(weights, round_nearest(weights, 127), covariance) / 2
    assert np.abs(levels - weights).max() < 8  # no weight pays for all others


def test_inputs_that_have_nothing_to_do_with_each_other_leave_each_weight_to_itself() -> None:
    weights, moments = layer(1, 16, 32)
    levels = round_together(weights, np.eye(32)[None] * np.arange(1, 33), samples=moments.samples)
    np.testing.assert_array_equal(levels, round_nearest(weights, 127))


def test_few_samples_are_hardly_believed() -> None:
    weights, moments = layer(1, 16, 32, samples=2000)
    covariance = moments.second_moment(moments.mean)
    assert covariance is not None
    changed = [
        np.mean(round_together(weights, covariance, samples=n) != round_nearest(weights, 127)) for n in (1, 2000)
    ]
    assert changed[0] < changed[1] / 2


def test_inputs_that_were_always_zero_are_rounded_to_the_nearest() -> None:
    weights, _ = layer(2, 3, 4)
    levels = round_together(weights, np.zeros((2, 4, 4)), samples=10)
    np.testing.assert_array_equal(levels, round_nearest(weights, 127))


def test_a_single_sample_with_a_large_mean_does_no_harm() -> None:
    """What is left of a covariance then is rounding, on both sides of zero."""
    weights, _ = layer(2, 16, 300)
    moments = InputMoments(2, 300)
    moments.add(np.random.default_rng(0).normal(1000, 1, (2, 300, 1)).astype(np.float32))
    covariance = moments.second_moment(moments.mean)
    assert covariance is not None
    levels = round_together(weights, covariance, samples=moments.samples)
    assert np.abs(levels - weights).max() < 4
    broken = -np.ones((2, 300, 300))
    np.testing.assert_array_equal(round_together(weights, broken, samples=1), round_nearest(weights, 127))


def test_groups_do_not_mix() -> None:
    weights, moments = layer(4, 2, 9)
    covariance = moments.second_moment(moments.mean)
    assert covariance is not None
    together = round_together(weights, covariance, samples=moments.samples)
    for group in range(4):
        part = slice(group, group + 1)
        alone = round_together(weights[part], covariance[part], samples=moments.samples)
        np.testing.assert_array_equal(together[part], alone)


def test_moments_are_those_of_the_samples() -> None:
    columns = np.random.default_rng(1).normal(3, 1, (2, 5, 400)).astype(np.float32)
    moments = InputMoments(2, 5)
    moments.add(columns[:, :, :100])
    moments.add(columns[:, :, 100:])
    np.testing.assert_allclose(moments.mean, columns.mean(axis=2), rtol=1e-5)
    covariance = moments.second_moment(moments.mean)
    assert covariance is not None
    for group in range(2):
        np.testing.assert_allclose(covariance[group], np.cov(columns[group], bias=True), atol=2e-4)


def test_levels_end_at_the_given_limits() -> None:
    weights, moments = layer(1, 16, 32)
    covariance = moments.second_moment(moments.mean)
    assert covariance is not None
    assert np.abs(round_together(weights * 3, covariance, samples=moments.samples, most=127)).max() == 127


def test_a_layer_that_reads_very_much_has_no_covariance() -> None:
    moments = InputMoments(1, WIDEST + 1)
    moments.add(np.ones((1, WIDEST + 1, 2), np.float32))
    assert moments.second_moment(moments.mean) is None
    np.testing.assert_array_equal(moments.mean, np.ones((1, WIDEST + 1)))
