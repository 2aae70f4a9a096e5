"""Times artifacts, each in a process of its own, in rounds that go over all of them."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import edgecnn
from edgecnn._devices import parse_device
from edgecnn.bundle import Artifact
from edgecnn.errors import StorageError
from edgecnn.evidence import LayerTime, Opened, ParityEvidence
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
    allowed_cores,
    read_conditions,
    read_core_times,
)
from edgecnn.results import UInt8Array

_CHILD = "edgecnn.measure._timing_child"
_CLOSE_S = 5.0
_SPIN_S = 0.1  # ONNX Runtime's threads spin for about 50 ms after its last call; the others' stop at once
_LAST_WORDS = 400


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How long to measure each artifact.

    Attributes:
        name: as on the command line.
        samples, seconds: at least so many, over at least so long, all rounds together.
        cap_seconds: no sample begins after this, even if `samples` is not reached.
        rounds: in how many turns.
        warmup_seconds: the longest warm-up before the first round.
        settle_seconds: unrecorded calls at the start of each round.
    """

    name: str
    samples: int
    seconds: float
    cap_seconds: float
    rounds: int
    warmup_seconds: float
    settle_seconds: float = 0.05

    def samples_in_round(self, turn: int) -> int:
        """Its share of the samples, so that all rounds together have exactly `samples`."""
        return self.samples * (turn + 1) // self.rounds - self.samples * turn // self.rounds


