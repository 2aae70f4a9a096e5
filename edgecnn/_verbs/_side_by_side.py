"""Artifacts of several bundles timed in turns: only so is one network faster than another."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgecnn._devices import default_threads
from edgecnn._verbs.bench import PICTURE_SIZE_PX, default_pictures
from edgecnn.bundle import Artifact, Bundle
from edgecnn.measure._timing import PROFILES, Job, time_jobs
from edgecnn.measure.latency import BenchFailure, BenchResult
from edgecnn.measure.machine import Machine

_ROUNDS = 12  # pairs of medians for the interval of a ratio
_DRAWS = 2000
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Contender:
    """One artifact, and the bundle that it is in."""

    bundle: Bundle
    artifact: Artifact


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """How many times faster than another, with a 95 % interval over the rounds."""

    ratio: float
    low: float
    high: float


def time_side_by_side(
    contenders: Sequence[Contender],
    *,
    machine: Machine,
    profile: str = "quick",
    iterations: int | None = None,
    threads: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[BenchResult | BenchFailure]:
    """Time each, as `bench` does, but in one go for all bundles.

    Args:
        contenders: what to time.
        machine: its description, from before.
        profile: "quick" or "standard", as for `bench`; in 12 rounds.
        iterations: exactly so many samples of each instead.
        threads: of one inference; without it, the cores that this process may use.
        progress: called with (steps done, steps in all, what is being done).
    """
    rule = dataclasses.replace(PROFILES[profile], rounds=_ROUNDS)
    if iterations is not None:
        rounds = min(_ROUNDS, iterations)
        rule = dataclasses.replace(
            rule, name=f"{iterations} iterations", samples=iterations, seconds=0.0, rounds=rounds
        )
    jobs = [
        Job(artifact=c.artifact, precision=c.artifact.precision, device="cpu", threads=threads or default_threads())
        for c in contenders
    ]
    with tempfile.TemporaryDirectory(prefix="edgecnn-side-by-side-") as place:
        # The timing opens one bundle. Each process reads its own at its start, before the next is begun: a link that
        # leads to another bundle for each makes them one.
        link, waiting = Path(place) / "next.edge", iter(contenders)

        def lead_to_the_next(job: Job, pid: int) -> None:
            partial = link.with_suffix(".partial")
            partial.symlink_to(next(waiting).bundle.folder.resolve(), target_is_directory=True)
            os.replace(partial, link)

        return time_jobs(
            jobs,
            bundle=link,
            machine=machine,
            pictures=default_pictures(PICTURE_SIZE_PX),
            pictures_name="photographs, {}x{}".format(*PICTURE_SIZE_PX),
            profile=rule,
            timeout_s=_TIMEOUT_S,
            progress=progress,
            on_spawn=lead_to_the_next,
        )


def speedup(result: BenchResult, baseline: BenchResult) -> Speedup:
    """From the medians of the same rounds; above 1 is faster than the baseline."""
    ratios = np.array([b.p50_ms / r.p50_ms for r, b in zip(result.rounds, baseline.rounds, strict=True)])
    rng = np.random.default_rng(0)
    medians = np.median(ratios[rng.integers(len(ratios), size=(_DRAWS, len(ratios)))], axis=1)
    low, high = np.percentile(medians, (2.5, 97.5)).tolist()
    return Speedup(ratio=float(np.median(ratios)), low=low, high=high)
