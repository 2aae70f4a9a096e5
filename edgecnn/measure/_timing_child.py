"""The child process that times one artifact: `python -m edgecnn.measure._timing_child SPAWNED_NS`.

It answers these requests (see `edgecnn.child`), and blocks in a read between them, so that it does not disturb the
measurement of others:

  open      bundle, artifact (its key), precision, device, threads, pictures (FILE.npz)
  agree
  warm      seconds
  measure   samples, seconds, cap_seconds, settle_seconds
  layers
"""

import time

_STARTED_NS = time.monotonic_ns()  # before the imports, which are timed separately

import dataclasses  # noqa: E402
import sys  # noqa: E402
from array import array  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from itertools import cycle  # noqa: E402
from statistics import median  # noqa: E402
from typing import Any  # noqa: E402

import msgspec  # noqa: E402
import numpy as np  # noqa: E402

from edgecnn.bundle import Bundle  # noqa: E402
from edgecnn.child import serve  # noqa: E402
from edgecnn.errors import DeviceError, ParityError, SpecError  # noqa: E402
from edgecnn.formats import FORMATS  # noqa: E402
from edgecnn.formats.devices import parse_device  # noqa: E402
from edgecnn.frame import FrameFitter  # noqa: E402
from edgecnn.measure.machine import peak_rss_mb  # noqa: E402
from edgecnn.measure.parity import Sample, compare, describe  # noqa: E402
from edgecnn.results import UInt8Array  # noqa: E402
from edgecnn.runners.backend import Arrays, LayerRequest  # noqa: E402
from edgecnn.runners.choose import Choice, choose_artifact, find_fitting, opens_on  # noqa: E402
from edgecnn.runners.runner import Runner, open_choice  # noqa: E402

_IMPORTED_NS = time.monotonic_ns()

_STRETCH_CALLS = 8
_SETTLED = 0.02
_COMPARED = 2  # pictures for comparing a device's answers with the CPU's


class TimingChild:
    """One open artifact, and the pictures to time it with."""

    def __init__(self, spawned_ns: int) -> None:
        self._spawned_ns = spawned_ns
        self._runner: Runner | None = None
        self._pictures: Iterator[UInt8Array] = iter(())
        self._bundle: Bundle
        self._choice: Choice
        self._threads = 1

    def open(
        self, bundle: str, artifact: list[str], precision: str, device: str, threads: int, pictures: str
    ) -> dict[str, Any]:
        """Open the runner and run it once."""
        self._bundle = Bundle.open(bundle)
        meant = next(held for held in self._bundle.manifest.artifacts if held.key == tuple(artifact))
        self._choice, self._threads = Choice(meant, precision, parse_device(device)), threads
        with np.load(pictures) as file:
            loaded = [file[name] for name in file.files]
        self._pictures = cycle(loaded)
        start = time.perf_counter_ns()
        FORMATS.get(meant.format).load_backend()
        imported = time.perf_counter_ns()
        self._runner = open_choice(self._bundle, self._choice, threads=threads)
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
        """Compare the device's answers with those of the same artifact on the CPU.

        An artifact compiled for the device opens nowhere else: it is compared with the bundle's default artifact, if
        any.

        Raises:
            ParityError: the difference exceeds the precision's limit.
        """
        runner = self._runner
        assert runner is not None
        bundle, processor = self._bundle, parse_device("cpu")
        if opens_on(self._choice.artifact, processor):
            compared = dataclasses.replace(self._choice, device=processor)
        elif find_fitting(bundle, device=processor).fitting:
            compared = choose_artifact(bundle, device=processor)
        else:
            return {"evidence": None}
        fitted = [FrameFitter(runner.frame)(next(self._pictures)) for _ in range(_COMPARED)]
        batch = bundle.manifest.batch
        frames = [(np.repeat(frame, batch, axis=0), place) for frame, place in fitted]
        answers = [_copied(runner.backend.infer(frame)) for frame, _ in frames]
        with open_choice(bundle, compared, threads=self._threads) as reference:
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
            raise ParityError(f"on {evidence.device_name}: {describe(evidence, reference='the CPU')}")
        return {"evidence": msgspec.to_builtins(evidence)}

    def warm(self, seconds: float) -> dict[str, Any]:
        """Run until the median of a stretch of calls stays within 2 % over three of them, for at most `seconds`."""
        assert self._runner is not None
        deadline = time.perf_counter() + seconds
        medians: list[float] = []
        while True:
            medians.append(median(self._time_one() for _ in range(_STRETCH_CALLS)))
            last = medians[-3:]
            settled = len(last) == 3 and max(last) <= min(last) * (1 + _SETTLED)
            if settled or time.perf_counter() > deadline:
                return {"n": len(medians) * _STRETCH_CALLS, "settled": settled}

    def measure(self, samples: int, seconds: float, cap_seconds: float, settle_seconds: float) -> dict[str, Any]:
        """Take at least `samples` samples over at least `seconds` seconds, but none after `cap_seconds`."""
        runner = self._runner
        assert runner is not None
        total, fit, infer, finish = (array("q") for _ in range(4))
        cpu_start = time.process_time()
        # While the other artifacts ran, caches were emptied and the CPU may have slowed down.
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
        """Open the artifact again with a profiler, and time its operators; the last request."""
        runner = self._runner
        assert runner is not None
        bundle, choice = self._bundle, self._choice
        frame = np.repeat(FrameFitter(runner.frame)(next(self._pictures))[0], bundle.manifest.batch, axis=0)
        runner.close()  # two sessions would disturb each other
        request = LayerRequest(device=choice.device, precision=choice.precision, threads=self._threads)
        try:
            time_layers = FORMATS.get(choice.artifact.format).load_layer_timer()
            found = time_layers(bundle.checked_path(choice.artifact), request, frame)
        except (DeviceError, SpecError) as error:  # SpecError: the format has no layer timer
            return {"layers": [], "missing": str(error)}
        return {"layers": [msgspec.to_builtins(layer) for layer in found], "missing": ""}

    def close(self) -> None:
        """Close the runner."""
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
    """Serve requests until standard input ends."""
    child = TimingChild(spawned_ns=int(sys.argv[1]))
    serve(
        {
            "open": child.open,
            "agree": child.agree,
            "warm": child.warm,
            "measure": child.measure,
            "layers": child.layers,
        }
    )
    child.close()


if __name__ == "__main__":
    main()
