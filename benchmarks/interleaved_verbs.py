"""Real verbs of several processes at one bundle: python -m benchmarks.interleaved_verbs [--rounds 200].

In each round several processes do a random verb at once to a bundle of a tiny network: convert (at times with
--overwrite), quantize, bench, eval, inspect, or copy it as `deploy` reads it; each begins after a random pause. Some
are killed. After each round the bundle must open, each of its files must be what was verified, and no artifact may lose
what was measured of it, unless somebody said --overwrite. Results go to `results/interleaved_verbs.json`; exit code 1
where anything was lost or failed. `interleavings.py` does the same with made files, and much faster.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import cv2
import msgspec
import numpy as np

from benchmarks.interleavings import check
from edgecnn.errors import EdgeCnnError
from edgecnn.measure.machine import describe_machine

RESULTS = Path(__file__).resolve().parent / "results" / "interleaved_verbs.json"
FORMATS = ("onnx", "openvino")
VERBS = {"convert": 3, "quantize": 2, "bench": 3, "evaluate": 3, "inspect": 2, "deploy": 2}
_KILLED = 0.05
# What a verb may say where another took what it works on: the words to go on with stand in it.
_EXPECTED = ("--overwrite", "was replaced while", "holds no", "is not the file", "in the bundle")


def pictures(folder: Path) -> Path:
    """Labelled ones, in class folders."""
    rng = np.random.default_rng(0)
    for name in "abcde":
        (folder / name).mkdir(parents=True)
        for index in range(3):
            cv2.imwrite(str(folder / name / f"{index}.png"), rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    return folder


def do(verb: str, folder: Path, data: Path, *, overwrite: bool, number: int) -> None:
    """One verb, as its function does it."""
    import edgecnn
    from tests.builders.networks import tiny_classifier

    if verb == "convert":
        edgecnn.convert(tiny_classifier(), out=folder, to=FORMATS, overwrite=overwrite)
    elif verb == "quantize":
        edgecnn.quantize(folder, calibration=data, to=("onnx",), overwrite=overwrite, keep_slower=True)
    elif verb == "bench":
        edgecnn.bench(folder, format=FORMATS[number % 2], precision="fp32", iterations=3, picture_size_px=(64, 64))
    elif verb == "evaluate":
        edgecnn.evaluate(folder, data, format=FORMATS[number % 2], precision="fp32", resamples=10)
    elif verb == "inspect":
        edgecnn.inspect(folder)
    else:
        copy_as_deployed(folder, folder.parent / f"copy-{number}.edge")


def copy_as_deployed(folder: Path, copy: Path) -> None:
    """Copy what the manifest names, and open the copy."""
    from edgecnn.bundle import MANIFEST, Bundle

    with Bundle.open_locked(folder) as bundle:
        copy.mkdir()
        for record in (record for artifact in bundle.manifest.artifacts for record in artifact.files):
            shutil.copyfile(folder / record.path, copy / record.path)
        (copy / MANIFEST).write_bytes(msgspec.json.encode(bundle.manifest))
    check(copy)
    shutil.rmtree(copy)


def work() -> None:
    """A worker: what stands on a line of standard input is done, what came of it is said on standard output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import edgecnn  # noqa: F401 - before the first round

    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        time.sleep(asked["pause_s"])
        try:
            words = {"overwrite": asked["overwrite"], "number": asked["number"]}
            do(asked["verb"], Path(asked["folder"]), Path(asked["data"]), **words)
            outcome = "done"
        except EdgeCnnError as refused:
            outcome = str(refused)
        except Exception as failed:
            outcome = f"FAILED {type(failed).__name__}: {failed}"
        print(json.dumps(outcome), file=answers, flush=True)


