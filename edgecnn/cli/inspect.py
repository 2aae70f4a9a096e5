"""`edgecnn inspect`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgecnn.cli import _output

if TYPE_CHECKING:
    from edgecnn.bundle import Artifact, LatencyEvidence, Manifest, TensorSpec


def command(
    bundle: Annotated[Path, typer.Argument(help="A NAME.edge folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole manifest as JSON.")] = False,
) -> None:
    """Show a bundle: what goes in, what comes out, and the evidence of each artifact. Hashes are checked."""
    from edgecnn._verbs.inspect import inspect

    manifest = inspect(bundle)
    if as_json:
        _output.print_json(manifest)
        return
    _output.print_table(f"{bundle}: {manifest.name}", ("", ""), _contract(manifest))
    columns = ("artifact", "MB", "difference", "limit", "results agree", "metric", "p50 ms")
    rows = [_row(artifact) for artifact in manifest.artifacts]
    _output.print_table("artifacts", columns, rows, numeric=columns[1:])
    for refusal in manifest.refused:
        _output.stdout.print(
            f"refused: {refusal.format} {refusal.precision}: {refusal.reason}", style="red", markup=False
        )


def _contract(manifest: Manifest) -> list[tuple[str, str]]:
    frame, source, task = manifest.frame, manifest.source, manifest.task
    weights = "random weights" if source.random else source.weights
    labels = task.labels
    some = ", ".join(labels[:6]) + (f", … ({len(labels)} classes)" if len(labels) > 6 else "")
    fit = f"{frame.fit} into {frame.width_px}x{frame.height_px} px, {frame.interpolation}"
    fit += ", antialiased" if frame.antialias else ""
    rows = [
        ("network", f"{source.model}, {weights}"),
        ("task", f"{task.name}: {some}"),
        ("fit", fit),
        ("inputs", _tensors(manifest.inputs)),
        ("outputs", _tensors(manifest.outputs)),
        ("in the graph", ", ".join(manifest.in_graph)),
        ("size", f"{manifest.parameters / 1e6:.2f} M parameters, {manifest.macs / 1e6:.0f} M multiply-adds a frame"),
        ("written", f"{manifest.created_utc} by edgecnn {manifest.edgecnn}, schema {manifest.schema}"),
    ]
    preprocess = manifest.preprocess
    if preprocess is not None and preprocess.compared:
        found = f"within {preprocess.max_levels} grey levels of {preprocess.reference} ({preprocess.frames} pictures)"
        rows.append(("pre-processing", found))
    elif preprocess is not None:
        rows.append(("pre-processing", f"not compared: {preprocess.reason}"))
    return rows


def _tensors(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in specs)


def _row(artifact: Artifact) -> tuple[object, ...]:
    evidence = artifact.evidence
    parity = evidence.parity
    agreement = parity.agreement if parity is not None else None
    return (
        f"{artifact.format} {artifact.precision}",
        f"{artifact.bytes / 1e6:.1f}",
        "" if parity is None else f"{parity.max_rel_err:.1e}",
        "" if parity is None or parity.limit is None else f"{parity.limit:.0e}",
        "" if agreement is None else f"{agreement:.4f}",
        " ".join(f"{a.metric} {a.value:.4f}" for a in evidence.accuracy),
        "\n".join(_latency(latency) for latency in evidence.latency),
    )


def _latency(latency: LatencyEvidence) -> str:
    p50_ms = latency.figures.get("p50_ms")
    return "–" if p50_ms is None else f"{p50_ms:.2f}"
