"""Does `bench` say what the runtimes' own tools say of the same file?

    python benchmarks/agreement.py [--size 416] [--rounds 12] [--threads 1] [--iterations 60] [--tries 5]

Of one detector in each format, the `infer` stage of `edgecnn bench` beside OpenVINO's `benchmark_app`, LiteRT's
`litert-benchmark` and a bare ONNX Runtime loop. Every figure is the median of a process of its own; the processes take
turns (ours, theirs, theirs, ours, …), so that a machine that slows down slows both, and the result is the median of
the turns' ratios with its 95 % interval. On a machine that is not quiet, medians tell how the processor was shared and
not what an inference costs: there the fastest sample of each process is compared instead, which wants a network that is
faster than the scheduler's slices (--size 96). Then `bench` is run several times, to see by how much its p90 moves, and
whether it says so where the machine is not quiet.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import edgecnn
from edgecnn.bundle import Bundle
from edgecnn.measure.machine import describe_machine, read_core_times
from edgecnn.measure.timing import others_share

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT = 0.03
P90_LIMIT = 0.05
Times = tuple[float, float]  # of a process: the median and the fastest, in ms
_DRAWS = 2000
_QUIET_CORES = 0.1  # kept busy by other programs
_BARE_LOOP = """
import sys, time
import numpy as np
import onnxruntime

path, threads, iterations = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
(given,) = session.get_inputs()
frames = np.random.default_rng(0).integers(0, 256, (8, *given.shape), np.uint8)
times = []
for turn in range(iterations + 20):
    start = time.perf_counter_ns()
    session.run(None, {given.name: frames[turn % 8]})
    times.append(time.perf_counter_ns() - start)
print(np.median(times[20:]) / 1e6, min(times[20:]) / 1e6)
"""


def bench_rows(bundle: Path, *words: str) -> list[dict[str, Any]]:
    """What `edgecnn bench` says."""
    command = [sys.executable, "-m", "edgecnn", "bench", str(bundle), "--no-record", "--json", *words]
    rows: list[dict[str, Any]] = json.loads(output_of(command))
    return rows


def output_of(command: list[str]) -> str:
    """What a program prints; its errors where it fails."""
    home = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": home})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def script(name: str) -> str:
    """A program of this environment."""
    return str(Path(sys.executable).with_name(name))


def benchmark_app_ms(file: Path, threads: int, iterations: int) -> Times:
    """OpenVINO's own: synchronous, with the hint, precision and threads that a runner asks for."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.json"  # beside a hint, threads are taken from a file only
        config.write_text(json.dumps({"CPU": {"INFERENCE_NUM_THREADS": str(threads)}}))
        words = ["-d", "CPU", "-api", "sync", "-hint", "latency", "-infer_precision", "f32"]
        count = ["-load_config", str(config), "-niter", str(iterations)]
        output = output_of([script("benchmark_app"), "-m", str(file), *words, *count])
    found = {name: re.search(rf"{name}:\s+([\d.]+) ms", output) for name in ("Median", "Min")}
    median, fastest = found["Median"], found["Min"]
    assert median and fastest, output
    return float(median[1]), float(fastest[1])


def litert_benchmark_ms(file: Path, threads: int, iterations: int) -> Times:
    """LiteRT's own."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        words = ["--num_threads", str(threads), "--num_runs", str(iterations), "--warmup_runs", "20"]
        output_of([script("litert-benchmark"), "--model", str(file), *words, "--result_json", str(result)])
        latency = json.loads(result.read_text())["latency"]
        return float(latency["median_ms"]), float(latency["min_ms"])


def bare_loop_ms(file: Path, threads: int, iterations: int) -> Times:
    """The shortest program that runs an ONNX file."""
    output = output_of([sys.executable, "-c", _BARE_LOOP, str(file), str(threads), str(iterations)])
    median, fastest = (float(word) for word in output.split())
    return median, fastest


def bench_ms(bundle: Path, format_name: str, threads: int, iterations: int) -> Times:
    """The `infer` stage of `edgecnn bench`."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = ("--format", format_name, "--threads", str(threads), "--iterations", str(iterations))
        (row,) = bench_rows(bundle, *words, "--report", str(report))
        assert row["error"] is None, row["reason"]
        (result,) = json.loads(report.read_text())["results"]
        return row["stages"]["infer"], min(result["samples"]["infer_ns"]) / 1e6


# Format → the tool's name, and what it says.
TOOLS: dict[str, tuple[str, Callable[[Path, int, int], Times]]] = {
    "openvino": ("benchmark_app", benchmark_app_ms),
    "tflite": ("litert-benchmark", litert_benchmark_ms),
    "onnx": ("bare ONNX Runtime loop", bare_loop_ms),
}