class Worker:
    """A process that does verbs; one that was killed is begun anew."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def ask(self, **words: Any) -> None:
        """Begin a verb."""
        if self.process is None:
            command = [sys.executable, "-m", "benchmarks.interleaved_verbs", "--work"]
            with Path(os.devnull).open("w") as nowhere:
                self.process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=nowhere, text=True
                )
            assert self._stream(self.process.stdout).readline().strip() == "ready"
        stream = self._stream(self.process.stdin)
        stream.write(json.dumps(words) + "\n")
        stream.flush()

    def answer(self, *, kill_after_s: float | None) -> str:
        """What came of it."""
        assert self.process is not None
        if kill_after_s is not None:
            time.sleep(kill_after_s)
            self.close()
            return "killed"
        return str(json.loads(self._stream(self.process.stdout).readline()))

    def close(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    @staticmethod
    def _stream(stream: IO[str] | None) -> IO[str]:
        assert stream is not None
        return stream


@contextlib.contextmanager
def workers(count: int) -> Iterator[list[Worker]]:
    """So many, ended at the end."""
    made = [Worker() for _ in range(count)]
    try:
        yield made
    finally:
        for worker in made:
            worker.close()


def measured(folder: Path) -> set[tuple[str, ...]]:
    """What has been measured of which artifact."""
    found = set()
    for artifact in check(folder).artifacts:
        if artifact.evidence.latency:
            found.add((*artifact.key, "latency"))
        if artifact.evidence.accuracy:
            found.add((*artifact.key, "accuracy"))
    return found


def rounds(count: int, *, processes: int, seed: int, minutes: float) -> tuple[Counter[str], list[str]]:
    """Do them; what was done, and what was said that is no expected refusal."""
    rng, counts, unexpected = random.Random(seed), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as place, workers(processes) as team:
        folder, data = Path(place) / "net.edge", pictures(Path(place) / "pictures")
        do("convert", folder, data, overwrite=False, number=0)
        (folder / "LICENSE").write_text("the user's")
        before: set[tuple[str, ...]] = set()
        deadline = time.monotonic() + 60 * minutes
        for number in range(count):
            if time.monotonic() > deadline:
                break
            verbs = rng.choices(list(VERBS), list(VERBS.values()), k=processes)
            overwrite = rng.random() < 0.1
            for index, (worker, verb) in enumerate(zip(team, verbs, strict=True)):
                asked = {"verb": verb, "folder": str(folder), "data": str(data), "overwrite": overwrite}
                worker.ask(**asked, number=number * processes + index, pause_s=rng.random() * 0.5)
            killed = rng.randrange(processes) if rng.random() < _KILLED * processes else None
            for index, worker in enumerate(team):
                outcome = worker.answer(kill_after_s=rng.random() * 2 if index == killed else None)
                counts[verbs[index]] += 1
                if outcome not in ("done", "killed"):
                    expected = any(words in outcome for words in _EXPECTED)
                    counts["refused" if expected else "failed"] += 1
                    if not expected:
                        unexpected.append(f"{verbs[index]}: {outcome[:300]}")
                else:
                    counts[outcome] += 1
            after = measured(folder)
            counts["lost"] += 0 if overwrite else len(before - after)
            counts["lost"] += not (folder / "LICENSE").exists()
            before = after
            counts["interleavings"] += 1
    return counts, unexpected


def main() -> int:
    """Do the rounds, write what was counted; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=120.0, help="at most; the rest with --go-on")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--go-on", action="store_true", help="add to the results that are there, under another seed")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    words = parser.parse_args()
    if words.work:
        work()
        return 0
    old: dict[str, Any] = {"counts": {}, "said": [], "runs": 0}
    if words.go_on and RESULTS.exists():
        old = json.loads(RESULTS.read_text())
    seed = words.seed + 7919 * old["runs"]
    counts, unexpected = rounds(words.rounds, processes=words.processes, seed=seed, minutes=words.minutes)
    counts.update(old["counts"])
    document = {
        "machine": msgspec.to_builtins(describe_machine()),
        "processes": words.processes,
        "runs": old["runs"] + 1,
        "counts": dict(sorted({"lost": 0, "failed": 0, **counts}.items())),
        "said": [*old["said"], *unexpected],
    }
    RESULTS.write_text(json.dumps(document, indent=1) + "\n")
    print(json.dumps(document["counts"], indent=1))
    return 1 if counts["lost"] or counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
