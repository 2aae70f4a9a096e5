"""Compare two latency measurements of the same machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from edgecnn import options
from edgecnn.measure.speed_difference import SpeedComparison, compare_measured, read_measured, share_of
from edgecnn.options import Option, kinds


def compare(
    before: Annotated[
        str | Path,
        Option(
            help="The first measurement: FILE.json of `bench --json` or --report.", kind=kinds.PATH, positional=True
        ),
    ],
    after: Annotated[
        str | Path, Option(help="The second measurement, of the same machine.", kind=kinds.PATH, positional=True)
    ],
    *,
    allow_percent: options.AllowPercent = 0.0,
    noise: Annotated[
        str | Path | None,
        Option(
            help="A repeat of the first measurement; their difference widens the intervals.",
            metavar="FILE.json",
        ),
    ] = None,
) -> SpeedComparison:
    """Say for each artifact whether it is faster, slower, or the same within noise.

    Args:
        before, after: files written by `edgecnn bench`, with --json or --report.
        allow_percent: by how many percent an artifact may be slower (see `SpeedComparison.too_slow`).
        noise: a repeat of the measurement `before`.

    Returns:
        Ratios of `after` over `before`, with their 99 % intervals; above 1 is slower.

    Raises:
        DataError: a file is not a measurement.
        SpecError: no common artifact, different machines, fewer than five rounds, or an impossible percentage.
    """
    return compare_measured(
        read_measured(Path(before)),
        read_measured(Path(after)),
        noise=None if noise is None else read_measured(Path(noise)),
        allowed=share_of(allow_percent),
    )
