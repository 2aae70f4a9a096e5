"""Records latency figures in the manifest of the bundle that was timed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgecnn.bundle import Bundle, record_evidence
from edgecnn.bundle.evidence import Evidence, LatencyEvidence
from edgecnn.errors import StorageError
from edgecnn.measure.latency import BenchResult
from edgecnn.measure.machine import Machine

_LAYERS_RECORDED = 10


def record_latency(folder: str | Path, results: Sequence[BenchResult], machine: Machine) -> list[str]:
    """Record figures, measured on any machine, in a bundle's manifest; returns problems as notes."""
    bundle = Bundle.open(folder)
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


def _recorded(result: BenchResult) -> dict[str, Any]:
    """The figures that a manifest keeps: only the slowest layers."""
    return msgspec.structs.replace(result, layers=result.layers[:_LAYERS_RECORDED]).figures()
