"""What edgecnn costs beside the runtime: `Backend.infer` against a bare loop, and fit + finish of a frame.

    python benchmarks/overhead.py [--bundle yolox-nano.edge] [--rounds 40] [--threads N] [--out FILE.json]

For each runtime one process; in it, one session, that of the open back end. Both sides run that same session on
the same frames, in blocks that alternate (infer, bare, bare, infer, …), so that neither another set of buffers nor
a warmer processor tells them apart. Bare against bare, in the same blocks, shows how much of a difference is noise.

The bare loop is the shortest correct program of each runtime: the frame goes in, all outputs can be read.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

REPOSITORY = Path(__file__).resolve().parents[1]
INFER_LIMIT = 0.03
FRAME_LIMIT_MS = 0.5
PICTURE_SIZE_PX = (640, 480)
_BLOCK_CALLS = 8
_WARMUP_CALLS = 30
_DRAWS = 2000
_QUIET_CORES = 0.1  # kept busy by other programs

Frame = NDArray[np.uint8]


def bare_call(backend: Any) -> Callable[[Frame], object]:
    """What a program without edgecnn would call, on the session that the back end has open."""
    if hasattr(backend, "_session"):
        session, name = backend._session, backend._input
        return lambda frame: session.run(None, {name: frame})
    if hasattr(backend, "_request"):
        request = backend._request
        return lambda frame: request.infer(frame, share_inputs=True, share_outputs=True)
    interpreter = backend._engine._interpreter
    put, take = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()

    def call(frame: Frame) -> object:
        interpreter.set_tensor(put, frame)
        interpreter.invoke()
        return [interpreter.get_tensor(detail["index"]) for detail in take]

    return call


def measure_runtime(bundle: Path, name: str, threads: int | None, rounds: int) -> dict[str, Any]:
    """Time one runtime; runs in a process of its own."""
    from edgecnn.frame import FrameFitter
    from edgecnn.measure.timed_pictures import default_pictures
    from edgecnn.runners.runner import open_runner

    pictures = default_pictures(PICTURE_SIZE_PX)
    with open_runner(bundle, format=name, threads=threads) as runner:
        frames = cycle([FrameFitter(runner.frame)(picture)[0] for picture in pictures])
        infer, bare = runner.backend.infer, bare_call(runner.backend)

        def block(call: Callable[[Frame], object]) -> float:
            times = []
            for _ in range(_BLOCK_CALLS):
                frame = next(frames)
                start = time.perf_counter_ns()
                call(frame)
                times.append(time.perf_counter_ns() - start)
            return float(np.median(times)) / 1e6

        for _ in range(_WARMUP_CALLS):
            infer(next(frames))
            bare(next(frames))
        blocks: dict[str, list[float]] = {"infer": [], "bare": [], "bare_again": []}
        calls: dict[str, Callable[[Frame], object]] = {"infer": infer, "bare": bare, "bare_again": bare}
        for turn in range(rounds):
            order = list(calls)
            order = order[turn % 3 :] + order[: turn % 3]  # each comes first, second and third equally often
            for way in order:
                blocks[way].append(block(calls[way]))
        fit_ms, finish_ms = [], []
        for index, picture in zip(range(_WARMUP_CALLS + rounds * _BLOCK_CALLS), cycle(pictures), strict=False):
            runner(picture)
            if index >= _WARMUP_CALLS:
                fit_ms.append(runner.stage_times.fit_ns / 1e6)
                finish_ms.append(runner.stage_times.finish_ns / 1e6)
        together = np.array(fit_ms) + np.array(finish_ms)
        used = runner.backend.opened
        return {
            "format": name,
            "runtime": used.runtime,
            "threads": used.threads,
            "blocks_ms": blocks,
            "infer_ms": float(np.median(blocks["infer"])),
            "bare_ms": float(np.median(blocks["bare"])),
            "overhead": ratio_minus_one(blocks["infer"], blocks["bare"]),
            "noise": ratio_minus_one(blocks["bare_again"], blocks["bare"]),
            "fit_ms": float(np.median(fit_ms)),
            "finish_ms": float(np.median(finish_ms)),
            "fit_and_finish_ms": {
                "p10": float(np.percentile(together, 10)),
                "p50": float(np.median(together)),
                "p90": float(np.percentile(together, 90)),
            },
        }


def ratio_minus_one(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Median of the blocks' ratios, less one, and its 95 % interval from drawing the blocks again."""
    ratios = np.array(ours) / np.array(theirs) - 1
    rng = np.random.default_rng(0)
    drawn = np.median(ratios[rng.integers(len(ratios), size=(_DRAWS, len(ratios)))], axis=1)
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    return {"value": float(np.median(ratios)), "low": low, "high": high}


