"""Chooses the fastest artifact of a network that ships, from what `bench` measured on this machine.

A bundle's figures are in its manifest. What ships is read-only, and the same on every machine, so the figures of
`bench` are remembered in `$XDG_CACHE_HOME/edgecnn/latencies.json`: by the hashes of the files, the processor, the
threads and the runtimes' versions, so that a figure of another file, machine or runtime never counts. Without figures,
the most exact artifact runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

from edgecnn import remembered
from edgecnn.bundle import QUANTIZED, Bundle
from edgecnn.bundle.shipped import is_shipped
from edgecnn.formats import FORMATS
from edgecnn.formats.devices import DeviceName, parse_device
from edgecnn.processor import processor_name
from edgecnn.runners.choose import Choice, choose_artifact, find_fitting, is_accurate
from edgecnn.targets import threads_here

_FILE = "latencies.json"
_MOST_REMEMBERED = 64
_NOTICEABLE = 0.05  # share of the time that int8 must save, to be chosen in place of float


def choose_here(
    bundle: Bundle,
    *,
    device: str | DeviceName = "cpu",
    format: str | None = None,  # noqa: A002 - the command line's word
    precision: str | None = None,
    threads: int | None = None,
    exact: bool = False,
) -> tuple[Choice, str]:
    """The artifact that runs, and why, in a sentence; "" where there was nothing to decide.

    Of a network that ships, on the CPU, the artifact that `bench` measured here to be the fastest, among the float ones
    and the int8 ones whose metric is within its limit; without figures, or if the most `exact` is wanted, one in float.
    Otherwise that of `choose_artifact`, whose arguments and errors these are.
    """
    name = parse_device(device) if isinstance(device, str) else device
    usual = choose_artifact(bundle, device=name, format=format, precision=precision)
    if not is_shipped(bundle.folder) or not name.is_cpu:
        return usual, ""
    found = find_fitting(bundle, device=name, format=format, precision=precision).fitting
    allowed = [choice for choice in found if is_accurate(choice.artifact)]
    if len(allowed) < 2:
        return usual, ""
    measured = {} if exact else recalled_latencies(bundle, threads)
    if all(choice.artifact.label in measured for choice in allowed):
        return _fastest(allowed, measured)
    if usual.artifact.precision in QUANTIZED:  # not every format ships in float
        usual = next((choice for choice in allowed if choice.artifact.precision not in QUANTIZED), usual)
    note = f"not measured here yet: `edgecnn bench {bundle.manifest.name}` finds out which artifact is the fastest"
    return usual, "" if exact else note


def remember_latencies(bundle: Bundle, latency_ms: Mapping[str, float], *, threads: int) -> bool:
    """Remember the medians of one measurement in turns; returns whether that was possible.

    Args:
        bundle: a bundle that ships.
        latency_ms: label of an artifact → median of a picture's latency. Measurements that lack an artifact that runs
            here decide nothing, and are not remembered.
        threads: threads per inference.
    """
    runs_here = {choice.artifact.label for choice in find_fitting(bundle).fitting}
    if not runs_here <= set(latency_ms):
        return False
    key = _key(bundle, threads)
    entry = {
        "key": key,
        "bundle": bundle.manifest.name,
        "measured_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "latency_ms": {label: round(ms, 4) for label, ms in latency_ms.items()},
    }
    others = [held for held in _entries() if held.get("key") != key]
    return remembered.keep(_FILE, [*others, entry][-_MOST_REMEMBERED:])


def recalled_latencies(bundle: Bundle, threads: int | None = None) -> dict[str, float]:
    """Label of an artifact → median latency in ms as measured here with these threads; empty where nothing was."""
    key = _key(bundle, threads or threads_here())
    for entry in _entries():
        known = entry.get("latency_ms")
        if entry.get("key") == key and isinstance(known, dict):
            return {str(label): float(ms) for label, ms in known.items() if isinstance(ms, int | float) and ms > 0}
    return {}


def _fastest(allowed: Sequence[Choice], measured: Mapping[str, float]) -> tuple[Choice, str]:
    """The fastest, and float where int8 saves next to nothing."""

    def effective_ms(choice: Choice) -> float:
        ms = measured[choice.artifact.label]
        return ms / (1 - _NOTICEABLE) if choice.artifact.precision in QUANTIZED else ms

    best = min(allowed, key=effective_ms)
    others = ", ".join(
        f"{choice.artifact.label} {measured[choice.artifact.label]:.1f}" for choice in allowed if choice is not best
    )
    return best, f"the fastest as measured here: {measured[best.artifact.label]:.1f} ms ({others})"


def _entries() -> list[dict[str, Any]]:
    held = remembered.recall(_FILE)
    return [entry for entry in held if isinstance(entry, dict)] if isinstance(held, list) else []


def _key(bundle: Bundle, threads: int) -> str:
    """Identifies the files, the machine and the runtimes that a measurement holds for."""
    artifacts = bundle.manifest.artifacts
    formats = dict.fromkeys(artifact.format for artifact in artifacts if FORMATS.has(artifact.format))
    words = [processor_name(), str(threads), *(FORMATS.get(name).runtime.versions for name in formats)]
    words += sorted(file.sha256 for artifact in artifacts for file in artifact.files)
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:40]
