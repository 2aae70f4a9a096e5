"""The process that times one artifact: `python -m edgecnn.measure._timing_child SPAWNED_NS`.

It obeys one JSON line on stdin with one JSON line on stdout, and is blocked in a read in between, so that the
others are measured undisturbed:

  {"do": "open", "bundle": …, "format": …, "precision": …, "device": …, "threads": …, "pictures": FILE.npz}
  {"do": "agree"}
  {"do": "warm", "seconds": …}
  {"do": "measure", "samples": …, "seconds": …, "cap_seconds": …, "settle_seconds": …}
  {"do": "layers"}

It ends when stdin does, so that it never outlives the program that asked.
"""

import time

_STARTED_NS = time.monotonic_ns()  # before the imports, which are counted apart

import json  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
from array import array  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from itertools import cycle  # noqa: E402
from statistics import median  # noqa: E402
from typing import Any  # noqa: E402

import msgspec  # noqa: E402
import numpy as np  # noqa: E402

from edgecnn._devices import parse_device  # noqa: E402
from edgecnn.bundle import Bundle  # noqa: E402
from edgecnn.errors import DeviceError, EdgeCnnError, ParityError  # noqa: E402
from edgecnn.frame import FrameFitter  # noqa: E402
from edgecnn.measure.machine import peak_rss_mb  # noqa: E402
from edgecnn.measure.parity import Sample, compare, describe  # noqa: E402
from edgecnn.registry import BACKENDS, LAYER_TIMERS  # noqa: E402
from edgecnn.results import UInt8Array  # noqa: E402
from edgecnn.runners.base import (  # noqa: E402
    Arrays,
    LayerRequest,
    Runner,
    artifacts_for,
    choose_artifact,
    open_runner,
    opens_on,
)

_IMPORTED_NS = time.monotonic_ns()

_WINDOW_CALLS = 8
_SETTLED = 0.02
_COMPARED = 2  # pictures, where a device's answers are compared with the processor's


