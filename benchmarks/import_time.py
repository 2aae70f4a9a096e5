"""How long `import edgecnn` and `edgecnn --help` take: python benchmarks/import_time.py [--out FILE.json].

Each sample is a fresh interpreter; the time of one that imports nothing is subtracted from `import edgecnn`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from edgecnn.measure.machine import describe_machine

LIMIT_MS = 150
CASES = {
    "nothing": "pass",
    "import edgecnn": "import edgecnn",
    "build the command line": "import edgecnn.cli._main",
    "open_runner found": "import edgecnn; edgecnn.open_runner",
}


def once_ms(statement: str) -> float:
    """Wall time of a fresh interpreter that runs one statement, in ms."""
    start = time.perf_counter_ns()
    subprocess.run([sys.executable, "-P", "-c", statement], check=True)
    return (time.perf_counter_ns() - start) / 1e6


def main() -> int:
    """Measure and write; 1 where `import edgecnn` takes longer than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "import_time.json")
    parser.add_argument("--samples", type=int, default=30)
    options = parser.parse_args()
    samples: dict[str, list[float]] = {name: [] for name in CASES}
    for statement in CASES.values():
        once_ms(statement)  # compiles and fills the page cache
    for _ in range(options.samples):
        for name, statement in CASES.items():  # in turns, so that a busy moment hits all alike
            samples[name].append(once_ms(statement))
    medians = {name: statistics.median(values) for name, values in samples.items()}
    own_ms = medians["import edgecnn"] - medians["nothing"]
    document = {
        "question": "how long does `import edgecnn` take?",
        "import_edgecnn_ms": round(own_ms, 2),
        "limit_ms": LIMIT_MS,
        "median_ms": {name: round(value, 2) for name, value in medians.items()},
        "samples_ms": {name: [round(value, 2) for value in values] for name, values in samples.items()},
        "machine": msgspec.to_builtins(describe_machine()),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    print(f"import edgecnn: {own_ms:.1f} ms beyond the interpreter (limit {LIMIT_MS}); written: {options.out}")
    return int(own_ms > LIMIT_MS)


if __name__ == "__main__":
    sys.exit(main())
