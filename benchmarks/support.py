"""The support matrix: a network of each task, in each format and precision, on each device of this machine.

    python benchmarks/support.py [TASK …] [--to FORMAT,…] [--missing]

Writes benchmarks/results/support.json, from which docs/generate.py writes docs/reference/support.md. Each artifact
passes (or fails) the gates of `convert`. Then it is opened on each device that its runtime has here, and its answers to
the photographs that ship are compared with the torch network's. Float precisions come before int8, and each result is
saved at once. Results of earlier runs are kept until they are measured again. `--missing` measures only what has no
result, or a result of a network that has changed since: each row holds the network's digest (weights, frame, task,
head).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import edgecnn
from edgecnn.atomic import write_whole
from edgecnn.bundle import Artifact, Bundle
from edgecnn.converters.deployable.wrapper import open_reference
from edgecnn.errors import EdgeCnnError
from edgecnn.flow.stages import identity_of
from edgecnn.formats import FORMATS
from edgecnn.measure.machine import describe_machine
from edgecnn.measure.parity import LIMITS
from edgecnn.photographs import photographs
from edgecnn.results import Result
from edgecnn.tasks import TASKS

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results" / "support.json"
ASSETS = REPOSITORY / "edgecnn" / "assets"
# What ships where there is one; the classifier's weights are a package of the extra [demo].
NETWORKS = {
    "classify": ("efficientnet-lite0", "DEFAULT"),
    "detect": ("default-detector", None),
    "segment": ("default-segmenter", None),
}
TOGETHER = (("fp32", "fp16"), ("int8",))  # int8 takes minutes, so the float results are saved before it


def try_task(
    task: str, format_name: str, precisions: Sequence[str], trials: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each precision: written, with the result on each device; or refused, with the reason."""
    name, weights = NETWORKS[task]
    model = edgecnn.load_model(name, weights=weights)
    network = {"task": task, "network": name, "digest": identity_of(model)}
    with open_reference(model) as runner:
        expected = {key: runner(picture) for key, picture in photographs().items()}
    with tempfile.TemporaryDirectory() as folder:
        made = edgecnn.convert(
            name,
            weights=weights,
            to=[format_name],
            precision=precisions,
            calibration=ASSETS if "int8" in precisions else None,
            keep_slower=True,  # what runs is the question, not how fast
            out=Path(folder) / f"{task}.edge",
        )
        rows = [
            {**network, "format": refusal.format, "precision": refusal.precision, "refused": refusal.reason}
            for refusal in made.refused
        ]
        for artifact in made.bundle.manifest.artifacts if made.bundle is not None else ():
            assert made.bundle is not None
            rows.append({**network, **_written(made.bundle, artifact, trials, expected)})
    return rows


def _written(
    bundle: Bundle, artifact: Artifact, trials: list[dict[str, Any]], expected: dict[str, Result]
) -> dict[str, Any]:
    parity, quantized = artifact.evidence.parity, artifact.evidence.quantization
    runtime = FORMATS.get(artifact.format).runtime.name
    devices = [trial["word"] for trial in trials if trial["word"].partition(":")[0] == runtime and trial["works"]]
    return {
        "format": artifact.format,
        "precision": artifact.precision,
        "bytes": artifact.bytes,
        "max_rel_err": None if parity is None else parity.max_rel_err,
        "limit": None if parity is None else parity.limit,
        "snr_db": None if quantized is None else quantized.snr_db,
        "devices": {device: _on(bundle, artifact, device, expected) for device in devices},
    }


def _on(bundle: Bundle, artifact: Artifact, device: str, expected: dict[str, Result]) -> dict[str, Any]:
    """The result on a device: what ran it, and the share of results that agree with torch's; or the error."""
    limits = LIMITS.get(artifact.precision, LIMITS["fp16"])
    task = bundle.manifest.task
    try:
        with edgecnn.open_runner(bundle, device=device, format=artifact.format, precision=artifact.precision) as runner:
            matches = [task.match(runner(picture), expected[key], limits) for key, picture in photographs().items()]
            ran_on = runner.backend.opened.summary
    except EdgeCnnError as failed:
        return {"failed": f"{type(failed).__name__}: {str(failed).splitlines()[0]}"}
    return {"ran_on": ran_on, "agreement": sum(match.agreement for match in matches) / len(matches)}


def _write(rows: list[dict[str, Any]], trials: list[dict[str, Any]]) -> None:
    fields = ("word", "kind", "works", "device_name", "why", "needs")
    tasks, formats = TASKS.names(), FORMATS.names()
    found = {
        "machine": msgspec.to_builtins(describe_machine()),
        "tasks": {name: NETWORKS[name][0] if name in NETWORKS else None for name in tasks},
        "runtimes": {row.name: row.runtime.name for row in FORMATS},
        "devices": [{key: trial[key] for key in fields} for trial in trials],
        "rows": sorted(rows, key=lambda row: (formats.index(row["format"]), tasks.index(row["task"]))),
    }
    write_whole(RESULTS, (json.dumps(found, indent=1) + "\n").encode())


def measured(rows: Sequence[Mapping[str, Any]], digests: Mapping[str, str]) -> set[tuple[str, str, str]]:
    """Task, format and precision of the rows whose network is still the same; `digests` is by task."""
    return {
        (row["task"], row["format"], row["precision"])
        for row in rows
        if row.get("digest") == digests.get(row["task"], "no such task")
    }


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "tasks", metavar="TASK", nargs="*", help=f"any of {', '.join(NETWORKS)}; all where none is named"
    )
    parser.add_argument(
        "--missing", action="store_true", help="only what has no result yet, or one of a network that has changed"
    )
    parser.add_argument("--to", metavar="FORMAT,…", help="only these formats")
    given = parser.parse_args()
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if RESULTS.is_file() else []
    digests = {
        task: identity_of(edgecnn.load_model(name, weights=weights)) for task, (name, weights) in NETWORKS.items()
    }
    done = measured(rows, digests) if given.missing else set()
    trials = [msgspec.to_builtins(trial) for trial in edgecnn.devices().trials]
    formats = given.to.split(",") if given.to else [row.name for row in FORMATS if row.converter is not None]
    for precisions, task, name in itertools.product(TOGETHER, given.tasks or NETWORKS, formats):
        if all((task, name, precision) in done for precision in precisions):
            continue
        sys.stderr.write(f"{task}: {NETWORKS[task][0]} in {name}, {', '.join(precisions)}\n")
        rows = [r for r in rows if (r["task"], r["format"]) != (task, name) or r["precision"] not in precisions]
        rows += try_task(task, name, precisions, trials)
        _write(rows, trials)
    sys.stdout.write(f"written: {RESULTS}; now python docs/generate.py\n")


if __name__ == "__main__":
    main()
