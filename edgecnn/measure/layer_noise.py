"""Compares the layers of two artifacts, and finds where in the network the noise enters.

A layer's signal is the variation in its channels over positions and frames, without each channel's mean: the mean says
nothing about the picture, and where it is large (the positive channels of a depthwise convolution) a layer that lost
everything else would still seem good. Measured with YOLOX-nano, EfficientNet-Lite0 and ResNet-18, all layers int8
(TFLite): the three layers that `LayerComparison.worst` names cause 82 to 98 % of the damage that the three worst layers
cause alone. With the whole power as signal, and each layer compared with the one before it, it would be 49 to 100 %.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_DB = 120.0  # equal, within float32's precision
# The best possible ratio of a precision: 6.02 dB per bit + 1.76 for 8 bits and a full-scale sine (W. R. Bennett,
# Spectra of Quantized Signals, 1948); + 4.77 for the mantissas of 11 and 8 bits of weights in fp16 and of numbers in
# bf16.
_BEST_DB = {"fp32": MOST_DB, "fp16": 71.0, "bf16": 53.0}
_BEST_8_BIT_DB = 49.9
_NAMED = 3
_SMALLEST_DROP_DB = 1.0  # a quarter more noise; a smaller drop is chance
# A layer whose channels vary less than this share of its power is a constant.
_CONSTANT = 1e-6


@dataclass(frozen=True, kw_only=True)
class LayerNoise:
    """One layer of the second artifact compared with the first's.

    Attributes:
        name, kind, macs, head: as in `edgecnn.bundle.LayerRecord`.
        int8: whether the second artifact computes it in int8; None where its evidence doesn't say.
        snr_db: signal-to-noise ratio, -120 to 120: variance in the first artifact's channels over the power of the
            difference, all frames together. -120 also where the second holds values that are not finite.
        snr_with_means_db: the same with the whole power of the first artifact's output as signal.
        change_db: change of `snr_db` from the previous layer in the order of execution; None for the first.
        drop_db: how far `snr_db` is below all previous layers, which is the noise that enters here; 0 where one of them
            was as low. For the first layer, how far below its precision's best.
        rank: 1 to 3 for the largest drops of at least 1 dB, otherwise None.
        damage: damage of the answer when it alone is int8, if a search measured it; see `edgecnn.bundle.LayerDamage`.
    """

    name: str
    kind: str
    macs: int
    head: bool
    int8: bool | None
    snr_db: float
    snr_with_means_db: float
    change_db: float | None
    drop_db: float
    rank: int | None = None
    damage: float | None = None


@dataclass(frozen=True)
class UnreadLayer:
    """A layer that could not be compared, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class LayerComparison:
    """Two artifacts of a bundle, layer by layer.

    Attributes:
        bundle: the bundle's name.
        reference, compared: the artifacts, such as "tflite fp32".
        data: name of the pictures.
        frames: number of frames.
        best_db: rough upper limit for a layer in the second artifact's precision; layers that it computes in
            float are above.
        outputs: signal-to-noise ratio of each output of the network in dB, see `edgecnn.measure.damage`.
        layers: in the order of execution.
        unread: layers that could not be compared.
    """

    bundle: str
    reference: str
    compared: str
    data: str
    frames: int
    best_db: float
    outputs: dict[str, float]
    layers: tuple[LayerNoise, ...]
    unread: tuple[UnreadLayer, ...]

    @property
    def worst(self) -> tuple[LayerNoise, ...]:
        """The layers where most noise enters, at most three, the worst first."""
        return tuple(sorted((layer for layer in self.layers if layer.rank), key=lambda layer: layer.rank or 0))

    @property
    def conclusion(self) -> str:
        """Where most noise enters, in a sentence."""
        named = [f"{layer.name} ({layer.snr_db + layer.drop_db:.1f} → {layer.snr_db:.1f} dB)" for layer in self.worst]
        if not named:
            return "no layer is much noisier than the layers before it"
        listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
        return f"most noise enters at {listed}"


class NoiseMeter:
    """Signal and noise of one layer, summed over frames."""

    def __init__(self) -> None:
        self._values = 0
        self._sums: NDArray[np.float64] | float = 0.0
        self._squares: NDArray[np.float64] | float = 0.0
        self._noise = 0.0

    def add(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        """Add one frame.

        Args:
            found: [positions, channels].
            expected: the reference's, of the same shape.
        """
        right = expected.astype(np.float64)
        self._values += len(right)
        self._sums = self._sums + right.sum(axis=0)
        self._squares = self._squares + (right**2).sum(axis=0)
        noise = float(((found - right) ** 2).sum())
        self._noise += noise if np.isfinite(noise) else np.inf

    def snr_db(self) -> float:
        """Variance in the channels over noise; for a constant layer, power over noise."""
        power = float(np.sum(self._squares))
        variance = float(np.sum(self._squares - np.square(self._sums) / max(self._values, 1)))
        return _decibels(variance if variance > _CONSTANT * power else power, self._noise)

    def snr_with_means_db(self) -> float:
        """Power over noise."""
        return _decibels(float(np.sum(self._squares)), self._noise)


def best_db(precision: str) -> float:
    """Rough upper limit for a layer in this precision."""
    return _BEST_DB.get(precision, _BEST_8_BIT_DB)


def drops_db(snr_db: Iterable[float], *, best: float) -> list[float]:
    """How far each layer is below all previous ones, 0 where it isn't.

    It is compared with the lowest and not with the previous layer, because the order of execution goes from branch to
    branch: the first layer of a branch comes after the last layer of another one, which it doesn't read.

    Args:
        snr_db: ratios of the layers, in the order of execution.
        best: upper limit for the first layer, and after layers above it, which are float.
    """
    drops, lowest = [], best
    for value in snr_db:
        drops.append(max(lowest - value, 0.0))
        lowest = min(lowest, value)
    return drops


def ranks(drops: list[float]) -> list[int | None]:
    """1, 2 and 3 for the largest drops that are large enough."""
    order = sorted(range(len(drops)), key=lambda index: -drops[index])[:_NAMED]
    found: list[int | None] = [None] * len(drops)
    for rank, index in enumerate((index for index in order if drops[index] >= _SMALLEST_DROP_DB), 1):
        found[index] = rank
    return found


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return MOST_DB
    if signal == 0 or not np.isfinite(signal / noise):
        return -MOST_DB
    return round(float(np.clip(10 * np.log10(max(signal / noise, 1e-300)), -MOST_DB, MOST_DB)), 2)
