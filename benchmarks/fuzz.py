"""Fuzz everything that reads what others made, and count: python -m benchmarks.fuzz --minutes 60 [--go-on].

Each target gets an equal share of the time, half by mutation of real files and half guided by coverage (atheris).
Results go to `results/fuzz.json`, from which `docs/generate.py` makes a table; exit code 1 where an input ended in
anything but an acceptance or an error of edgecnn's family, took more than 10 s or more than 1 GB. With `--go-on`,
counts are added to those that are there, under another seed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import msgspec

from edgecnn.measure.machine import describe_machine
from tests.fuzz.outcome import Tally
from tests.fuzz.run import Row, run
from tests.fuzz.targets import TARGETS

RESULTS = Path(__file__).resolve().parent / "results" / "fuzz.json"


def main() -> int:
    """Fuzz, add up, write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--target", action="append", choices=TARGETS)
    parser.add_argument("--go-on", action="store_true", help="add to what is there")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--failures", type=Path, default=Path("build/fuzz"))
    words = parser.parse_args()
    before: dict[str, Any] = json.loads(RESULTS.read_text()) if words.go_on and RESULTS.exists() else {}
    rounds = int(before.get("rounds", 0))
    names = words.target or list(TARGETS)
    rows = run(
        names,
        engines=("mutation", "atheris"),
        minutes=words.minutes,
        seed=1000 + rounds,
        at_once=words.at_once,
        failures=words.failures,
        on_row=lambda row: print(row, flush=True),
    )
    targets = added(before.get("targets", {}), rows)
    document = {
        "machine": msgspec.to_builtins(describe_machine()),
        "rounds": rounds + 1,
        "minutes": before.get("minutes", 0.0) + words.minutes,
        "titles": {name: TARGETS[name].title for name in targets},
        "targets": targets,
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    faults = sum(
        tally["other"] + tally["slow"] + tally["large"] for engines in targets.values() for tally in engines.values()
    )
    return 1 if faults else 0


def added(before: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """Counts by target and engine: those from before, and those of the rows."""
    targets: dict[str, Any] = {name: dict(engines) for name, engines in before.items()}
    for row in rows:
        engines = targets.setdefault(row.target, {})
        tally = Tally(**engines.get(row.engine, {})) + row.tally
        engines[row.engine] = vars(tally)
    return {name: targets[name] for name in TARGETS if name in targets}


if __name__ == "__main__":
    sys.exit(main())
