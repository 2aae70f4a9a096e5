"""What live costs and how fresh it is: python -m benchmarks.live [--bundle NAME.edge] [--seconds 60].

- throughput: frames a second of `edgecnn.live` over those of the bare `Runner`, frames decoded in memory, in turns;
  with one camera and with two.
- closing: seconds from SIGTERM to the end of an `edgecnn run` that records, with its files closed.
- age: of each result of streams of 30 frames a second, with a network that is slower than they are; OpenCV's plain
  loop beside it: as `live_age.py`, which measures it alone.

Results go to `results/live.json`.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import cv2
import msgspec
import numpy as np

import edgecnn
from benchmarks.live_age import http_stream, streams
from benchmarks.overhead import ratio_minus_one
from edgecnn.measure.machine import describe_machine, read_core_times
from edgecnn.measure.timed_pictures import default_pictures
from edgecnn.measure.timing import others_share
from edgecnn.results import UInt8Array
from edgecnn.runners.live.frame import Frame, frame_now
from edgecnn.runners.runner import Runner

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "live.json"
FRAMES = 24  # of one block: short, so that both sides meet the same neighbours
ROUNDS = 48
CLOSING_LIMIT_S = 2.0


class MemoryCamera:
    """Pictures that are there already."""

    live = False
    stills = False
    fps: float | None = None
    frames_total: int | None = None
    dropped = 0
    remark: str | None = None

    def __init__(self, name: str, pictures: list[UInt8Array], count: int) -> None:
        self.name = name
        self._frames = (frame_now(image, index, name) for index, image in enumerate(islice(cycle(pictures), count)))

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        return next(self._frames)

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def throughput(runner: Runner) -> dict[str, Any]:
    """Frames a second of the live loop over the bare runner's, block by block, with 95 % intervals of the median."""
    pictures = default_pictures((640, 480))

    def bare() -> None:
        for image in islice(cycle(pictures), FRAMES):
            runner(image)

    def live(cameras: int) -> Callable[[], None]:
        def run() -> None:
            sources = [MemoryCamera(f"memory {n}", pictures, FRAMES // cameras) for n in range(cameras)]
            for _ in edgecnn.live(sources, runner):
                pass

        return run

    ways = {"bare": bare, "one camera": live(1), "two cameras": live(2), "bare again": bare}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    cpu_s: dict[str, list[float]] = {name: [] for name in ways}
    before, all_cpu_s = read_core_times(), time.process_time()
    for turn in range(ROUNDS + 1):  # the first warms up
        names = list(ways)
        for name in names[turn % 4 :] + names[: turn % 4]:
            start, cpu_start = time.perf_counter(), time.process_time()
            ways[name]()
            if turn:
                seconds[name].append(time.perf_counter() - start)
                cpu_s[name].append(time.process_time() - cpu_start)
    others, _ = others_share(before, read_core_times(), own_cpu_s=time.process_time() - all_cpu_s)
    bare_s = float(np.median(seconds["bare"]))
    row: dict[str, Any] = {"fps_bare": round(FRAMES / bare_s, 1), "others_busy_cores": others}
    for name in ("one camera", "two cameras", "bare again"):
        gain = ratio_minus_one(seconds["bare"], seconds[name])
        row[name] = {
            "of_bare": round(1 + gain["value"], 4),
            "interval": [round(1 + gain[end], 4) for end in ("low", "high")],
            # what others do with the machine changes times more than this
            "cpu_of_bare": round(1 + ratio_minus_one(cpu_s[name], cpu_s["bare"])["value"], 4),
        }
    return row


def closing_s(bundle: str, url: str) -> list[float]:
    """Seconds that runs take to end after a signal, while they record and write lines; five of them."""
    took = []
    with tempfile.TemporaryDirectory() as folder:
        video, lines = Path(folder) / "out.mp4", Path(folder) / "out.jsonl"
        command = [sys.executable, "-m", "edgecnn", "run", bundle, url, "--record", str(video), "--jsonl", str(lines)]
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGTERM):
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
                while not lines.exists() or lines.read_bytes().count(b"\n") < 30:
                    time.sleep(0.05)
                start = time.perf_counter()
                program.send_signal(number)
                assert program.wait() == 128 + number
                took.append(round(time.perf_counter() - start, 3))
            assert cv2.VideoCapture(str(video)).read()[0], "the recording can't be played"
            lines.unlink()
    return took


def main() -> int:
    """Measure, print, keep; exit code 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", default="default-detector")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    result: dict[str, Any] = {"bundle": Path(asked.bundle).name, "machine": msgspec.to_builtins(describe_machine())}
    with edgecnn.open_runner(asked.bundle) as runner:
        result["ran"] = {"format": runner.format, "precision": runner.precision}
        result["throughput"] = throughput(runner)
        print(json.dumps(result["throughput"]), flush=True)
        with http_stream() as url:
            result["closing_s"] = closing_s(asked.bundle, url)
        print(json.dumps({"closing_s": result["closing_s"]}), flush=True)
        result["age"] = dict(streams(runner, asked.seconds))
        print(json.dumps(result["age"]), flush=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    enough = all(result["throughput"][name]["of_bare"] >= 0.95 for name in ("one camera", "two cameras"))
    ended = max(result["closing_s"]) < CLOSING_LIMIT_S
    fresh = all(figures["within_bound"] for figures in result["age"].values())
    return 0 if enough and ended and fresh else 1


if __name__ == "__main__":
    raise SystemExit(main())
