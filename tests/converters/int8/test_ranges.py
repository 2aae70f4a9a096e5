"""Ranges from histograms of what tensors held."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecnn.converters.int8.search.ranges import ACTIVATIONS, TensorHistogram, choose_range, silu
from edgecnn.errors import ConversionError


def histogram_of(*frames: np.ndarray) -> TensorHistogram:
    histogram = TensorHistogram()
    for frame in frames:
        histogram.add(frame.astype(np.float32))
    return histogram


def quantized(x: np.ndarray, low: float, high: float) -> np.ndarray:
    scale = (high - low) / 255
    zero = np.round(-low / scale)
    return np.asarray((np.clip(np.round(x / scale) + zero, 0, 255) - zero) * scale)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 1000),
    shift=st.floats(-50, 50),
    size=st.floats(1e-3, 1e3),
    method=st.sampled_from(["min-max", "percentile", "least-error"]),
)
def test_a_range_holds_zero_and_no_more_than_was_seen(seed: int, shift: float, size: float, method: str) -> None:
    rng = np.random.default_rng(seed)
    frames = [rng.normal(shift, size * (i + 1), 500) for i in range(3)]
    histogram = histogram_of(*frames)
    low, high = choose_range(histogram, method)  # type: ignore[arg-type]
    assert low <= 0 <= high
    assert low < high
    width = 1.3 * (histogram.high - histogram.low) / 2048  # of a bin
    assert histogram.low - width <= low
    assert high <= histogram.high + width


def test_every_value_is_counted_however_the_range_grows() -> None:
    rng = np.random.default_rng(0)
    histogram = histogram_of(*[rng.normal(0, 2.0**i, 1000) for i in range(8)])
    assert histogram.counts.sum() == 8000


def test_outliers_stretch_min_max_alone() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 100_000)
    values[0] = 1000
    histogram = histogram_of(values)
    assert choose_range(histogram, "min-max")[1] == pytest.approx(1000)
    assert choose_range(histogram, "percentile")[1] < 10
    low, high = choose_range(histogram, "least-error")
    whole = np.mean((quantized(values[1:], *choose_range(histogram, "min-max")) - values[1:]) ** 2)
    assert np.mean((quantized(values[1:], low, high) - values[1:]) ** 2) <= whole


def test_what_an_activation_hides_does_not_count() -> None:
    """SiLU is all but zero below -8: a range down to -98 would waste its levels."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 3, 50_000), rng.uniform(-98, -20, 5_000)])
    histogram = histogram_of(values)
    blind, _ = choose_range(histogram, "min-max")
    aware, high = choose_range(histogram, "least-error", activation=silu)
    assert blind == pytest.approx(-98, abs=0.5)
    assert -15 < aware < -2
    errors = [
        np.mean((silu(quantized(values, *ends)) - silu(values)) ** 2)
        for ends in [(aware, high), choose_range(histogram, "min-max")]
    ]
    assert errors[0] < errors[1] / 4


def test_after_a_relu_no_level_is_spent_below_zero() -> None:
    values = np.random.default_rng(0).normal(0, 1, 10_000)
    low, _ = choose_range(histogram_of(values), "least-error", activation=ACTIVATIONS["relu"])
    assert low > -0.05


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_a_number_is_refused(value: float) -> None:
    with pytest.raises(ConversionError, match="NaN or infinity"):
        histogram_of(np.array([1.0, value]))


@pytest.mark.parametrize("method", ["min-max", "percentile", "least-error"])
def test_a_tensor_that_was_always_zero_has_no_range(method: str) -> None:
    with pytest.raises(ConversionError, match="zero in every calibration frame"):
        choose_range(histogram_of(np.zeros(10)), method)  # type: ignore[arg-type]
