"""What a frame costs beyond inference in the C++ runner and in Python's: python -m benchmarks.cpp_overhead.

Builds `runners/cpp` as the how-to says and opens each network that ships in both runners, in one process and so with
one OpenVINO, on one core. Both answer the same pictures, one after the other, and take turns in who is first; their
answers must be equal to the bit. What is beyond inference is the time of the whole call without the stage `infer`: of
C++, by its C function from Python's ctypes, which counts against it; of Python, the copies into and out of OpenVINO are
in its `infer`, which counts for it. Figures are medians; intervals are of the median of the pairs' differences, from
drawing pairs again.

Results go to `results/cpp_overhead.json`, from which docs/generate.py writes the table; exit code 1 where a C++ frame
does not cost less.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from ctypes import byref, c_void_p
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.peers import median_and_interval
from edgecnn import Runner, open_runner
from edgecnn.bundle.shipped import ASSETS
from edgecnn.measure.machine import describe_machine, read_core_times
from edgecnn.measure.timed_pictures import default_pictures
from edgecnn.measure.timing import others_share
from edgecnn.results import UInt8Array
from tests.builders.cpp_runner import CppRunner, Library, bits, build

RESULTS = Path(__file__).resolve().parent / "results" / "cpp_overhead.json"
NETWORKS = {"detect": "detector.edge", "segment": "segmenter.edge"}
SIZES_PX = ((640, 480), (1920, 1080))
STAGES = ("whole", "infer", "fit", "finish", "beyond")
_WARMUP_CALLS = 16
Call = Callable[[UInt8Array], dict[str, int]]  # nanoseconds by stage


def of_python(runner: Runner) -> Call:
    """A call as a program makes it."""

    def call(picture: UInt8Array) -> dict[str, int]:
        start = time.perf_counter_ns()
        runner(picture)
        whole, times = time.perf_counter_ns() - start, runner.stage_times
        return by_stage(whole, times.fit_ns, times.infer_ns, times.finish_ns)

    return call


def of_cpp(runner: CppRunner) -> Call:
    """The C functions that a program calls for a frame."""
    c, result = runner.shared.c, c_void_p()

    def call(picture: UInt8Array) -> dict[str, int]:
        height, width, _ = picture.shape
        data, stride, place = picture.ctypes.data, picture.strides[0], byref(result)
        start = time.perf_counter_ns()
        status = c.edgecnn_run(runner.handle, data, height, width, stride, place)
        c.edgecnn_result_free(result)
        whole = time.perf_counter_ns() - start
        runner.shared.check(status)
        return by_stage(whole, *runner.stage_times_ns())

    return call


def by_stage(whole: int, fit: int, infer: int, finish: int) -> dict[str, int]:
    """As in STAGES."""
    return {"whole": whole, "infer": infer, "fit": fit, "finish": finish, "beyond": whole - infer}


def in_turns(calls: dict[str, Call], pictures: list[UInt8Array], rounds: int) -> dict[str, Any]:
    """Milliseconds of each side, and what one costs more than the other."""
    taken: dict[str, list[dict[str, int]]] = {side: [] for side in calls}
    for number in range(-_WARMUP_CALLS, rounds * len(pictures)):
        order = list(calls) if number % 2 else list(reversed(calls))
        for side in order:
            times = calls[side](pictures[number % len(pictures)])
            if number >= 0:
                taken[side].append(times)
    each_ms = {
        side: {stage: np.array([times[stage] for times in all_times]) / 1e6 for stage in STAGES}
        for side, all_times in taken.items()
    }
    return {
        "ms": {
            side: {stage: round(float(np.median(values)), 4) for stage, values in stages.items()}
            for side, stages in each_ms.items()
        },
        "python_costs_more_ms": median_and_interval(each_ms["python"]["beyond"] - each_ms["cpp"]["beyond"]),
    }


def measure(library: Library, task: str, size_px: tuple[int, int], rounds: int) -> dict[str, Any]:
    """One network on pictures of one size."""
    bundle, pictures = ASSETS / NETWORKS[task], default_pictures(size_px)
    with (
        open_runner(bundle, format="openvino", threads=1) as python,
        library.open(bundle, precision=python.precision, threads=1) as cpp,
    ):
        assert all(bits(python(picture)) == bits(cpp(picture)) for picture in pictures), "answers differ"
        before, cpu_before = read_core_times(), time.process_time()
        row = in_turns({"python": of_python(python), "cpp": of_cpp(cpp)}, pictures, rounds)
        others, _ = others_share(before, read_core_times(), own_cpu_s=time.process_time() - cpu_before)
        named = {"task": task, "precision": python.precision, "size_px": size_px, "pairs": rounds * len(pictures)}
    return {**named, "others_busy_cores": others, **row}


def main() -> int:
    """Build, measure, write; 1 where C++ does not cost less."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="over eight pictures")
    parser.add_argument("--built", type=Path, help="a folder with libedgecnn.so; without it, it is built")
    parser.add_argument("--out", type=Path, default=RESULTS)
    words = parser.parse_args()
    if len(cores := os.sched_getaffinity(0)) > 1:  # OpenCV and numpy take all that they find as they are loaded
        os.sched_setaffinity(0, {max(cores)})
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.cpp_overhead", *sys.argv[1:]])
    with tempfile.TemporaryDirectory() as folder:
        library = Library(words.built or build(Path(folder)))
        rows = [measure(library, task, size, words.rounds) for task in NETWORKS for size in SIZES_PX]
    for row in rows:
        ms, more = row["ms"], row["python_costs_more_ms"]
        print(
            f"{row['task']:8} {row['size_px'][0]}x{row['size_px'][1]}: beyond inference, Python "
            f"{ms['python']['beyond']:.3f} ms, C++ {ms['cpp']['beyond']:.3f} ms: Python costs {more['value']:+.3f} ms "
            f"more [{more['low']:+.3f}, {more['high']:+.3f}]; others kept {row['others_busy_cores']} cores busy"
        )
    report = {
        "rows": rows,
        "load_average": os.getloadavg()[0],
        "machine": msgspec.to_builtins(describe_machine()),
    }
    words.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["python_costs_more_ms"]["low"] > 0 for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