def compare(bundle: Bundle, format_name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One format: medians of both sides, turn by turn, and what follows."""
    file = bundle.checked_path(bundle.artifact(format_name, "fp32"))
    tool, theirs_of = TOOLS[format_name]
    ours: list[Times] = []
    theirs: list[Times] = []
    before, cpu_before = read_core_times(), children_cpu_s()
    sides: list[Callable[[], None]] = [
        lambda: ours.append(bench_ms(bundle.folder, format_name, options.threads, options.iterations)),
        lambda: theirs.append(theirs_of(file, options.threads, options.iterations)),
    ]
    for turn in range(options.rounds):
        for measure in sides[:: 1 if turn % 2 else -1]:
            measure()
    others, stolen = others_share(before, read_core_times(), own_cpu_s=children_cpu_s() - cpu_before)
    quiet = others is not None and others <= _QUIET_CORES
    medians = difference([m for m, _ in ours], [m for m, _ in theirs])
    fastest = difference([f for _, f in ours], [f for _, f in theirs])
    return {
        "format": format_name,
        "tool": tool,
        "bench_median_and_fastest_ms": ours,
        "tool_median_and_fastest_ms": theirs,
        "difference_of_medians": medians,
        "difference_of_fastest": fastest,
        "agrees": abs((medians if quiet else fastest)["value"]) <= LIMIT,
        "others_busy_cores": others,
        "stolen": stolen,
        "quiet": quiet,
    }


def difference(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Median of the turns' ratios, less one, and its 95 % interval from drawing the turns again."""
    ratios = np.array(ours) / np.array(theirs) - 1
    drawn = np.median(np.random.default_rng(0).choice(ratios, (_DRAWS, len(ratios))), axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    return {"value": float(np.median(ratios)), "low": low, "high": high}


def repeat(bundle: Bundle, options: argparse.Namespace) -> dict[str, Any]:
    """The p90 of `bench`, several times over, and what it says of the machine each time."""
    tries = []
    for _ in range(options.tries):
        (row,) = bench_rows(bundle.folder, "--format", "onnx", "--threads", str(options.threads))
        tries.append({"p90_ms": row["p90_ms"], "n": row["n"], "unstable": row["unstable"]})
    p90 = [one["p90_ms"] for one in tries]
    spread = max(p90) / min(p90) - 1
    all_unstable = all(one["unstable"] for one in tries)
    return {
        "tries": tries,
        "p90_spread": spread,
        "within_limit": spread <= P90_LIMIT,
        "all_reported_unstable": all_unstable,
    }


def children_cpu_s() -> float:
    """Processor time of the processes that have ended."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Compare, print, write; exit code 1 if they differ, or if p90 moves and `bench` does not say so."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=416, help="of the detector's frame, in px")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each pair")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=60, help="inferences of each process")
    parser.add_argument("--tries", type=int, default=5, help="how often p90 is measured")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "agreement.json")
    options = parser.parse_args()
    machine = describe_machine()
    print(machine.summary)
    with tempfile.TemporaryDirectory() as folder:
        out, size = Path(folder) / "detector.edge", (options.size, options.size)
        made = edgecnn.convert("default-detector", size=size, out=out, precision=("fp32",))
        assert made.bundle is not None, made.refused
        rows = []
        for name in TOOLS:
            row = compare(made.bundle, name, options)
            rows.append(row)
            notes = [
                f"{what} {row[key]['value']:+.2%} [{row[key]['low']:+.2%}, {row[key]['high']:+.2%}]"
                for what, key in (("medians", "difference_of_medians"), ("fastest", "difference_of_fastest"))
            ]
            print(
                f"{name:9} bench {np.median(row['bench_median_and_fastest_ms'], axis=0).round(3)} ms, {row['tool']} "
                f"{np.median(row['tool_median_and_fastest_ms'], axis=0).round(3)} ms: {', '.join(notes)} "
                f"(limit {LIMIT:.0%}); others kept {row['others_busy_cores']} cores busy"
                f"{'' if row['quiet'] else '  (not quiet: the fastest count)'}",
                flush=True,
            )
        repeated = repeat(made.bundle, options)
        p90 = ", ".join(f"{one['p90_ms']:.2f}" for one in repeated["tries"])
        believed = "each said that it is unstable" if repeated["all_reported_unstable"] else "not all said unstable"
        print(f"p90 {p90} ms: {repeated['p90_spread']:.1%} apart (limit {P90_LIMIT:.0%}); {believed}")
    result = {
        "machine": msgspec.to_builtins(machine),
        "size": options.size,
        "threads": options.threads,
        "rows": rows,
        "repeat": repeated,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    agreed = all(row["agrees"] for row in rows)
    return 0 if agreed and (repeated["within_limit"] or repeated["all_reported_unstable"]) else 1


if __name__ == "__main__":
    sys.exit(main())
