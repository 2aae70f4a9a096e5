"""What it costs that a child opens a file first: python -m benchmarks.first_open [--rounds 12].

Programs of their own, in turns, in an order that changes, from `open_runner` to the first result:

  untried    a copy of the detector that ships, with EDGECNN_VERIFY=0
  first      the copy as one that was never opened here: a child opens it first
  again      the same at every later start

Each tells how long that took by the clock, and how much processor time it and its child had. The figures are medians of
the differences of neighbours, with 99 % intervals. Results go to `results/first_open.json`; exit code 1 where a first
start costs 100 ms by the clock or more, and a later one more than nothing (the interval of its processor time lies
above 0 and its median above 10 ms).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.signed_start import interval
from edgecnn.bundle.shipped import ASSETS
from edgecnn.formats import runnable
from edgecnn.measure.machine import describe_machine

RESULTS = Path(__file__).resolve().parent / "results" / "first_open.json"
BOUND_MS, NOTHING_MS = 100.0, 10.0
Taken = tuple[float, float]  # ms by the clock, ms of processor time
_PROGRAM = """
import os, sys, time
import numpy as np
from edgecnn import open_runner
frame = np.zeros((480, 640, 3), np.uint8)
start, used = time.perf_counter(), sum(os.times()[:4])
with open_runner(sys.argv[1], format=sys.argv[2], threads=1) as runner:
    runner(frame)
    print((time.perf_counter() - start) * 1e3, (sum(os.times()[:4]) - used) * 1e3)
"""


def start_ms(bundle: Path, format_name: str, environment: dict[str, str]) -> Taken:
    """Milliseconds of one start, in a program of its own: by the clock, and of processor time."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(bundle), format_name],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    wall, processor = done.stdout.split()
    return float(wall), float(processor)


def measure(format_name: str, rounds: int, folder: Path) -> dict[str, list[Taken]]:
    """Case → what its starts took."""
    copy = shutil.copytree(ASSETS / "detector.edge", folder / format_name / "copy.edge")
    times: dict[str, list[Taken]] = {"untried": [], "first": [], "again": []}
    known = {"XDG_CACHE_HOME": str(folder / format_name / "known")}
    start_ms(copy, format_name, known)  # opened by a child, noted, and in the system's cache
    rng = random.Random(0)
    for turn in range(rounds):
        environments = {
            "untried": {**known, "EDGECNN_VERIFY": "0"},
            "first": {"XDG_CACHE_HOME": str(folder / format_name / f"new-{turn}")},
            "again": known,
        }
        for case in rng.sample(list(environments), len(environments)):
            times[case].append(start_ms(copy, format_name, environments[case]))
    return times


def added(before: list[Taken], after: list[Taken]) -> dict[str, dict[str, Any]]:
    """What one way takes more than another."""
    found = {}
    for place, kind in enumerate(("wall", "processor")):
        differences = [second[place] - first[place] for first, second in zip(before, after, strict=True)]
        low, high = interval(differences)
        median = round(statistics.median(differences), 1)
        found[kind] = {"added_ms": median, "added_99_ms": [round(low, 1), round(high, 1)]}
    return found


def main() -> int:
    """Measure all formats that can be opened here, and write the figures; returns the exit code."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=12)
    given = words.parse_args()
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as place:
        for name in [name for name in runnable() if name in ("onnx", "openvino", "tflite")]:
            times = measure(name, given.rounds, Path(place))
            found[name] = {case: added(times["untried"], times[case]) for case in ("first", "again")}
            found[name]["untried_ms"] = round(statistics.median(taken[0] for taken in times["untried"]), 1)
            print(name, json.dumps(found[name]), flush=True)
    report = {
        "rounds": given.rounds,
        "formats": found,
        "load_average": os.getloadavg()[0],
        "machine": msgspec.to_builtins(describe_machine()),
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(map(is_cheap, found.values())) else 1


def is_cheap(cases: dict[str, Any]) -> bool:
    """Whether a first start costs less than the bound, or later ones nothing."""
    later = cases["again"]["processor"]
    costs_nothing = later["added_99_ms"][0] <= 0 or later["added_ms"] <= NOTHING_MS
    return bool(cases["first"]["wall"]["added_ms"] < BOUND_MS or costs_nothing)


if __name__ == "__main__":
    sys.exit(main())
