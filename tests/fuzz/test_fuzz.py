"""What is tried for hours by hand is tried here for moments: targets accept their seeds, and withstand mutations."""

from __future__ import annotations

import random
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.fuzz.mutate import mutated
from tests.fuzz.outcome import Blackboard, Tally
from tests.fuzz.run import run
from tests.fuzz.target import SEEDS, Attempt, Target
from tests.fuzz.targets import TARGETS
from tests.fuzz.watch import fuzz
from tests.fuzz.worker import Trial, silenced

LIGHT = [
    pytest.param(name, marks=[getattr(pytest.mark, need) for need in target.needs])
    for name, target in TARGETS.items()
    if not target.heavy
]
_MINUTES = 3.0


@pytest.mark.parametrize("name", LIGHT)
def test_seeds_are_accepted_and_mutations_of_them_withstood(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    trial = Trial(target, target.prepare(), Blackboard(tmp_path / "board"), tmp_path / "failures")
    seeds, rng = target.seeds(), random.Random(1)
    accepted = [trial(content) for content in seeds]
    assert any(accepted), "no seed is accepted"
    for _ in range(20):
        trial(mutated(rng.choice(seeds), rng, words=target.words, others=seeds))
    tally = Blackboard(tmp_path / "board").tally
    assert tally.inputs == len(seeds) + 20
    assert tally.faults == 0, [path.read_text() for path in (tmp_path / "failures").rglob("*.txt")]


def test_all_seeds_are_small_and_belong_to_a_target() -> None:
    files = [path for path in SEEDS.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == set(TARGETS)
    assert sum(path.stat().st_size for path in files) < 300_000


def test_mutations_repeat_with_their_seed_and_change_what_they_get() -> None:
    content = TARGETS["manifest"].seeds()[0]
    first = [mutated(content, random.Random(n)) for n in range(50)]
    assert first == [mutated(content, random.Random(n)) for n in range(50)]
    assert sum(changed != content for changed in first) > 45


def _target(attempt: Attempt) -> Target:
    return Target(name="manifest", title="", prepare=lambda: attempt)


def test_an_error_outside_the_family_is_a_fault_and_is_kept(tmp_path: Path) -> None:
    def attempt(content: bytes, folder: Path) -> None:
        print("noise")  # noqa: T201
        raise ValueError("not of the family")

    trial = Trial(_target(attempt), attempt, Blackboard(tmp_path / "board"), tmp_path / "failures")
    trial(b"abc")
    assert Blackboard(tmp_path / "board").tally == Tally(inputs=1, other=1)
    (kept,) = (tmp_path / "failures").rglob("*.bin")
    assert kept.read_bytes() == b"abc"


def test_memory_beyond_the_bound_is_a_fault(tmp_path: Path) -> None:
    def attempt(content: bytes, folder: Path) -> None:
        bytearray(1200 << 20)

    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak of earlier tests in this process
    trial = Trial(_target(attempt), attempt, Blackboard(tmp_path / "board"), tmp_path / "failures")
    trial(b"abc")
    assert Blackboard(tmp_path / "board").tally == Tally(inputs=1, large=1)


def test_a_crash_is_counted_and_the_next_worker_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os\n"
        "from tests.fuzz import target\n"
        "def crash(self):\n"
        "    return [b'crash']\n"
        "target.Target.seeds = crash\n"
        "from tests.fuzz.targets import documents\n"
        "object.__setattr__(documents.TARGETS[0], 'prepare', lambda: lambda content, folder: os.abort())\n"
    )
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    tally = fuzz(TARGETS["manifest"], engine="mutation", seconds=1.5, seed=0, failures=tmp_path / "failures")
    assert tally.other == tally.inputs > 0
    assert next((tmp_path / "failures").rglob("other--6-*.bin")).read_bytes() == b"crash"


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed")
def test_atheris_finds_its_way_in(tmp_path: Path) -> None:
    tally = fuzz(TARGETS["config"], engine="atheris", seconds=3, seed=0, failures=tmp_path)
    assert tally.inputs > 100
    assert tally.accepted > 0 and tally.refused > 0 and tally.faults == 0


@pytest.mark.torch
@pytest.mark.runtime
@pytest.mark.server
@pytest.mark.slow
def test_minutes_of_both_engines_find_nothing(tmp_path: Path) -> None:
    rows = run(list(TARGETS), engines=("mutation", "atheris"), minutes=_MINUTES, seed=0, at_once=2, failures=tmp_path)
    kept = {str(path.relative_to(tmp_path)): path.read_text()[-300:] for path in tmp_path.rglob("*.txt")}
    assert sum(row.tally.faults for row in rows) == 0, kept
    never = {"rtsp"}  # a whole session is more than one answer
    assert {row.target for row in rows if row.tally.accepted} | never == set(TARGETS)


def test_what_is_printed_in_the_middle_is_not_seen(capsys: pytest.CaptureFixture[str]) -> None:
    with silenced():
        print("noise")  # noqa: T201
    assert capsys.readouterr().out == ""
