"""Artifacts of several bundles timed in turns: only so is one network faster than another."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgecnn._devices import default_threads
from edgecnn._verbs.bench import PICTURE_SIZE_PX, default_pictures
from edgecnn.bundle import Artifact, Bundle
from edgecnn.measure._timing import PROFILES, Job, time_jobs
from edgecnn.measure.latency import BenchFailure, BenchResult
from edgecnn.measure.machine import Machine

_ROUNDS = 12  # pairs of medians for the interval of a ratio
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Contender:
    """One artifact, and the bundle that it is in."""

    bundle: Bundle
    artifact: Artifact


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
        Job(
            bundle=contender.bundle.folder,
            artifact=contender.artifact,
            precision=contender.artifact.precision,
            device="cpu",
            threads=threads or default_threads(),
        )
        for contender in contenders
    ]
    return time_jobs(
        jobs,
        machine=machine,
        pictures=default_pictures(PICTURE_SIZE_PX),
        pictures_name="photographs, {}x{}".format(*PICTURE_SIZE_PX),
        profile=rule,
        timeout_s=_TIMEOUT_S,
        progress=progress,
    )
