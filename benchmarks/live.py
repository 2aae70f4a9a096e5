"""What live costs and how fresh it is: python -m benchmarks.live [--bundle NAME.edge] [--seconds 60].

- throughput: frames a second of `edgecnn.live` over those of the bare `Runner`, frames decoded in memory, in turns;
  with one camera and with two.
- age: of each result of streams of 30 frames a second, with a network that is slower than they are; OpenCV's plain
  loop beside it: as `live_age.py`, which measures it alone.

Results go to `results/live.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np

import edgecnn
from benchmarks.live_age import streams
from edgecnn._verbs.bench import default_pictures
from edgecnn.measure.machine import describe_machine
from edgecnn.results import UInt8Array
from edgecnn.runners.base import Runner
from edgecnn.runners.live.frames import Frame, frame_now

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "live.json"
FRAMES = 60  # of one block
ROUNDS = 12


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
    """Frames a second of the live loop over the bare runner's, block by block."""
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
    for turn in range(ROUNDS + 1):  # the first warms up
        names = list(ways)
        for name in names[turn % 4 :] + names[: turn % 4]:
            start = time.perf_counter()
            ways[name]()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    base = np.array(seconds["bare"])
    row: dict[str, Any] = {"fps_bare": round(FRAMES / float(np.median(base)), 1)}
    for name in ("one camera", "two cameras", "bare again"):
        ratios = base / np.array(seconds[name])
        low, high = np.percentile(ratios, (25, 75)).tolist()
        row[name] = {"of_bare": round(float(np.median(ratios)), 4), "quartiles": [round(low, 4), round(high, 4)]}
    return row


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
        result["age"] = dict(streams(runner, asked.seconds))
        print(json.dumps(result["age"]), flush=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    enough = all(result["throughput"][name]["of_bare"] >= 0.95 for name in ("one camera", "two cameras"))
    return 0 if enough and all(figures["within_bound"] for figures in result["age"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
