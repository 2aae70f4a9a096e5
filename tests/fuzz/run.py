"""A run over targets and engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from tests.fuzz.outcome import Tally
from tests.fuzz.targets import TARGETS
from tests.fuzz.watch import fuzz


@dataclass(frozen=True)
class Row:
    """What came of one target and one engine."""

    target: str
    engine: str
    tally: Tally


def run(
    targets: Sequence[str],
    *,
    engines: Sequence[str],
    minutes: float,
    seed: int,
    at_once: int,
    failures: Path,
    on_row: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Fuzz each target with each engine, with an equal share of the time.

    Args:
        targets: names.
        engines: "mutation", "atheris"; the second is left out where it is not installed.
        minutes: in all, beside what the processes take to start.
        seed: of the generators.
        at_once: workers.
        failures: a folder for inputs that are faults.
        on_row: called with each result.
    """
    engines = [engine for engine in engines if engine != "atheris" or find_spec("atheris") is not None]
    pairs = [
        (name, engine) for name, engine in product(targets, engines) if engine != "atheris" or TARGETS[name].guided
    ]
    seconds = minutes * 60 * at_once / len(pairs)

    def one(pair: tuple[str, str]) -> Row:
        target, engine = pair
        row = Row(target, engine, fuzz(TARGETS[target], engine=engine, seconds=seconds, seed=seed, failures=failures))
        on_row(row)
        return row

    with ThreadPoolExecutor(at_once) as workers:
        return list(workers.map(one, pairs))
