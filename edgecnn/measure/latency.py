"""Latency figures: which percentiles a sample is large enough for, and whether a run was stable.

One picture at a time is timed (MLPerf's single stream): from the picture in memory to the Result, that is
fit + infer + finish, without reading a camera or a file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from edgecnn.bundle.evidence import LayerTime, Opened, ParityEvidence
from edgecnn.measure.machine import Conditions, Machine

CONFIDENCE = 0.99
PERCENTILES = (50, 90, 95, 99)
STAGES = ("fit", "infer", "finish")

_ROUNDS_DIFFER = 0.10
_WIDE_SPREAD = 0.15
_OTHERS_BUSY = 0.10  # cores
_STOLEN = 0.02  # of the time
_LOADED = 0.5  # runnable tasks per core before the start
_FREQUENCY_MOVED = 0.10


class RoundFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One round of one artifact.

    Attributes:
        n: number of samples.
        p50_ms: their median, end to end.
        others_busy_cores: cores that other programs kept busy meanwhile; None where the system doesn't report it.
        stolen: share of the cores' time that the hypervisor gave to others.
        conditions: the machine's state right after the round.
    """

    n: int
    p50_ms: float
    others_busy_cores: float | None = None
    stolen: float | None = None
    conditions: Conditions = Conditions()


class ColdStart(msgspec.Struct, frozen=True, kw_only=True):
    """Start-up times of an artifact's process, part by part.

    `cold_ms` of a result is runtime_import + open + first: from the request for the runner to the first result. What a
    Python program needs before that (the interpreter, and edgecnn with numpy and OpenCV) is listed separately. Files
    may be in the system's page cache: a first start after boot also waits for the disk.

    Attributes:
        interpreter_ms: from starting the process to its first line.
        import_ms: import of edgecnn, numpy and OpenCV.
        runtime_import_ms: import of the runtime.
        open_ms: reading the bundle, checking hashes, compiling the graph.
        first_ms: the first picture, to its result.
    """

    interpreter_ms: float
    import_ms: float
    runtime_import_ms: float
    open_ms: float
    first_ms: float

    @property
    def cold_ms(self) -> float:
        """From opening to the first result, including the runtime's import."""
        return self.runtime_import_ms + self.open_ms + self.first_ms


class Samples(msgspec.Struct, frozen=True, kw_only=True):
    """Raw samples in the order they were taken, after warm-up, in nanoseconds; percentiles come from these.

    Attributes:
        total_ns: from the picture to the Result, in the caller.
        fit_ns, infer_ns, finish_ns: the stages.
    """

    total_ns: tuple[int, ...]
    fit_ns: tuple[int, ...]
    infer_ns: tuple[int, ...]
    finish_ns: tuple[int, ...]


class BenchResult(msgspec.Struct, frozen=True, kw_only=True):
    """Measurements of one artifact on one device.

    Attributes:
        format, precision: what ran.
        device, device_name: the requested device, and the name of the CPU, GPU or NPU.
        runtime, provider: package and version, and the runtime's name for what executed.
        threads: threads per inference.
        ran_on: proof of execution.
        n: number of samples; each uses another picture than the one before.
        p50_ms, p90_ms, p95_ms, p99_ms: end to end; None where n is too small for the percentile (`min_samples`).
        bounds_ms: "p90" → an upper bound of the percentile at 99 % confidence, where n is large enough.
        mean_ms, min_ms, max_ms: end to end.
        spread: interquartile range divided by the median, end to end.
        stages: medians in ms of "fit", "infer", "finish".
        cold_ms: see `ColdStart`.
        cold: its parts.
        warmup_n, warmup_settled: calls before the samples, and whether the median had settled.
        peak_rss_mb: peak memory of the process in MB of 10^6 bytes, including its pictures (`pictures_mb`).
        file_bytes: size of the artifact's files.
        sha256: hash of the opened file.
        rounds: figures round by round.
        unstable: reasons not to trust the figures; empty where there are none.
        profile: the profile that decided how long to measure.
        pictures: the pictures used ("photographs, 640x480").
        pictures_mb: memory of those pictures.
        measured_utc: time of the measurement.
        agreement: comparison of an accelerator's answers with the CPU's on the same artifact; beyond the precision's
            limit the artifact fails. None on the CPU.
        layers: the runtime's operators, slowest first; empty where not requested, or where `layers_missing` says why.
        layers_missing: why there are none, although requested.
            samples: raw samples.
    """

    format: str
    precision: str
    device: str
    device_name: str
    runtime: str
    provider: str
    threads: int
    ran_on: Opened
    n: int
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    bounds_ms: dict[str, float]
    mean_ms: float
    min_ms: float
    max_ms: float
    spread: float
    stages: dict[str, float]
    cold_ms: float
    cold: ColdStart
    warmup_n: int
    warmup_settled: bool
    peak_rss_mb: float
    file_bytes: int
    sha256: str
    rounds: tuple[RoundFigures, ...]
    unstable: tuple[str, ...]
    profile: str
    pictures: str
    pictures_mb: float
    measured_utc: str
    samples: Samples
    agreement: ParityEvidence | None = None
    layers: tuple[LayerTime, ...] = ()
    layers_missing: str = ""

    def figures(self) -> dict[str, Any]:
        """All but the raw samples, as plain values, for `bench --json`."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        del plain["samples"]
        return plain


class BenchFailure(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact that could not be measured.

    Attributes:
        format, precision, device, threads: as requested.
        error: class of the error.
        reason: the error's message.
        exit_code: the exit code of that class.
    """

    format: str
    precision: str
    device: str
    threads: int
    error: str
    reason: str
    exit_code: int = 3


