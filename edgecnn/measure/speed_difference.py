"""Two latency measurements of the same machine: how many times as long the second takes, and whether that is noise.

Samples of one round share the state that the machine was in, so that rounds are compared, not samples: each round's
median counts once. The ratio is the Hodges-Lehmann estimate, the interval the one that the Mann-Whitney test inverts
to; neither supposes a distribution. Source: Hollander, Wolfe, Chicken: Nonparametric Statistical Methods (3rd
edition), sections 4.2 and 4.3, on the logarithms of the medians.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from edgecnn.bounded import read_bounded
from edgecnn.errors import DataError, SpecError
from edgecnn.measure.latency import CONFIDENCE

Verdict = Literal["faster", "slower", "same"]

SHORTEST_MS, LONGEST_MS = 1e-6, 1e9  # outside, a ratio of two is not a number, or no latency was measured
_LARGEST_FILE_BYTES = 256 << 20
# What must be equal for two latencies to be of the same machine, and how it is called.
_MUST_BE_EQUAL = {
    "cpu_model": "processor",
    "board": "board",
    "architecture": "architecture",
    "cores_allowed": "cores",
    "emulated": "emulation",
}


class _Round(msgspec.Struct, frozen=True):
    n: int
    p50_ms: float


class _Machine(msgspec.Struct, frozen=True):
    cpu_model: str | None = None
    board: str | None = None
    architecture: str | None = None
    cores_allowed: int | None = None
    emulated: bool | None = None
    versions: dict[str, str] = {}


class _Row(msgspec.Struct, frozen=True):
    format: str
    precision: str
    device: str
    threads: int
    error: str | None = None
    reason: str | None = None
    on: str = ""
    pictures: str = ""
    profile: str = ""
    rounds: tuple[_Round, ...] = ()
    unstable: tuple[str, ...] = ()
    machine: _Machine = _Machine()

    @property
    def name(self) -> str:
        where = f" on {self.on}" if self.on else ""
        return f"{self.format} {self.precision}, {self.device}, threads {self.threads}{where}"

    @property
    def medians_ms(self) -> list[float]:
        return [round_.p50_ms for round_ in self.rounds if round_.n]


class _Report(msgspec.Struct, frozen=True):
    machine: _Machine
    results: tuple[_Row, ...]
    failures: tuple[_Row, ...] = ()


class SpeedDifference(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact's latency in the second measurement over that in the first.

    Attributes:
        artifact: format, precision, device and threads, for people; "" of all together.
        before_ms, after_ms: the medians of the rounds' medians; None of all together.
        ratio: second over first: 1.1 is 10 % slower.
        low, high: its 99 % interval, widened by what two runs of the same differ, where that was measured.
        verdict: "faster" or "slower" where the interval doesn't hold 1, else "same".
    """

    artifact: str
    before_ms: float | None
    after_ms: float | None
    ratio: float
    low: float
    high: float
    verdict: Verdict

    def is_slower_than(self, allowed: float) -> bool:
        """Whether it is slower by more than a share (0.05 is 5 %), with the interval's confidence."""
        return self.low > 1 + allowed


class SpeedComparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two measurements, artifact by artifact.

    Attributes:
        total: of all artifacts together: the geometric mean of the ratios; its verdict is "slower" where one artifact
            is slower, else "faster" where one is faster.
        artifacts: one by one.
        allowed: by which share an artifact may be slower.
        notes: what makes the comparison weaker.
    """

    total: SpeedDifference
    artifacts: tuple[SpeedDifference, ...]
    allowed: float
    notes: tuple[str, ...] = ()

    @property
    def too_slow(self) -> tuple[SpeedDifference, ...]:
        """The artifacts that are slower than is allowed."""
        return tuple(one for one in self.artifacts if one.is_slower_than(self.allowed))


class Measured(msgspec.Struct, frozen=True):
    """The artifacts of one measurement, by what names them; see `read_measured`.

    Attributes:
        name: of the file.
        rows: of each artifact what is compared.
        failed: artifacts that could not be measured, with the reason.
    """

    name: str
    rows: dict[str, _Row]
    failed: dict[str, str] = {}


def read_measured(path: Path) -> Measured:
    """Read what `bench --json` printed, or what `bench --report` wrote.

    Raises:
        DataError: not to be read, or something else.
    """
    try:
        content = read_bounded(path, _LARGEST_FILE_BYTES)
    except OSError as failed:
        raise DataError(f"{path} cannot be read: {failed.strerror}") from failed
    try:
        return of_document(str(path), msgspec.json.decode(content))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
        raise DataError(
            f"{path} is not a measurement: expected what `edgecnn bench --json` prints or --report writes ({wrong})"
        ) from wrong


def of_document(name: str, document: Any) -> Measured:
    """The same of a document that was read already.

    Raises:
        msgspec.ValidationError: it has another form.
        DataError: two rows of one artifact, none at all, or an impossible latency.
    """
    if isinstance(document, Mapping):
        report = msgspec.convert(document, _Report)
        rows = [msgspec.structs.replace(row, machine=report.machine) for row in (*report.results, *report.failures)]
    else:
        objects = msgspec.convert(document, list[dict[str, Any]])
        # A board that was not reached has a row that names no artifact.
        rows = [msgspec.convert(each, _Row) for each in objects if "format" in each or "on" not in each]
    measured: dict[str, _Row] = {}
    failed: dict[str, str] = {}
    for row in rows:
        wrong = next((ms for ms in row.medians_ms if not SHORTEST_MS <= ms <= LONGEST_MS), None)
        if wrong is not None:
            raise DataError(
                f"{name} gives {row.name} a latency of {wrong:g} ms: expected {SHORTEST_MS:g} to {LONGEST_MS:g} ms"
            )
        if row.name in measured or row.name in failed:
            raise DataError(f"{name} holds two measurements of {row.name}: expected one of each artifact")
        if row.medians_ms:
            measured[row.name] = row
        else:
            failed[row.name] = row.reason or row.error or "no samples"
    if not measured:
        raise DataError(f"{name} holds no latency" + "".join(f"; {what}: {why}" for what, why in failed.items()))
    return Measured(name, measured, failed)


def compare_measured(
    before: Measured, after: Measured, *, noise: Measured | None = None, allowed: float = 0.0
) -> SpeedComparison:
    """Compare the artifacts that both hold.

    Args:
        before, after: the two.
        noise: another measurement of what `before` measured: by how much these two differ, the intervals are widened.
        allowed: by which share an artifact may be slower.

    Raises:
        SpecError: they have no artifact in common, were measured on different machines, or have too few rounds.
    """
    names = [name for name in before.rows if name in after.rows]
    if not names:
        raise SpecError(
            f"{before.name} and {after.name} have no artifact in common: "
            f"{'; '.join(before.rows)} there, {'; '.join(after.rows)} here"
        )
    notes = []
    artifacts = []
    for name in names:
        first, second = before.rows[name], after.rows[name]
        _refuse_other_machine(name, first, second)
        notes += _weaker(name, first, second)
        other = None if noise is None else noise.rows.get(name)
        if noise is not None and other is None:
            raise SpecError(f"{noise.name} doesn't hold {name}: expected a second measurement of {before.name}")
        artifacts.append(_difference(name, first, second, other))
    for left, right in ((before, after), (after, before)):
        notes += [f"only in {left.name}: {name}" for name in left.rows if name not in right.rows]
    notes += [f"{after.name} could not measure {name}: {why}" for name, why in after.failed.items()]
    return SpeedComparison(total=_total(artifacts), artifacts=tuple(artifacts), allowed=allowed, notes=tuple(notes))


def _refuse_other_machine(name: str, before: _Row, after: _Row) -> None:
    for field, word in _MUST_BE_EQUAL.items():
        first, second = getattr(before.machine, field), getattr(after.machine, field)
        if first != second:
            raise SpecError(
                f"{name} was measured on different machines ({word}: {first} and {second}): "
                "expected two measurements of the same"
            )


def _weaker(name: str, before: _Row, after: _Row) -> list[str]:
    notes = []
    if before.pictures != after.pictures:
        notes.append(f"{name}: other pictures: {before.pictures}, then {after.pictures}")
    for when, row in (("before", before), ("after", after)):
        if row.unstable:
            notes.append(f"{name}: unstable {when}: {'; '.join(row.unstable)}")
    versions = before.machine.versions
    changed = [
        f"{package} {versions[package]} → {version}"
        for package, version in after.machine.versions.items()
        if package in versions and versions[package] != version
    ]
    if changed:
        notes.append(f"{name}: other versions: {', '.join(changed)}")
    return notes


def _difference(name: str, before: _Row, after: _Row, noise: _Row | None) -> SpeedDifference:
    ratio, low, high = ratio_of_medians(before.medians_ms, after.medians_ms, what=name)
    if noise is not None:
        again, *_ = ratio_of_medians(before.medians_ms, noise.medians_ms, what=name)
        apart = max(again, 1 / again)
        low, high = low / apart, high * apart
    return SpeedDifference(
        artifact=name,
        before_ms=_median(before.medians_ms),
        after_ms=_median(after.medians_ms),
        ratio=ratio,
        low=low,
        high=high,
        verdict=_verdict(low, high),
    )


def _total(artifacts: Sequence[SpeedDifference]) -> SpeedDifference:
    """All together; of one, that one."""

    def mean(values: Sequence[float]) -> float:
        return math.exp(sum(map(math.log, values)) / len(values))

    verdicts = {one.verdict for one in artifacts}
    verdict: Verdict = "slower" if "slower" in verdicts else "faster" if "faster" in verdicts else "same"
    return SpeedDifference(
        artifact="",
        before_ms=artifacts[0].before_ms if len(artifacts) == 1 else None,
        after_ms=artifacts[0].after_ms if len(artifacts) == 1 else None,
        ratio=mean([one.ratio for one in artifacts]),
        low=mean([one.low for one in artifacts]),
        high=mean([one.high for one in artifacts]),
        verdict=verdict,
    )


def _verdict(low: float, high: float) -> Verdict:
    return "slower" if low > 1 else "faster" if high < 1 else "same"


def share_of(percent: float) -> float:
    """A share of percent that an artifact may be slower by.

    Raises:
        SpecError: below 0, or no finite number.
    """
    if not 0 <= percent < math.inf:
        raise SpecError(f"--allow must be a number of percent from 0 on, got {percent:g}")
    return percent / 100


def ratio_of_medians(
    before_ms: Sequence[float],
    after_ms: Sequence[float],
    *,
    confidence: float = CONFIDENCE,
    what: str = "a measurement",
) -> tuple[float, float, float]:
    """How many times as long the second takes, with the interval of that.

    Args:
        before_ms, after_ms: a median a round.
        confidence: of the interval.
        what: whose they are, for the error.

    Returns:
        Hodges-Lehmann's estimate of the ratio, and the ends of its interval.

    Raises:
        SpecError: so few rounds that no interval has this confidence (five and five have 99 %).
    """
    outside = rank_outside(len(before_ms), len(after_ms), confidence=confidence)
    if outside is None:
        raise SpecError(
            f"{what}: {len(before_ms)} and {len(after_ms)} rounds are too few for an interval of {confidence:.0%}: "
            "five of each are enough, as bench has them by itself"
        )
    ratios = sorted(after / before for after in after_ms for before in before_ms)
    return _median(ratios), ratios[outside], ratios[-1 - outside]


def rank_outside(first: int, second: int, *, confidence: float) -> int | None:
    """How many of the sorted pairwise ratios lie outside the interval at each end; None without such an interval.

    That is the largest k with P(U <= k) <= (1 - confidence) / 2, U being Mann and Whitney's statistic of two samples
    from one distribution, whose counts are those of partitions of U into at most `first` parts of at most `second`.
    """
    if not first or not second:
        return None
    counts = _partitions(first, second)
    allowed = (1 - confidence) / 2 * sum(counts)
    total, outside = 0, None
    for statistic, count in enumerate(counts):
        total += count
        if total > allowed:
            break
        outside = statistic
    return outside


def _partitions(parts: int, largest: int) -> list[int]:
    """Coefficients of the Gaussian binomial (parts + largest over parts): exact, as integers."""
    counts = [1]
    for index in range(1, parts + 1):
        # times (1 - q^(largest + index)), divided by (1 - q^index)
        raised = largest + index
        product = counts + [0] * raised
        for power in range(len(counts)):
            product[power + raised] -= counts[power]
        for power in range(index, len(product)):
            product[power] += product[power - index]
        counts = product[: index * largest + 1]
    return counts


def _median(values: Sequence[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
