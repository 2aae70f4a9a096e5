"""What it costs that a child opens a file first: the start of a program with the detector that ships, and with a copy.

    python benchmarks/first_open.py [--rounds 7] [--out FILE.json]

Four cases in turns, each a process of its own, from `open_runner` to the first result:

  ships      the bundle that ships: counts as opened
  untried    a copy, with EDGECNN_VERIFY=0
  first      a copy that was never opened here: a child opens it first
  again      the same copy at every later start
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

from edgecnn.bundle.shipped import ASSETS
from edgecnn.formats import runnable

_PROGRAM = """
import sys, time
import numpy as np
from edgecnn import open_runner
frame = np.zeros((480, 640, 3), np.uint8)
start = time.perf_counter()
with open_runner(sys.argv[1], format=sys.argv[2]) as runner:
    runner(frame)
    print((time.perf_counter() - start) * 1e3)
"""


def started_ms(bundle: Path, format_name: str, environment: dict[str, str]) -> float:
    """Time of one start, in milliseconds."""
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(bundle), format_name],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return float(done.stdout)


def measure(format_name: str, rounds: int, folder: Path) -> dict[str, list[float]]:
    """Case → times in milliseconds."""
    copy = shutil.copytree(ASSETS / "detector.edge", folder / format_name / "copy.edge")
    times: dict[str, list[float]] = {"ships": [], "untried": [], "first": [], "again": []}
    for turn in range(rounds):
        cache = {"XDG_CACHE_HOME": str(folder / format_name / f"cache-{turn}")}
        times["ships"].append(started_ms(ASSETS / "detector.edge", format_name, cache))
        times["untried"].append(started_ms(copy, format_name, {**cache, "EDGECNN_VERIFY": "0"}))
        times["first"].append(started_ms(copy, format_name, cache))
        times["again"].append(started_ms(copy, format_name, cache))
    return times


def main() -> None:
    """Measure all formats that can be opened here, and print or write the figures."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--rounds", type=int, default=7)
    words.add_argument("--out", type=Path)
    given = words.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as place:
        for format_name in [name for name in runnable() if name in ("onnx", "openvino", "tflite")]:
            times = measure(format_name, given.rounds, Path(place))
            found[format_name] = {
                case: {"median_ms": round(statistics.median(some), 1), "least_ms": round(min(some), 1)}
                for case, some in times.items()
            }
            for case, figures in found[format_name].items():
                print(f"{format_name:9} {case:8} {figures['median_ms']:8.1f} ms (least {figures['least_ms']:.1f})")
    if given.out is not None:
        given.out.write_text(json.dumps({"rounds": given.rounds, "formats": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