class BenchReport(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run: results, failures and the machine.

    Attributes:
        bundle: the bundle's name.
        machine: the machine's description at the start.
        results: in the order of the bundle's artifacts.
        failures: artifacts that could not be measured.
        notes: further remarks for the user.
    """

    bundle: str
    machine: Machine
    results: tuple[BenchResult, ...]
    failures: tuple[BenchFailure, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def fastest(self) -> BenchResult | None:
        """The result with the smallest median; None without results."""
        measured = [result for result in self.results if result.p50_ms is not None]
        return min(measured, key=lambda result: result.p50_ms or math.inf, default=None)


def summarise(samples: Samples) -> dict[str, Any]:
    """The figures computed from samples alone, named as in `BenchResult`."""
    total_ms = np.asarray(samples.total_ns, np.float64) / 1e6
    lower, median, upper = np.percentile(total_ms, (25, 50, 75)).tolist()
    known = {p: percentile(total_ms, p) for p in PERCENTILES}
    bounds = {p: percentile_bound(total_ms, p) for p in PERCENTILES}
    return {
        "n": len(total_ms),
        **{f"p{p}_ms": value for p, value in known.items()},
        "bounds_ms": {f"p{p}": value for p, value in bounds.items() if value is not None},
        "mean_ms": float(total_ms.mean()),
        "min_ms": float(total_ms.min()),
        "max_ms": float(total_ms.max()),
        "spread": (upper - lower) / median,
        "stages": {stage: float(np.median(getattr(samples, f"{stage}_ns"))) / 1e6 for stage in STAGES},
    }


def percentile(samples: np.ndarray, percent: float) -> float | None:
    """The percentile by nearest rank; None where there are fewer samples than it needs."""
    if len(samples) < min_samples(percent):
        return None
    return float(np.percentile(samples, percent, method="inverted_cdf"))


def percentile_bound(samples: np.ndarray, percent: float, *, confidence: float = CONFIDENCE) -> float | None:
    """An upper bound of the percentile at this confidence; None where there are too few samples.

    Source: MLPerf Inference's early stopping (inference_rules.adoc, appendix on early stopping): with t samples
    allowed over the latency, the t - 1 highest are discarded and the highest of the rest is reported.
    """
    allowed = samples_allowed_over(len(samples), percent, confidence=confidence)
    if allowed < 1:
        return None
    return float(np.sort(samples)[len(samples) - allowed])


@lru_cache(maxsize=64)
def min_samples(percent: float, *, confidence: float = CONFIDENCE) -> int:
    """Number of samples that a percentile needs before it may be reported.

    Source: MLPerf Inference's early stopping with tolerance d = 0 (inference_rules.adoc; loadgen/early_stopping.cc):
    the least n for which at most one sample in n above the percentile has a probability of at most 1 - confidence.
    At 99 %: p50 11, p90 64, p95 130, p97 219, p99 662, p99.9 6636.
    """
    n = 1
    while samples_allowed_over(n, percent, confidence=confidence) < 1:
        n *= 2
    low, high = n // 2, n  # the first that suffices lies in (low, high]
    while high - low > 1:
        middle = (low + high) // 2
        if samples_allowed_over(middle, percent, confidence=confidence) < 1:
            low = middle
        else:
            high = middle
    return high


def samples_allowed_over(n: int, percent: float, *, confidence: float = CONFIDENCE) -> int:
    """The most samples t of n with P(X <= t) <= 1 - confidence, X ~ Binomial(n, 1 - percent / 100); -1 if none."""
    if not 0 < percent < 100:
        raise ValueError(f"a percentile lies between 0 and 100, got {percent}")
    over = 1 - percent / 100
    total = 0.0
    for t in range(n + 1):
        # log of C(n, t) over^t (1 - over)^(n - t): the plain product underflows from a few thousand samples on
        choose = math.lgamma(n + 1) - math.lgamma(t + 1) - math.lgamma(n - t + 1)
        total += math.exp(choose + t * math.log(over) + (n - t) * math.log1p(-over))
        if total > 1 - confidence:
            return t - 1
    return n


def instability(
    machine: Machine, rounds: Sequence[RoundFigures], *, spread: float, warmup_settled: bool
) -> tuple[str, ...]:
    """Reasons not to trust the figures, most important first; empty where there are none."""
    reasons = list(_slowed_board(machine.conditions, [r.conditions for r in rounds]))
    medians = [r.p50_ms for r in rounds if r.n]
    if len(medians) > 1 and max(medians) > min(medians) * (1 + _ROUNDS_DIFFER):
        reasons.append(f"rounds differ: medians from {min(medians):.2f} to {max(medians):.2f} ms")
    others = _mean([r.others_busy_cores for r in rounds])
    if others is not None and others > _OTHERS_BUSY:
        reasons.append(f"other programs kept {others:.1f} of {machine.cores_allowed} cores busy")
    stolen = _mean([r.stolen for r in rounds])
    if stolen is not None and stolen > _STOLEN:
        reasons.append(f"the hypervisor took {stolen:.0%} of the time")
    frequencies = [f for r in rounds if (f := r.conditions.frequency_mhz) is not None]
    if frequencies and max(frequencies) > min(frequencies) * (1 + _FREQUENCY_MOVED):
        reasons.append(f"frequency moved from {min(frequencies):.0f} to {max(frequencies):.0f} MHz")
    load = machine.conditions.load_1min
    if load is not None and load > _LOADED * machine.cores_allowed:
        reasons.append(f"load {load:.1f} on {machine.cores_allowed} cores at the start")
    if spread > _WIDE_SPREAD:
        reasons.append(f"wide spread: the middle half covers {spread:.0%} of the median")
    if not warmup_settled:
        reasons.append("still changing at the end of the warm-up")
    return tuple(reasons)


def _slowed_board(before: Conditions, after: Sequence[Conditions]) -> list[str]:
    words = dict.fromkeys(word for state in (before, *after) for word in state.throttled_now)
    reasons = [f"invalid: the board was slowed ({', '.join(words)})"] if words else []
    # The upper bits show what has occurred since boot: a new one shows an event between two readings.
    occurred = 0
    for state in after:
        occurred |= (state.throttled or 0) >> 16
    if not words and occurred & ~((before.throttled or 0) >> 16):
        reasons.append("invalid: the board was slowed for a moment")
    return reasons


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def row(outcome: BenchResult | BenchFailure, machine: Machine) -> dict[str, Any]:
    """One object of `bench --json`; a failure has the same fields, empty, with `error` and `reason`."""
    if isinstance(outcome, BenchResult):
        return {**outcome.figures(), "error": None, "reason": None, "machine": msgspec.to_builtins(machine)}
    empty: Mapping[str, Any] = {
        "device_name": None,
        "n": 0,
        "p50_ms": None,
        "p90_ms": None,
        "p99_ms": None,
        "stages": dict.fromkeys(STAGES),
        "cold_ms": None,
        "peak_rss_mb": None,
    }
    return {**msgspec.to_builtins(outcome), **empty, "machine": msgspec.to_builtins(machine)}
