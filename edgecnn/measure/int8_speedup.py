"""Compares an int8 artifact's latency with its float twin's, measured in turns: otherwise "faster" means little."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edgecnn.bundle import Artifact, Manifest, write_manifest
from edgecnn.bundle.evidence import TwinLatency
from edgecnn.errors import DeviceError
from edgecnn.measure.jobs import Job
from edgecnn.measure.latency import BenchFailure, BenchResult
from edgecnn.measure.machine import describe_machine
from edgecnn.measure.profiles import Profile
from edgecnn.measure.timing import DEFAULT_TIMEOUT_S, time_jobs
from edgecnn.photographs import photographs
from edgecnn.processor import processor_name
from edgecnn.targets import threads_here

PROFILE = Profile(name="twins", samples=96, seconds=3.0, cap_seconds=60.0, rounds=12, warmup_seconds=2.0)
_DRAWS = 2000


@dataclass(frozen=True, kw_only=True)
class TimesFaster:
    """One artifact's latency divided by another's, from the medians of the same rounds; above 1 is faster.

    Attributes:
        ratio: median over the rounds.
        low, high: 95 % interval, from resampling the rounds.
    """

    ratio: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Twin:
    """An artifact that may not be in a bundle yet.

    Attributes:
        manifest: manifest of the bundle that it is for; only its contract is used.
        artifact: its record.
        files: the folder of its files.
    """

    manifest: Manifest
    artifact: Artifact
    files: Sequence[Path]


def time_twins(ours: Twin, theirs: Twin) -> TwinLatency:
    """Time two artifacts, each in a child process, in turns.

    Args:
        ours: the artifact to judge.
        theirs: the artifact to compare it with, usually the float one of the same network.

    Raises:
        DeviceError: one of them doesn't run.
    """
    threads = threads_here()
    with tempfile.TemporaryDirectory(prefix="edgecnn-twins-") as place:
        jobs = [
            Job(
                bundle=_linked_bundle(twin, Path(place) / name),
                artifact=twin.artifact,
                precision=twin.artifact.precision,
                device="cpu",
                threads=threads,
            )
            for name, twin in (("ours", ours), ("theirs", theirs))
        ]
        outcomes = time_jobs(
            jobs,
            machine=describe_machine(),
            pictures=list(photographs().values()),
            pictures_name="photographs",
            profile=PROFILE,
            timeout_s=DEFAULT_TIMEOUT_S,
        )
    result, baseline = outcomes
    if isinstance(result, BenchFailure) or isinstance(baseline, BenchFailure):
        failed = result if isinstance(result, BenchFailure) else baseline
        assert isinstance(failed, BenchFailure)
        raise DeviceError(f"{failed.format} {failed.precision} could not be timed: {failed.error}: {failed.reason}")
    faster = times_faster(result, baseline)
    return TwinLatency(
        latency_ms=round(float(np.median([round_.p50_ms for round_ in result.rounds])), 4),
        float_latency_ms=round(float(np.median([round_.p50_ms for round_ in baseline.rounds])), 4),
        ratio=round(faster.ratio, 4),
        low=round(faster.low, 4),
        high=round(faster.high, 4),
        device_name=processor_name(),
        threads=threads,
    )


def times_faster(result: BenchResult, baseline: BenchResult) -> TimesFaster:
    """How many times faster `result` is than `baseline`; both were timed in the same rounds."""
    ratios = np.array([b.p50_ms / r.p50_ms for r, b in zip(result.rounds, baseline.rounds, strict=True)])
    rng = np.random.default_rng(0)
    medians = np.median(ratios[rng.integers(len(ratios), size=(_DRAWS, len(ratios)))], axis=1)
    low, high = np.percentile(medians, (2.5, 97.5)).tolist()
    return TimesFaster(ratio=float(np.median(ratios)), low=low, high=high)


def _linked_bundle(twin: Twin, folder: Path) -> Path:
    """A bundle with only this artifact, made of links to its files."""
    folder.mkdir()
    for file in twin.files:
        (folder / file.name).symlink_to(file.resolve())
    write_manifest(folder, msgspec.structs.replace(twin.manifest, artifacts=(twin.artifact,), refused=()))
    return folder
