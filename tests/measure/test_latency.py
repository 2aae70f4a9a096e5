"""The figures that come from samples, on samples whose figures are known."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import numpy as np
import pytest

from edgecnn.measure.latency import (
    BenchFailure,
    RoundFigures,
    Samples,
    instability,
    min_samples,
    percentile,
    percentile_bound,
    row,
    samples_allowed_over,
    summarise,
)
from edgecnn.measure.machine import Conditions, CoreTimes, Machine, describe_machine
from edgecnn.measure.profiles import PROFILES
from edgecnn.measure.timing import others_share


@pytest.fixture(scope="module")
def quiet_machine() -> Machine:
    machine = describe_machine()
    return msgspec.structs.replace(machine, cores_allowed=4, conditions=Conditions(load_1min=0.1))


def rounds(*medians_ms: float, **more: object) -> list[RoundFigures]:
    return [RoundFigures(n=20, p50_ms=ms, **more) for ms in medians_ms]  # type: ignore[arg-type]


@pytest.mark.parametrize(("percent", "least"), [(50, 11), (90, 64), (95, 130), (97, 219), (99, 662), (99.9, 6636)])
def test_percentiles_need_what_mlperf_says(percent: float, least: int) -> None:
    assert min_samples(percent) == least


@pytest.mark.parametrize(("percent", "allowed"), [(90, 80), (95, 35), (99, 3)])
def test_1024_samples_allow_as_many_over_the_latency_as_mlperf_says(percent: float, allowed: int) -> None:
    assert samples_allowed_over(1024, percent) == allowed


def test_the_rule_is_the_binomial_one() -> None:
    n, over = 300, 0.1
    allowed = samples_allowed_over(n, 90)
    below = [math.comb(n, t) * over**t * (1 - over) ** (n - t) for t in range(allowed + 2)]
    assert sum(below[:-1]) <= 0.01 < sum(below)


def test_no_percentile_from_one_sample_too_few() -> None:
    assert percentile(np.arange(63.0), 90) is None
    assert percentile(np.arange(64.0), 90) == 57  # the 58th of 64: nearest rank


def test_a_percentile_stays_below_its_bound_nearly_always() -> None:
    rng = np.random.default_rng(5)
    true_p90 = -math.log(0.1)  # of the exponential distribution
    held = sum((percentile_bound(rng.exponential(size=200), 90) or 0.0) >= true_p90 for _ in range(400))
    assert held >= 0.97 * 400


def test_bound_of_few_samples_is_the_highest() -> None:
    assert percentile_bound(np.arange(64.0), 90) == 63
    assert percentile_bound(np.arange(43.0), 90) is None


def test_percentiles_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 100"):
        samples_allowed_over(10, 100)


def test_summary_of_known_samples() -> None:
    total = tuple(1_000_000 * ms for ms in range(1, 102))
    samples = Samples(total_ns=total, fit_ns=(500_000,) * 101, infer_ns=(2_000_000,) * 101, finish_ns=(250_000,) * 101)
    figures = summarise(samples)
    assert figures["n"] == 101
    assert (figures["p50_ms"], figures["p90_ms"], figures["p95_ms"], figures["p99_ms"]) == (51, 91, None, None)
    assert (figures["min_ms"], figures["max_ms"], figures["mean_ms"]) == (1, 101, 51)
    assert figures["spread"] == pytest.approx(50 / 51)
    assert figures["stages"] == {"fit": 0.5, "infer": 2.0, "finish": 0.25}
    assert set(figures["bounds_ms"]) == {"p50", "p90"}
    assert figures["bounds_ms"]["p90"] >= figures["p90_ms"]


def test_a_steady_run_on_a_quiet_machine_is_stable(quiet_machine: Machine) -> None:
    steady = rounds(5.0, 5.2, 5.1, others_busy_cores=0.02, stolen=0.0)
    assert instability(quiet_machine, steady, spread=0.03, warmup_settled=True) == ()


@pytest.mark.parametrize(
    ("measured", "message"),
    [
        (rounds(5.0, 5.2, 5.6), "rounds differ: medians from 5.00 to 5.60 ms"),
        (rounds(5.0, others_busy_cores=0.7), "other programs kept 0.7 of 4 cores busy"),
        (rounds(5.0, stolen=0.05), "the hypervisor took 5%"),
        (rounds(5.0, conditions=Conditions(throttled=0x50005)), "invalid: the board was slowed (under-voltage"),
        (rounds(5.0, conditions=Conditions(throttled=0x20000)), "slowed for a moment"),
    ],
)
def test_disturbances_are_reported(quiet_machine: Machine, measured: list[RoundFigures], message: str) -> None:
    (reason,) = instability(quiet_machine, measured, spread=0.03, warmup_settled=True)
    assert message in reason


def test_a_processor_that_slows_down_is_unstable(quiet_machine: Machine) -> None:
    slowing = [RoundFigures(n=20, p50_ms=5.0, conditions=Conditions(frequency_mhz=mhz)) for mhz in (2400, 1500)]
    (reason,) = instability(quiet_machine, slowing, spread=0.03, warmup_settled=True)
    assert reason == "frequency moved from 1500 to 2400 MHz"


def test_load_spread_and_warm_up_are_reasons_too(quiet_machine: Machine) -> None:
    loaded = msgspec.structs.replace(quiet_machine, conditions=Conditions(load_1min=3.0))
    reasons = instability(loaded, rounds(5.0), spread=0.4, warmup_settled=False)
    assert [reason.split()[0] for reason in reasons] == ["load", "wide", "still"]


def test_throttling_long_ago_does_not_count(quiet_machine: Machine) -> None:
    before = msgspec.structs.replace(quiet_machine, conditions=Conditions(load_1min=0, throttled=0x50000))
    after = rounds(5.0, conditions=Conditions(throttled=0x50000))
    assert instability(before, after, spread=0.03, warmup_settled=True) == ()


def test_other_programs_share_is_what_is_left_of_the_busy_time() -> None:
    before = CoreTimes(busy_s=100.0, stolen_s=1.0, read_ns=0)
    after = CoreTimes(busy_s=103.0, stolen_s=1.0, read_ns=2_000_000_000)
    others, stolen = others_share(before, after, own_cpu_s=2.0)
    assert (others, stolen) == (0.5, 0.0)


def test_other_programs_share_is_unknown_in_a_moment_too_short() -> None:
    moment = CoreTimes(busy_s=100.0, stolen_s=1.0, read_ns=0)
    assert others_share(moment, moment, own_cpu_s=0.0) == (None, None)
    assert others_share(None, moment, own_cpu_s=0.0) == (None, None)


@pytest.mark.parametrize("samples", [1, 3, 64, 1024])
def test_rounds_share_the_samples_exactly(samples: int) -> None:
    profile = dataclasses.replace(PROFILES["quick"], samples=samples)
    assert sum(profile.samples_in_round(turn) for turn in range(profile.rounds)) == samples


def test_profiles_carry_the_percentiles_they_promise() -> None:
    assert PROFILES["quick"].samples >= min_samples(90)
    assert PROFILES["standard"].samples >= max(min_samples(99), 1024)
    assert PROFILES["standard"].seconds >= 60


def test_a_failure_has_the_fields_of_a_row_and_says_why(quiet_machine: Machine) -> None:
    failure = BenchFailure(
        format="onnx", precision="fp32", device="npu", threads=2, error="DeviceError", reason="no npu"
    )
    printed = row(failure, quiet_machine)
    wanted = {"format", "precision", "device", "device_name", "threads", "n", "p50_ms", "p90_ms", "p99_ms"}
    assert wanted | {"stages", "cold_ms", "peak_rss_mb"} <= set(printed)
    assert (printed["n"], printed["p50_ms"], printed["reason"]) == (0, None, "no npu")
