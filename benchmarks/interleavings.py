"""Several processes at one bundle: convert, quantize, bench, eval, inspect and deploy at once, some of them killed.

Each interleaving has a bundle of its own and several processes that do random things to it through the functions that
the verbs use; the artifacts are small files that nobody runs. Afterwards the bundle must open, each of its files must
be there and be what was verified, and every measurement that was reported as written must still stand.

    python benchmarks/interleavings.py --interleavings 200 --json results.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec

from edgecnn.bundle import (
    MANIFEST,
    Artifact,
    Bundle,
    Manifest,
    SourceRecord,
    TensorSpec,
    commit,
    record_evidence,
    staged,
    store_files,
)
from edgecnn.bundle.evidence import AccuracyEvidence, Evidence, LatencyEvidence
from edgecnn.errors import BundleError, SpecError
from edgecnn.frame import FrameSpec
from edgecnn.tasks import Classify

FORMATS = {"onnx": ".onnx", "openvino": ".xml"}


def contract(network: int) -> Manifest:
    """What a network's bundle says; two networks differ in their parameters."""
    return Manifest(
        name="net",
        source=SourceRecord(model=f"net-{network}"),
        frame=FrameSpec(height_px=8, width_px=8),
        task=Classify(labels=("a", "b")),
        inputs=(TensorSpec(name="frame", dtype="uint8", shape=(1, 8, 8, 3)),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=(1, 2)),),
        parameters=network,
        macs=1,
    )


def write(folder: Path, format_name: str, precision: str, text: str) -> Artifact:
    """An artifact whose files hold `text`; OpenVINO's are two."""
    main = folder / f"model{FORMATS[format_name]}"
    main.write_bytes(b"\x12" + bytes([len(text)]) + text.encode())
    files = [main]
    if format_name == "openvino":
        files.append(main.with_suffix(".bin"))
        files[1].write_bytes(text.encode() * 1000)
    return Artifact(
        format=format_name, precision=precision, files=store_files(folder, f"{format_name}-{precision}", files)
    )


class Worker:
    """One process that works with a bundle, and logs each action as a line of JSON."""

    def __init__(self, folder: Path, seed: int, log: Path, *, networks: int) -> None:
        self.folder, self.random, self.log, self.networks = folder, random.Random(seed), log, networks
        self.seed, self.number = seed, 0

    def run(self, steps: int) -> None:
        """Do that many random things."""
        for self.number in range(steps):
            weights = {
                self.convert: 3,
                self.quantize: 2,
                self.bench: 4,
                self.evaluate: 3,
                self.inspect: 2,
                self.deploy: 2,
            }
            (do,) = self.random.choices(list(weights), list(weights.values()))
            try:
                outcome: dict[str, Any] = do()
            except (SpecError, BundleError) as refused:
                if "--overwrite" not in str(refused) and "was replaced while" not in str(refused):
                    raise
                outcome = {"refused": True}
            with self.log.open("a") as log:
                log.write(json.dumps({"what": do.__name__, "at_ns": time.monotonic_ns(), **outcome}) + "\n")

    def convert(self) -> dict[str, Any]:
        """Make the float artifacts; at times die with half of them there."""
        network, overwrite = self.random.randrange(self.networks), self.random.random() < 0.3
        with staged(self.folder) as staging:
            made = tuple(write(staging, name, "fp32", f"network {network}") for name in FORMATS)
            self._perhaps_die()
            commit(
                staging, self.folder, msgspec.structs.replace(contract(network), artifacts=made), overwrite=overwrite
            )
        return {"overwrite": overwrite}

    def quantize(self) -> dict[str, Any]:
        """Add an int8 artifact to what is there."""
        bundle = Bundle.open(self.folder)
        with staged(self.folder) as staging:
            made = write(staging, self.random.choice(list(FORMATS)), "int8", f"int8 {self.seed} {self.number}")
            self._perhaps_die()
            manifest = msgspec.structs.replace(bundle.manifest, artifacts=(made,), refused=())
            commit(staging, self.folder, manifest, adds=True)
        return {}

    def bench(self) -> dict[str, Any]:
        """Record a latency."""
        mark = f"{self.seed}-{self.number}"
        return self._record(Evidence(latency=(LatencyEvidence(figures={"device": mark}, machine={}),)), mark)

    def evaluate(self) -> dict[str, Any]:
        """Record an accuracy."""
        mark = f"{self.seed}-{self.number}"
        figure = AccuracyEvidence(
            metric="top1", value=0.5, low=0.4, high=0.6, n=10, data=mark, precision="fp32", device="cpu"
        )
        return self._record(Evidence(accuracy=(figure,)), mark)

    def _record(self, evidence: Evidence, mark: str) -> dict[str, Any]:
        bundle = Bundle.open(self.folder)
        artifact = self.random.choice([a for a in bundle.manifest.artifacts if a.precision == "fp32"])
        time.sleep(self.random.random() * 0.01)
        written = mark in marks(record_evidence(bundle, {artifact.key: evidence}).manifest)
        return {"mark": mark, "written": written}

    def inspect(self) -> dict[str, Any]:
        """Open all, as `inspect` does."""
        with Bundle.open_locked(self.folder) as bundle:
            for artifact in bundle.manifest.artifacts:
                bundle.checked_path(artifact)
        return {}

    def deploy(self) -> dict[str, Any]:
        """Copy what the manifest names, and open the copy."""
        copy = self.folder.parent / f"copy-{self.seed}-{self.number}.edge"
        copy.mkdir()
        with Bundle.open_locked(self.folder) as bundle:
            for record in (record for artifact in bundle.manifest.artifacts for record in artifact.files):
                shutil.copyfile(self.folder / record.path, copy / record.path)
            (copy / MANIFEST).write_bytes(msgspec.json.encode(bundle.manifest))
        check(copy)
        shutil.rmtree(copy)
        return {}

    def _perhaps_die(self) -> None:
        if self.random.random() < 0.05:
            os.kill(os.getpid(), signal.SIGKILL)


