"""Times artifacts of several bundles in turns, so that networks can be compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgecnn.bundle import Artifact, Bundle
from edgecnn.measure.jobs import Job
from edgecnn.measure.latency import BenchFailure, BenchResult
from edgecnn.measure.machine import Machine
from edgecnn.measure.profiles import PROFILES
from edgecnn.measure.timed_pictures import PICTURE_SIZE_PX, pictures_to_time_on
from edgecnn.measure.timing import DEFAULT_TIMEOUT_S, time_jobs
from edgecnn.targets import threads_here

_ROUNDS = 12  # pairs of medians for the interval of a ratio


@dataclass(frozen=True)
class Contender:
    """One artifact, and the bundle that it is in."""

    bundle: Bundle
    artifact: Artifact


def time_in_turns(
    contenders: Sequence[Contender],
    *,
    machine: Machine,
    profile: str = "quick",
    iterations: int | None = None,
    threads: int | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[BenchResult | BenchFailure]:
    """Time each artifact as `bench` does, but in one run for all bundles.

    Args:
        contenders: the artifacts to time.
        machine: the machine's description, made before.
        profile: "quick" or "standard", as for `bench`; in 12 rounds.
        iterations: exactly this number of samples of each instead.
        threads: threads per inference; by default, the cores that this process may use.
        progress: called with (steps done, steps in all, name of the step).
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
            threads=threads or threads_here(),
        )
        for contender in contenders
    ]
    pictures, pictures_name = pictures_to_time_on(None, PICTURE_SIZE_PX)
    return time_jobs(
        jobs,
        machine=machine,
        pictures=pictures,
        pictures_name=pictures_name,
        profile=rule,
        timeout_s=DEFAULT_TIMEOUT_S,
        progress=progress,
    )