def convert_yolox_nano(folder: Path) -> Path:
    """Build the bundle from ../shared; wants torch."""
    weights = REPOSITORY.parent / "shared" / "models" / "yolox-nano" / "yolox_nano.pth"
    bundle = folder / "yolox-nano.edge"
    command = [sys.executable, "-m", "edgecnn", "convert", "yolox-nano"]
    subprocess.run([*command, "--weights", str(weights), "--out", str(bundle)], check=True)
    return bundle


def main() -> int:
    """Measure every runtime that is installed; exit code 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, help="a YOLOX-nano bundle; without it one is built from ../shared")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "overhead.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure_runtime(options.bundle, options.child, options.threads, options.rounds)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        bundle = options.bundle or convert_yolox_nano(Path(folder))
        return compare(bundle.resolve(), options)


def compare(bundle: Path, options: argparse.Namespace) -> int:
    """One process for each runtime, one after the other; write the JSON and print the table."""
    import msgspec

    from edgecnn.bundle import Bundle
    from edgecnn.formats import runnable
    from edgecnn.measure.machine import describe_machine, read_core_times
    from edgecnn.measure.timing import others_share

    machine = describe_machine()
    held = {artifact.format for artifact in Bundle.open(bundle).manifest.artifacts}
    rows = []
    print(machine.summary)
    for name in (name for name in runnable() if name in held):
        command = [sys.executable, __file__, "--bundle", str(bundle), "--child", name]
        command += ["--rounds", str(options.rounds)]
        command += ["--threads", str(options.threads)] if options.threads else []
        before, cpu_before = read_core_times(), children_cpu_s()
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        own_cpu_s = children_cpu_s() - cpu_before
        others, stolen = others_share(before, read_core_times(), own_cpu_s=own_cpu_s)
        row = {**json.loads(answer), "others_busy_cores": others, "stolen": stolen}
        rows.append(row)
        overhead, noise, frame = row["overhead"], row["noise"], row["fit_and_finish_ms"]
        row["within_limits"] = overhead["value"] <= INFER_LIMIT and frame["p50"] <= FRAME_LIMIT_MS
        print(
            f"{name:9} infer {row['infer_ms']:7.3f} ms, bare {row['bare_ms']:7.3f} ms: overhead "
            f"{overhead['value']:+.2%} [{overhead['low']:+.2%}, {overhead['high']:+.2%}] "
            f"(bare against bare {noise['value']:+.2%} [{noise['low']:+.2%}, {noise['high']:+.2%}], "
            f"limit {INFER_LIMIT:.0%}); "
            f"fit {row['fit_ms']:.3f} + finish {row['finish_ms']:.3f} ms, together p50 {frame['p50']:.3f} "
            f"(limit {FRAME_LIMIT_MS} ms); others kept {others} cores busy"
            f"{'' if row['within_limits'] else '  ← over a limit'}"
            f"{'' if (others or 0) <= _QUIET_CORES else '  (NOT QUIET: run it again alone)'}"
        )
    result = {"bundle": bundle.name, "machine": msgspec.to_builtins(machine), "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["within_limits"] for row in rows) else 1


def children_cpu_s() -> float:
    """Processor time of the processes that have ended."""
    import resource

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
