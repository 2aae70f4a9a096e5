"""Fuzz: `python -m tests.fuzz --minutes 60`, or one target, or one input again.

python -m tests.fuzz --minutes 3                       all targets, a share of the time each, two at once
python -m tests.fuzz --minutes 5 --target manifest     one
python -m tests.fuzz --again FILE --target manifest    what an input that was kept does
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.run import Row, run
from tests.fuzz.targets import TARGETS
from tests.fuzz.worker import silenced


def main() -> int:
    """Returns 1 where there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="in all")
    parser.add_argument("--target", action="append", choices=TARGETS, help="this one only; may be given several times")
    parser.add_argument("--engine", action="append", choices=("mutation", "atheris"), help="without it both")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--at-once", type=int, default=2, help="workers")
    parser.add_argument("--failures", type=Path, default=Path("build/fuzz"), help="where faults are kept")
    parser.add_argument("--again", type=Path, help="try this file alone, and show what it does")
    words = parser.parse_args()
    names = words.target or list(TARGETS)
    if words.again is not None:
        with tempfile.TemporaryDirectory() as folder, silenced():
            TARGETS[names[0]].prepare()(words.again.read_bytes(), Path(folder))
        sys.stdout.write("accepted\n")
        return 0
    rows = run(
        names,
        engines=words.engine or ("mutation", "atheris"),
        minutes=words.minutes,
        seed=words.seed,
        at_once=words.at_once,
        failures=words.failures,
        on_row=_print,
    )
    faults = sum(row.tally.faults for row in rows)
    inputs = sum(row.tally.inputs for row in rows)
    sys.stdout.write(f"{inputs} inputs, {faults} faults{f', kept in {words.failures}' if faults else ''}\n")
    return 1 if faults else 0


def _print(row: Row) -> None:
    tally = row.tally
    sys.stdout.write(
        f"{row.target:12} {row.engine:9} {tally.inputs:8} inputs, {tally.refused} refused, {tally.accepted} accepted; "
        f"other {tally.other}, slow {tally.slow}, large {tally.large}\n"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
