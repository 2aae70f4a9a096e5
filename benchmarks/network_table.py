"""Tables with a row a network: run one by one, written down as they come, taken up again after a stop."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgecnn.bundle import Bundle, Refusal

HERE = Path(__file__).resolve().parent
FORMATS = ("onnx", "openvino", "tflite")


def load(file: Path) -> dict[str, Any]:
    """What earlier runs wrote; nothing yet where there were none."""
    if not file.exists():
        return {"networks": {}}
    results: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return results


def save(results: dict[str, Any], file: Path) -> None:
    """Write the results, sorted, whole or not at all."""
    results["networks"] = dict(sorted(results["networks"].items()))
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    partial.replace(file)


def run(names: Iterable[str], row_of: Callable[[str], dict[str, Any]], results: dict[str, Any], file: Path) -> None:
    """A row for each network, from a process beside this one, a new one every few: a crash costs one network only.

    Args:
        names: of the networks.
        row_of: what happened; has "error" where it came to nothing. A function of a module.
        results: get the rows.
        file: is written after each.
    """
    pool = _pool()
    for name in names:
        try:
            row = pool.submit(row_of, name).result()
        except BrokenProcessPool:
            row = {"error": "its process died"}
            pool = _pool()
        except Exception as failed:  # a fault of ours: told in the row, and the others go on
            row = {"error": without_paths(f"{type(failed).__name__}: {failed}")}
        results["networks"][name] = row
        save(results, file)
        print(name, row.get("seconds"), row.get("error") or row.get("refused") or "ok", flush=True)
    pool.shutdown()


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(max_workers=1, max_tasks_per_child=8, mp_context=get_context("spawn"))


def conversion_row(bundle: Bundle | None, refused: Iterable[Refusal]) -> dict[str, Any]:
    """The part of a row that says what converted and passed."""
    row: dict[str, Any] = {"refused": {r.format: without_paths(f"{r.error}: {r.reason}") for r in refused}}
    if bundle is not None:
        manifest = bundle.manifest
        row |= {"macs": manifest.macs, "size_px": [manifest.frame.width_px, manifest.frame.height_px]}
        row["passed"] = {
            a.format: {"max_rel_err": a.evidence.parity.max_rel_err, "transposes": a.transposes, "bytes": a.bytes}
            for a in manifest.artifacts
            if a.evidence.parity is not None
        }
    return row


def passed_all(row: dict[str, Any]) -> bool:
    """Whether it converted and passed in every format."""
    return set(row.get("passed", {})) == set(FORMATS)


def error_cells(row: dict[str, Any]) -> list[str]:
    """Largest relative error in each format, "no" where it did not pass."""
    passed = row.get("passed", {})
    return [f"{passed[name]['max_rel_err']:.1e}" if name in passed else "no" for name in FORMATS]


def why_not(networks: dict[str, Any]) -> list[str]:
    """The page's lines about what did not pass."""
    reasons = [
        f"- **{name}**, {where}: {reason}"
        for name, row in networks.items()
        for where, reason in [*row.get("refused", {}).items(), ("all", row.get("error"))]
        if reason
    ]
    return ["", "## Why not", "", *reasons] if reasons else []


def machine_line(machine: dict[str, Any]) -> str:
    """The page's line about where and with what this was made."""
    return f"Machine: {machine['cpu']}. " + ", ".join(f"{k} {v}" for k, v in machine["versions"].items()) + "."


def machine(*more: str) -> dict[str, Any]:
    """Where and with what this was made.

    Args:
        more: packages beside those that convert.
    """
    from importlib.metadata import version

    from edgecnn.processor import processor_name

    packages = ("torch", "torchvision", "onnx", "onnxruntime", "openvino", "litert-torch", "ai-edge-litert", *more)
    return {"cpu": processor_name(), "versions": {name: version(name) for name in packages}}


def without_paths(text: str) -> str:
    """An error without the folders of the machine it happened on."""
    return re.sub(r"/\S+/site-packages/", "", text)
