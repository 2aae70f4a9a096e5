"""Two measurements: the interval has the confidence that it claims, and noise is not called a difference."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn import compare
from edgecnn.cli._main import main
from edgecnn.errors import DataError, EdgeCnnError, SpecError
from edgecnn.measure.speed_difference import rank_outside, ratio_of_medians

MACHINE = {"cpu_model": "A processor", "architecture": "x86_64", "cores_allowed": 2, "versions": {"onnxruntime": "1.2"}}
STEADY = (10.0, 10.1, 10.2, 10.0, 9.9)


def measured_row(medians_ms: tuple[float, ...] = STEADY, **said: Any) -> dict[str, Any]:
    row = {"format": "onnx", "precision": "fp32", "device": "cpu", "threads": 1, "machine": MACHINE, "pictures": "cats"}
    return {**row, "rounds": [{"n": 20, "p50_ms": ms} for ms in medians_ms], **said}


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text(json.dumps(rows))
    return path


def times(factor: float) -> tuple[float, ...]:
    return tuple(factor * ms for ms in STEADY)


@pytest.mark.parametrize(("first", "second"), [(5, 5), (3, 6), (6, 4), (7, 7)])
def test_the_rank_is_that_of_the_exact_distribution(first: int, second: int) -> None:
    counts: Counter[int] = Counter()
    for chosen in itertools.combinations(range(first + second), first):
        rest = [place for place in range(first + second) if place not in chosen]
        counts[sum(other < place for place in chosen for other in rest)] += 1
    assert sum(counts.values())
    for confidence in (0.5, 0.9, 0.95, 0.99):
        allowed = (1 - confidence) / 2 * sum(counts.values())
        expected = [k for k in range(first * second) if sum(counts[u] for u in range(k + 1)) <= allowed]
        assert rank_outside(first, second, confidence=confidence) == (expected[-1] if expected else None)


def test_five_and_five_rounds_are_the_least_and_their_ends_the_interval() -> None:
    assert rank_outside(5, 5, confidence=0.99) == 0
    assert rank_outside(4, 5, confidence=0.99) is None
    _, low, high = ratio_of_medians((1, 2, 3, 4, 5), (10, 20, 30, 40, 50))
    assert (low, high) == (2, 50)
    with pytest.raises(SpecError, match="too few"):
        ratio_of_medians((1, 2, 3, 4), (1, 2, 3, 4, 5))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    draw = random.Random(1)
    held = 0
    for _ in range(1000):
        before = [draw.lognormvariate(0, 0.2) for _ in range(8)]
        after = [1.3 * draw.lognormvariate(0, 0.2) for _ in range(8)]
        _, low, high = ratio_of_medians(before, after, confidence=0.9)
        held += low <= 1.3 <= high
    assert 880 <= held <= 950


@given(st.lists(st.floats(0.01, 1e4), min_size=5, max_size=12), st.lists(st.floats(0.01, 1e4), min_size=5, max_size=12))
def test_the_other_way_round_it_is_the_inverse(before: list[float], after: list[float]) -> None:
    ratio, low, high = ratio_of_medians(before, after)
    _, low_back, high_back = ratio_of_medians(after, before)
    assert low <= ratio <= high
    assert low_back == pytest.approx(1 / high)
    assert high_back == pytest.approx(1 / low)


@pytest.mark.parametrize(
    ("factor", "allow", "verdict", "code"),
    [(1.0, 0, "same", 0), (1.3, 0, "slower", 1), (1.3, 50, "slower", 0), (0.7, 0, "faster", 0), (1.01, 0, "same", 0)],
)
def test_slower_than_allowed_is_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], factor: float, allow: float, verdict: str, code: int
) -> None:
    before = write(tmp_path / "a.json", measured_row())
    after = write(tmp_path / "b.json", measured_row(times(factor)))
    assert main(["compare", str(before), str(after), "--allow", str(allow), "--json"]) == code
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == verdict
    assert said["ratio"] == pytest.approx(factor)
    assert said["low"] <= said["ratio"] <= said["high"]


def test_one_slower_artifact_is_not_hidden_by_a_faster_one(tmp_path: Path) -> None:
    before = write(tmp_path / "a.json", measured_row(), measured_row(format="tflite"))
    after = write(tmp_path / "b.json", measured_row(times(2)), measured_row(times(0.1), format="tflite"))
    comparison = compare(before, after)
    assert comparison.total.verdict == "slower"
    assert [one.verdict for one in comparison.artifacts] == ["slower", "faster"]
    assert comparison.total.ratio == pytest.approx(0.2**0.5)


def test_the_difference_of_two_equal_runs_does_not_count(tmp_path: Path) -> None:
    before = write(tmp_path / "a.json", measured_row())
    again = write(tmp_path / "again.json", measured_row(times(1.5)))
    after = write(tmp_path / "b.json", measured_row(times(1.4)))
    assert compare(before, after).total.verdict == "slower"
    assert compare(before, after, noise=again).total.verdict == "same"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"machine": {**MACHINE, "cpu_model": "Another"}}, "different machines"),
        ({"machine": {**MACHINE, "cores_allowed": 4}}, "different machines"),
        ({"format": "tflite"}, "no artifact in common"),
        ({"threads": 2}, "no artifact in common"),
        ({"rounds": [{"n": 20, "p50_ms": 1.0}]}, "too few"),
    ],
)
def test_anything_that_cannot_be_compared_is_refused(tmp_path: Path, said: dict[str, Any], words: str) -> None:
    before = write(tmp_path / "a.json", measured_row())
    after = write(tmp_path / "b.json", measured_row(**said))
    with pytest.raises(SpecError, match=words):
        compare(before, after)


@pytest.mark.parametrize("ms", [0.0, -1.0, 5e-324, 9e-7, 1.1e9, 1e308])
def test_a_latency_that_nothing_has_is_refused(tmp_path: Path, ms: float) -> None:
    measured = write(tmp_path / "a.json", measured_row((*STEADY, ms)))
    with pytest.raises(DataError, match=r"a latency of .*: expected 1e-06 to 1e\+09 ms"):
        compare(measured, measured)


def test_the_shortest_and_the_longest_latency_can_be_compared(tmp_path: Path) -> None:
    before = write(tmp_path / "a.json", measured_row((1e-6,) * 5))
    after = write(tmp_path / "b.json", measured_row((1e9,) * 5))
    assert compare(before, after).total.ratio == pytest.approx(1e15)


def test_weak_points_of_a_comparison_are_reported(tmp_path: Path) -> None:
    before = write(tmp_path / "a.json", measured_row(), measured_row(format="tflite"))
    other = {**MACHINE, "versions": {"onnxruntime": "1.3"}}
    after = write(
        tmp_path / "b.json",
        measured_row(machine=other, pictures="dogs", unstable=["load 2.0"]),
        measured_row((), format="tflite", error="DeviceError", reason="it fell asleep"),
    )
    notes = "\n".join(compare(before, after).notes)
    for words in ("onnxruntime 1.2 → 1.3", "cats, then dogs", "load 2.0", "it fell asleep"):
        assert words in notes


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"[1]", b"nonsense", b"[" * 100_000, b'{"machine": {}, "results": []}', b"[{}]", b"\xff\xfe"],
)
def test_a_file_without_a_measurement_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.json"):
        compare(tmp_path / "x.json", tmp_path / "x.json")
    with pytest.raises(DataError, match=r"gone\.json cannot be read"):
        compare(tmp_path / "gone.json", tmp_path / "x.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*measured_row(), "on"]), inner),
)


@given(JSON)
def test_any_json_is_taken_or_refused(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps([{**measured_row(), **value}] if isinstance(value, dict) else value))
    with contextlib.suppress(EdgeCnnError):
        compare(path, path)


@pytest.mark.parametrize("percent", ["-1", "nan", "inf", "5%"])
def test_percent_are_a_number_from_0_on(tmp_path: Path, percent: str) -> None:
    path = str(write(tmp_path / "a.json", measured_row()))
    assert main(["compare", path, path, "--allow", percent]) == 2


def test_the_table_fits_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str], assert_readable: Any) -> None:
    path = str(write(tmp_path / "a.json", measured_row(), measured_row(format="openvino", precision="int8")))
    assert main(["compare", path, path]) == 0
    assert_readable(capsys.readouterr().out)


@pytest.mark.runtime
def test_bench_compares_itself_with_a_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bench", "default-detector", "--format", "onnx", "--threads", "1", "--iterations", "5", "--no-record"]
    assert main([*words, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)[0]
    quick = write(tmp_path / "quick.json", {**row, "rounds": [{"n": 1, "p50_ms": 0.001}] * 5})
    assert main([*words, "--baseline", str(quick), "--allow", "100"]) == 1
    said = capsys.readouterr()
    assert "is slower" in said.err
    assert "before ms" in said.out
    slow = write(tmp_path / "slow.json", {**row, "rounds": [{"n": 1, "p50_ms": 1e6}] * 5})
    report = tmp_path / "report.json"
    assert main([*words, "--baseline", str(slow), "--report", str(report), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1  # one document
    assert compare(slow, report).total.verdict == "faster"
    assert main([*words, "--baseline", str(tmp_path / "gone.json")]) == 2
