"""Profiles: how long each artifact is timed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from edgecnn.errors import SpecError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How long to measure each artifact.

    Attributes:
        name: as on the command line.
        samples, seconds: minimum number of samples and minimum time, all rounds together.
        cap_seconds: no sample begins after this, even if `samples` is not reached.
        rounds: number of rounds.
        warmup_seconds: longest warm-up before the first round.
        settle_seconds: time of unrecorded calls at the start of each round.
    """

    name: str
    samples: int
    seconds: float
    cap_seconds: float
    rounds: int
    warmup_seconds: float
    settle_seconds: float = 0.05

    def samples_in_round(self, turn: int) -> int:
        """The round's share of the samples; all rounds together have exactly `samples`."""
        return self.samples * (turn + 1) // self.rounds - self.samples * turn // self.rounds


PROFILES = {
    # p50 and p90 need 64 samples at 99 % confidence.
    "quick": Profile(name="quick", samples=64, seconds=5.0, cap_seconds=60.0, rounds=5, warmup_seconds=2.0),
    # MLPerf Mobile, single stream: at least 1024 samples and 60 s.
    "standard": Profile(
        name="standard", samples=1024, seconds=60.0, cap_seconds=1200.0, rounds=10, warmup_seconds=30.0
    ),
}


def chosen_profile(name: str, iterations: int | None, duration_s: float | None) -> Profile:
    """The profile of this name, with its samples or seconds replaced where given; see `bench`.

    Raises:
        UnknownNameError: there is no profile of that name.
        SpecError: no samples, or no time.
    """
    if name not in PROFILES:
        raise UnknownNameError("profile", name, PROFILES)
    profile = PROFILES[name]
    if iterations is None and duration_s is None:
        return profile
    if iterations is not None and iterations < 1:
        raise SpecError(f"iterations: expected at least 1, got {iterations}")
    if duration_s is not None and duration_s <= 0:
        raise SpecError(f"duration: expected a positive number of seconds, got {duration_s:g}")
    samples, seconds = iterations or 1, duration_s or 0.0
    return dataclasses.replace(
        profile,
        name=f"{iterations} iterations" if duration_s is None else f"{seconds:g} s",
        samples=samples,
        seconds=seconds,
        # The user gave a number of iterations: all of them run, however long each takes.
        cap_seconds=max(profile.cap_seconds, 2 * seconds) if iterations is None else 24 * 3600.0,
        rounds=profile.rounds if iterations is None else min(profile.rounds, samples),
    )
