"""Compares the metrics of two networks on the same pictures, in a sentence."""

from __future__ import annotations

import math

from edgecnn.measure.accuracy import PairedAccuracy

# For a mean over n pictures, a resampled 95 % interval holds the truth in 90 % of the cases for n = 10 and in 93 % for
# n = 20 (1.96 * sqrt((n - 1) / n) standard errors, where Student's t needs 2.26 and 2.09); for one picture its width
# is zero.
_FEWEST_PICTURES = 20
_ROUNDING = 1e-6  # of a metric: smaller differences come from boxes whose scores tie except in the last digit


def verdict(names: tuple[str, str], paired: PairedAccuracy) -> str:
    """Whether the first is worse, in a sentence, from whether the difference's 95 % interval excludes zero.

    Args:
        names: names of the first and the second.
        paired: their metrics and the difference.
    """
    first, second = names
    n, difference, low, high = paired.first.n, paired.difference, paired.low, paired.high
    near, far = sorted((abs(low), abs(high)))
    is_clear = n >= _FEWEST_PICTURES and (high < -_ROUNDING or low > _ROUNDING)
    digits = _digits(near if is_clear else far)
    if is_clear:
        side, word = ("below", "worse") if high < 0 else ("above", "better")
        size, interval = f"{abs(difference):.{digits}f}", f"[{near:.{digits}f}, {far:.{digits}f}]"
        return f"{first} is {size} {side} {second} {interval}: {word}"
    value, *ends = (f"{round(figure, digits) + 0.0:+.{digits}f}" for figure in (difference, low, high))  # no "-0.000"
    figures = f"{value} [{', '.join(ends)}]"
    if n < _FEWEST_PICTURES:
        return (
            f"{n} images are too few to compare {first} with {second}, expected at least {_FEWEST_PICTURES}: {figures}"
        )
    return f"no significant difference between {first} and {second} with {n} images: {figures}"


def _digits(figure: float) -> int:
    """Number of decimals: 3 (a tenth of a point), or as many as the first significant digit needs."""
    return max(3, math.ceil(-math.log10(figure))) if figure > _ROUNDING else 3
