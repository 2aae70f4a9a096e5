"""What the process costs that watches verbs that write artifacts: python -m benchmarks.watched_start [--pairs 30].

Programs of their own, in turns: `edgecnn convert` of a network that isn't there, which ends at once, with a process
that watches it and without. The figures are medians of the differences of neighbours, with 99 % intervals; the memory
is the most that the watching process ever had. Results go to `results/watched_start.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.first_open import Taken, added
from edgecnn.measure.machine import describe_machine

RESULTS = Path(__file__).resolve().parent / "results" / "watched_start.json"
_WORDS = ["-m", "edgecnn", "convert", "not-there.onnx", "--out", "not-there.edge"]


def start_ms(*, watched: bool) -> tuple[Taken, float]:
    """Milliseconds by the clock and of processor time (its child's too), and its own most memory in MB."""
    with tempfile.TemporaryFile() as steps, Path(os.devnull).open("w") as nowhere:
        environment = dict(os.environ)
        if not watched:  # as the process that does the work is started
            os.set_inheritable(steps.fileno(), True)
            environment["EDGECNN_STEPS_FILE"] = str(steps.fileno())
        before, start = sum(os.times()[2:4]), time.perf_counter()
        actions = [(os.POSIX_SPAWN_DUP2, nowhere.fileno(), number) for number in (1, 2)]
        process = os.posix_spawn(sys.executable, [sys.executable, *_WORDS], environment, file_actions=actions)
        most_mb = most_memory_mb(process)
        _, status = os.waitpid(process, 0)
        taken = (time.perf_counter() - start) * 1e3, (sum(os.times()[2:4]) - before) * 1e3
    if os.waitstatus_to_exitcode(status) != 2:
        raise RuntimeError(f"it ended with {os.waitstatus_to_exitcode(status)}, not with 2")
    return taken, most_mb


def most_memory_mb(process: int) -> float:
    """The most memory that a program had until it ended, without its children: what it told last."""
    most_mb = 0.0
    while os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        most_mb = next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM:")), most_mb)
        time.sleep(0.002)
    return most_mb


def main() -> int:
    """Measure, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=30)
    pairs = parser.parse_args().pairs
    times: dict[bool, list[Taken]] = {False: [], True: []}
    memory_mb = 0.0
    for pair in range(pairs):
        for watched in (False, True) if pair % 2 else (True, False):
            taken, most_mb = start_ms(watched=watched)
            times[watched].append(taken)
            memory_mb = max(memory_mb, most_mb if watched else 0.0)
    report: dict[str, Any] = {
        "pairs": pairs,
        "added": added(times[False], times[True]),
        "memory_mb": round(memory_mb, 1),
        "load_average": os.getloadavg()[0],
        "machine": msgspec.to_builtins(describe_machine()),
    }
    RESULTS.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({key: report[key] for key in ("added", "memory_mb")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
