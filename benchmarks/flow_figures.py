"""What a recipe's flow came to, as figures and as the lines of a page."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

import edgecnn

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
RECIPES = REPOSITORY / "benchmarks" / "recipes"
BUILD = REPOSITORY / "build"
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


def flow_figures(recipe: Path, data: Path, *, more: Mapping[str, str]) -> dict[str, Any]:
    """Do what a recipe says in `build/`, and keep the figures of its closing table.

    Args:
        recipe: goes on where it was stopped.
        data: whose test split `more` is measured on.
        more: name in the figures → name in `Evaluation.details`, of what is wanted beside the metric.
    """
    done = edgecnn.compress(recipe, out=BUILD / recipe.stem, progress=show_progress)
    document = done.document()
    for row in document["networks"]:
        if row["stage"] != "start":  # as published, with other classes
            row |= _more(row["path"], data, more)
    for row in document["artifacts"]:
        row |= _more(done.bundle, data, more, format=row["format"], precision=row["precision"])
    for row in (*document["networks"], *document["artifacts"], *document["baselines"]):
        del row["path"]
    kept = {name: document[name] for name in ("networks", "artifacts", "baselines", "notes", "machine")}
    refused = [{name: each[name] for name in ("format", "precision", "error")} for each in document["refused"]]
    return {**kept, "refused": refused, "int8": {} if done.bundle is None else _int8(done.bundle)}


def _more(model: Any, data: Path, more: Mapping[str, str], **which: Any) -> dict[str, float]:
    if not more:
        return {}
    details = edgecnn.evaluate(model, data, split="test", **which).details
    return {name: details[key] for name, key in more.items()}


def _int8(folder: str | Path) -> dict[str, Any]:
    """What the evidence says of each int8 artifact."""
    quantized = {}
    for artifact in edgecnn.Bundle.open(folder).manifest.artifacts:
        evidence = artifact.evidence.quantization
        if evidence is not None:
            quantized[artifact.format] = msgspec.to_builtins(
                {"int8_mac_share": evidence.int8_mac_share, "latency": evidence.latency, "recipe": evidence.recipe}
            )
    return quantized


def flow_lines(flow: dict[str, Any], *, columns: Mapping[str, str]) -> list[str]:
    """A table with a row for each network and artifact, and where it was measured.

    Args:
        flow: what `flow_figures` gave.
        columns: heading → name in the figures.
    """
    lines = [
        f"| | {' | '.join(columns)} | M multiply-adds | MB | ms | times faster |",
        f"| --- |{' ---: |' * (len(columns) + 4)}",
    ]
    for row in (*flow["networks"], *flow["artifacts"]):
        name = row["stage"] if row["stage"] != "shipped" else f"**{row['format']} {row['precision']}**"
        if name == "start":
            continue
        share = flow["int8"].get(row["format"], {}).get("int8_mac_share") if row["precision"] == "int8" else None
        name += "" if share is None else f", {share:.0%} in int8"
        faster = ""
        if row["times_faster"] is not None:
            faster = f"{row['times_faster']:.2f} [{row['times_faster_low']:.2f}, {row['times_faster_high']:.2f}]"
        values = " | ".join(f"{row[key]:.3f}" for key in columns.values())
        lines.append(
            f"| {name} | {values} | {row['macs'] / 1e6:.0f} | {row['file_bytes'] / 1e6:.2f} | "
            f"{row['latency_ms'] or float('nan'):.1f} | {faster} |"
        )
    refused = [f"\nRefused: {each['format']} {each['precision']} ({each['error']})." for each in flow["refused"]]
    machine, cores = flow["machine"]["cpu_model"], flow["machine"]["cores_allowed"]
    where = f"Machine: {machine}, {cores} core{'' if cores == 1 else 's'}, on a busy machine."
    return [*lines, *refused, "", where, ""]


def fastest_baseline(flow: dict[str, Any]) -> str:
    """The format in which the unpruned network is fastest, which "times faster" compares with."""
    row = min(flow["baselines"], key=lambda each: each["latency_ms"] or float("inf"))
    return str(row["format"])


def show_progress(done: int, total: int, what: str) -> None:
    """Progress, where somebody watches."""
    if sys.stderr.isatty():
        print(f"\r{what} {done}/{total}\033[K", end="", file=sys.stderr, flush=True)
