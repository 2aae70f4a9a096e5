"""How far an int8 artifact's metric is below float's, with an interval, from all artifacts that a search measured.

A metric of few pictures is a noisy figure: of 128 pictures, a detector's AP differs by .003 to .005 between artifacts
that are equally noisy. But the drop grows with the noise in the answers, and close to proportionally: YOLOX-nano's
artifacts in TFLite and ONNX, from 4 to 15 dB, drop .22 to .39 AP per unit of noise-to-signal ratio. So the drop at one
artifact's noise is estimated from all artifacts of the same recipe whose noise is similar: the ratio of their summed
drops and summed noises. Its standard error is from drawing the pictures again, the same draws for all (a paired
bootstrap). With only one artifact, this is that artifact's own drop and its own standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# With 1 and 1.5, YOLOX-nano in ONNX and TFLite dropped 1.06 and 1.01 points on others.
_STANDARD_ERRORS = 2.0
_MARGIN = 0.75  # of the limit, however small the standard error: the choice was made on these pictures
_SIMILAR = 4.0  # times the noise


@dataclass(frozen=True)
class PlanFigures:
    """One measured artifact.

    Attributes:
        noise: noise-to-signal ratio of its answers.
        drop: how far its metric is below the float artifact's.
        draws: the same for draws of the pictures.
    """

    noise: float
    drop: float
    draws: Sequence[float]


@dataclass(frozen=True)
class Estimate:
    """A drop.

    Attributes:
        drop: the expected one.
        error: its standard error.
    """

    drop: float
    error: float


class DropEstimates:
    """Drops of a search's artifacts of one recipe.

    Args:
        max_drop: the limit.
    """

    def __init__(self, max_drop: float) -> None:
        self._max_drop = max_drop
        self._measured: dict[object, PlanFigures] = {}

    def add(self, key: object, figures: PlanFigures) -> None:
        """Add an artifact; one without finite figures has no part in any estimate."""
        if np.isfinite([figures.noise, figures.drop]).all() and np.isfinite(figures.draws).any():
            self._measured[key] = figures

    def within(self, key: object) -> bool:
        """Whether an artifact's own drop is within the limit, and the estimate at its noise is with its interval."""
        own = self._measured.get(key)
        return own is not None and own.drop <= self._max_drop and self._keeps(self.at(own.noise))

    def at(self, noise: float) -> Estimate:
        """The drop at this noise, from the artifacts with similar noise; infinite where there are none."""
        similar = [one for one in self._measured.values() if noise / _SIMILAR <= one.noise <= noise * _SIMILAR]
        total = sum(one.noise for one in similar)
        if not similar:
            return Estimate(np.inf, np.inf)
        if total == 0:  # all answer as float does
            return Estimate(max(one.drop for one in similar), 0.0)
        draws: NDArray[np.float64] = np.sum([one.draws for one in similar], axis=0)
        return Estimate(noise * sum(one.drop for one in similar) / total, noise * float(np.nanstd(draws)) / total)

    def most_noise(self, noise: float) -> float:
        """The largest noise, up to `_SIMILAR` times this one, at which the estimate is still within the limit."""
        candidates = noise * np.geomspace(1.0, _SIMILAR, 40)
        return float(max((n for n in candidates if self._keeps(self.at(float(n)))), default=0.0))

    def _keeps(self, estimate: Estimate) -> bool:
        kept_back = max(_STANDARD_ERRORS * estimate.error, (1 - _MARGIN) * self._max_drop)
        return estimate.drop <= self._max_drop - kept_back
