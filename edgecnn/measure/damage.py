"""Noise of an artifact's answers against the float artifact's: one measure for all formats and tasks, no labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

_SCORE_THAT_MATTERS = 0.01  # eval's threshold for detections
_SMALLEST_SCORE = 1e-12
_NO_NOISE = 1e-12  # noise-to-signal ratio of equal answers, so that its logarithm exists


def noise_to_signal(answers: Sequence[Arrays], expected: Sequence[Arrays]) -> dict[str, float]:
    """Noise power over signal power of each output, over all frames.

    - class scores (softmax): of the logits, computed as logarithms minus each frame's mean;
    - detections: of the scores of anchors above a threshold in either; box errors are in units of the box's own
      size, weighted by the score;
    - class maps: the share of pixels that differ;
    - logits, prototypes and everything else: of the values.

    Args:
        answers: an artifact's outputs, frame by frame, by name.
        expected: the float artifact's outputs.
    """
    return {
        name: _ratio(name, answers, expected)
        for name in expected[0]
        if name != "coefficients"  # they mean nothing without their anchors' scores, which are counted
    }


def damage(answers: Sequence[Arrays], expected: Sequence[Arrays]) -> float:
    """The noise of all outputs as one number: 0 for equal answers, about 1 for useless ones, infinite for NaN."""
    return float(sum(noise_to_signal(answers, expected).values()))


def signal_to_noise_db(answers: Sequence[Arrays], expected: Sequence[Arrays]) -> dict[str, float]:
    """The signal-to-noise ratio of each output in decibels, at most 120; of a class map, that of its pixels."""
    return {
        name: round(-10 * float(np.log10(max(ratio, _NO_NOISE))), 2)
        for name, ratio in noise_to_signal(answers, expected).items()
    }


def _ratio(name: str, answers: Sequence[Arrays], expected: Sequence[Arrays]) -> float:
    noise = signal = 0.0
    for answer, right in zip(answers, expected, strict=True):
        found, wanted = answer[name], right[name]
        if found.shape != wanted.shape or not np.isfinite(found).all():
            return float("inf")
        frame_noise, frame_signal = _powers(name, answer, right)
        noise, signal = noise + frame_noise, signal + frame_signal
    return noise / signal if signal > 0 else float(noise > 0)


def _powers(name: str, answer: Arrays, right: Arrays) -> tuple[float, float]:
    """Noise and signal of one frame."""
    found, wanted = answer[name], right[name]
    if name == "classes":
        return float(np.count_nonzero(found != wanted)), float(wanted.size)
    if name in ("boxes", "scores") and "boxes" in right:
        return _of_detections(name, answer, right)
    if name == "scores":
        found, wanted = _logits(found), _logits(wanted)
    error = found.astype(np.float64) - wanted
    return float((error**2).sum()), float((wanted.astype(np.float64) ** 2).sum())


def _of_detections(name: str, answer: Arrays, right: Arrays) -> tuple[float, float]:
    scores = np.maximum(answer["scores"], right["scores"]).astype(np.float64)
    if name == "scores":
        counting = scores >= _SCORE_THAT_MATTERS
        error = (answer["scores"].astype(np.float64) - right["scores"])[counting]
        return float((error**2).sum()), float((right["scores"][counting].astype(np.float64) ** 2).sum())
    weights = right["scores"].max(axis=2).astype(np.float64)
    counting = weights >= _SCORE_THAT_MATTERS
    found, wanted = answer["boxes"][counting].astype(np.float64), right["boxes"][counting].astype(np.float64)
    size = np.maximum(wanted[:, 2:] - wanted[:, :2], 1.0)
    error = (found - wanted) / np.concatenate([size, size], axis=1)
    return float((weights[counting] * (error**2).mean(axis=1)).sum()), float(weights[counting].sum())


def _logits(scores: NDArray[Any]) -> NDArray[np.float64]:
    logarithms = np.log(np.maximum(scores.astype(np.float64), _SMALLEST_SCORE))
    return np.asarray(logarithms - logarithms.mean(axis=-1, keepdims=True))
