"""Scales a layer's channels before and after SiLU, so that one int8 scale for all of them loses little.

TFLite and ONNX Runtime round a convolution's output y to 8 bits before the activation, with one scale for all channels;
in a SiLU network channels differ by a factor of hundreds there. With a factor s for each channel, the layer computes
z = y / s, the activation z * sigmoid(s * z) = silu(y) / s, and the layers that read it have their weights multiplied by
s: the network answers the same, and every channel uses all levels. (Cross-layer equalisation needs an activation with
f(s * x) = s * f(x); Nagel et al. 2019, Data-Free Quantization Through Weight Equalization and Bias Correction.)

The scales are chosen by simulating the int8 operators on samples of y.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

ARGUMENT_RANGE = (-8.0, 8 * 127 / 128)  # of the int8 sigmoid's input: outside it, a sigmoid of 8 bits is 0 or 1
_LEVELS = 255
_ARGUMENT_STEPS = 16.0  # per unit
_SIGMOID_STEPS = 256.0
_SAMPLES = 3072  # per channel, over all frames
_TAIL = 32  # samples at each end that are kept as they are
_CHUNK = 24  # samples in the middle that are replaced by their mean
_NEGATIVE_SHARES = (0.06, 0.1, 0.15, 0.2, 0.27, 0.35, 0.45, 0.6)  # of z's range
_BELOW = (0.01, 0.02, 0.04, 0.07, 0.11, 0.16, 0.22)  # end of the activation's range, in units of the channel's scale
_SCALES = 16  # tried per channel
_AROUND = (0.6, 0.75, 0.87, 1.0, 1.15, 1.4)
_LEAST = 0.05
_LEAST_IMPORTANCE = 1e-3  # of the mean


@dataclass(frozen=True)
class Equalisation:
    """How a layer is equalised.

    Attributes:
        scales: s of each channel, float32 [channels].
        before: low and high of z = y / s.
        after: low and high of silu(y) / s.
    """

    scales: NDArray[np.float32]
    before: tuple[float, float]
    after: tuple[float, float]


class ChannelSamples:
    """Samples of a layer's output before its activation, by channel.

    Args:
        channels: how many.
    """

    def __init__(self, channels: int) -> None:
        self.low, self.high = np.zeros(channels), np.zeros(channels)
        self._values: list[NDArray[np.float32]] = []

    def add(self, values: NDArray[np.float32], frames: int, rng: np.random.Generator) -> None:
        """Add one frame: some positions, and each channel's smallest and largest value.

        Args:
            values: [..., channels].
            frames: how many frames there will be.
            rng: chooses the positions.
        """
        flat = values.reshape(-1, values.shape[-1])
        low, high = flat.min(axis=0), flat.max(axis=0)
        self.low, self.high = np.minimum(self.low, low), np.maximum(self.high, high)
        count = max(_SAMPLES // max(frames, 1), 8)
        self._values += [flat[rng.integers(len(flat), size=count)], low[None], high[None]]

    @property
    def values(self) -> Array:
        """All samples, sorted, float64 [channels, samples]."""
        return np.sort(np.concatenate(self._values).T.astype(np.float64), axis=1)

    def mean_square_after(self) -> Array:
        """Mean square of the activation, float64 [channels]."""
        return np.asarray((_silu(self.values) ** 2).mean(axis=1))


def choose_equalisation(samples: ChannelSamples, importance: Array, largest: float) -> Equalisation:
    """The scales with the least error after the activation.

    Args:
        samples: of the layer's output.
        importance: weight of an error in each channel, float64 [channels].
        largest: the end of the range that the activation has with one scale for all channels. The scales are such that
            it has the same end, so that a concatenation with tensors that are not equalised loses nothing.
    """
    points, weights = _points(samples.values)
    weight = np.maximum(importance / max(float(importance.mean()), 1e-30), _LEAST_IMPORTANCE)[:, None] * weights

    def errors(scales: Array, negative: float, below: float | None) -> Array:
        """[channels, scales]."""
        wrong = _after_int8(points[:, None], scales[:, :, None], negative, below) - _silu(points)[:, None]
        return np.asarray((wrong**2 * weight[:, None]).sum(axis=2))

    high, low = np.maximum(samples.high, _LEAST), -samples.low
    best, negative, scales = np.inf, 0.0, np.ones_like(high)
    for share in _NEGATIVE_SHARES:
        most = np.maximum(high / (1 - share), np.clip(low, 0.02, 8) / share)
        least = 0.35 * np.minimum(high / (1 - share), np.clip(low, 0.02, 3) / share)
        tried = np.exp(np.linspace(np.log(least), np.log(most), _SCALES, axis=1))
        total, chosen = _least(tried, errors(tried, share, None))
        if total < best:
            best, negative, scales = total, share, chosen
    best, below, around = np.inf, _BELOW[-1], scales
    for end in _BELOW:
        tried = scales[:, None] * np.array(_AROUND)
        total, chosen = _least(tried, errors(tried, negative, end))
        if total < best:
            best, below, around = total, end, chosen
    factor = largest / (1 - negative)
    return Equalisation(
        scales=_on_grid(around / factor),
        before=(-negative * factor, (1 - negative) * factor),
        after=(-below * factor, (1 - negative) * factor),
    )


def _least(tried: Array, errors: Array) -> tuple[float, Array]:
    rows = np.arange(len(tried))
    best = errors.argmin(axis=1)
    return float(errors[rows, best].sum()), tried[rows, best]


def _after_int8(values: Array, scales: Array, negative: float, below: float | None) -> Array:
    """What int8 operators make of y: the layer's output, the sigmoid's argument, the sigmoid, the product."""
    step = scales / _LEVELS
    zero = round(negative * _LEVELS)
    y = (np.clip(np.round(values / step) + zero, 0, _LEVELS) - zero) * step
    argument = np.clip(np.round(y * _ARGUMENT_STEPS), -128, 127) / _ARGUMENT_STEPS
    gate = np.minimum(np.round(_sigmoid(argument) * _SIGMOID_STEPS), _SIGMOID_STEPS - 1) / _SIGMOID_STEPS
    product = y * gate
    if below is None:
        return np.asarray(product)
    width = below + 1 - negative
    step, zero = scales * (width / _LEVELS), round(below / width * _LEVELS)
    return np.asarray((np.clip(np.round(product / step) + zero, 0, _LEVELS) - zero) * step)


def _points(values: Array) -> tuple[Array, Array]:
    """Sorted samples as fewer points with weights: the tails one by one, the middle by means."""
    channels, count = values.shape
    middle = max((count - 2 * _TAIL) // _CHUNK, 0)
    if middle == 0:
        return values, np.full(values.shape, 1 / count)
    end = _TAIL + middle * _CHUNK
    means = values[:, _TAIL:end].reshape(channels, middle, _CHUNK).mean(axis=2)
    points = np.concatenate([values[:, :_TAIL], means, values[:, end:]], axis=1)
    weights = np.concatenate([np.ones(_TAIL), np.full(middle, _CHUNK), np.ones(count - end)]) / count
    return points, np.broadcast_to(weights, points.shape)


def _on_grid(scales: Array) -> NDArray[np.float32]:
    """Scales that int8 has exactly: the constant that the argument is multiplied by is stored in 255 levels."""
    step = scales.max() / _LEVELS
    return np.asarray(np.maximum(np.round(scales / step), 1) * step, np.float32)


def _sigmoid(x: Array) -> Array:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def _silu(x: Array) -> Array:
    return x * _sigmoid(x)