PROFILES = {
    # p50 and p90 need 64 samples at 99 % confidence.
    "quick": Profile(name="quick", samples=64, seconds=5.0, cap_seconds=60.0, rounds=5, warmup_seconds=2.0),
    # MLPerf Mobile, single stream: at least 1024 samples and 60 s.
    "standard": Profile(
        name="standard", samples=1024, seconds=60.0, cap_seconds=1200.0, rounds=10, warmup_seconds=30.0
    ),
}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One artifact on one device, to be timed.

    Attributes:
        bundle: the folder that it is in.
        artifact, precision, device, threads: as for `open_runner`.
    """

    bundle: Path
    artifact: Artifact
    precision: str
    device: str
    threads: int

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.artifact.format} {self.precision}"


class _ChildError(Exception):
    """What ended a child: the class, the text and the exit code of its error."""

    def __init__(self, error: str, reason: str, exit_code: int) -> None:
        self.error, self.reason, self.exit_code = error, reason, exit_code
        super().__init__(reason)


class _Child:
    """A process that times one artifact; it does nothing but wait while nobody asks."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `release`
        home = str(Path(edgecnn.__file__).resolve().parents[1])
        paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
        self._process = subprocess.Popen(
            # -P: a numpy.py in the working folder is not what is meant
            [sys.executable, "-P", "-m", _CHILD, str(time.monotonic_ns())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._said,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is ours to answer; the child goes with us (see `kill`)
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def ask(self, do: str, *, expected_s: float = 0.0, **arguments: Any) -> dict[str, Any]:
        """Ask and wait for the answer.

        Args:
            do: the request's name, see `_timing_child`.
            arguments: what goes with it.
            expected_s: how long the work takes by itself; the timeout comes on top.

        Raises:
            _ChildError: it refused, ended, or said nothing for too long.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended: the missing answer tells
            self._process.stdin.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
        try:
            line = self._answers.get(timeout=expected_s + self._timeout_s)
        except queue.Empty:
            self.kill()
            words = f"no answer to {do!r} within {expected_s + self._timeout_s:.0f} s: its process was ended"
            raise _ChildError("DeviceError", words + self._last_words(), 3) from None
        if not line:
            raise _ChildError("DeviceError", self._how_it_ended(do), 3)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise _ChildError(answer["error"], answer["reason"], answer["exit_code"])
        return answer

    def close(self) -> None:
        """Let it end in peace."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it may have ended already
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_CLOSE_S)

    def release(self) -> None:
        """End it if it still runs, and close the pipes to it."""
        self.kill()
        self._reader.join(_CLOSE_S)
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._said.close()

    def kill(self) -> None:
        """End it at once; a second call does nothing."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                self._answers.put(line)
        self._answers.put(b"")  # it has ended

    def _how_it_ended(self, do: str) -> str:
        code = self._process.wait()
        if code < 0:
            how = f"was killed by {signal.Signals(-code).name}"
            if -code == signal.SIGKILL:
                how += " (the system does that when memory runs out)"
        else:
            how = f"ended with exit code {code}"
        return f"its process {how} in {do!r}{self._last_words()}"

    def _last_words(self) -> str:
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").strip()
        return f"; it said: …{said[-_LAST_WORDS:]}" if said else ""


class _Timed:
    """A job, its process, and what is known so far; once it has failed, it does nothing more."""

    def __init__(self, job: Job, child: _Child) -> None:
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
        """The cold start."""
        answer = self._ask(
            "open",
            bundle=str(self.job.bundle),
            format=self.job.artifact.format,
            precision=self.job.precision,
            device=self.job.device,
            threads=self.job.threads,
            pictures=str(pictures),
        )
        self._opened = answer or {}

    def agree(self) -> None:
        """Whether an accelerator's answers are the processor's; the processor itself needs no comparison."""
        if "cpu" not in parse_device(self.job.device).kinds:
            answer = self._ask("agree")
            self._agreement = None if answer is None else msgspec.convert(answer["evidence"], ParityEvidence | None)

    def warm(self, profile: Profile) -> None:
        """The warm-up."""
        answer = self._ask("warm", expected_s=profile.warmup_seconds, seconds=profile.warmup_seconds)
        if answer is not None:
            self._warmup_n, self._warmup_settled = answer["n"], answer["settled"]

    def measure(self, profile: Profile, turn: int) -> None:
        """One round; `turn` counts from 0."""
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
        """The operators, one by one; a death in it costs the layers and not the measurement."""
        if self._failure is not None:
            return
        try:
            self._layers = self.child.ask("layers")
        except _ChildError as ended:
            self._layers = {"layers": [], "missing": ended.reason}

    def outcome(self, machine: Machine, profile: Profile, pictures_name: str) -> BenchResult | BenchFailure:
        """What it all gave."""
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
            measured_utc=datetime.now(UTC).isoformat(timespec="seconds"),
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
        except _ChildError as ended:
            self.child.kill()
            self._failure = BenchFailure(
                format=self.job.artifact.format,
                precision=self.job.precision,
                device=self.job.device,
                threads=self.job.threads,
                error=ended.error,
                reason=ended.reason,
                exit_code=ended.exit_code,
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

    One process a job; they take turns (A B C A B C …), and those whose turn it isn't wait in a read. However this
    ends, no process is left.

    Args:
        jobs: what to time.
        machine: its description, from before.
        profile: how long.
        pictures_name: what `pictures` are, for people.
        pictures: uint8 [height, width, 3] BGR; the samples go round over them.
        timeout_s: how long a process may say nothing beyond what its work takes.
        layers: also time each operator, at the end.
        progress: called with (steps done, steps in all, what is being done).
        on_spawn: called with each job and the id of its process.

    Raises:
        StorageError: the pictures cannot be laid down for the processes to read.
    """
    steps = _Steps(len(jobs) * (2 + profile.rounds + layers), progress)
    with contextlib.ExitStack() as stack:
        timed: list[_Timed] = []
        with _laid_down(pictures) as picture_file:  # gone before the long part, whatever ends that
            for job in jobs:
                steps.next(f"{job.name}: cold start")
                # Asked to open before the next is spawned: a cold start must not meet another one's imports.
                child = _Child(timeout_s=timeout_s)
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
def _laid_down(pictures: Sequence[UInt8Array]) -> Iterator[Path]:
    """A file that holds the pictures, for the processes to read."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="edgecnn-bench-"))
            file = Path(folder) / "pictures.npz"
            np.savez(file, *pictures)
        except OSError as failed:
            raise StorageError(f"{tempfile.gettempdir()} is not writable: {failed.strerror or failed}") from failed
        yield file


class _Steps:
    """Counts what was done, for `progress`."""

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
    """How many cores other programs kept busy between two readings, and what share the hypervisor took.

    (None, None) where the system doesn't tell, or the time was too short for its ticks of 10 ms.
    """
    if before is None or after is None:
        return None, None
    wall_s = (after.read_ns - before.read_ns) / 1e9
    if wall_s < 0.2:
        return None, None
    others = max(after.busy_s - before.busy_s - own_cpu_s, 0.0) / wall_s
    stolen = (after.stolen_s - before.stolen_s) / (wall_s * len(allowed_cores()))
    return round(others, 3), round(stolen, 4)
