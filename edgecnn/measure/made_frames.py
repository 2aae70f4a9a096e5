"""Synthetic frames that no photographer takes: networks are tested on them too, because cameras do see them.

A lens cap, the sun, a wall or a broken sensor reveal what photographs hide: a branch that was fixed in a graph, a
division by a standard deviation, or half-precision overflow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgecnn.measure import parity
from edgecnn.results import UInt8Array
from edgecnn.tasks import Task

Arrays = Mapping[str, NDArray[Any]]
_LEVELS = 8  # factor of darkening
_SEED = 20


def made_frames(photograph: UInt8Array) -> dict[str, UInt8Array]:
    """Name → frame of the same size: the photograph almost black and almost white, a blank frame, and noise.

    Args:
        photograph: uint8 [1, height, width, 3] BGR.
    """
    dark = photograph // _LEVELS
    noise = np.random.default_rng(_SEED).integers(0, 256, photograph.shape, dtype=np.uint8)
    return {
        "dark": dark,
        "bright": np.asarray(255 - (255 - photograph) // _LEVELS, np.uint8),
        "blank": np.zeros_like(photograph),
        "noise": noise,
    }


def made_error(
    photographs: Sequence[parity.Sample], made: parity.Sample, answer: Arrays, task: Task, *, tie: float
) -> float:
    """Error of an artifact's answer to a made frame, as max |a - b| / max |b|.

    The divisor also covers the answers to photographs: the answer to a blank frame may be almost zero, and any error
    would be large in comparison. Tied pixels of a class map are ignored: all pixels of a blank frame are equal
    and would change class together.

    Args:
        photographs: with their expected answers.
        made: the frame, with its expected answer.
        answer: the artifact's answer.
        task: decides how they are compared.
        tie: the classes of a pixel count as equal if its two largest logits differ by at most this share of the
            largest.
    """
    if "classes" in made.expected:
        return _differing(made, answer["classes"], tie)
    samples = [*photographs, made]
    answers = [*(sample.expected for sample in photographs), answer]
    return parity.relative_error(samples, answers, task)


def usable(made: Mapping[str, parity.Sample]) -> dict[str, parity.Sample]:
    """Frames for which the reference's answer is finite; it may divide by the contrast of a blank frame."""
    return {name: one for name, one in made.items() if is_finite(one.expected) and all_finite(one.unsaturated)}


def is_finite(answer: Arrays) -> bool:
    """Whether all values of an answer are finite."""
    return all_finite(answer.values())


def all_finite(arrays: Any) -> bool:
    """Whether all values of several arrays are finite."""
    return all(bool(np.isfinite(array).all()) for array in arrays)


def _differing(made: parity.Sample, found: NDArray[Any], tie: float) -> float:
    expected = made.expected["classes"]
    if found.shape != expected.shape:
        return float("inf")
    differs = found != expected
    if made.unsaturated:
        logits = np.asarray(made.unsaturated[0], np.float64)  # [1, classes, height, width]
        second, first = np.partition(logits, -2, axis=1)[:, -2:].transpose(1, 0, 2, 3)
        differs = differs & (first - second > tie * np.abs(logits).max())
    return float(np.mean(differs))
