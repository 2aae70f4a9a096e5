"""What verifying a signature adds to a start: python -m benchmarks.signed_start [--pairs 40].

Programs of their own, in turns: each opens a runner on a copy of the detector that ships with edgecnn (a nano network,
6.5 MB in three formats), one with a trusted key and one without, and tells how long that took from before the first
import of edgecnn, and how much processor time; everything that was opened before is remembered, as on a device that
starts again. The figures are medians of the differences of neighbours, with 99 % intervals. Results go to
`results/signed_start.json`; exit code 1 where 50 ms of processor time or more are added: on a machine that other
programs keep busy, the wall clock tells little.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

import edgecnn
from benchmarks.tampering import keys
from edgecnn.bundle.shipped import ASSETS
from edgecnn.measure.machine import describe_machine

RESULTS = Path(__file__).resolve().parent / "results" / "signed_start.json"
BOUND_MS = 50.0
Taken = tuple[float, float]  # ms by the clock, ms of processor time
_START = """
import sys, time
start = time.perf_counter()
import edgecnn
words = {"trusted_keys": sys.argv[2]} if len(sys.argv) > 2 else {}
runner = edgecnn.open_runner(sys.argv[1], format="FORMAT", threads=1, **words)
print((time.perf_counter() - start) * 1e3, time.process_time() * 1e3)
"""


def start_ms(format_name: str, *words: Path) -> tuple[float, float]:
    """Milliseconds of one start in a program of its own: by the clock, and of processor time."""
    command = [sys.executable, "-c", _START.replace("FORMAT", format_name), *map(str, words)]
    wall, processor = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return float(wall), float(processor)


def difference(plain: list[float], signed: list[float]) -> dict[str, Any]:
    """What is added: the median of the differences of neighbours."""
    added = [after - before for before, after in zip(plain, signed, strict=True)]
    return {
        "plain_ms": round(statistics.median(plain), 1),
        "signed_ms": round(statistics.median(signed), 1),
        "added_ms": round(statistics.median(added), 1),
        "added_99_ms": [round(bound, 1) for bound in interval(added)],
    }


def interval(values: list[float]) -> tuple[float, float]:
    """99 % interval of the median, by order statistics (normal approximation of the binomial)."""
    ordered = sorted(values)
    reach = 2.576 * len(values) ** 0.5 / 2
    low, high = int(len(values) / 2 - reach), int(len(values) / 2 + reach)
    return ordered[max(0, low)], ordered[min(len(ordered) - 1, high)]


def main() -> int:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--formats", nargs="+", default=["onnx", "tflite"])
    words = parser.parse_args()
    figures: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["EDGECNN_STATE"] = str(folder / "state")
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        private, public = keys(folder, "key")
        bundle = shutil.copytree(ASSETS / "detector.edge", folder / "street.edge")
        edgecnn.sign(bundle, key=private)
        for name in words.formats:
            plain: list[tuple[float, float]] = []
            signed: list[tuple[float, float]] = []
            ways: tuple[tuple[list[tuple[float, float]], tuple[Path, ...]], ...] = (
                (plain, (bundle,)),
                (signed, (bundle, public)),
            )
            for _, given in ways:
                start_ms(name, *given)  # opened once by a child, noted, and in the system's cache
            for pair in range(words.pairs):
                for taken, given in ways if pair % 2 else reversed(ways):
                    taken.append(start_ms(name, *given))
            figures[name] = {
                kind: difference([each[place] for each in plain], [each[place] for each in signed])
                for place, kind in enumerate(("wall", "processor"))
            }
    report = {
        "pairs": words.pairs,
        "bytes": sum(file.stat().st_size for file in (ASSETS / "detector.edge").iterdir()),
        "bound_ms": BOUND_MS,
        "figures": figures,
        "load_average": os.getloadavg()[0],
        "machine": msgspec.to_builtins(describe_machine()),
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0 if all(each["processor"]["added_ms"] < BOUND_MS for each in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