class TimingChild:
    """One artifact, open, and the pictures to time it with."""

    def __init__(self, spawned_ns: int) -> None:
        self._spawned_ns = spawned_ns
        self._runner: Runner | None = None
        self._pictures: Iterator[UInt8Array] = iter(())
        self._opened: dict[str, Any] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what one line asks for."""
        arguments = {name: value for name, value in request.items() if name != "do"}
        match request["do"]:
            case "open":
                return self.open(**arguments)
            case "agree":
                return self.agree()
            case "warm":
                return self.warm(**arguments)
            case "measure":
                return self.measure(**arguments)
            case "layers":
                return self.layers()
            case unknown:
                raise ValueError(f"nothing is called {unknown!r}")

    def open(
        self,
        bundle: str,
        format: str,  # noqa: A002 - the field's word
        precision: str,
        device: str,
        threads: int,
        pictures: str,
    ) -> dict[str, Any]:
        """Open the runner and run it once."""
        self._opened = {
            "bundle": bundle,
            "format": format,
            "precision": precision,
            "device": device,
            "threads": threads,
        }
        with np.load(pictures) as file:
            loaded = [file[name] for name in file.files]
        self._pictures = cycle(loaded)
        start = time.perf_counter_ns()
        BACKENDS.get(format)
        imported = time.perf_counter_ns()
        self._runner = open_runner(bundle, device=device, format=format, precision=precision, threads=threads)
        opened = time.perf_counter_ns()
        self._runner(next(self._pictures))
        finished = time.perf_counter_ns()
        return {
            "cold": {
                "interpreter_ms": (_STARTED_NS - self._spawned_ns) / 1e6,
                "import_ms": (_IMPORTED_NS - _STARTED_NS) / 1e6,
                "runtime_import_ms": (imported - start) / 1e6,
                "open_ms": (opened - imported) / 1e6,
                "first_ms": (finished - opened) / 1e6,
            },
            "used": msgspec.to_builtins(self._runner.backend.opened),
            "pictures_mb": sum(picture.nbytes for picture in loaded) / 1e6,
        }

    def agree(self) -> dict[str, Any]:
        """Compare the device's answers with those that the same artifact gives on the processor.

        One that was compiled for the device opens nowhere else: it is compared with the bundle's default, if any.

        Raises:
            ParityError: they differ by more than the precision's limit.
        """
        runner = self._runner
        assert runner is not None
        bundle, processor = Bundle.open(self._opened["bundle"]), parse_device("cpu")
        words = {**self._opened, "device": processor.text}
        names = {name: self._opened[name] for name in ("format", "precision")}
        artifact, _ = choose_artifact(bundle, device=parse_device(self._opened["device"]), **names)
        if not opens_on(artifact, processor):
            if not artifacts_for(bundle.manifest, processor, precision=None):
                return {"evidence": None}
            words |= dict.fromkeys(names)
        fitted = [FrameFitter(runner.frame)(next(self._pictures)) for _ in range(_COMPARED)]
        batch = bundle.manifest.batch
        frames = [(np.repeat(frame, batch, axis=0), place) for frame, place in fitted]
        answers = [_copied(runner.backend.infer(frame)) for frame, _ in frames]
        with open_runner(**words) as reference:
            samples = [Sample(frame, place, _copied(reference.backend.infer(frame)), ()) for frame, place in frames]
        evidence = compare(
            samples,
            answers,
            task=runner.task,
            precision=runner.precision,
            match_results=False,
            device_name=runner.backend.opened.device_name,
            versions={"reference": reference.backend.opened.summary},
            ran_on=runner.backend.opened,
        )
        if evidence.ok is False:
            raise ParityError(f"on {evidence.device_name}: {describe(evidence, reference='the processor')}")
        return {"evidence": msgspec.to_builtins(evidence)}

    def warm(self, seconds: float) -> dict[str, Any]:
        """Run until the median of a window of calls stays within 2 % over three windows, or time is over."""
        assert self._runner is not None
        deadline = time.perf_counter() + seconds
        medians: list[float] = []
        while True:
            medians.append(median(self._time_one() for _ in range(_WINDOW_CALLS)))
            last = medians[-3:]
            settled = len(last) == 3 and max(last) <= min(last) * (1 + _SETTLED)
            if settled or time.perf_counter() > deadline:
                return {"n": len(medians) * _WINDOW_CALLS, "settled": settled}

    def measure(self, samples: int, seconds: float, cap_seconds: float, settle_seconds: float) -> dict[str, Any]:
        """Take at least so many samples over at least so many seconds, but none after the cap."""
        runner = self._runner
        assert runner is not None
        total, fit, infer, finish = (array("q") for _ in range(4))
        cpu_start = time.process_time()
        # While the others ran, caches were emptied and the processor may have slowed down.
        settle_until = time.perf_counter() + settle_seconds
        settled = 0
        while settled < 2 or time.perf_counter() < settle_until:
            self._time_one()
            settled += 1
        start = time.perf_counter()
        elapsed = 0.0
        while (len(total) < samples or elapsed < seconds) and (elapsed < cap_seconds or not total):
            picture = next(self._pictures)
            before = time.perf_counter_ns()
            runner(picture)
            after = time.perf_counter_ns()
            stages = runner.stage_times
            total.append(after - before)
            fit.append(stages.fit_ns)
            infer.append(stages.infer_ns)
            finish.append(stages.finish_ns)
            elapsed = time.perf_counter() - start
        return {
            "samples": {
                "total_ns": total.tolist(),
                "fit_ns": fit.tolist(),
                "infer_ns": infer.tolist(),
                "finish_ns": finish.tolist(),
            },
            "settle_n": settled,
            "elapsed_s": elapsed,
            "cpu_s": time.process_time() - cpu_start,
            "peak_rss_mb": peak_rss_mb(),
        }

    def layers(self) -> dict[str, Any]:
        """Open the artifact again, profiled, and time its operators; the last thing that is asked."""
        runner = self._runner
        assert runner is not None
        bundle = Bundle.open(self._opened["bundle"])
        device = parse_device(self._opened["device"])
        artifact, precision = choose_artifact(
            bundle, device=device, format=self._opened["format"], precision=self._opened["precision"]
        )
        frame = np.repeat(FrameFitter(runner.frame)(next(self._pictures))[0], bundle.manifest.batch, axis=0)
        runner.close()  # two sessions would disturb each other
        request = LayerRequest(device=device, precision=precision, threads=self._opened["threads"])
        try:
            found = LAYER_TIMERS.get(artifact.format)(bundle.checked_path(artifact), request, frame)
        except DeviceError as error:
            return {"layers": [], "missing": str(error)}
        return {"layers": [msgspec.to_builtins(layer) for layer in found], "missing": ""}

    def close(self) -> None:
        """Give the runner back."""
        if self._runner is not None:
            self._runner.close()

    def _time_one(self) -> int:
        assert self._runner is not None
        picture = next(self._pictures)
        before = time.perf_counter_ns()
        self._runner(picture)
        return time.perf_counter_ns() - before


def _copied(answer: Arrays) -> Arrays:
    return {name: values.copy() for name, values in answer.items()}


def main() -> None:
    """Obey stdin until it ends."""
    # What a runtime prints must not come between the answers: it goes to stderr.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    child = TimingChild(spawned_ns=int(sys.argv[1]))
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = child.answer(request)
        except EdgeCnnError as error:
            answer = {"error": type(error).__name__, "reason": str(error), "exit_code": error.exit_code}
        except Exception as error:
            answer = {"error": type(error).__name__, "reason": str(error), "exit_code": 3}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if "error" in answer:
            break
    child.close()


if __name__ == "__main__":
    main()
