"""Records latency figures in the manifest of the bundle that was timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgecnn.bundle import Bundle, record_evidence
from edgecnn.bundle.evidence import Evidence, LatencyEvidence
from edgecnn.bundle.shipped import is_shipped
from edgecnn.errors import StorageError
from edgecnn.formats.devices import parse_device
from edgecnn.measure.latency import BenchResult
from edgecnn.measure.machine import Machine
from edgecnn.runners.measured import choose_here, remember_latencies

_LAYERS_RECORDED = 10


def record_latency(folder: str | Path, results: Sequence[BenchResult], machine: Machine) -> list[str]:
    """Record figures, measured on any machine, in a bundle's manifest; returns problems as notes.

    Of a network that ships, whose bundle is read-only, this machine's figures are remembered instead.
    """
    bundle = Bundle.open(folder)
    if is_shipped(bundle.folder):
        return _remembered(bundle, results)
    evidence = {}
    known = msgspec.to_builtins(machine)
    for artifact in bundle.manifest.artifacts:
        new = [result for result in results if result.sha256 == artifact.sha256]
        added = tuple(LatencyEvidence(figures=_recorded(result), machine=known) for result in new)
        if added:
            evidence[artifact.key] = Evidence(latency=added)
    if not evidence:
        return ["the figures were not written into the bundle: it was replaced in the meantime"] if results else []
    try:
        record_evidence(bundle, evidence)
    except StorageError as failed:
        return [f"the figures were not written into the bundle: {failed}"]
    return []


def _remembered(bundle: Bundle, results: Sequence[BenchResult]) -> list[str]:
    """Remember the CPU's figures for `edgecnn.runners.measured`; returns notes."""
    labels = {artifact.sha256: artifact.label for artifact in bundle.manifest.artifacts}
    by_threads: dict[int, dict[str, float]] = {}
    for result in results:
        if result.sha256 in labels and result.p50_ms is not None and parse_device(result.device).is_cpu:
            by_threads.setdefault(result.threads, {})[labels[result.sha256]] = result.p50_ms
    kept = [remember_latencies(bundle, medians, threads=threads) for threads, medians in by_threads.items()]
    if not any(kept):
        return ["not remembered: only figures of all artifacts that run here, on the CPU, decide which of them runs"]
    choice, _ = choose_here(bundle)
    return [f"remembered for this machine: without --format, {bundle.manifest.name} runs as {choice.artifact.label}"]


def _recorded(result: BenchResult) -> dict[str, Any]:
    """The figures that a manifest keeps: only the slowest layers."""
    return msgspec.structs.replace(result, layers=result.layers[:_LAYERS_RECORDED]).figures()