def marks(manifest: Manifest) -> set[str]:
    """What was measured, by the marks that the measurements carry."""
    found = set()
    for artifact in manifest.artifacts:
        found |= {str(one.figures["device"]) for one in artifact.evidence.latency}
        found |= {one.data for one in artifact.evidence.accuracy}
    return found


def check(folder: Path) -> Manifest:
    """That a bundle opens, with every file that it names."""
    bundle = Bundle.open(folder)
    for artifact in bundle.manifest.artifacts:
        bundle.checked_path(artifact)
    return bundle.manifest


def interleaving(seed: int, *, processes: int, steps: int) -> Counter[str]:
    """One bundle, several processes; what they did, and what went wrong ("lost", "failed", "left over")."""
    found: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        folder, root = Path(place) / "net.edge", Path(place)
        networks = 1 + seed % 2
        with staged(folder) as staging:
            made = (write(staging, "onnx", "fp32", "network 0"), write(staging, "openvino", "fp32", "network 0"))
            commit(staging, folder, msgspec.structs.replace(contract(0), artifacts=made))
        (folder / "LICENSE").write_text("the user's")
        pids = [
            _start(Worker(folder, seed * 100 + index, root / f"log-{index}", networks=networks), steps)
            for index in range(processes)
        ]
        for pid in pids:
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            found["killed"] += code == -signal.SIGKILL
            found["failed"] += code not in (0, -signal.SIGKILL)
        entries_read = [json.loads(line) for log in root.glob("log-*") for line in log.read_text().splitlines()]
        for line in entries_read:
            found[line["what"]] += 1
            found["refused"] += line.get("refused", False)
        manifest = check(folder)
        last_overwrite = max((line["at_ns"] for line in entries_read if line.get("overwrite")), default=0)
        # With one network a file comes out the same each time, so that not even --overwrite loses what was measured.
        since = last_overwrite if networks > 1 else 0
        written = {line["mark"] for line in entries_read if line.get("written") and line["at_ns"] > since}
        found["measurements"] += len(written)
        found["lost"] += len(written - marks(manifest))
        found["lost"] += not (folder / "LICENSE").exists()
        with staged(folder):  # what was killed is cleaned up by whoever comes next
            pass
        named = {record.path for artifact in manifest.artifacts for record in artifact.files}
        found["unnamed files"] += len({path.name for path in folder.iterdir()} - named - {MANIFEST, "LICENSE"})
        found["left over"] += len([path for path in root.iterdir() if ".partial-" in path.name])
    return found


def _start(worker: Worker, steps: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        worker.run(steps)
    except BaseException as failed:
        sys.stderr.write(f"seed {worker.seed}: {type(failed).__name__}: {failed}\n")
        os._exit(1)
    os._exit(0)


def main() -> int:
    """Run them, print what was counted; 1 where anything was lost, failed or left over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interleavings", type=int, default=200)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--steps", type=int, default=12, help="of each process")
    parser.add_argument("--seed", type=int, default=0, help="of the first interleaving")
    parser.add_argument("--json", type=Path, help="also write the counts there")
    options = parser.parse_args()
    total: Counter[str] = Counter()
    for seed in range(options.seed, options.seed + options.interleavings):
        total += interleaving(seed, processes=options.processes, steps=options.steps)
    counts = {"interleavings": options.interleavings, **{name: total[name] for name in sorted(total)}}
    wrong = {name: total[name] for name in ("lost", "failed", "left over")}
    document = json.dumps({**counts, **wrong}, indent=1)
    print(document)
    if options.json is not None:
        options.json.write_text(document + "\n")
    return 1 if any(wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
