"""Times artifacts, each in a child process, in rounds over all of them."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgecnn.bundle.evidence import LayerTime, Opened, ParityEvidence
from edgecnn.child import Child
from edgecnn.errors import EdgeCnnError, Fault, StorageError
from edgecnn.formats.devices import parse_device
from edgecnn.measure.jobs import Job
from edgecnn.measure.latency import (
    BenchFailure,
    BenchResult,
    ColdStart,
    RoundFigures,
    Samples,
    instability,
    summarise,
)
from edgecnn.measure.machine import (
    CoreTimes,
    Machine,
    read_conditions,
    read_core_times,
)
from edgecnn.measure.profiles import Profile
from edgecnn.processor import allowed_cores
from edgecnn.results import UInt8Array

_CHILD = "edgecnn.measure._timing_child"
DEFAULT_TIMEOUT_S = 300.0
_SPIN_S = 0.1  # ONNX Runtime's threads spin for about 50 ms after its last call; other runtimes' stop at once


class _Timed:
    """A job, its process, and its results so far; after a failure, it does nothing more."""

    def __init__(self, job: Job, child: Child) -> None:
        self.job, self.child = job, child
        self._failure: BenchFailure | None = None
        self._opened: dict[str, Any] = {}
        self._warmup_n, self._warmup_settled = 0, False
        self._peak_rss_mb = 0.0
        self._samples: dict[str, list[int]] = {}
        self._rounds: list[RoundFigures] = []
        self._agreement: ParityEvidence | None = None
        self._layers: dict[str, Any] = {"layers": [], "missing": ""}

    def open(self, pictures: Path) -> None:
        """Measure the cold start."""
        answer = self._ask(
            "open",
            bundle=str(self.job.bundle),
            artifact=self.job.artifact.key,
            precision=self.job.precision,
            device=self.job.device,
            threads=self.job.threads,
            pictures=str(pictures),
        )
        self._opened = answer or {}

    def agree(self) -> None:
        """Compare an accelerator's answers with the CPU's; the CPU itself needs no comparison."""
        if not parse_device(self.job.device).is_cpu:
            answer = self._ask("agree")
            self._agreement = None if answer is None else msgspec.convert(answer["evidence"], ParityEvidence | None)

    def warm(self, profile: Profile) -> None:
        """Run the warm-up."""
        answer = self._ask("warm", expected_s=profile.warmup_seconds, seconds=profile.warmup_seconds)
        if answer is not None:
            self._warmup_n, self._warmup_settled = answer["n"], answer["settled"]

    def measure(self, profile: Profile, turn: int) -> None:
        """Run one round; `turn` counts from 0."""
        time.sleep(_SPIN_S)
        before = read_core_times()
        answer = self._ask(
            "measure",
            expected_s=profile.cap_seconds / profile.rounds,
            samples=profile.samples_in_round(turn),
            seconds=profile.seconds / profile.rounds,
            cap_seconds=profile.cap_seconds / profile.rounds,
            settle_seconds=profile.settle_seconds,
        )
        if answer is None:
            return
        after = read_core_times()
        for name, values in answer["samples"].items():
            self._samples.setdefault(name, []).extend(values)
        self._warmup_n += answer["settle_n"]
        self._peak_rss_mb = answer["peak_rss_mb"]
        others, stolen = others_share(before, after, own_cpu_s=answer["cpu_s"])
        self._rounds.append(
            RoundFigures(
                n=len(answer["samples"]["total_ns"]),
                p50_ms=float(np.median(answer["samples"]["total_ns"])) / 1e6,
                others_busy_cores=others,
                stolen=stolen,
                conditions=read_conditions(),
            )
        )

    def time_layers(self) -> None:
        """Time the operators; a crash here loses the layers and not the measurement."""
        if self._failure is not None:
            return
        try:
            self._layers = self.child.ask("layers")
        except EdgeCnnError as ended:
            self._layers = {"layers": [], "missing": str(ended)}

    def outcome(self, machine: Machine, profile: Profile, pictures_name: str) -> BenchResult | BenchFailure:
        """The final result."""
        if self._failure is not None:
            return self._failure
        samples = Samples(**{name: tuple(values) for name, values in self._samples.items()})
        figures = summarise(samples)
        cold = ColdStart(**self._opened["cold"])
        used = msgspec.convert(self._opened["used"], Opened)
        artifact = self.job.artifact
        return BenchResult(
            format=artifact.format,
            precision=used.precision,
            device=self.job.device,
            device_name=used.device_name,
            runtime=used.runtime,
            provider=used.provider,
            threads=used.threads,
            ran_on=used,
            cold_ms=cold.cold_ms,
            cold=cold,
            warmup_n=self._warmup_n,
            warmup_settled=self._warmup_settled,
            peak_rss_mb=self._peak_rss_mb,
            file_bytes=artifact.bytes,
            sha256=artifact.sha256,
            rounds=tuple(self._rounds),
            unstable=instability(machine, self._rounds, spread=figures["spread"], warmup_settled=self._warmup_settled),
            profile=profile.name,
            pictures=pictures_name,
            pictures_mb=self._opened["pictures_mb"],
            measured_utc=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            samples=samples,
            agreement=self._agreement,
            layers=msgspec.convert(self._layers["layers"], tuple[LayerTime, ...]),
            layers_missing=self._layers["missing"],
            **figures,
        )

    def _ask(self, do: str, **arguments: Any) -> dict[str, Any] | None:
        if self._failure is not None:
            return None
        try:
            return self.child.ask(do, **arguments)
        except EdgeCnnError as ended:
            self.child.kill()
            fault = Fault.of(ended)
            self._failure = BenchFailure(
                format=self.job.artifact.format,
                precision=self.job.precision,
                device=self.job.device,
                threads=self.job.threads,
                error=fault.kind,
                reason=fault.reason,
                exit_code=fault.exit_code,
            )
            return None


def time_jobs(
    jobs: Sequence[Job],
    *,
    machine: Machine,
    pictures: Sequence[UInt8Array],
    pictures_name: str,
    profile: Profile,
    timeout_s: float,
    layers: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
    on_spawn: Callable[[Job, int], None] | None = None,
) -> list[BenchResult | BenchFailure]:
    """Time each job, in the order of `jobs`.

    Each job has its own process; they take turns (A B C A B C …), and waiting ones block in a read. However this
    ends, no process is left.

    Args:
        jobs: the jobs to time.
        machine: the machine's description, made before.
        profile: how long to measure.
        pictures_name: description of `pictures` for people.
        pictures: uint8 [height, width, 3] BGR; used in turn.
        timeout_s: how long a process may be silent beyond the time that its work takes.
        layers: also time each operator, at the end.
        progress: called with (steps done, steps in all, name of the step).
        on_spawn: called with each job and its process id.

    Raises:
        StorageError: the pictures cannot be written to a file for the processes.
    """
    steps = _Steps(len(jobs) * (2 + profile.rounds + layers), progress)
    with contextlib.ExitStack() as stack:
        timed: list[_Timed] = []
        with _picture_file(pictures) as picture_file:  # removed before the long part, however that ends
            for job in jobs:
                steps.next(f"{job.name}: cold start")
                # One process opens before the next is started: a cold start must not overlap another one's imports.
                child = Child(_CHILD, str(time.monotonic_ns()), timeout_s=timeout_s)
                stack.callback(child.release)
                if on_spawn is not None:
                    on_spawn(job, child.pid)
                timed.append(_Timed(job, child))
                timed[-1].open(picture_file)
                timed[-1].agree()
        for state in timed:
            steps.next(f"{state.job.name}: warm-up")
            state.warm(profile)
        for turn in range(profile.rounds):
            for state in timed:
                steps.next(f"{state.job.name}: round {turn + 1} of {profile.rounds}")
                state.measure(profile, turn)
        for state in timed if layers else ():
            steps.next(f"{state.job.name}: layers")
            state.time_layers()
        for state in timed:
            state.child.close()
    steps.finish()
    return [state.outcome(machine, profile, pictures_name) for state in timed]


@contextlib.contextmanager
def _picture_file(pictures: Sequence[UInt8Array]) -> Iterator[Path]:
    """A file with the pictures for the processes."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgecnn-bench-"))
            file = Path(folder) / "pictures.npz"
            np.savez(file, *pictures)
        except OSError as failed:
            raise StorageError(f"{tempfile.gettempdir()} is not writable: {failed.strerror or failed}") from failed
        yield file


class _Steps:
    """Counts steps for `progress`."""

    def __init__(self, total: int, progress: Callable[[int, int, str], None] | None) -> None:
        self._total, self._progress, self._done = total, progress, -1

    def next(self, what: str) -> None:
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._total, what)

    def finish(self) -> None:
        if self._progress is not None:
            self._progress(self._total, self._total, "done")


def others_share(
    before: CoreTimes | None, after: CoreTimes | None, *, own_cpu_s: float
) -> tuple[float | None, float | None]:
    """How many cores other programs kept busy between two readings, and the share that the hypervisor took.

    (None, None) where the system doesn't report it, or the time was too short for its ticks of 10 ms.
    """
    if before is None or after is None:
        return None, None
    wall_s = (after.read_ns - before.read_ns) / 1e9
    if wall_s < 0.2:
        return None, None
    others = max(after.busy_s - before.busy_s - own_cpu_s, 0.0) / wall_s
    stolen = (after.stolen_s - before.stolen_s) / (wall_s * len(allowed_cores()))
    return round(others, 3), round(stolen, 4)
