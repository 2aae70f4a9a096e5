"""An int8 artifact's latency beside its float twin's, in turns: only so is "faster" worth saying."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from edgecnn._devices import default_threads, processor_name
from edgecnn._photographs import photographs
from edgecnn.bundle import Artifact, Manifest, write_manifest
from edgecnn.errors import DeviceError
from edgecnn.evidence import TwinLatency
from edgecnn.measure._timing import Job, Profile, time_jobs
from edgecnn.measure.latency import BenchFailure
from edgecnn.measure.machine import describe_machine

_PROFILE = Profile(name="twins", samples=96, seconds=3.0, cap_seconds=60.0, rounds=12, warmup_seconds=2.0)
_TIMEOUT_S = 300.0
_DRAWS = 2000


def time_twins(files: Sequence[Path], manifest: Manifest, artifact: Artifact, twin: Artifact) -> TwinLatency:
    """Time two artifacts of one network, each in a process of its own, in turns.

    Args:
        files: of both.
        manifest: of the bundle that they are for; only its contract is used.
        artifact: the one in question.
        twin: the float one.

    Raises:
        DeviceError: one of them doesn't run.
    """
    threads = default_threads()
    with tempfile.TemporaryDirectory(prefix="edgecnn-twins-") as place:
        bundle = Path(place)
        for file in files:
            (bundle / file.name).symlink_to(file.resolve())
        write_manifest(bundle, msgspec.structs.replace(manifest, artifacts=(artifact, twin), refused=()))
        outcomes = time_jobs(
            [Job(artifact=a, precision=a.precision, device="cpu", threads=threads) for a in (artifact, twin)],
            bundle=bundle,
            machine=describe_machine(),
            pictures=list(photographs().values()),
            pictures_name="photographs",
            profile=_PROFILE,
            timeout_s=_TIMEOUT_S,
        )
    ours, theirs = outcomes
    if isinstance(ours, BenchFailure) or isinstance(theirs, BenchFailure):
        failed = ours if isinstance(ours, BenchFailure) else theirs
        assert isinstance(failed, BenchFailure)
        raise DeviceError(f"{failed.format} {failed.precision} could not be timed: {failed.error}: {failed.reason}")
    ratios = np.array([b.p50_ms / a.p50_ms for a, b in zip(ours.rounds, theirs.rounds, strict=True)])
    low, high = _interval(ratios)
    return TwinLatency(
        latency_ms=round(float(np.median([a.p50_ms for a in ours.rounds])), 4),
        float_latency_ms=round(float(np.median([b.p50_ms for b in theirs.rounds])), 4),
        ratio=round(float(np.median(ratios)), 4),
        low=round(low, 4),
        high=round(high, 4),
        device_name=processor_name(),
        threads=threads,
    )


def _interval(ratios: np.ndarray) -> tuple[float, float]:
    """95 % of the median, from drawing the rounds again."""
    rng = np.random.default_rng(0)
    medians = np.median(ratios[rng.integers(len(ratios), size=(_DRAWS, len(ratios)))], axis=1)
    low, high = np.percentile(medians, (2.5, 97.5)).tolist()
    return low, high
