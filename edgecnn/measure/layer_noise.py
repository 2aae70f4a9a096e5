"""How noisy the layers of one artifact are beside those of another, and where along the network the noise enters.

A layer's signal is what varies in its channels between places and frames, without each channel's mean: the mean says
nothing about the picture, and where it is large (the positive channels of a depthwise convolution) a layer that lost
everything else would still count as good. Measured with YOLOX-nano, EfficientNet-Lite0 and ResNet-18 all in int8
(TFLite): the three layers that `LayerComparison.worst` names do 82 to 98 % of the damage that the three worst layers
do alone. With the whole power as signal, and each layer beside the one before it, it would be 49 to 100 %.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_DB = 120.0  # equal, as far as float32 tells
# The best that a precision can be: 6.02 dB a bit + 1.76 for 8 bits that a sine fills (W. R. Bennett, Spectra of
# Quantized Signals, 1948); + 4.77 for the mantissas of 11 and 8 bits of weights in fp16 and of numbers in bf16.
_BEST_DB = {"fp32": MOST_DB, "fp16": 71.0, "bf16": 53.0}
_BEST_8_BIT_DB = 49.9
_NAMED = 3
_SMALLEST_DROP_DB = 1.0  # a quarter more noise; less is chance
# A layer whose channels vary less than this, of its power, is a constant.
_CONSTANT = 1e-6


@dataclass(frozen=True, kw_only=True)
class LayerNoise:
    """One layer of the second artifact beside the same of the first.

    Attributes:
        name, kind, macs, head: as in `edgecnn.bundle.LayerRecord`.
        int8: whether the second artifact computes it in int8; None where its evidence doesn't say.
        snr_db: signal-to-noise ratio, -120 to 120: variance in the first artifact's channels over the power of the
            difference, all frames together. -120 also where the second holds values that are not finite.
        snr_with_means_db: the same with the whole power of the first artifact's output as signal.
        change_db: of `snr_db` against the layer before it in the order of execution; None for the first.
        drop_db: how far `snr_db` lies below all layers before it, and so what enters here; 0 where one of them was
            as low. For the first, below what its precision can be at best.
        rank: 1 to 3 for the largest drops of at least 1 dB, else None.
        damage: of the answer where it alone is int8, if a search measured that; see `edgecnn.bundle.LayerDamage`.
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
    """A layer that could not be compared, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class LayerComparison:
    """Two artifacts of a bundle, layer by layer.

    Attributes:
        bundle: its name.
        reference, compared: the artifacts, as in "tflite fp32".
        data: name of the pictures.
        frames: how many.
        best_db: what a layer of the second artifact's precision can be at best, roughly; layers that it computes in
            float are above.
        outputs: signal-to-noise ratio of each output of the network in dB, see `edgecnn.measure.damage`.
        layers: in the order of execution.
        unread: layers that are not among them.
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
        """The layers where most error enters, at most three, the worst first."""
        return tuple(sorted((layer for layer in self.layers if layer.rank), key=lambda layer: layer.rank or 0))

    @property
    def conclusion(self) -> str:
        """Where most error enters, in a sentence."""
        named = [f"{layer.name} ({layer.snr_db + layer.drop_db:.1f} → {layer.snr_db:.1f} dB)" for layer in self.worst]
        if not named:
            return "no layer is much noisier than those before it"
        listed = named[0] if len(named) == 1 else f"{', '.join(named[:-1])} and {named[-1]}"
        return f"most error enters at {listed}"


class NoiseMeter:
    """Signal and noise of one layer, summed up over frames."""

    def __init__(self) -> None:
        self._values = 0
        self._sums: NDArray[np.float64] | float = 0.0
        self._squares: NDArray[np.float64] | float = 0.0
        self._noise = 0.0

    def add(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        """Take one frame in.

        Args:
            found: [places, channels].
            expected: the reference's, of the same shape.
        """
        right = expected.astype(np.float64)
        self._values += len(right)
        self._sums = self._sums + right.sum(axis=0)
        self._squares = self._squares + (right**2).sum(axis=0)
        noise = float(((found - right) ** 2).sum())
        self._noise += noise if np.isfinite(noise) else np.inf

    def snr_db(self) -> float:
        """Variance in the channels over noise; of a layer that is constant, power over noise."""
        power = float(np.sum(self._squares))
        variance = float(np.sum(self._squares - np.square(self._sums) / max(self._values, 1)))
        return _decibels(variance if variance > _CONSTANT * power else power, self._noise)

    def snr_with_means_db(self) -> float:
        """Power over noise."""
        return _decibels(float(np.sum(self._squares)), self._noise)


def best_db(precision: str) -> float:
    """What a layer of an artifact of this precision can be at best, roughly."""
    return _BEST_DB.get(precision, _BEST_8_BIT_DB)


def drops_db(snr_db: Iterable[float], *, best: float) -> list[float]:
    """How far each layer lies below all before it, 0 where it doesn't.

    Against the lowest and not against the layer before, because the order of execution goes from branch to branch:
    the first layer of a branch comes after the last of another, which it doesn't read.

    Args:
        snr_db: of the layers, in the order of execution.
        best: what the first is held against, and each after layers that are better: those are float.
    """
    drops, lowest = [], best
    for value in snr_db:
        drops.append(max(lowest - value, 0.0))
        lowest = min(lowest, value)
    return drops


def ranks(drops: list[float]) -> list[int | None]:
    """1, 2 and 3 for the largest drops, as far as they are worth a name."""
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
