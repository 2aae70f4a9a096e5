"""Would a frame be ready sooner if its stages overlapped? python -m benchmarks.overlap [--bundle NAME.edge].

Frames a second of ways to overlap fit and finish with inference, over those of the plain `Runner`, which does one after
the other: short blocks in turns, ratios block by block. Frames are in memory. What is fitted ahead of time has become
older when the network takes it, so that way gains frames at the price of their age.

Results go to `results/overlap.json`.
"""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

import edgecnn
from benchmarks.overhead import ratio_minus_one
from edgecnn.frame import FrameFitter, Placement
from edgecnn.measure.machine import describe_machine, read_core_times
from edgecnn.measure.timed_pictures import default_pictures
from edgecnn.measure.timing import others_share
from edgecnn.results import UInt8Array
from edgecnn.runners.runner import Runner

RESULTS = Path(__file__).resolve().parent / "results" / "overlap.json"
FRAMES = 12  # of a block
Fitted = tuple[UInt8Array, Placement]


class Ways:
    """A block of frames through a runner's parts, in several ways."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._pictures = default_pictures((640, 480))
        self._fitters = [FrameFitter(runner.frame) for _ in range(4)]  # a buffer for each frame that is under way
        self.all: dict[str, Callable[[], None]] = {
            "one after the other": self.sequential,
            "finish in a thread": lambda: self.staged(ahead=False, aside=True),
            "fit ahead in a thread": lambda: self.staged(ahead=True, aside=False),
            "both in threads": lambda: self.staged(ahead=True, aside=True),
            "one after the other, again": self.sequential,
        }
        if hasattr(runner.backend, "_request"):
            compiled = runner.backend._request.get_compiled_model()
            self._requests = [compiled.create_infer_request() for _ in range(2)]
            self.all["two asynchronous requests"] = self.asynchronous

    def sequential(self) -> None:
        """As the runner does."""
        for picture in islice(cycle(self._pictures), FRAMES):
            self._runner(picture)

    def _fitted(self) -> Iterator[Fitted]:
        for index, picture in enumerate(islice(cycle(self._pictures), FRAMES)):
            yield self._fitters[index % len(self._fitters)](picture)

    def staged(self, *, ahead: bool, aside: bool) -> None:
        """With a thread for what comes before, after, or both."""
        before: queue.Queue[Fitted | None] = queue.Queue(1)
        after: queue.Queue[tuple[Any, Placement] | None] = queue.Queue(1)

        def fit() -> None:
            for fitted in self._fitted():
                before.put(fitted)
            before.put(None)

        def finish() -> None:
            while (answered := after.get()) is not None:
                self._runner.task.finish(*answered)

        threads = [threading.Thread(target=stage) for stage, wanted in ((fit, ahead), (finish, aside)) if wanted]
        for thread in threads:
            thread.start()
        for frame, place in iter(before.get, None) if ahead else self._fitted():
            outputs = self._runner.backend.infer(frame)
            if aside:  # they are the runtime's memory, until the next inference
                after.put(({name: np.array(values) for name, values in outputs.items()}, place))
            else:
                self._runner.task.finish(outputs, place)
        after.put(None)
        for thread in threads:
            thread.join()

    def asynchronous(self) -> None:
        """Two requests of OpenVINO: while one is computed, the other is fitted and finished."""
        outputs = self._runner.backend._outputs  # type: ignore[attr-defined]
        under_way: list[tuple[Any, Placement]] = []

        def finish_first() -> None:
            request, place = under_way.pop(0)
            request.wait()
            self._runner.task.finish({name: request.get_tensor(port).data for name, port in outputs}, place)

        for index, (frame, place) in enumerate(self._fitted()):
            if len(under_way) == len(self._requests):
                finish_first()
            request = self._requests[index % len(self._requests)]
            request.start_async(frame, share_inputs=True)
            under_way.append((request, place))
        while under_way:
            finish_first()


def measure(bundle: str, kind: str, rounds: int) -> dict[str, Any]:
    """One runtime."""
    before = read_core_times()
    cpu_before = time.process_time()
    with edgecnn.open_runner(bundle, format=kind) as runner:
        ways = Ways(runner).all
        names, seconds = list(ways), {name: list[float]() for name in ways}
        for turn in range(rounds + 1):  # the first warms up
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                start = time.perf_counter()
                ways[name]()
                if turn:
                    seconds[name].append(time.perf_counter() - start)
    base = seconds[names[0]]
    others, _ = others_share(before, read_core_times(), own_cpu_s=time.process_time() - cpu_before)
    return {
        "bundle": Path(bundle).name,
        "format": kind,
        "fps": round(FRAMES / float(np.median(base)), 1),
        "gain": {name: ratio_minus_one(base, seconds[name]) for name in names[1:]},
        "others_busy_cores": others,
    }


def main() -> int:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bundle", nargs="*", default=["default-detector", "default-segmenter"])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    result: dict[str, Any] = {"machine": msgspec.to_builtins(describe_machine()), "rows": []}
    for bundle in asked.bundle:
        for kind in ("openvino", "onnx"):
            result["rows"].append(measure(bundle, kind, asked.rounds))
            print(json.dumps(result["rows"][-1]), flush=True)
    asked.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
