"""Plans the timing jobs: artifacts, each on a device with a number of threads per inference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgecnn.bundle import Artifact, Bundle
from edgecnn.errors import SpecError
from edgecnn.runners.choose import choose_artifact, find_fitting
from edgecnn.targets import threads_here


@dataclass(frozen=True, kw_only=True)
class Job:
    """One artifact on one device, to be timed.

    Attributes:
        bundle: the bundle's folder.
        artifact, precision, device, threads: as for `open_runner`.
    """

    bundle: Path
    artifact: Artifact
    precision: str
    device: str
    threads: int

    @property
    def name(self) -> str:
        """The job's name in messages."""
        return f"{self.artifact.format} {self.precision}"


def plan_jobs(
    bundle: Bundle,
    *,
    device: str,
    format: str | None,  # noqa: A002
    precision: str | None,
    threads: int | Sequence[int] | None,
) -> tuple[list[Job], list[str]]:
    """The jobs for a bundle, and notes on artifacts that are skipped; arguments are those of `bench`.

    Raises:
        SpecError: threads below 1.
        BundleError, MissingDependencyError, DeviceError: as `choose_artifact` raises, where nothing can be timed.
    """
    counts = _thread_counts(threads)
    found = find_fitting(bundle, device=device, format=format, precision=precision)
    # If no runtime has such a device, each is tried and reports what it lacks.
    choices = found.fitting or found.without_device
    if not choices:
        choose_artifact(bundle, device=device, format=format, precision=precision)  # raises with the reason
    jobs = [
        Job(
            bundle=bundle.folder,
            artifact=choice.artifact,
            precision=choice.precision,
            device=device,
            threads=count,
        )
        for choice in choices
        for count in counts
    ]
    tried = {choice.artifact.format for choice in choices}
    notes = [f"{name} is skipped: {why}" for name, why in found.left_out.items() if name not in tried]
    return jobs, notes


def _thread_counts(threads: int | Sequence[int] | None) -> list[int]:
    counts = [threads_here()] if threads is None else [threads] if isinstance(threads, int) else list(threads)
    for count in counts:
        if count < 1:
            raise SpecError(f"threads per inference: expected at least 1, got {count}")
    return list(dict.fromkeys(counts))
